"""The face of every planner: what is fitted to runs, predicts their losses, and allocates a budget of tokens.

Numbers in, numbers out: (K,) arrays over the sources, in the order of the table that the planner was fitted to.
`mixstream.methods.planning.answer` puts names to them, and says how sure they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from mixstream.errors import RunTableError, nearest
from mixstream.methods.planning.table import RunTable
from mixstream.mixture.simplex import Float64

PlannerT = TypeVar("PlannerT", bound="Planner")


class Allocator(Protocol):
    """Decides which proportions a run of so many tokens has."""

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        ...

    def allocate(
        self,
        tokens: float,
        sizes: Float64,
        budgets: Float64,
        *,
        floor: float = 0.0,
        parameters: float = math.nan,
    ) -> Float64:
        """Return the (K,) proportions, sum 1, of a run.

        Args:
            tokens: D, of the run.
            sizes: (K,) U, unique tokens of each source.
            budgets: (K,) most repeats of each source; infinite: unlimited.
            floor: least proportion of every source.
            parameters: N of the model; nan: that of the runs it was fitted to, where it matters.

        Raises:
            FloorError, BudgetError: floor and budgets leave no mixture.
            FitError: it has not been fitted, or the solution was not found.
        """
        ...


class Planner(Allocator, Protocol):
    """An allocator that learns from runs: a law of their losses."""

    def fit(self: PlannerT, runs: RunTable) -> PlannerT:
        """Return a planner fitted to `runs`; this one stays as it was.

        Fitted before, it may start from where it is, so that a bootstrap's refits are quick. One whose `fit` would
        refuse a resample that lacks a run has a method `refit` for it, of the same face.

        Raises:
            RunTableError: the table lacks what the law needs.
            FitError: too few runs for its parameters, or no convergence.
        """
        ...

    def predict(
        self,
        proportions: Float64,
        tokens: Float64 | float,
        *,
        parameters: Float64 | float = math.nan,
        unique: Float64 | None = None,
    ) -> Float64:
        """Return the (R, M) losses that the law expects, in the unit of the runs it was fitted to; nan: it cannot tell.

        Args:
            proportions: (R, K), each row with sum 1.
            tokens: (R,) or one number: D.
            parameters: (R,) or one number: N; nan: that of the runs it was fitted to.
            unique: (R, K) or (K,) unique tokens of each source; None: nothing is repeated.

        Raises:
            FitError: it has not been fitted.
        """
        ...


def target_weights(asked: Mapping[str, float] | None, targets: Sequence[str]) -> Float64:
    """Return (M,) weights, sum 1, of the losses in what is minimised; None: all alike.

    Args:
        asked: {target: weight of at least 0}; targets that are not named count nothing.
        targets: the M names.

    Raises:
        RunTableError: an unknown target, a weight that is no number of at least 0, or no weight above 0.
    """
    if asked is None:
        return np.full(len(targets), 1 / len(targets))
    for name, weight in asked.items():
        if name not in targets:
            raise RunTableError(f"target {name!r} is not in the table of runs{nearest(name, targets)}")
        if not (math.isfinite(weight) and weight >= 0):
            raise RunTableError(f"target {name!r} has weight {weight}; expected a finite number of at least 0")
    weights = np.array([float(asked.get(name, 0.0)) for name in targets])
    if weights.sum() == 0:
        raise RunTableError("all targets have weight 0; give one of them more")
    shares: Float64 = weights / weights.sum()
    return shares
