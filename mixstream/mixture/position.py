"""A ledger as JSON: what a log notes of where a run was, so that nothing is counted from the beginning."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from mixstream.formats import FileModel
from mixstream.mixture.ledger import Ledger
from mixstream.streams.manifest import MAX_COUNT, Count

Signed = Annotated[int, Field(ge=-MAX_COUNT, le=MAX_COUNT)]


class Position(FileModel):
    """A `Ledger` as JSON; streams in the plan's order.

    Attributes:
        batch: global batches read so far.
        end_batch: the batch before which the run ends.
        scheduled: whether the plan's phases still hold.
        cursors: (L, K) draws so far.
        owed: (K,) units of draws owed.
        shares: (K,) units of every draw from here on.
    """

    batch: Count
    end_batch: Count
    scheduled: bool
    cursors: tuple[tuple[Count, ...], ...]
    owed: tuple[Signed, ...]
    shares: tuple[Count, ...]

    @classmethod
    def of(cls, ledger: Ledger) -> Position:
        """Return a ledger's position."""
        return cls(
            batch=ledger.batch,
            end_batch=ledger.end_batch,
            scheduled=ledger.scheduled,
            cursors=tuple(tuple(lane) for lane in ledger.cursors.tolist()),
            owed=tuple(ledger.owed.tolist()),
            shares=tuple(ledger.shares.tolist()),
        )

    def ledger(self) -> Ledger:
        """Return the ledger."""
        return Ledger(
            batch=self.batch,
            end_batch=self.end_batch,
            cursors=np.array(self.cursors, dtype=np.int64),
            owed=np.array(self.owed, dtype=np.int64),
            shares=np.array(self.shares, dtype=np.int64),
            scheduled=self.scheduled,
        )
