"""The account of a run: what every stream has given, what it is owed, and its share from now on.

A ledger is the whole position of the mixture (M5): O(streams) integers, whatever the batch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from mixstream.mixture.apportion import UNIT, apportion
from mixstream.mixture.budget import share_caps, shares_within
from mixstream.mixture.simplex import Float64
from mixstream.streams.index import Int64


@dataclass(frozen=True)
class Terms:
    """What a run was promised, fixed by its plan; K streams.

    Attributes:
        batch_size: draws of a global batch.
        num_batches: global batches of the run.
        limits: (K,) most draws of each stream, from its repeat budget.
        floor: least share of every stream.
    """

    batch_size: int
    num_batches: int
    limits: Int64
    floor: float


@dataclass(frozen=True, eq=False)
class Ledger:
    """The mixture's position before global batch number `batch`; K streams.

    Attributes:
        batch: global batches read so far.
        end_batch: the batch before which the run ends: the plan's last, or an earlier one where the
            streams that have weight will be spent.
        drawn: (K,) draws so far.
        owed: (K,) units of draws owed (negative: ahead); sum 0.
        shares: (K,) units of every draw from now on; sum UNIT.
    """

    batch: int
    end_batch: int
    drawn: Int64
    owed: Int64
    shares: Int64


def open_ledger(shares: Int64, terms: Terms) -> Ledger:
    """Return the position before the first batch, with the plan's shares (K,) in units."""
    nothing = np.zeros(len(shares), dtype=np.int64)
    return Ledger(0, terms.num_batches, nothing, nothing, shares)


def reweigh(ledger: Ledger, terms: Terms, weights: Float64) -> Ledger:
    """Return the ledger with new weights (K,), from its next batch on.

    The streams' repeat budgets hold (M3): none gets a share that, kept to the end of the run, would use
    more than is left of its budget, evenly over the rest of the run; the others get what it cannot take.
    Where the streams that have weight (all of them, if there is a floor) cannot supply the rest of the run,
    it ends when they are spent.
    """
    wanted = (weights > 0) | (terms.floor > 0)
    room = np.where(wanted, terms.limits - ledger.drawn, 0)
    batches_left = min(terms.num_batches - ledger.batch, int(room.sum()) // terms.batch_size)
    end_batch = ledger.batch + batches_left
    if batches_left == 0:
        return dataclasses.replace(ledger, end_batch=end_batch)
    caps = share_caps(room, batches_left * terms.batch_size)
    shares = shares_within(weights, terms.floor, caps)
    return dataclasses.replace(ledger, end_batch=end_batch, shares=shares)


def draw(ledger: Ledger, terms: Terms) -> tuple[Int64, Ledger] | None:
    """Return the (K,) draws of the next batch and the ledger after it, or None at the end of the run."""
    room = np.where((ledger.shares > 0) | (ledger.owed > 0), terms.limits - ledger.drawn, 0)
    if ledger.batch >= ledger.end_batch or room.sum() < terms.batch_size:
        return None
    counts = apportion(ledger.owed, ledger.shares, room, terms.batch_size)
    after = dataclasses.replace(
        ledger,
        batch=ledger.batch + 1,
        drawn=ledger.drawn + counts,
        owed=ledger.owed + ledger.shares * terms.batch_size - counts * UNIT,
    )
    return counts, after
