"""How far a run is from the pilots that a law was fitted to: what is between them is read off, the rest is belief.

    tokens     D / max_n D_n beyond the largest, D / min_n D_n below the smallest, 1 between          the same of N
    hull       min over q in conv{p_n} of  TV(p, q)                TV(p, q) = 1/2 sum_i |p_i - q_i|
    nearest    min over n of  TV(p, p_n)
    repeats    r_i = p_i D / U_i  beside  max_n r_ni

A total variation is the share of the tokens that would have to come from other sources. The distance from the
convex hull is a linear program: min 1/2 sum (s + t) over mixing weights w >= 0 with sum w = 1 and slacks s, t >= 0,
such that sum_n w_n p_n + s - t = p (scipy's HiGHS).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixstream.errors import FitError, RunTableError
from mixstream.methods.planning.table import RunTable
from mixstream.mixture.simplex import Float64

FURTHER = 1.01  # factors beyond are told
OUTSIDE = 0.02  # of the tokens that would have to move
FREE_REPEATS = 4.0  # that cost next to nothing (arXiv 2305.16264), seen or not
MORE_REPEATS = 1.5  # times as many as the pilots' are told


@dataclass(frozen=True, eq=False)
class Pilots:
    """What is kept of the R runs over K sources that a law was fitted to, so that its reach can be told without them.

    Attributes:
        sources, runs: K and R names.
        proportions: (R, K).
        tokens: (R,) D.
        parameters: (R,) N; nan where it is not told.
        repeats: (R, K) r; 0 where nothing was repeated, or it is not told.
    """

    sources: tuple[str, ...]
    runs: tuple[str, ...]
    proportions: Float64
    tokens: Float64
    parameters: Float64
    repeats: Float64

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit each other.

        Raises:
            RunTableError: with the shapes.
        """
        shapes = {"proportions": (len(self.runs), len(self.sources)), "tokens": (len(self.runs),)}
        for name, shape in (shapes | {"parameters": shapes["tokens"], "repeats": shapes["proportions"]}).items():
            if getattr(self, name).shape != shape:
                raise RunTableError(f"pilots: {name} are of shape {getattr(self, name).shape}, expected {shape}")
        if not self.runs:
            raise RunTableError("no pilots; give the runs that the law was fitted to")


@dataclass(frozen=True)
class Reach:
    """How far a run is from the pilots.

    Attributes:
        tokens_factor: above 1: D in units of the pilots' largest; below: of their smallest; 1: between them.
        size_factor: the same of N; nan where it, or theirs, is not told.
        hull_distance: total variation from the nearest blend of pilots; 0: it is one.
        nearest: the pilot of the most similar proportions.
        nearest_distance: total variation from it.
        warnings: all that is beyond the pilots, a sentence each.
    """

    tokens_factor: float
    size_factor: float
    hull_distance: float
    nearest: str
    nearest_distance: float
    warnings: tuple[str, ...]


def pilots_of(runs: RunTable) -> Pilots:
    """Return what is kept of a table of runs."""
    return Pilots(runs.sources, runs.runs, runs.proportions, runs.tokens, runs.parameters, runs.repeats)


def reach(
    pilots: Pilots,
    proportions: Float64,
    tokens: float,
    *,
    parameters: float = math.nan,
    repeats: Float64 | None = None,
) -> Reach:
    """Return how far a run is from the pilots.

    Args:
        pilots: R runs over K sources.
        proportions: (K,) of the run, sum 1.
        tokens: D.
        parameters: N; nan: the pilots'.
        repeats: (K,) r of the run; None: nothing is repeated.

    Raises:
        FitError: the linear program was not solved.
    """
    told = pilots.parameters[~np.isnan(pilots.parameters)]
    tokens_factor = _beyond(tokens, pilots.tokens)
    size_factor = _beyond(parameters, told) if len(told) else math.nan
    distances = np.abs(pilots.proportions - proportions).sum(axis=1) / 2
    nearest = int(distances.argmin())
    hull = hull_distance(pilots.proportions, proportions)
    warnings = [
        *_told_tokens(tokens, tokens_factor, pilots.tokens),
        *_told_size(parameters, size_factor, told),
        *_told_mixture(pilots, proportions, hull, pilots.runs[nearest], float(distances[nearest])),
        *_told_repeats(pilots.sources, pilots.repeats, repeats),
    ]
    return Reach(
        tokens_factor=tokens_factor,
        size_factor=size_factor,
        hull_distance=hull,
        nearest=pilots.runs[nearest],
        nearest_distance=float(distances[nearest]),
        warnings=tuple(warnings),
    )


def hull_distance(corners: Float64, point: Float64) -> float:
    """Return the total variation of a point (K,) of the simplex from the convex hull of the corners (R, K).

    Raises:
        FitError: the linear program was not solved.
    """
    from scipy.optimize import linprog

    num_corners, count = corners.shape
    slack = np.eye(count)
    rows = np.block([[corners.T, slack, -slack], [np.ones((1, num_corners)), np.zeros((1, 2 * count))]])
    cost = np.concatenate([np.zeros(num_corners), np.full(2 * count, 0.5)])
    found = linprog(cost, A_eq=rows, b_eq=np.append(point, 1.0), bounds=(0, None), method="highs")
    if not found.success:
        raise FitError(f"the distance from the pilots was not found ({found.message})")
    return float(np.clip(found.fun, 0, 1))


def _beyond(value: float, seen: Float64) -> float:
    """Return a value in units of the largest seen, or the smallest, whichever it is beyond; 1 between them."""
    if math.isnan(value):
        return math.nan
    return float(max(value / seen.max(), 1.0) if value > seen.min() else value / seen.min())


def _is_further(factor: float) -> bool:
    return not math.isnan(factor) and not 1 / FURTHER <= factor <= FURTHER


def _side(factor: float) -> str:
    return f"{factor:.3g} times the largest" if factor > 1 else f"{1 / factor:.3g} times below the smallest"


def _told_tokens(tokens: float, factor: float, seen: Float64) -> list[str]:
    if not _is_further(factor):
        return []
    span = f"{seen.min():,.0f} to {seen.max():,.0f}"
    return [
        f"the run's {tokens:,.0f} tokens are {_side(factor)} of the pilots' budgets ({span}): the law is "
        f"extrapolated over tokens"
    ]


def _told_size(parameters: float, factor: float, seen: Float64) -> list[str]:
    if math.isnan(parameters):
        return []
    if not len(seen):
        return [
            f"the pilots do not tell their model's size, so that what {parameters:,.0f} parameters change is not known"
        ]
    if not _is_further(factor):
        return []
    return [
        f"the model's {parameters:,.0f} parameters are {_side(factor)} of the pilots' models "
        f"({seen.min():,.0f} to {seen.max():,.0f}): the law is extrapolated over model size"
    ]


def _told_mixture(pilots: Pilots, proportions: Float64, hull: float, nearest: str, distance: float) -> list[str]:
    unseen = [
        name
        for name, share, most in zip(pilots.sources, proportions, pilots.proportions.max(axis=0), strict=True)
        if most == 0 and share > 0
    ]
    told = [f"no pilot read {_listed(unseen)}, which the run reads"] if unseen else []
    if hull > OUTSIDE:
        told.append(
            f"the proportions are outside what the pilots mixed: {hull:.1%} of the tokens would have to move to make "
            f"them a blend of pilots ({distance:.1%} to make them those of {nearest!r}, the nearest)"
        )
    return told


def _told_repeats(sources: Sequence[str], before: Float64, repeats: Float64 | None) -> list[str]:
    if repeats is None:
        return []
    seen = before.max(axis=0)
    beyond = repeats > np.maximum(FREE_REPEATS, MORE_REPEATS * seen)
    if not beyond.any():
        return []
    worst = int(np.argmax(np.where(beyond, repeats, -1)))
    told = f"at most {seen[worst]:.3g} times" if seen[worst] > 0 else "nothing of it twice, as far as they tell"
    return [
        f"{_listed([sources[i] for i in np.flatnonzero(beyond)])}: repeated more than the pilots did; "
        f"{sources[worst]!r} is read {repeats[worst]:.3g} times, the pilots read {told}"
    ]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more
