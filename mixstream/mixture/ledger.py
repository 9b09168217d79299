"""The account of a run: what every stream has given, what it is owed, and its share from now on.

A ledger is the whole position of the mixture (M5): O(streams x lanes) integers, whatever the batch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from mixstream.kernels import native
from mixstream.mixture.apportion import LOOKAHEAD, UNIT, apportion
from mixstream.mixture.budget import share_caps, shares_within
from mixstream.mixture.lanes import deal
from mixstream.mixture.phases import Phase
from mixstream.mixture.simplex import Float64
from mixstream.streams.index import Int64


@dataclass(frozen=True, eq=False)
class Terms:
    """What a run was promised, fixed by its plan; K streams, L lanes.

    Attributes:
        batch_size: draws of a global batch.
        num_batches: global batches of the run.
        limits: (K,) most draws of each stream, from its repeat budget.
        lane_limits: (L, K) most draws of each stream in each lane.
        floor: least share of every stream.
        phases: the run as phases of constant shares.
    """

    batch_size: int
    num_batches: int
    limits: Int64
    lane_limits: Int64
    floor: float
    phases: tuple[Phase, ...]


@dataclass(frozen=True, eq=False)
class Ledger:
    """The mixture's position before global batch number `batch`; K streams, L lanes.

    Attributes:
        batch: global batches read so far.
        end_batch: the batch before which the run ends: the plan's last, or an earlier one where the
            streams that have weight will be spent.
        cursors: (L, K) draws so far.
        owed: (K,) units of draws owed (negative: ahead); sum 0.
        shares: (K,) units of every draw from now on; sum UNIT.
        scheduled: whether the plan's phases still hold: until weights are set.
    """

    batch: int
    end_batch: int
    cursors: Int64
    owed: Int64
    shares: Int64
    scheduled: bool = True

    @property
    def drawn(self) -> Int64:
        """Draws of each stream so far, (K,)."""
        drawn: Int64 = self.cursors.sum(axis=0)
        return drawn


def open_ledger(terms: Terms) -> Ledger:
    """Return the position before the first batch."""
    shares = terms.phases[0].shares
    return Ledger(0, terms.num_batches, np.zeros_like(terms.lane_limits), np.zeros_like(shares), shares)


def enter_phase(ledger: Ledger, terms: Terms) -> Ledger:
    """Return the ledger with the shares of the phase that its next batch is in."""
    if not ledger.scheduled or len(terms.phases) == 1:
        return ledger
    phase = next(phase for phase in reversed(terms.phases) if phase.first_batch <= ledger.batch)
    return ledger if phase.shares is ledger.shares else dataclasses.replace(ledger, shares=phase.shares)


def next_phase(ledger: Ledger, terms: Terms) -> int:
    """Return the first batch after the ledger's next one that another phase begins with, or the run's end."""
    if not ledger.scheduled:
        return terms.num_batches
    later = (phase.first_batch for phase in terms.phases if phase.first_batch > ledger.batch)
    return next(later, terms.num_batches)


def reweigh(ledger: Ledger, terms: Terms, weights: Float64) -> Ledger:
    """Return the ledger with new weights (K,), from its next batch on; the plan's schedule is over.

    The streams' repeat budgets hold (M3): none gets a share that, kept to the end of the run, would use
    more than is left of its budget, evenly over the rest of the run; the others get what it cannot take.
    Where the streams that have weight (all of them, if there is a floor) cannot supply the rest of the run,
    it ends when they are spent.
    """
    room = np.maximum(terms.limits - ledger.drawn, 0)
    if not terms.floor:
        room[weights <= 0] = 0
    batches_left = min(terms.num_batches - ledger.batch, int(room.sum(dtype=object)) // terms.batch_size)
    end_batch = ledger.batch + batches_left
    if batches_left == 0:
        return dataclasses.replace(ledger, end_batch=end_batch, scheduled=False)
    caps = share_caps(room, batches_left * terms.batch_size)
    shares = shares_within(weights, terms.floor, caps)
    return dataclasses.replace(ledger, end_batch=end_batch, shares=shares, scheduled=False)


def draw(ledger: Ledger, terms: Terms, most: int = 1) -> Int64:
    """Return the draws of the next batches, (n, L, K): `most` of them, or fewer where the run ends.

    All of them with the ledger's shares: the caller asks for no batch beyond the next change.
    """
    most = max(0, min(most, ledger.end_batch - ledger.batch))
    if native is None:
        return draw_slowly(ledger, terms, most)
    lanes, num_streams = ledger.cursors.shape
    counts = np.empty((most, lanes, num_streams), dtype=np.int64)
    done = native.draw(
        counts.shape,
        counts,
        ledger.owed.copy(),
        ledger.shares,
        ledger.drawn,
        ledger.cursors.copy(),
        np.empty_like(ledger.owed),
        terms.limits,
        terms.lane_limits,
        terms.batch_size,
        LOOKAHEAD,
    )
    return counts[:done]


def draw_slowly(ledger: Ledger, terms: Terms, most: int) -> Int64:
    """Return what `draw` does: apportion a batch, deal it to lanes, note what is owed, repeat."""
    batches: list[Int64] = []
    lanes, num_streams = ledger.cursors.shape
    while len(batches) < most:
        room = np.where((ledger.shares > 0) | (ledger.owed > 0), np.maximum(terms.limits - ledger.drawn, 0), 0)
        if np.minimum(room, terms.batch_size).sum() < terms.batch_size:
            break
        totals = apportion(ledger.owed, ledger.shares, room, terms.batch_size)
        counts = deal(totals, ledger.cursors, terms.lane_limits, terms.batch_size // lanes)
        if counts is None:
            break
        batches.append(counts)
        ledger = advance(ledger, terms, counts[None])
    return np.stack(batches) if batches else np.empty((0, lanes, num_streams), dtype=np.int64)


def advance(ledger: Ledger, terms: Terms, counts: Int64) -> Ledger:
    """Return the ledger after batches that drew `counts` (n, L, K) with its shares."""
    drawn = counts.sum(axis=0) if len(counts) != 1 else counts[0]  # sums may wrap round 2^64: differences do not
    totals = drawn.sum(axis=0) if len(drawn) != 1 else drawn[0]
    return Ledger(
        ledger.batch + len(counts),
        ledger.end_batch,
        ledger.cursors + drawn,
        ledger.owed + ledger.shares * (len(counts) * terms.batch_size) - totals * UNIT,
        ledger.shares,
        ledger.scheduled,
    )
