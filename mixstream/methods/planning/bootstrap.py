"""How sure a planner is: it is fitted again to runs drawn anew, and allocates and predicts again.

    "runs"        R runs drawn from R with replacement, each with all its losses (runs are the clusters)
    "residuals"   the same runs with losses L* = L^ exp(e_m), e = log(L / L^), m a run drawn for each run

Runs that no draw took are predicted from the others: their error is a held-out one, and costs nothing more.
Residuals keep a design whole that a law needs whole, but are smaller than noise where a law has nearly as many
parameters as there are losses, and take the law for true; they leave nothing out.

Source: Efron 1979 (The Annals of Statistics 7) and its residual form for regression, Efron and Tibshirani 1993,
chapter 9; the out-of-bag error is Breiman's (1996).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from mixstream.errors import FitError, RunTableError
from mixstream.methods.planning.planner import Planner, PlannerT
from mixstream.methods.planning.table import RunTable
from mixstream.mixture.simplex import Float64

Resample = Literal["runs", "residuals"]
LEVEL = 0.9
MAX_FAILED = 0.25  # of the refits


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """What B refits of `num` that were tried found.

    Attributes:
        proportions: (B, K) that each allocates.
        losses: (B, X, M) that each predicts for the mixtures that were asked for.
        errors: relative errors |L^ - L| / L of all held-out losses; empty where nothing was held out.
        num: refits that were tried.
        failures: what those said that did not converge.
    """

    proportions: Float64
    losses: Float64
    errors: Float64
    num: int
    failures: tuple[str, ...]

    @property
    def heldout_error(self) -> float:
        """Median relative error of held-out losses; nan where nothing was held out."""
        return float(np.median(self.errors)) if len(self.errors) else math.nan


def interval(values: Float64, level: float = LEVEL) -> Float64:
    """Return (..., 2) the quantiles (1 - level) / 2 and (1 + level) / 2 of (B, ...) values over the first axis."""
    bounds: Float64 = np.moveaxis(np.quantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0), 0, -1)
    return bounds


def predict_runs(planner: Planner, runs: RunTable) -> Float64:
    """Return the (R, M) losses that a fitted planner expects of runs; nan where its law cannot tell."""
    unique = runs.unique if np.isfinite(runs.unique).any() else None
    return planner.predict(runs.proportions, runs.tokens, parameters=runs.parameters, unique=unique)


def relative_errors(planner: Planner, runs: RunTable) -> Float64:
    """Return the relative errors |L^ - L| / L of a planner on all losses that runs have and it tells, in one row."""
    errors = np.abs(predict_runs(planner, runs) / runs.losses - 1)
    told: Float64 = errors[~np.isnan(errors)]
    return told


def bootstrap(
    fitted: PlannerT,
    runs: RunTable,
    allocate: Callable[[PlannerT], Float64],
    predict: Callable[[PlannerT], Float64],
    *,
    num: int = 20,
    seed: int = 0,
    resample: Resample = "runs",
) -> Bootstrap:
    """Return what a planner answers when it is fitted again to runs drawn anew.

    Args:
        fitted: the planner, fitted to `runs`; refits start from it, by its `refit` where it has one.
        runs: what it was fitted to.
        allocate: a refit -> (K,) proportions.
        predict: a refit -> (X, M) losses.
        num: refits, of 2 or more; the time it takes is that of so many.
        seed: of the draws; draw b is the same whatever `num` is.
        resample: what is drawn.

    Raises:
        FitError: an unknown `resample`, fewer than 2 refits, or more than a quarter of them failed, with what the
            first said.
    """
    if resample not in get_args(Resample) or num < 2:
        raise FitError(
            f"bootstrap of {num} refits, resample={resample!r}; expected 2 or more, and one of "
            f"{', '.join(get_args(Resample))}"
        )
    again: Callable[[RunTable], PlannerT] = getattr(fitted, "refit", fitted.fit)
    proportions, losses, errors, failures = [], [], [], []
    expected = predict_runs(fitted, runs) if resample == "residuals" else None
    for number in range(num):
        random = np.random.default_rng([seed, number])
        drawn, left_out = (
            _drawn_runs(runs, random) if expected is None else (_drawn_losses(runs, expected, random), None)
        )
        try:
            refit = again(drawn)
            told = (
                allocate(refit),
                predict(refit),
                np.empty(0) if left_out is None else relative_errors(refit, left_out),
            )
        except (FitError, RunTableError) as problem:
            failures.append(str(problem))
            continue
        proportions.append(told[0])
        losses.append(told[1])
        errors.append(told[2])
    if len(failures) > MAX_FAILED * num:
        other = "residuals, which keep every run," if resample == "runs" else "more runs"
        raise FitError(
            f"bootstrap: {len(failures)} of {num} refits failed, more than {MAX_FAILED:.0%}, so that no interval can "
            f"be told (the first: {failures[0]}); resample {other} or go without intervals"
        )
    return Bootstrap(
        proportions=np.array(proportions),
        losses=np.array(losses),
        errors=np.concatenate(errors),
        num=num,
        failures=tuple(failures),
    )


def _drawn_runs(runs: RunTable, random: np.random.Generator) -> tuple[RunTable, RunTable | None]:
    """Return as many runs, drawn with replacement, and those that were not."""
    numbers = random.integers(0, len(runs), len(runs))
    left_out = ~np.isin(np.arange(len(runs)), numbers)
    return runs.rows(numbers), runs.rows(left_out) if left_out.any() else None


def _drawn_losses(runs: RunTable, expected: Float64, random: np.random.Generator) -> RunTable:
    """Return the runs with losses of the law's, off by what a drawn run's losses are off.

    A run without a loss of a target has no residual there; another's is drawn for it.
    """
    residuals = np.log(runs.losses / expected)
    drawn = residuals[random.integers(0, len(runs), len(runs))]
    for target in range(residuals.shape[1]):
        known = residuals[~np.isnan(residuals[:, target]), target]
        holes = np.isnan(drawn[:, target])
        if len(known):
            drawn[holes, target] = random.choice(known, int(holes.sum()))
    return replace(runs, losses=np.where(np.isnan(runs.losses), math.nan, expected * np.exp(drawn)))
