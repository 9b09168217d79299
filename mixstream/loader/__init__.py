"""What is read: the planned     the streams of a plan, opened
order       position in a stream and lane -> row, repeat
batches     a ledger -> the next global batches, row by row
foresight   which shard is read next, and when, to the end of the run
lookout     tells the shard store what comes, while a run goes on
state       the loader's position as one JSON string
migrate     a state carried over to another plan
sampler     batches decided ahead, given to a rank, consumed; weights that change on the way
ahead       the thread that reads ahead
reader      samples -> tokens, from the shards that are mapped
dataset     draws -> batches of tensors (buffers.py: their memory; documents.py: where documents begin)
dataloader  MixtureLoader: all of it as a torch DataLoader
trace       any past batch, again, without the run
"""

from mixstream.loader.dataloader import MixtureLoader

__all__ = ["MixtureLoader"]
