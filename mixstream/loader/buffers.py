"""Memory for batches, used again as soon as no tensor needs it: fresh memory costs as much as reading into it."""

from __future__ import annotations

import sys
import threading

import numpy as np

from mixstream.streams.index import Int64

MAX_IDLE = 4
_OWN_REFERENCES = 3  # of the list, the loop and getrefcount


class Buffers:
    """A few arrays of one size; a tensor made of one holds a reference to it as long as any view of it lives."""

    def __init__(self) -> None:
        """Hold none yet."""
        self._arrays: list[Int64] = []
        self._lock = threading.Lock()

    def get(self, shape: tuple[int, ...]) -> Int64:
        """Return memory that nothing else refers to."""
        with self._lock:  # who is given an array holds it before another thread looks
            for array in self._arrays:
                if array.shape == shape and sys.getrefcount(array) == _OWN_REFERENCES:
                    return array
            array = np.empty(shape, dtype=np.int64)
            self._arrays = [*self._arrays[1 - MAX_IDLE :], array]
            return array
