"""What can pass, how long it is waited for, and what is told meanwhile."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Literal

from mixstream.errors import RemoteError

REPORT_SECONDS = 15.0  # a stall is told this often while it lasts

Kind = Literal["passing", "refused", "missing"]

_log = logging.getLogger("mixstream")


class Fault(Exception):  # noqa: N818  never leaves: what a caller sees is a RemoteError
    """One request that failed.

    Attributes:
        told: what happened, on one line, without secrets.
        kind: ``passing``: it may go well the next time; ``refused``: it will not; ``missing``: there is no such object.
    """

    def __init__(self, told: str, kind: Kind) -> None:
        super().__init__(told, kind)
        self.told = told
        self.kind: Kind = kind

    def __str__(self) -> str:
        return self.told


@dataclass(frozen=True)
class Patience:
    """How long what can pass is waited for, in seconds.

    Attributes:
        give_up_seconds: without any progress, until an error is raised.
        first_delay_seconds: upper bound of the first pause; each one after has twice the bound before.
        max_delay_seconds: upper bound of every pause.
        stall_seconds: without a byte of an answer, until a request counts as failed; four times that is the longest
            that one may take, before another goes on where it was.
    """

    give_up_seconds: float = 300.0
    first_delay_seconds: float = 0.5
    max_delay_seconds: float = 30.0
    stall_seconds: float = 10.0

    def delay(self, attempt: int, chance: float) -> float:
        """Return the pause after the `attempt`-th fault in a row (from 1): anything up to a bound that doubles.

        The whole of it is left to chance, so that many processes that failed together do not come back together.

        Args:
            attempt: which fault it was, at least 1.
            chance: a random number in [0, 1).
        """
        doublings = min(attempt - 1, 60)
        return chance * min(self.max_delay_seconds, self.first_delay_seconds * 2.0**doublings)


class Trying:
    """One piece of work that is tried again until it goes well, is refused, or made no progress for too long.

    Attributes:
        attempts: how many failed so far.
        last: the last fault.
    """

    def __init__(
        self,
        what: str,
        patience: Patience,
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        """Begin to try.

        Args:
            what: the URL, or what else is worked on, for messages.
            patience: how long.
            stop: ends a pause at once when it is set.
            clock: the time in seconds.
            pause: sleeps for some seconds; None: until `stop` is set.
        """
        self.attempts = 0
        self.last: Fault | None = None
        self._what = what
        self._patience = patience
        self._stop = stop or threading.Event()
        self._clock = clock
        self._pause = pause or self._stop.wait
        self._random = Random()  # its own: the global one belongs to the user
        self._in_a_row = 0
        self._since = self._reported = clock()

    def progressed(self) -> None:
        """Note that bytes came: time and pauses begin anew."""
        self._in_a_row = 0
        self._since = self._reported = self._clock()

    def failed(self, fault: Fault) -> None:
        """Wait a while before the next attempt; returns at once when `stop` is set.

        Raises:
            RemoteError: the fault cannot pass, or there was no progress for `give_up_seconds`.
        """
        self.attempts += 1
        self._in_a_row += 1
        self.last = fault
        now = self._clock()
        if fault.kind != "passing":
            again = f" (attempt {self.attempts}, after {now - self._since:.0f} s)" if self.attempts > 1 else ""
            raise RemoteError(f"{self._what}: {fault.told}{again}") from None
        deadline = self._since + self._patience.give_up_seconds
        if now >= deadline:
            raise RemoteError(
                f"{self._what}: no progress for {now - self._since:.0f} s in {self._in_a_row} attempts, given up; the "
                f"last: {fault.told}; see whether the store and the network to it work, then run again"
            ) from None
        self._wait(min(now + self._patience.delay(self._in_a_row, self._random.random()), deadline), deadline)

    def _wait(self, until: float, deadline: float) -> None:
        while not self._stop.is_set():
            now = self._clock()
            if now >= self._reported + REPORT_SECONDS:
                self._report(now, deadline)
            if now >= until:
                return
            self._pause(min(until, self._reported + REPORT_SECONDS) - now)  # above 0, as both comparisons say

    def _report(self, now: float, deadline: float) -> None:
        self._reported = now
        told = self.last.told if self.last else ""
        _log.warning(
            "%s: waiting for %.0f s, %d attempts failed, the last: %s; gives up in %.0f s",
            self._what,
            now - self._since,
            self._in_a_row,
            told,
            max(deadline - now, 0.0),
        )
