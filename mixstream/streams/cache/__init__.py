"""The cache of a node: raw files of shards that lie elsewhere, or here compressed, in a folder with a limit.

locks     locks by name that all processes see
folder    the files, whole or absent; who uses them, how many bytes they may be
reservations  what users need at a time
limit     a folder and a limit as a person writes them
making    one shard on its way: fetched in pieces, checked, decompressed
agenda    what is known of the future, and what goes by it where room is wanted
workers   threads that take the most urgent task
crew      what they do: bring what is needed next, remove what is needed last
shards    shards through the cache: its entries, who has them open, what the future asks for
traffic   what was moved, counted by stream
"""
