"""Whole draws from fractional shares, with error feedback.

A share of 0.3 of a batch of 8 is 2.4 draws; 2 or 3 are read and the difference is owed. The account is
kept in whole numbers, UNIT to a draw, so that it is exact after any number of batches and equal on every
machine.

The invariant (M1): after every batch every stream is less than one draw away from what its shares add up
to. It is kept whenever that can be done at all: each stream gets the whole draws it is owed, never less
than none, and what is left of the batch goes, one each, to those that are owed most, after those that
could not be served in time later on (LOOKAHEAD batches are looked at).

What cannot be done: where shares are unknown in advance and a stream's share of a batch is below one
draw, no rule keeps every stream within one draw. Five equal streams, a batch of one: whoever is read, let
the next shares be equal among those not read yet. After three draws the last two are owed 1/5 + 1/4 + 1/3
each; half a draw more for each, and one of them must be behind by more than one. While every share of a
batch is at least one draw the bound holds whatever the changes; tests/mixture proves both.

Related: error diffusion, the chairman assignment problem (Tijdeman 1980), whose solution needs the shares
of the future.
"""

from __future__ import annotations

import math

import numpy as np

from mixstream.mixture.simplex import Float64
from mixstream.streams.index import Int64

UNIT = 1 << 40  # parts of a draw
MAX_BATCH_SIZE = 1 << 17
LOOKAHEAD = 16  # batches; UNIT * MAX_BATCH_SIZE * LOOKAHEAD stays below 2^63


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
    if left < 0:  # whole draws alone are too many: the least behind wait
        order = np.argsort(np.where(counts > 0, due - counts * UNIT, UNIT), kind="stable")
        counts[order[:-left]] -= 1
        left = 0
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
    """Return at most `number` of the streams that are owed a part of a draw, the most urgent ones.

    Those owed most come first, unless so many fall due within the next batches that these could not
    serve them all: then as many of them as that lacks are served now.
    """
    order = np.argsort(-rest, kind="stable")
    order = order[rest[order] > 0]
    taken = np.zeros(len(rest), dtype=bool)
    ahead = np.arange(1, LOOKAHEAD + 1)
    due = np.maximum((rest + ahead[:, None] * per_batch) // UNIT, 0)  # (LOOKAHEAD, K)
    lacking = due.sum(axis=1) - ahead * batch_size
    for when in np.flatnonzero(lacking > 0):
        need = min(int(lacking[when]) - int((taken & (due[when] > 0)).sum()), number - int(taken.sum()))
        if need > 0:
            taken[order[(due[when] > 0)[order] & ~taken[order]][:need]] = True
    taken[order[~taken[order]][: number - int(taken.sum())]] = True
    return np.flatnonzero(taken)


def round_to(total: int, shares: Float64) -> Int64:
    """Round `total` times shares (K,) to whole numbers that sum to `total`, by largest remainder."""
    exact = shares * total
    counts: Int64 = np.floor(exact).astype(np.int64)
    order = np.argsort(counts - exact, kind="stable")
    counts[order[: total - math.floor(counts.sum())]] += 1
    return counts
