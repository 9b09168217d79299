"""What a run is going to read: how who knows its order tells the shard store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt


class Need(NamedTuple):
    """A shard that is read in a window.

    Attributes:
        stream: place of its stream in the plan.
        shard: its number there.
        batch: global batch in which its first row is read.
        until: global batch in which its last row of that window is read.
    """

    stream: int
    shard: int
    batch: float
    until: float


class Foresight(Protocol):
    """The future of a run, as it is known at one moment."""

    def upcoming(self) -> Iterator[Need]:
        """Yield what is read from now to the run's end, in the order of `batch`."""

    def next_use(self, stream: int) -> npt.NDArray[np.float64]:
        """Return the batch (S,) in which each shard of a stream is read next; infinite: never again."""
