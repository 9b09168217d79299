"""Points of the simplex, and the projections onto the part of it between a floor and a cap."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

import numpy as np
import numpy.typing as npt

from mixstream.errors import FloorError, WeightsError, nearest

Float64 = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

SUM_TOLERANCE = 1e-9


def check_weights(weights: Mapping[str, float], names: Sequence[str]) -> Float64:
    """Return weights as an array.

    Args:
        weights: {name: weight} of all K streams, sum 1.
        names: the K streams, in the order wanted.

    Returns:
        (K,) weights.

    Raises:
        WeightsError: no mapping, a stream without a weight, a weight without a stream, a weight that is negative
            or not finite, or a sum that is not 1 within 1e-9.
    """
    if not isinstance(weights, Mapping):
        raise WeightsError(f"weights are {type(weights).__name__}; expected {{name: weight}}")
    known = set(names)
    unknown = [name for name in weights if name not in known]
    if unknown:
        raise WeightsError(
            f"weight for {unknown[0]!r}, which is no stream of the catalog{nearest(str(unknown[0]), names)}"
        )
    missing = [name for name in names if name not in weights]
    if missing:
        raise WeightsError(
            f"no weight for {', '.join(missing[:5])} ({len(missing)} of {len(names)} streams); "
            f"give every stream one, 0 to leave it out"
        )
    for name, weight in weights.items():
        # Not above 1: that also refuses integers too large to be floats.
        if not is_real(weight) or not 0 <= weight <= 1 + SUM_TOLERANCE:
            raise WeightsError(f"weight of {name!r} is {weight!r}; expected a number from 0 to 1")
    total = math.fsum(weights.values())
    if abs(total - 1) > SUM_TOLERANCE:
        raise WeightsError(f"weights sum to {total!r}, expected 1 within {SUM_TOLERANCE}; divide them by their sum")
    return np.minimum(np.array([weights[name] for name in names], dtype=np.float64), 1.0)


def is_real(value: object) -> bool:
    """Return whether a value is a real number, of Python or numpy; a truth value is none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def round_down(value: float) -> str:
    """Return in at most 6 digits a number that is not above a positive one: an upper bound that a message tells."""
    return _rounded(value, ROUND_FLOOR)


def round_up(value: float) -> str:
    """Return in at most 6 digits a number that is not below a positive one: a lower bound that a message tells."""
    return _rounded(value, ROUND_CEILING)


def _rounded(value: float, way: str) -> str:
    # From the shortest decimal that is this double: 0.2 is 0.2, not the 0.2000...01 that it stands for.
    return f"{float(Context(prec=6, rounding=way).create_decimal(repr(float(value)))):g}"


def check_floor(floor: float, count: int, of: str = "streams") -> None:
    """Refuse a floor that `count` streams, or what else it is `of`, cannot all have.

    Raises:
        FloorError: with the sum and the largest floor that works.
    """
    if not is_real(floor) or not 0 <= floor < math.inf:
        raise FloorError(f"floor={floor!r}; expected a finite number of at least 0")
    if floor * count > 1 + 1e-12:
        raise FloorError(
            f"floor={floor} for {count} {of} adds up to {floor * count:g} of the mixture; "
            f"choose a floor in [0, {round_down(1 / count)}] or drop streams"
        )


def project(weights: Float64, floor: Float64, cap: Float64, total: float = 1.0) -> Float64:
    """Return the point between `floor` and `cap` that is nearest to `weights` in relative entropy.

        argmin_a  sum_i a_i log(a_i / w_i)   s.t.  floor_i <= a_i <= cap_i,  sum_i a_i = total

    Its solution is a_i = clip(c w_i, floor_i, cap_i) for the one c at which the sum is right: what is not
    held by a bound keeps its ratios. A stream of weight 0 stays at its floor.

    Args:
        weights: (K,) non-negative.
        floor: (K,) least shares; sum at most `total`.
        cap: (K,) greatest shares, at least `floor`; the sum of those with positive weight and of the
            floors of the others is at least `total`.
        total: what the shares add up to; 1 for a whole mixture.

    Returns:
        (K,) shares, sum `total`. Sums are exactly rounded (math.fsum), so that every machine gets the same.

    Raises:
        WeightsError: the bounds leave no such point.

    Source: the exact "kl" floor of XDoGE (arXiv 2512.10545, section "weight clipping", our reading),
    with repeat caps added.
    """

    def scaled(free: BoolArray, left: float) -> Float64:
        relative = np.where(free, weights, 0) / weights[free].max()  # so that tiny weights do not overflow
        shares: Float64 = relative * (left / math.fsum(relative[free]))
        return shares

    return _between(floor, cap, total, weights > 0, scaled)


def project_l2(weights: Float64, floor: Float64, cap: Float64, total: float = 1.0) -> Float64:
    """Return the point between `floor` and `cap` that is nearest to `weights` in Euclidean distance.

        argmin_a  sum_i (a_i - w_i)^2   s.t.  floor_i <= a_i <= cap_i,  sum_i a_i = total

    Its solution is a_i = clip(w_i + c, floor_i, cap_i) for the one c at which the sum is right: what is not
    held by a bound keeps its differences. A stream of weight 0 may rise above its floor.

    Args:
        weights: (K,) finite.
        floor: (K,) least shares; sum at most `total`.
        cap: (K,) greatest shares, at least `floor`; sum at least `total`.
        total: what the shares add up to; 1 for a whole mixture.

    Returns:
        (K,) shares, sum `total`.

    Raises:
        WeightsError: the bounds leave no such point.

    Source: the "l2" reading of XDoGE's weight clipping (arXiv 2512.10545); without caps it is the projection
    of Duchi et al. 2008 (Efficient projections onto the l1-ball) onto a shifted simplex.
    """

    def shifted(free: BoolArray, left: float) -> Float64:
        moved: Float64 = weights + (left - math.fsum(weights[free])) / np.count_nonzero(free)
        return moved

    return _between(floor, cap, total, np.ones(len(weights), dtype=bool), shifted)


def _between(
    floor: Float64, cap: Float64, total: float, free: BoolArray, spread: Callable[[BoolArray, float], Float64]
) -> Float64:
    """Return the shares that `spread` gives, held between `floor` and `cap`, with the sum `total`.

    The bounds that hold are found as Bitran and Hax (1981) do for separable resource allocation: spread what
    is left over the free coordinates, hold the side that errs more, repeat.

    Args:
        floor, cap: (K,) bounds.
        total: sum of the shares.
        free: (K,) which may leave their floor.
        spread: gives (K,) shares from the free coordinates and what is left for them.

    Raises:
        WeightsError: the bounds leave no such point.
    """
    shares = np.where(free, np.nan, floor)
    while free.any():
        wanted = spread(free, total - math.fsum(shares[~free]))
        over = free & (wanted > cap)
        under = free & (wanted < floor)
        if not over.any() and not under.any():
            shares[free] = wanted[free]
            return shares
        excess = math.fsum((wanted - cap)[over])
        deficit = math.fsum((floor - wanted)[under])
        held, bound = (over, cap) if excess >= deficit else (under, floor)
        shares[held] = bound[held]
        free = free & ~held
    reached = math.fsum(shares)
    if abs(reached - total) > SUM_TOLERANCE:
        raise WeightsError(
            f"floors and caps leave no mixture: the streams with weight add up to {reached:.6g} of it at most, "
            f"expected {total:.6g}; raise the caps or give weight to more streams"
        )
    return shares
