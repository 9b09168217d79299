"""Lanes: each stream's samples dealt to canonical nodes in equal parts, and each batch's draws with them (M8).

A lane is what a node reads: rows [l B / L, (l + 1) B / L) of every global batch, from a part of every stream that is
its own. Parts are equal to a sample, so that every lane can give every batch its share of every stream, whatever the
weights, and lanes come to the end of a repeat together; where a stream has fewer shards than lanes, or uneven ones,
that cuts at most L - 1 of its shards in two, which then two lanes read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mixstream.streams.index import Int64

UNBOUNDED = 1 << 62


def lane_bounds(size: int, lanes: int) -> Int64:
    """Return the (L + 1,) places at which the lanes' parts of `size` samples begin, and the end."""
    return np.array([lane * size // lanes for lane in range(lanes + 1)], dtype=np.int64)


def lane_sizes(sizes: Int64, lanes: int) -> Int64:
    """Return the samples of each stream in each lane, (L, K), for streams of `sizes` (K,) samples."""
    bounds = np.stack([lane_bounds(int(size), lanes) for size in sizes], axis=1)
    return np.diff(bounds, axis=0)


def lane_limits(sizes: Int64, budgets: Sequence[float | None], lanes: int) -> Int64:
    """Return the most draws of each stream in each lane, (L, K): no sample more often than ceil(budget) (M3)."""
    times = np.array([0 if budget is None else math.ceil(budget) for budget in budgets], dtype=object)
    limits = np.where(times == 0, UNBOUNDED, np.minimum(times * lane_sizes(sizes, lanes), UNBOUNDED))
    return limits.astype(np.int64)


def deal(totals: Int64, cursors: Int64, limits: Int64, lane_size: int) -> Int64 | None:
    """Deal a batch's draws to lanes: each lane gets `lane_size`, each stream's lanes stay in step.

    A draw goes to the lane that has drawn least of its stream, among those with rows left in the batch; the streams
    whose lanes are furthest apart choose first. That keeps lanes within two or three draws of each other.

    Args:
        totals: (K,) draws of the batch; sum L times `lane_size`.
        cursors: (L, K) draws so far.
        limits: (L, K) most draws.
        lane_size: draws of each lane.

    Returns:
        (L, K) draws, or None where the limits leave no lane for one.
    """
    lanes = len(cursors)
    space = [lane_size] * lanes
    drawn = cursors.copy()
    active = np.flatnonzero(totals)
    spread = drawn.max(axis=0) - drawn.min(axis=0)
    for i in active[np.argsort(-spread[active], kind="stable")]:
        for _ in range(int(totals[i])):
            open_lanes = [lane for lane in range(lanes) if space[lane] and drawn[lane, i] < limits[lane, i]]
            if not open_lanes:
                return None
            lane = min(open_lanes, key=lambda lane: (drawn[lane, i], -space[lane], lane))
            space[lane] -= 1
            drawn[lane, i] += 1
    return drawn - cursors
