"""The tasks of a conversion: each a function of its input, whose output is renamed into place; and who runs them.

encode      a span of a file to a part
parts       what a part is
duplicates  parts without documents that were there before
packing     which tokens of which parts make which shard
cut         parts to a shard, and to the table of documents
choosing    which documents or samples of a stream are in a view of it
viewing repacking   a stream's shards to those of a view
hashing     the hashes of source files
executors   this process, processes, a Dask cluster
"""
