"""Repeat budgets and token budgets as limits on draws, and the shares that keep within them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mixstream.errors import BudgetError, FloorError, nearest
from mixstream.mixture.apportion import UNIT, to_units
from mixstream.mixture.simplex import Float64, check_floor, is_real, project, round_down, round_up
from mixstream.streams.index import Int64

_LEAST_WEIGHT = 1e-12  # in place of 0, under a floor: far below it, and yet it can be scaled up

MaxRepeats = float | Mapping[str, float] | None


def repeat_budgets(max_repeats: MaxRepeats, names: Sequence[str]) -> list[float | None]:
    """Return each stream's repeat budget, None where unlimited.

    Args:
        max_repeats: one number for all, or {name: number} with "*" for those not named.

    Raises:
        BudgetError: an unknown stream, or a budget that is not a finite number above 0.
    """
    asked = max_repeats if isinstance(max_repeats, Mapping) else {"*": max_repeats}
    known = {"*", *names}
    for name, value in asked.items():
        if name not in known:
            raise BudgetError(f"max_repeats names {name!r}, which is no stream{nearest(name, names)}")
        if value is not None and not (is_real(value) and 0 < value < math.inf):
            raise BudgetError(
                f"max_repeats of {name!r} is {value!r}; expected a finite number above 0 (None: unlimited)"
            )
    budgets = [asked.get(name, asked.get("*")) for name in names]
    return [None if budget is None else float(budget) for budget in budgets]


def draw_limits(sizes: Int64, budgets: Sequence[float | None], num_draws: int) -> Int64:
    """Return the most draws of each stream: floor(budget x size), or the whole run.

    Args:
        sizes: (K,) samples of each stream.
        budgets: K repeat budgets, None for unlimited.
        num_draws: draws of the run.
    """
    limits = [
        num_draws if budget is None else math.floor(min(num_draws, budget * int(size)))
        for size, budget in zip(sizes, budgets, strict=True)
    ]
    return np.array(limits, dtype=np.int64)


def check_floor_within(floor: float, caps: Float64, names: Sequence[str]) -> None:
    """Refuse a floor that the streams cannot have.

    Args:
        floor: least proportion of every stream.
        caps: (K,) greatest proportions that repeat budgets allow.

    Raises:
        FloorError: with the sum, or the stream whose budget is below it, and the ways out.
    """
    check_floor(floor, len(names))
    if floor > caps.min():
        least = int(caps.argmin())
        raise FloorError(
            f"floor={floor}, but the repeat budget of {names[least]!r} allows it {caps[least]:.6g} of the "
            f"mixture at most; choose a floor of at most {round_down(float(caps[least]))}, raise its "
            f"max_repeats, or lower budget_tokens"
        )


def check_supply(
    limits: Int64, wanted: Float64, num_draws: int, batch_size: int, tokens_a_draw: int, catalog: Mapping[str, int]
) -> None:
    """Refuse budgets that together cannot supply the run, or that leave a wanted stream nothing.

    Args:
        limits: (K,) most draws of each stream.
        wanted: (K,) weight or floor of each stream; those with 0 give nothing.
        num_draws: draws of the run.
        batch_size: draws of a batch.
        tokens_a_draw: the sequence length.
        catalog: {name: samples} of the K streams.

    Raises:
        BudgetError: with need, supply, and the ways out.
    """
    used = wanted > 0
    sizes = np.array(list(catalog.values()), dtype=np.int64)
    for name, size, limit in zip(catalog, sizes, np.where(used, limits, 1), strict=True):
        if limit == 0:
            raise BudgetError(
                f"the repeat budget of {name!r} ({size} samples) pays less than one sample; raise it to "
                f"{round_up(1 / float(size))} or more, or give the stream weight 0"
            )
    supply = int(limits[used].sum())
    if supply >= num_draws:
        return
    # Each stream's limit is rounded down, by less than one draw.
    enough = math.ceil((num_draws + int(used.sum())) / int(sizes[used].sum()) * 100) / 100
    lower = f"lower budget_tokens to {supply * tokens_a_draw:,} or less, " if supply >= batch_size else ""
    raise BudgetError(
        f"the run needs {num_draws * tokens_a_draw:,} tokens ({num_draws:,} samples), but the repeat budgets of "
        f"its {int(used.sum())} streams supply {supply * tokens_a_draw:,} ({supply:,} samples); raise max_repeats "
        f"to {enough:.2f} or more, {lower}or add data"
    )


def share_caps(room: Int64, num_draws: int) -> Int64:
    """Return the greatest shares (K,), in units, that keep draws within `room` (K,) over `num_draws`.

    Rounded up: they exceed the room by less than a draw in any run, which `apportion` refuses to give.
    """
    return np.array([min(UNIT, -(-draws * UNIT // num_draws)) for draws in room.tolist()], dtype=np.int64)


def shares_within(weights: Float64, floor: float, caps: Int64) -> Int64:
    """Return the (K,) shares in units: weights, after the floor and the caps.

    Args:
        weights: (K,) sum 1.
        floor: least share of every stream; where its cap is lower, the cap holds. With a floor, a stream of
            weight 0 gets more than it where the streams with weight cannot fill the run.
        caps: (K,) greatest shares in units; those of the streams with weight, of all where there is a floor,
            sum to at least UNIT.

    What a cap refuses goes to the others in proportion to their weights (docs/engine.md, M3).
    """
    return shares_between(wanted_under(floor, weights), floor, caps)


def wanted_under(floor: float, weights: Float64) -> Float64:
    """Return `weights`, of any shape, with those of 0 made so small as to matter only where a floor holds them up."""
    return np.maximum(weights, _LEAST_WEIGHT) if floor else weights


def shares_between(wanted: Float64, floor: float, caps: Int64) -> Int64:
    """Return the (K,) shares in units that keep the ratios of `wanted` (K,), between `floor` and `caps` (K,)."""
    least = np.minimum(np.full(len(wanted), math.ceil(floor * UNIT), dtype=np.int64), caps)
    excess = int(least.sum()) - UNIT  # K ceilings can add up to some units more than UNIT
    if excess > 0:
        least = least - (np.arange(len(least)) < excess)
    return to_units(project(wanted, least / UNIT, caps / UNIT), least, caps)
