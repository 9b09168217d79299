"""Whether repeat budgets can supply every phase of a schedule, not only the run as a whole."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mixstream.errors import BudgetError
from mixstream.mixture.simplex import Float64
from mixstream.streams.index import Int64

BoolArray = npt.NDArray[np.bool_]


def check_phases(
    weights: Float64,
    firsts: Int64,
    num_batches: int,
    batch_size: int,
    limits: Int64,
    sizes: Int64,
    names: Sequence[str],
) -> None:
    """Refuse a schedule with phases that the streams with weight in them cannot fill.

    Args:
        weights: (P, K) scheduled weights.
        firsts: (P,) first batch of each phase.
        num_batches: batches of the run.
        batch_size: draws of a batch.
        limits: (K,) most draws of each stream.
        sizes: (K,) samples of each stream.
        names: the K streams.

    Raises:
        BudgetError: naming the batches, their streams, need, supply and the ways out.
    """
    lasts = np.append(firsts[1:], num_batches)
    draws = (lasts - firsts) * batch_size
    sets, set_of = np.unique(weights > 0, axis=0, return_inverse=True)
    set_of = set_of.reshape(-1)
    needs = np.array([int(draws[set_of == number].sum()) for number in range(len(sets))], dtype=np.int64)
    starved = starved_sets(sets, needs, limits)
    if not starved.any():
        return
    short = starved[set_of]
    using = np.flatnonzero(sets[starved].any(axis=0))
    need, supply = int(needs[starved].sum()), int(limits[using].sum())
    enough = math.ceil((need + len(using)) / int(sizes[using].sum()) * 100) / 100
    told = ", ".join(repr(names[i]) for i in using[:5]) + (f" and {len(using) - 5} more" if len(using) > 5 else "")
    raise BudgetError(
        f"in {_ranges(firsts[short], lasts[short])} the schedule gives weight to {told} only; these batches need "
        f"{need:,} samples of them, and their repeat budgets supply {supply:,}; raise their max_repeats to "
        f"{enough:.2f} or more, give other streams weight there, or make these phases shorter"
    )


def starved_sets(sets: BoolArray, needs: Int64, limits: Int64) -> BoolArray:
    """Return which sets of streams are together asked for more than their streams can give.

    A maximum flow from limits to needs, by shortest augmenting paths (Edmonds and Karp 1972). What can be
    reached from an unmet need in the end is a set of needs that no flow meets (Hall's condition).

    Args:
        sets: (G, K) which streams each need may draw from.
        needs: (G,) draws.
        limits: (K,) most draws of each stream.

    Returns:
        (G,) true for the needs that cannot be met together; none where all can.
    """
    flow = np.zeros(sets.shape, dtype=np.int64)
    left = limits.copy()
    for group in range(len(sets)):  # most of it, at once
        able = np.where(sets[group], left, 0)
        before = np.concatenate([[0], np.minimum(np.cumsum(able.astype(object)), needs[group])]).astype(np.int64)
        flow[group] = np.diff(before)
        left -= flow[group]
    while True:
        lacking = needs - flow.sum(axis=1)
        reached, path = _search(sets, flow, lacking > 0, left > 0)
        if path is None:
            return reached
        takes, gives = path[::2], path[1::2]  # groups, and the stream that each of them takes from
        moved = min(int(lacking[takes[0]]), int(left[gives[-1]]))
        moved = min([moved, *(int(flow[group, stream]) for stream, group in zip(gives, takes[1:], strict=False))])
        for number, (group, stream) in enumerate(zip(takes, gives, strict=True)):
            flow[group, stream] += moved
            if number + 1 < len(takes):
                flow[takes[number + 1], stream] -= moved
        left[gives[-1]] -= moved


def _search(sets: BoolArray, flow: Int64, lacking: BoolArray, left: BoolArray) -> tuple[BoolArray, list[int] | None]:
    """Return the groups reached from those that lack draws, and a path (group, stream, group ...) to draws left."""
    reached = lacking.copy()
    seen = np.zeros(len(left), dtype=bool)
    taker = np.full(len(left), -1)  # of each stream seen, the group that would take from it
    lender = np.full(len(lacking), -1)  # of each group reached later, the stream that would be taken from it
    frontier = np.flatnonzero(reached)
    while len(frontier):
        fresh = sets[frontier].any(axis=0) & ~seen
        taker[fresh] = frontier[sets[frontier].argmax(axis=0)][fresh]
        seen |= fresh
        ends = np.flatnonzero(fresh & left)
        if len(ends):
            return reached, _path(int(ends[0]), taker, lender)
        gives = (flow > 0) & fresh  # (G, K): what a group would give up
        lent = gives.any(axis=1) & ~reached
        frontier = np.flatnonzero(lent)
        lender[frontier] = gives[frontier].argmax(axis=1)
        reached |= lent
    return reached, None


def _path(stream: int, taker: Int64, lender: Int64) -> list[int]:
    path: list[int] = []
    while stream >= 0:
        group = int(taker[stream])
        path[:0] = [group, stream]
        stream = int(lender[group])
    return path


def _ranges(firsts: Int64, lasts: Int64) -> str:
    """Return phases as ranges of batches, those that meet as one."""
    merged: list[list[int]] = []
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        if merged and merged[-1][1] == first:
            merged[-1][1] = last
        else:
            merged.append([first, last])
    told = [f"{first:,} to {last - 1:,}" for first, last in merged[:3]]
    more = f" and {len(merged) - 3} more ranges" if len(merged) > 3 else ""
    return f"batches {', '.join(told)}{more}"
