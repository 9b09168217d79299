"""The global batches of a plan: what is drawn, given the ledger before, and which row of the batch it comes to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mixstream.kernels import native
from mixstream.loader.order import Growth, StreamOrder, below, key_of, mix
from mixstream.mixture.ledger import Ledger, Terms, advance, draw, enter_phase, next_phase, reweigh
from mixstream.mixture.plan import Plan
from mixstream.mixture.simplex import Float64
from mixstream.streams.index import Int64


class Draws(NamedTuple):
    """Draws of one batch, or of a rank's part of it, or of several batches.

    Attributes:
        stream: (n,) or (batches, n) place of the stream in the plan.
        sample: likewise, row in the stream.
        repeat: likewise, how often the row was drawn before.
    """

    stream: Int64
    sample: Int64
    repeat: Int64

    def take(self, rows: Any) -> Draws:
        """Return some of the draws."""
        return Draws(self.stream[rows], self.sample[rows], self.repeat[rows])


@dataclass(frozen=True)
class Decided:
    """Batches that have been decided, from the ledger before the first of them; n batches of B rows.

    Attributes:
        ledger: before the first.
        counts: (n, L, K) draws.
        draws: (n, B) rows.
    """

    ledger: Ledger
    counts: Int64
    draws: Draws

    @property
    def end(self) -> int:
        """The batch after the last."""
        return self.ledger.batch + len(self.counts)

    def before(self, batch: int) -> Decided:
        """Return its batches before a batch."""
        number = max(0, batch - self.ledger.batch)
        return dataclasses.replace(self, counts=self.counts[:number], draws=self.draws.take(slice(number)))


class GlobalOrder:
    """Global batches of a plan, given the ledger before them: pure, the same on every rank (M4)."""

    def __init__(self, plan: Plan, shard_samples: Sequence[Int64], growth: Mapping[str, tuple[Growth, ...]]) -> None:
        """Join the orders of the plan's K streams.

        Args:
            plan: what to read.
            shard_samples: K arrays (S,) of the samples in each shard, of the plan's sequence length.
            growth: how streams have grown on the way, those that have.
        """
        self.plan = plan
        self.growth = growth
        self._shard_samples = shard_samples
        self.orders = [
            StreamOrder(name, samples, plan.window_samples, plan.seed, plan.lanes, growth.get(name, ()))
            for name, samples in zip(plan.streams, shard_samples, strict=True)
        ]
        self.terms = self._terms() if growth else plan.terms
        self._key = key_of(plan.seed, "batch")

    def _terms(self) -> Terms:
        """Return the plan's terms; a stream that grew late in a repeat has fewer draws left in its budget (M3)."""
        terms = self.plan.terms
        lane_limits = terms.lane_limits.copy()
        for number, entry in enumerate(self.plan.entries):
            if entry.name in self.growth and entry.max_repeats is not None:
                most = math.ceil(entry.max_repeats)
                lane_limits[:, number] = [
                    self.orders[number].draws_before(lane, most) for lane in range(self.plan.lanes)
                ]
        in_all_lanes = lane_limits.sum(axis=0, dtype=object).tolist()
        limits = np.array(list(map(min, terms.limits.tolist(), in_all_lanes)), dtype=np.int64)
        return dataclasses.replace(terms, limits=limits, lane_limits=lane_limits)

    def grown(self, growth: Mapping[str, tuple[Growth, ...]]) -> GlobalOrder:
        """Return the order of the same plan where streams have grown otherwise."""
        return self if growth == self.growth else GlobalOrder(self.plan, self._shard_samples, growth)

    def decide(self, ledger: Ledger, most: int) -> Decided | None:
        """Return the next batches, `most` of them or fewer, or None at the end of the run.

        In every lane the streams are dealt to the batch's rows at random, so that every rank's and every
        microbatch's share is a fair sample (M10); each stream's own draws stay in their order (M2).
        """
        ledger = enter_phase(ledger, self.terms)
        counts = draw(ledger, self.terms, min(most, next_phase(ledger, self.terms) - ledger.batch))
        if not len(counts):
            return None
        totals = counts.sum(axis=0)
        read = [
            segment
            for lane, stream in zip(*map(np.ndarray.tolist, np.nonzero(totals)), strict=True)
            for segment in self.orders[stream].segments(
                int(ledger.cursors[lane, stream]), int(totals[lane, stream]), lane
            )
        ]
        rows = np.concatenate([own for own, _ in read])
        repeats = np.repeat([repeat for _, repeat in read], [len(own) for own, _ in read])
        cursors = np.cumsum(totals).reshape(totals.shape) - totals
        return Decided(ledger, counts, self._place(counts, cursors, rows, repeats, ledger.batch))

    def _place(self, counts: Int64, cursors: Int64, rows: Int64, repeats: Int64, first: int) -> Draws:
        if native is None:
            return place_slowly(counts, cursors, rows, repeats, first, self._key)
        shape = len(counts), self.plan.batch_size
        draws = Draws(np.empty(shape, np.int64), np.empty(shape, np.int64), np.empty(shape, np.int64))
        columns = draws.stream, draws.sample, draws.repeat
        native.place(counts.shape, counts, cursors, rows, repeats, first, self._key, *columns)
        return draws

    def after(self, decided: Decided, batch: int | None = None) -> Ledger:
        """Return the ledger before a batch: one of those decided, or the one after them."""
        taken = None if batch is None else batch - decided.ledger.batch
        return advance(decided.ledger, self.terms, decided.counts[:taken])

    def reweigh(self, ledger: Ledger, weights: Float64) -> Ledger:
        """Return the ledger with new weights (K,) from its next batch on."""
        return reweigh(ledger, self.terms, weights)


def place_slowly(counts: Int64, cursors: Int64, rows: Int64, repeats: Int64, first: int, key: int) -> Draws:
    """Return the (n, B) draws of batches in which lanes draw `counts` (n, L, K), dealt to rows at random.

    Args:
        counts: (n, L, K) draws.
        cursors: (L, K) where each lane's draws of a stream begin in `rows`.
        rows, repeats: (n B,) of all draws, by lane and stream, in the order of reading.
        first: number of the first batch.
        key: of the permutations: Fisher and Yates's shuffle, one for each batch and lane.
    """
    num_batches, lanes, num_streams = counts.shape
    cursors = cursors.copy()
    parts = []
    for batch in range(num_batches):
        for lane in range(lanes):
            stream = np.repeat(np.arange(num_streams), counts[batch, lane])
            own = int(mix(np.array([(first + batch) * lanes + lane], dtype=np.uint64), key)[0])
            places = np.arange(1, len(stream) + 1, dtype=np.uint64)
            others = below(mix(places - np.uint64(1), own), places).tolist()
            for j in range(len(stream) - 1, 0, -1):
                stream[[j, others[j]]] = stream[[others[j], j]]
            at = np.empty_like(stream)
            for i in np.flatnonzero(counts[batch, lane]):
                at[stream == i] = cursors[lane, i] + np.arange(counts[batch, lane, i])
            cursors[lane] += counts[batch, lane]
            parts.append((stream, rows[at], repeats[at]))
    return Draws(*(np.concatenate(columns).reshape(num_batches, -1) for columns in zip(*parts, strict=True)))
