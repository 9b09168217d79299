"""What exists: streams on disk and in object stores, the catalog of them, reading and writing MDS shards.

manifest     stream.json: what a stream holds
index        index.json: the shards of one MDS directory
mapped       one mapped shard: where its samples are, and in them the columns
columns      what the bytes of a column say, an encoding a function
reader       every column of every row of an MDS directory
tokens       which column holds the tokens
shard        the tokens of one shard, and the few shards that are open at a time
compression  what MDSWriter compresses shards with
hashes       what MDSWriter notes of its files
files        where a shard's file is, raw or compressed
store        makes the raw file be there, in a cache where it is not, checks and maps it
needs        what a run needs next of its shards, as its store is told
catalog      the streams under one folder
verify       every shard looked through
tally        documents.parquet compared with stream.json, as the shards ask for it
contents     what the samples of a shard must be, by their documents
writer       new shards and their index
documents    documents.parquet: which document is where in a stream
placing      a finished stream put in its place, whole or not at all
survey       what a person, or a machine, is told of streams
upload       streams of this machine into an object store
place        a folder of this machine, or one of an object store
remote/      object stores behind one small interface
cache/       raw files of shards that lie elsewhere, in a folder with a limit
"""
