"""Lanes: each stream's samples dealt to canonical nodes in equal parts, and each batch's draws with them (M8).

A lane is what a node reads: rows [l B / L, (l + 1) B / L) of every global batch, from a part of every stream that is
its own. Parts are equal to a sample, so that every lane can give every batch its share of every stream, whatever the
weights, and lanes come to the end of a repeat together; where a stream has fewer shards than lanes, or uneven ones,
that cuts at most L - 1 of its shards in two, which then two lanes read.
"""

from __future__ import annotations

import math
import zlib
from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np

from mixstream.streams.index import Int64

UNBOUNDED = 1 << 62


def lane_bounds(name: str, low: int, high: int, lanes: int) -> Int64:
    """Return the (L + 1,) places at which the lanes' parts of samples [low, high) of a stream begin, and the end.

    Each lane gets as many as if they were dealt one by one, to a lane after the other. So a stream that grew has parts
    like one that was so large at once. The lane that comes first is the name's: were it the same for all streams, it
    would have more to read than the others.
    """
    turns = (np.arange(lanes) - zlib.crc32(name.encode())) % lanes
    counts = (high - turns + lanes - 1) // lanes - (low - turns + lanes - 1) // lanes
    return np.concatenate([[0], np.cumsum(counts)])


def lane_sizes(sizes: Mapping[str, int], lanes: int) -> Int64:
    """Return the samples of each stream in each lane, (L, K), for K streams {name: samples}."""
    bounds = np.stack([lane_bounds(name, 0, size, lanes) for name, size in sizes.items()], axis=1)
    return np.diff(bounds, axis=0)


def lane_limits(sizes: Mapping[str, int], budgets: Sequence[float | None], lanes: int) -> Int64:
    """Return the most draws of each stream in each lane, (L, K): no sample more often than ceil(budget) (M3)."""
    times = np.array([0 if budget is None else math.ceil(budget) for budget in budgets], dtype=object)
    limits = np.where(times == 0, UNBOUNDED, np.minimum(times * lane_sizes(sizes, lanes), UNBOUNDED))
    return limits.astype(np.int64)


def deal(totals: Int64, cursors: Int64, limits: Int64, lane_size: int) -> Int64 | None:
    """Deal a batch's draws to lanes: each lane gets `lane_size`, each stream's lanes stay in step.

    A draw goes to the lane that has drawn least of its stream, among those with rows left in the batch; the streams
    whose lanes are furthest apart choose first. That keeps lanes within two or three draws of each other. Where limits
    leave a stream none but full lanes, other draws move: a batch that can be dealt is.

    Args:
        totals: (K,) draws of the batch; sum L times `lane_size`.
        cursors: (L, K) draws so far.
        limits: (L, K) most draws.
        lane_size: draws of each lane.

    Returns:
        (L, K) draws, or None where the limits allow no way to deal them.
    """
    lanes = len(cursors)
    space = [lane_size] * lanes
    drawn = cursors.copy()
    active = np.flatnonzero(totals)
    spread = drawn.max(axis=0) - drawn.min(axis=0)
    for i in active[np.argsort(-spread[active], kind="stable")].tolist():
        for _ in range(int(totals[i])):
            open_lanes = [lane for lane in range(lanes) if space[lane] and drawn[lane, i] < limits[lane, i]]
            if open_lanes:
                lane: int | None = min(open_lanes, key=lambda lane: (drawn[lane, i], -space[lane], lane))
            else:
                lane = _make_room(i, space, drawn, cursors, limits)
            if lane is None:
                return None
            space[lane] -= 1
            drawn[lane, i] += 1
    return drawn - cursors


def _make_room(i: int, space: list[int], drawn: Int64, cursors: Int64, limits: Int64) -> int | None:
    """Make room for a draw of stream i, which may go to full lanes only; return the lane that has it now.

    Along a chain of lanes, the shortest, each gives a draw of this batch to the next, the last to one with rows left:
    an augmenting path of a flow from streams to lanes (Ford and Fulkerson 1956). None: there is none.
    """
    lanes = range(len(space))
    before = {lane: (lane, i) for lane in lanes if drawn[lane, i] < limits[lane, i]}
    queue = deque(before)
    while queue:
        lane = queue.popleft()
        for other in lanes:
            movable = np.flatnonzero((drawn[lane] > cursors[lane]) & (drawn[other] < limits[other]))
            if other in before or not len(movable):
                continue
            before[other] = lane, int(movable[0])
            queue.append(other)
            if space[other]:
                space[other] -= 1
                while before[other][0] != other:
                    lane, moved = before[other]
                    drawn[other, moved] += 1
                    drawn[lane, moved] -= 1
                    other = lane
                space[other] += 1
                return other
    return None
