"""What exists: streams on disk, the catalog of them, reading and writing MDS shards.

manifest   stream.json: what a stream holds
index      index.json: the shards of one MDS directory
shard      one memory-mapped shard, and the few that are open at a time
catalog    the streams under one folder
writer     a new stream, whole or not at all
"""
