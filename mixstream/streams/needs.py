"""What a run needs next of its shards, and when: what the reader of an order tells the store of its files.

Times are global batches as real numbers: batch b lasts from b to b + 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt


class Need(NamedTuple):
    """A shard that will be read, while one window of its stream is open.

    Attributes:
        stream: place of the stream in the plan.
        shard: number of the shard in the stream.
        batch: when its first row that is still unread is drawn.
        until: when its last row in that window is drawn, or the run ends.
    """

    stream: int
    shard: int
    batch: float
    until: float


class Foresight(Protocol):
    """What a run needs from one batch on; it does not change."""

    def upcoming(self) -> Iterator[Need]:
        """Return what is needed from now to the end of the run, in order of `batch`.

        Every window that is read brings each of its shards once.
        """

    def next_use(self, stream: int) -> npt.NDArray[np.float64]:
        """Return when each shard of a stream is needed next, (S,); inf: never again in this run.

        A shard of a window that is being read is needed now, until its last row there has been read.
        """
