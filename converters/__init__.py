"""Corpora to streams: find documents, tokenise, pack into samples, write MDS shards and stream.json.

config      what is asked for: corpora.yaml, or options
sources/    which files make which stream
readers/    rows out of a file, one format a module
documents   rows to documents: their ids, streams and splits
tokens/     text to tokens
tasks/      the work, in pieces that anybody may do at any time
corpus      what decides the bytes of streams
work        the folder of what was done so far
run         one corpus, by encoding (files to parts) and writing (parts to streams in their places)
existing manifests rejects    what is there already, what is written beside shards
view refusals   streams to views of them, without their corpus
corpora     several of them, here or to an object store
"""
