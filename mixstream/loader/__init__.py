"""What is read: the order of every stream, the global batches, and the DataLoader that yields them.

order       position in a stream -> row, repeat
state       the loader's position as one JSON string
sampler     global batch b -> draws; each rank's slice of it
dataset     draws -> tensors
dataloader  MixtureLoader: all of it as a torch DataLoader
"""

from mixstream.loader.dataloader import MixtureLoader

__all__ = ["MixtureLoader"]
