"""Reading ahead: a thread opens the shards of what is decided and brings their rows into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from mixstream.loader.batches import Draws

AHEAD_ROWS = 256  # for which waking a thread pays
_RESTS = 32  # lots that are left out after one that was in memory already
_IN_MEMORY_SECONDS = 5e-6  # a row; from a disk it takes longer

Parts = Sequence[Draws]


class ReadAhead:
    """Collects draws and has them warmed in lots; what is found in memory again and again is looked at less often."""

    def __init__(self, warm: Callable[[Parts], float], is_open: Callable[[Parts], bool]) -> None:
        """Begin, with nothing to do.

        Args:
            warm: opens shards and brings rows into memory, run in the thread; returns seconds a row. Its errors are
                left to the reader, who comes to the same shards.
            is_open: whether all shards of draws are open, quickly.
        """
        self._warm = warm
        self._is_open = is_open
        self._thread = ThreadPoolExecutor(1, "mixstream-read-ahead")
        self._lot: list[Draws] = []
        self._rests = 0

    def add(self, draws: Draws) -> None:
        """Note draws that are to be read."""
        self._lot.append(draws)
        if sum(own.stream.size for own in self._lot) < AHEAD_ROWS:
            return
        lot, self._lot = self._lot, []
        if self._rests and self._is_open(lot):
            self._rests -= 1
        else:
            self._thread.submit(self._run, lot)

    def close(self) -> None:
        """End the thread, when it is through with what it is at."""
        self._thread.shutdown(cancel_futures=True)

    def _run(self, lot: Parts) -> None:
        self._rests = _RESTS if self._warm(lot) < _IN_MEMORY_SECONDS else 0
