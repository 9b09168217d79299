"""The proportions that floors and repeat budgets allow, and the best of them by a planner's law.

    floor <= p_i <= c_i = min(1, R_i U_i / D),   sum_i p_i = 1        R_i repeat budget, U_i unique tokens, D tokens

A law need not be convex in p, so the minimum is sought from several starts (scipy's SLSQP). Whether a start has
converged is not left to the solver, which gives up at the limit of rounding and may stop early: a point p counts if
the Frank-Wolfe gap

    g(p) = max over q in the region of  grad f(p) . (p - q)  >=  f(p) - min f   (the latter where f is convex)

is next to nothing. Source of the gap as a certificate: Jaggi 2013, Revisiting Frank-Wolfe (ICML), section 2.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixstream.errors import BudgetError, FitError, RunTableError
from mixstream.mixture.budget import check_floor_within
from mixstream.mixture.simplex import Float64, project, round_up

ROUNDING = 1e-12  # of a sum of supplies
TOLERANCE = 1e-12
MAX_STEPS = 1000
MAX_TURNS = 6  # of the solver, from where it gave up
LEAST_UNIT = 1e-8
SOUGHT = 1e-5  # the gap at which the search ends, and
GAP = 1e-4  # that of what counts as found, both in units of the objective, or of the gap, at the best of the starts
Objective = Callable[[Float64], tuple[float, Float64]]  # p (K,) -> value, gradient (K,)


@dataclass(frozen=True, eq=False)
class Region:
    """Where the proportions of a run may lie: least and greatest share of each of K sources.

    Attributes:
        least, most: (K,), with sum(least) <= 1 <= sum(most).
    """

    least: Float64
    most: Float64

    def project(self, weights: Float64) -> Float64:
        """Return the proportions in the region that are nearest to `weights` in relative entropy."""
        return project(np.maximum(weights, 1e-12), self.least, self.most)

    def starts(self, num: int, seed: int) -> Float64:
        """Return (num, K) proportions in the region: the even ones, then random ones."""
        count = len(self.least)
        drawn = np.random.default_rng(seed).dirichlet(np.ones(count), max(0, num - 1))
        return np.array([self.project(one) for one in [np.full(count, 1 / count), *drawn]])

    def gap(self, proportions: Float64, gradient: Float64) -> float:
        """Return how much of a first-order gain is left: max over q in the region of gradient . (p - q).

        Infinite where the gradient is not finite.
        """
        if not np.isfinite(gradient).all():
            return math.inf
        best = self.least.copy()
        left = 1 - best.sum()
        for source in np.argsort(gradient, kind="stable"):  # fills what has the least gradient first
            taken = min(left, self.most[source] - best[source])
            best[source] += taken
            left -= taken
        return max(0.0, float(gradient @ (proportions - best)))


def region_of(
    tokens: float, sizes: Float64, budgets: Float64, floor: float = 0.0, names: Sequence[str] | None = None
) -> Region:
    """Return where the proportions of a run of `tokens` may lie.

    Args:
        tokens: D of the run.
        sizes: (K,) U, unique tokens of each source.
        budgets: (K,) R, most repeats of each; infinite: unlimited.
        floor: least proportion of every source.
        names: of the K sources, for messages; None: numbers.

    Raises:
        RunTableError: sizes, budgets or tokens that are not above 0, or are not one a source.
        BudgetError: the budgets cannot supply the run, with need and supply.
        FloorError: the floor is more than the sources together, or one's budget, can give.
    """
    told = [str(number) for number in range(len(sizes))] if names is None else list(names)
    if not sizes.shape == budgets.shape == (len(told),):
        raise RunTableError(
            f"sizes are of shape {sizes.shape}, repeat budgets of {budgets.shape}; expected ({len(told)},)"
        )
    if not (tokens > 0 and math.isfinite(tokens)):
        raise RunTableError(f"a run of {tokens} tokens; expected a finite number above 0")
    for what, values in (("sizes", sizes), ("repeat budgets", budgets)):
        bad = ~(values > 0)
        if bad.any():
            first = int(np.argmax(bad))
            raise RunTableError(f"{what}: {told[first]!r} has {values[first]:g}, expected a number above 0")
    supply = budgets * sizes
    if supply.sum() < tokens * (1 - ROUNDING):
        raise BudgetError(
            f"the run needs {tokens:,.0f} tokens, but the repeat budgets of its {len(sizes)} sources supply "
            f"{supply.sum():,.0f}; raise the budgets by {round_up(tokens / supply.sum())} times or more, ask for fewer "
            f"tokens, or add data"
        )
    most = np.minimum(supply / tokens, 1.0)
    check_floor_within(floor, most, told)
    return Region(least=np.full(len(sizes), float(floor)), most=most)


@dataclass(frozen=True, eq=False)
class Minimum:
    """The best proportions that were found.

    Attributes:
        proportions: (K,), in the region, sum 1.
        value: of the objective there.
        agreed: starts that ended at this value.
        starts: starts in all.
        gap: first-order gain that is left there, in the unit of the objective; nan where another solver knows none.
    """

    proportions: Float64
    value: float
    agreed: int
    starts: int
    gap: float = math.nan


def minimise(region: Region, objective: Objective, *, of: str, starts: Float64 | None = None, seed: int = 0) -> Minimum:
    """Return the proportions in the region at which the objective is least, as far as several starts can tell.

    Args:
        region: where to look.
        objective: smooth; value and gradient (K,) at p (K,), each above 0 or at the region's floor.
        of: whose objective, for the message.
        starts: (S, K) proportions in the region; None: 5, of which 4 are random by `seed`.

    Raises:
        FitError: no start converged.
    """
    tried = region.starts(5, seed) if starts is None else starts
    at_starts = [(value, region.gap(start, gradient)) for start in tried for value, gradient in [objective(start)]]
    finite = [(start, told) for start, told in zip(tried, at_starts, strict=True) if np.isfinite(told).all()]
    if not finite:
        raise FitError(f"{of}: the objective is not finite at any of {len(tried)} starts within floors and budgets")
    scale = min(max(abs(value), gap) for _, (value, gap) in finite) or 1.0  # gradients may be huge at some starts
    ends = [_descend(region, objective, start, scale) for start, _ in finite]
    best = min(ends, key=lambda end: end.value if end.gap <= GAP * scale else math.inf)
    if not best.gap <= GAP * scale:
        least = min(ends, key=lambda end: end.gap)
        raise FitError(
            f"{of}: no solution was found from {len(finite)} starts (a gain of {least.gap:.3g} was left at the best, "
            f"where the objective is {least.value:.6g}); the law may be rough, or not finite within floors and budgets"
        )
    near = best.value + 1e-6 * scale
    return replace(best, agreed=sum(end.gap <= GAP * scale and end.value <= near for end in ends), starts=len(tried))


def _descend(region: Region, objective: Objective, start: Float64, scale: float) -> Minimum:
    """Return where SLSQP ends from `start`, started again where it gave up; of an objective in units of `scale`.

    In turns it moves p and p / sqrt(p at its start): of power laws and entropies, curved by 1 / p, the latter are
    curved alike in all directions, also of sources with a thousandth of the others' share.
    """

    def measured(point: Float64) -> Minimum:
        value, gradient = objective(point)
        gap = region.gap(point, gradient) if np.isfinite(value) else math.inf
        return Minimum(proportions=point, value=float(value), agreed=1, starts=1, gap=gap)

    best = measured(start)
    for turn in range(MAX_TURNS):
        units = np.sqrt(np.maximum(best.proportions, LEAST_UNIT)) if turn % 2 == 0 else np.ones(len(start))
        found = _stepped(region, objective, best.proportions, scale, units)
        if np.isfinite(found).all():
            end = measured(region.project(np.clip(found, 0, None)))  # it keeps bounds and sum to rounding only
            best = min(best, end, key=lambda point: (point.gap == math.inf, point.value))
        if best.gap <= SOUGHT * scale:
            break
    return best


def _stepped(region: Region, objective: Objective, start: Float64, scale: float, units: Float64) -> Float64:
    """Return the (K,) proportions at which SLSQP ends, moving p / `units`."""

    def scaled(moved: Float64) -> tuple[float, Float64]:
        value, gradient = objective(np.clip(moved * units, region.least, region.most))
        return value / scale, gradient * units / scale

    found = slsqp(
        scaled,
        start / units,
        jac=True,
        bounds=list(zip(region.least / units, region.most / units, strict=True)),
        constraints=[{"type": "eq", "fun": lambda moved: moved @ units - 1, "jac": lambda moved: units}],
        options={"maxiter": MAX_STEPS, "ftol": TOLERANCE},
    )
    ended: Float64 = found.x * units
    return ended


def slsqp(objective: Callable[..., Any], start: Float64, **asked: Any) -> Any:
    """Return what scipy's SLSQP finds, as `scipy.optimize.minimize` does, which takes `asked`.

    That a step left its bounds by rounding is no news: older scipy warns of it, and clips it, as we do what is found.
    """
    from scipy.optimize import minimize  # half a second, of which rules such as uniform have no need

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Values in x were outside bounds", RuntimeWarning)
        return minimize(objective, start, method="SLSQP", **asked)
