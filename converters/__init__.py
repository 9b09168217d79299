"""Corpora to streams: read documents, tokenise, pack into samples, write MDS shards and stream.json.

sources     which files make which stream
readers/    documents out of a file, one format a module
tokenise    text to tokens
pack        documents to samples of one length
run         the conversion itself
"""
