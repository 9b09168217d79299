"""Whole draws from fractional shares, with error feedback.

A share of 0.3 of a batch of 8 is 2.4 draws; 2 or 3 are read and the difference is owed. The account is
kept in whole numbers, UNIT to a draw, so that it is exact after any number of batches and equal on every
machine.

The invariant (M1): after every batch every stream is less than one draw away from what its shares add up
to. Each stream gets the whole draws it is owed, never less than none, and what is left of the batch goes,
one each, to those that are owed most, unless that would leave more of them falling due within the next h
batches than these can serve, for any h: then as many of those due by then come first. Why this suffices
while shares stay: the next draws of all streams are jobs of one draw each, with a batch before which they
are too early and one by which they are due. Between any two batches fall no more whole jobs than there are
draws, since the shares of a stream between them add up to no less than its jobs; so, by Hall's theorem, the
jobs can be done in time if those due within h batches from now are at most h batches' draws. Horizons of
LOOKAHEAD batches are looked at, and fewer where no stream is ahead any more: that is exhaustive for every
stream with a draw in LOOKAHEAD batches or more.

What cannot be done: where shares are unknown in advance and a stream's share of a batch is below one
draw, no rule keeps every stream within one draw. Five equal streams, a batch of one: whoever is read, let
the next shares be equal among those not read yet. After three draws the last two are owed 1/5 + 1/4 + 1/3
each; half a draw more for each, and one of them must be behind by more than one. While every share of a
batch is at least one draw the bound holds whatever the changes; tests/mixture shows all three.

Related: the chairman assignment problem (Tijdeman 1980); apportionment within the quota (Balinski and
Young 1975, Still 1979), whose look-ahead condition this is.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mixstream.mixture.simplex import Float64
from mixstream.streams.index import Int64

BoolArray = npt.NDArray[np.bool_]

UNIT = 1 << 40  # parts of a draw
MAX_BATCH_SIZE = 1 << 17
LOOKAHEAD = 512  # batches


def to_units(shares: Float64, floor: Int64, cap: Int64) -> Int64:
    """Round shares to whole units that sum to UNIT exactly, by largest remainder within the bounds.

    Args:
        shares: (K,) sum 1.
        floor, cap: (K,) bounds in units; sum of `floor` <= UNIT <= sum of `cap`.

    Returns:
        (K,) units.
    """
    assert int(floor.sum()) <= UNIT <= int(cap.sum())
    exact = shares * UNIT
    units: Int64 = np.clip(np.floor(exact).astype(np.int64), floor, cap)
    left = UNIT - int(units.sum())
    order = np.argsort(np.floor(exact) - exact, kind="stable")
    while left:
        step = 1 if left > 0 else -1
        free = order[(units < cap)[order] if step > 0 else (units > floor)[order]]
        moved = free[: abs(left)]
        units[moved] += step
        left -= step * len(moved)
    return units


def apportion(owed: Int64, shares: Int64, room: Int64, batch_size: int) -> Int64:
    """Return how many draws each of K streams gets in the next batch.

    Args:
        owed: (K,) units owed before this batch (negative: ahead); sum 0.
        shares: (K,) units of every draw of this batch; sum UNIT.
        room: (K,) draws that each stream may still give; sum at least `batch_size`.
        batch_size: draws of the batch.

    Returns:
        (K,) draws, non-negative, at most `room`, sum `batch_size`.
    """
    due = owed + shares * batch_size
    counts: Int64 = np.clip(due // UNIT, 0, room)
    left = batch_size - int(counts.sum())
    while left < 0:  # whole draws alone are too many: the least behind wait
        order = np.argsort(due - counts * UNIT, kind="stable")
        waiting = order[(counts > 0)[order]][:-left]
        counts[waiting] -= 1
        left += len(waiting)
    if left > 0:
        rest = np.where(room > counts, due - counts * UNIT, -UNIT)
        counts[_most_urgent(rest, shares * batch_size, left, batch_size)] += 1
    left = batch_size - int(counts.sum())
    while left > 0:  # only where repeat budgets bind: anyone who has room
        order = np.argsort(counts * UNIT - due, kind="stable")
        able = order[(counts < room)[order]][:left]
        counts[able] += 1
        left -= len(able)
    return counts


def _most_urgent(rest: Int64, per_batch: Int64, number: int, batch_size: int) -> Int64:
    """Return which `number` of the streams that are owed a part of a draw get one more.

    Args:
        rest: (K,) units owed after whole draws, below UNIT; those of 0 or less get nothing.
        per_batch: (K,) units that every further batch adds.
        number: draws left of this batch.
        batch_size: draws of a further batch.
    """
    order = np.argsort(-rest, kind="stable")
    order = order[rest[order] > 0]
    whole, part = np.divmod(per_batch, UNIT)
    first: BoolArray = np.zeros(len(rest), dtype=bool)
    chosen = _filled(first, order, number)
    start, end = 1, 17
    while start <= LOOKAHEAD:
        ahead = np.arange(start, end)
        due = np.maximum(ahead[:, None] * whole + (rest + ahead[:, None] * part) // UNIT, 0)  # (horizons, K)
        lacking = due.sum(axis=1) - ahead * batch_size
        for horizon in np.flatnonzero(lacking > 0):
            in_time = due[horizon] > 0
            need = min(int(lacking[horizon]) - int((first & in_time).sum()), number - int(first.sum()))
            if need > 0:
                first[order[in_time[order] & ~first[order]][:need]] = True
        chosen = _filled(first, order, number)
        after = rest - chosen * UNIT + (end - 1) * part
        if -after[(whole == 0) & (after < 0)].sum() < UNIT:
            break  # together less than a draw ahead: those due later cannot exceed what is drawn
        start, end = end, min(2 * end, LOOKAHEAD + 1)
    return np.flatnonzero(chosen)


def _filled(first: BoolArray, order: Int64, number: int) -> BoolArray:
    """Return the streams of `first` (K,), and of the others those that come first in `order`, `number` in all."""
    chosen = first.copy()
    chosen[order[~first[order]][: number - int(first.sum())]] = True
    return chosen


def round_to(total: int, shares: Float64) -> Int64:
    """Round `total` times shares (K,) to whole numbers that sum to `total`, by largest remainder."""
    exact = shares * total
    counts: Int64 = np.floor(exact).astype(np.int64)
    order = np.argsort(counts - exact, kind="stable")
    counts[order[: total - math.floor(counts.sum())]] += 1
    return counts
