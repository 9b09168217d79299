"""What is known of the future, and what goes by it where room is wanted.

What is needed last goes first (Belady 1966), and nothing goes for what is needed later than itself (Cao et al. 1995,
"do no harm").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from mixstream.streams.cache.folder import Entry
from mixstream.streams.cache.making import Job

NOW = float("-inf")  # when what a reader waits for is needed
SOON = -1.0  # before all batches
NEVER = float("inf")


@dataclass(frozen=True)
class Agenda:
    """What is known of the future.

    Attributes:
        near: {entry: (batch in which it is needed, job)}, the first first.
        next_use: batch in which an entry is needed next, infinite where it is not.
    """

    near: Mapping[Entry, tuple[float, Job]] = field(default_factory=dict)
    next_use: Callable[[Entry], float] = lambda entry: NEVER

    def soonest(self) -> set[Entry]:
        """Return what is needed in the same batch as the first of all."""
        end = min((math.floor(batch) + 1 for batch, _ in self.near.values()), default=0)
        return {entry for entry, (batch, _) in self.near.items() if batch < end}


class Removal:
    """The order in which entries go: what is needed last first; of those needed never, what was used least lately."""

    def __init__(self) -> None:
        """Begin with an order that is old."""
        self._order: list[tuple[float, int, Entry]] = []  # the first to go last
        self._is_old = True

    def expire(self) -> None:
        """Note that the order is old."""
        self._is_old = True

    def renew(self, entries: Iterable[Entry], agenda: Agenda, demanded: Mapping[Entry, int]) -> None:
        """Order the entries anew, if the order is old or spent.

        Args:
            entries: all there are.
            agenda: tells when they are needed.
            demanded: a number that grows, of when they were asked for last.
        """
        if self._is_old or not self._order:
            self._is_old = False
            self._order = sorted((agenda.next_use(e), -demanded.get(e, 0), e) for e in entries)

    def take(self, batch: float, stays: Callable[[Entry], bool]) -> Entry | None:
        """Return the next to go for what is needed in `batch`, but for those that stay; None: nothing does."""
        while self._order and self._order[-1][0] > batch:
            entry = self._order.pop()[2]
            if not stays(entry):
                return entry
        return None
