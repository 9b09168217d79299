"""What is read: the planned     the streams of a plan, opened
order       position in a stream and lane -> row, repeat
inverse     a row -> the positions at which it is read
batches     a ledger -> the next global batches, row by row
foresight   which shard is read next, and when, to the end of the run
lookout     tells the shard store what comes, while a run goes on
state       the loader's position as one JSON string
positions   positions.jsonl: where a run was from time to time
migrate     a state carried over to another plan
sampler     batches decided ahead, given to a rank, consumed; weights that change on the way
ahead       the thread that reads ahead
reader      samples -> tokens, from the shards that are mapped
dataset     draws -> batches of tensors (buffers.py: their memory; documents.py: where documents begin)
dataloader  MixtureLoader: all of it as a torch DataLoader
exposure    the ledger of what was read of every shard
trace/      any past batch, again, without the run; the batches of a document
hugging_face   the Trainer of Hugging Face, fed by it (imported by name alone)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixstream.loader.dataloader import MixtureLoader
    from mixstream.loader.exposure import ExposureLedger

__all__ = ["ExposureLedger", "MixtureLoader"]

_HOMES = {"ExposureLedger": "exposure", "MixtureLoader": "dataloader"}


def __getattr__(name: str) -> Any:
    """Return what this room gives; torch is imported with it, so that tracing and the order do without."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
