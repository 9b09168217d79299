"""The proportions that floors and repeat budgets allow, and the best of them by a planner's law.

    floor <= p_i <= c_i = min(1, R_i U_i / D),   sum_i p_i = 1        R_i repeat budget, U_i unique tokens, D tokens

A law need not be convex in p, so the minimum is sought from several starts (scipy's SLSQP).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from mixstream.errors import BudgetError, FitError, RunTableError
from mixstream.mixture.budget import check_floor_within
from mixstream.mixture.simplex import Float64, project

TOLERANCE = 1e-12
MAX_STEPS = 1000
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
        RunTableError: sizes, budgets or tokens that are not above 0.
        BudgetError: the budgets cannot supply the run, with need and supply.
        FloorError: the floor is more than the sources together, or one's budget, can give.
    """
    told = [str(number) for number in range(len(sizes))] if names is None else list(names)
    if not (tokens > 0 and math.isfinite(tokens)):
        raise RunTableError(f"a run of {tokens} tokens; expected a finite number above 0")
    for what, values in (("sizes", sizes), ("repeat budgets", budgets)):
        bad = ~(values > 0)
        if bad.any():
            first = int(np.argmax(bad))
            raise RunTableError(f"{what}: {told[first]!r} has {values[first]:g}, expected a number above 0")
    supply = budgets * sizes
    if supply.sum() < tokens:
        raise BudgetError(
            f"the run needs {tokens:,.0f} tokens, but the repeat budgets of its {len(sizes)} sources supply "
            f"{supply.sum():,.0f}; raise the budgets by {tokens / supply.sum():.3g} times or more, ask for fewer "
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
    """

    proportions: Float64
    value: float
    agreed: int
    starts: int


def minimise(region: Region, objective: Objective, *, of: str, starts: Float64 | None = None, seed: int = 0) -> Minimum:
    """Return the proportions in the region at which the objective is least, as far as several starts can tell.

    Args:
        region: where to look.
        objective: value and gradient (K,) at p (K,), each above 0 or at the region's floor.
        of: whose objective, for the message.
        starts: (S, K) proportions in the region; None: 5, of which 4 are random by `seed`.

    Raises:
        FitError: no start converged.
    """
    tried = region.starts(5, seed) if starts is None else starts
    count = len(region.least)
    found = [
        minimize(
            objective,
            start,
            jac=True,
            method="SLSQP",
            bounds=list(zip(region.least, region.most, strict=True)),
            constraints=[{"type": "eq", "fun": lambda p: p.sum() - 1, "jac": lambda p: np.ones(count)}],
            options={"maxiter": MAX_STEPS, "ftol": TOLERANCE},
        )
        for start in tried
    ]
    done = [one for one in found if one.success and np.isfinite(one.fun)]
    if not done:
        raise FitError(
            f"{of}: no solution was found from {len(tried)} starts ({found[0].message}); the law may not be finite "
            f"within floors and budgets"
        )
    best = min(done, key=lambda one: float(one.fun))
    proportions = region.project(np.clip(best.x, 0, None))  # SLSQP keeps bounds and sum to rounding only
    value = float(objective(proportions)[0])
    near = abs(value) * 1e-6 + 1e-12
    agreed = sum(bool(one.fun <= best.fun + near) for one in done)
    return Minimum(proportions=proportions, value=value, agreed=agreed, starts=len(tried))
