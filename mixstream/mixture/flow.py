"""The draws of a run as shares tell them: when a stream has given so many.

The draws of stream i after b batches are D_i(b), what its shares add up to: a line with a bend wherever shares change.
The engine is within one draw of it (M1).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mixstream.mixture.apportion import UNIT
from mixstream.mixture.ledger import Ledger, Terms, enter_phase, reweigh
from mixstream.mixture.simplex import Float64
from mixstream.streams.index import Int64

LANE_LEAD = 3  # draws that a lane may be ahead of its even part, besides those that lanes at their limits leave it
_ROUNDING = 1e-6  # of sums of shares


@dataclass(frozen=True, eq=False)
class Flow:
    """D_i(b) of K streams over P stretches of constant shares.

    Attributes:
        batches: (P + 1,) batches with which the stretches begin, and the end of the run.
        draws: (K, P + 1) D_i at each of them.
    """

    batches: Float64
    draws: Float64

    def when(self, stream: int, draws: Float64) -> Float64:
        """Return when D_i of a stream comes to `draws` (n,), in batches; the start where it has, inf where never."""
        known = self.draws[stream]
        at = np.searchsorted(known, draws)
        end = np.clip(at, 1, len(known) - 1)
        low, high = known[end - 1], known[end]
        part = (draws - low) / np.where(high > low, high - low, 1)
        batch = self.batches[end - 1] + part * (self.batches[end] - self.batches[end - 1])
        return np.where(at == 0, self.batches[0], np.where(at == len(known), np.inf, batch))

    def at(self, batch: int) -> Float64:
        """Return D(b), (K,), at a batch from the start to the end."""
        end = int(np.clip(np.searchsorted(self.batches, batch), 1, len(self.batches) - 1))
        length = self.batches[end] - self.batches[end - 1]
        part = (batch - self.batches[end - 1]) / length if length else 1.0
        found: Float64 = self.draws[:, end - 1] + part * (self.draws[:, end] - self.draws[:, end - 1])
        return found

    def changed(self, batch: int, rates: Float64, end: int) -> Flow:
        """Return the flow that has `rates` (K,) draws a batch from `batch` to `end`."""
        kept = self.batches < batch
        turn = self.at(batch)
        draws = np.column_stack([self.draws[:, kept], turn, turn + rates * (end - batch)])
        return Flow(np.concatenate([self.batches[kept], [batch, end]]), draws)


def flow_ahead(ledger: Ledger, terms: Terms, pending: Mapping[int, Float64]) -> Flow:
    """Return D_i from a ledger's next batch on.

    Up to the first pending change it is what the engine keeps to. What a change makes of the shares depends a little,
    where a budget binds, on the draws until then, which are taken from D_i itself, to whole draws.

    Args:
        ledger: before the next batch.
        terms: of the run.
        pending: {batch: (K,) weights} that act from a batch on; those of batches before the ledger's are past.
    """
    ledger = enter_phase(ledger, terms)
    end = ledger.end_batch
    later = [p for p in terms.phases if ledger.batch < p.first_batch < end] if ledger.scheduled else []
    batches = np.array([ledger.batch, *(phase.first_batch for phase in later), end], dtype=np.float64)
    shares = np.array([ledger.shares, *(phase.shares for phase in later)])
    steps = (shares * (terms.batch_size / UNIT)).T * np.diff(batches)
    flow = Flow(batches, np.cumsum(np.column_stack([ledger.drawn + ledger.owed / UNIT, steps]), axis=1))
    for batch in sorted(batch for batch in pending if batch >= ledger.batch):
        if batch > end:
            break
        cursors = np.rint(flow.at(batch)).astype(np.int64)[None]
        ledger = reweigh(dataclasses.replace(ledger, batch=batch, cursors=cursors), terms, pending[batch])
        end = ledger.end_batch
        flow = flow.changed(batch, ledger.shares * (terms.batch_size / UNIT), end)
    return flow


def most_draws(flow: Flow, cursors: Int64, limits: Int64, lane_limits: Int64) -> Int64:
    """Return the draws that no lane exceeds by the end of a flow, (L, K): a draw or a few more than it will make.

    Where lanes come to the end of several streams' budgets, and not at once, a lane may make some more.

    Args:
        flow: of the streams.
        cursors: (L, K) draws so far.
        limits: (K,) most draws of each stream.
        lane_limits: (L, K) most draws of each stream in each lane.
    """
    lanes = len(cursors)
    drawn = cursors.sum(axis=0)
    totals = np.minimum(np.ceil(flow.draws[:, -1] - _ROUNDING).astype(np.int64), np.maximum(limits, drawn))
    left = np.maximum(totals - drawn, 0)
    even = -(-totals // lanes)
    even += np.maximum(even - lane_limits, 0).sum(axis=0) + (LANE_LEAD if lanes > 1 else 0)
    most = np.minimum(np.maximum(even, cursors), np.minimum(cursors + left, np.maximum(lane_limits, cursors)))
    return np.asarray(most)
