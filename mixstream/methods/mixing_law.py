"""Data Mixing Laws: losses as functions of the proportions alone, and the mixture that they say is best.

With r the K proportions and L_i the loss of target i, of which there may be any number:

    L_i(r) = c_i + k_i exp( sum_j t_ij r_j ),   c_i, k_i >= 0                  "mixing-law"
    log L_i(r) = a_i + sum_j t_ij r_j                                           "log-linear": c_i = 0

As sum_j r_j = 1, a constant added to all t_ij and taken out of log k_i changes nothing: only
u_ij = log k_i + t_ij can be learnt from runs. u is what is fitted, K + 1 parameters a target (K without c);
`factors` and `transfer` tell k and t of the one choice in which the t_ij of a target sum to 0.

    fit       min over c, u of   sum_n H( L(r_n) - L_n )         H: Huber's loss with delta = 0.02 nats
    allocate  min over r of      sum_i w_i L_i(r) + kl sum_j r_j log(r_j / q_j),   floor <= r_j <= R_j U_j / D

The last is convex, as exp of a linear function and relative entropy are. q, the prior, is by default the sizes'
shares; kl = 0 leaves it out.

Sources: Ye et al. 2024 (arXiv 2403.16952), the law, Huber's loss (delta 0.02 to 0.05) and many starts; Olmix
(2602.12237) has the same law in the form c + exp(u r), and its KL term (0.05 to 0.1) and repeat caps are used here.
Ours: u for k and t; starts from linear regression of log(L - c) at several c, in place of random ones; no sign
asked of t_ii; the log-linear law is theirs without the floor c, fitted to log L (delta then is relative).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import numpy as np

from mixstream.errors import FitError
from mixstream.methods.planning.allocating import minimise, region_of
from mixstream.methods.planning.checks import (
    check_mixtures,
    check_option,
    check_prior,
    of_one_setting,
    prior_shares,
    with_losses,
)
from mixstream.methods.planning.fitting import fit_from
from mixstream.methods.planning.planner import target_weights
from mixstream.methods.planning.table import RunTable
from mixstream.mixture.simplex import Float64

FLOORS = (0.0, 0.5, 0.8, 0.95)  # of the least loss: c at the starts
LEAST, MOST = -1000.0, 50.0  # of u: a loss of e^50 is none, and a share of 0.1 % that removes it needs no -1000
BEND = 1e-4  # of the prior: where the relative entropy of a source is bent
PlannerT = TypeVar("PlannerT", bound="ExponentialPlanner")


@dataclass(frozen=True, eq=False)
class ExponentialLaw:
    """L_i(r) = c_i + exp(sum_j u_ij r_j), fitted.

    Attributes:
        sources, targets: K and M names.
        floors: (M,) c.
        exponents: (M, K) u = log k + t.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    floors: Float64
    exponents: Float64

    @property
    def factors(self) -> Float64:
        """(M,) k, where the t of a target sum to 0."""
        factors: Float64 = np.exp(self.exponents.mean(axis=1))
        return factors

    @property
    def transfer(self) -> Float64:
        """(M, K) t, where the t of a target sum to 0; below 0 of a source that lowers its loss."""
        transfer: Float64 = self.exponents - self.exponents.mean(axis=1, keepdims=True)
        return transfer

    def losses(self, proportions: Float64) -> Float64:
        """Return (R, M) losses of (R, K) proportions."""
        losses: Float64 = self.floors + np.exp(proportions @ self.exponents.T)
        return losses


@dataclass(frozen=True, eq=False)
class ExponentialPlanner(ABC):
    """What both laws share: a fit by target, prediction, and a convex allocation.

    It knows neither tokens nor model size: losses are those of the budget of the runs it was fitted to, and what
    it allocates for another budget takes for granted that good mixtures stay good.

    Attributes:
        targets: {target: weight} in what is minimised; None: all alike.
        kl: weight of the relative entropy to the prior, in nats; 0: none.
        prior: {source: share}, above 0, sum 1; None: the sizes' shares.
        delta: of Huber's loss.
        budget: fit only the runs of this many tokens, within 5 %; None: all runs, which must be of one budget.
        law: what was fitted.
    """

    targets: Mapping[str, float] | None = None
    kl: float = 0.05
    prior: Mapping[str, float] | None = None
    delta: float = 0.02
    budget: float | None = None
    law: ExponentialLaw | None = None
    name: ClassVar[str]

    def __post_init__(self) -> None:
        """Refuse options that cannot be.

        Raises:
            FitError: with what was found.
        """
        check_option("kl", self.kl, 0)
        check_option("delta", self.delta, 1e-9)
        check_prior(self.prior)

    @abstractmethod
    def _fit_one(self, shares: Float64, losses: Float64, before: Float64 | None, of: str) -> Float64:
        """Return (1 + K,) c and u of one target, from (n, K) shares, (n,) losses, and what was fitted before."""

    @property
    @abstractmethod
    def _parameters(self) -> str:
        """What a target's law has beside one parameter a source; empty: nothing."""

    def fit(self: PlannerT, runs: RunTable) -> PlannerT:
        """Return the planner fitted to `runs` (`Planner.fit`); runs that lack a target's loss do not count for it.

        Raises:
            RunTableError: the runs are of several budgets or model sizes.
            FitError: too few mixtures, sources that the mixtures do not tell apart, or no convergence.
        """
        used = of_one_setting(runs, self.name, self.budget)
        extra = self._parameters
        count = len(used.sources) + bool(extra)
        told = f"{extra}one for each of {len(used.sources)} sources"
        before = self.law if self.law is not None and self.law.exponents.shape[1] == len(used.sources) else None
        fitted = []
        for number, target in enumerate(used.targets):
            own, losses = with_losses(used, number, count, self.name, told, mixtures_only=True)
            start = None
            if before is not None and target in before.targets:
                place = before.targets.index(target)
                start = np.append(before.floors[place], before.exponents[place])
            fitted.append(self._fit_one(own.proportions, losses, start, f"{self.name}, target {target!r}"))
        found = np.array(fitted)
        return replace(self, law=ExponentialLaw(used.sources, used.targets, found[:, 0], found[:, 1:]))

    def predict(
        self,
        proportions: Float64,
        tokens: Float64 | float,
        *,
        parameters: Float64 | float = math.nan,
        unique: Float64 | None = None,
    ) -> Float64:
        """Return the (R, M) losses that the law expects; tokens, model size and repeats play no part.

        Raises:
            FitError: it has not been fitted.
            RunTableError: mixtures of other sources, or that do not sum to 1.
        """
        law = self._fitted()
        return law.losses(check_mixtures(proportions, law.sources))

    def allocate(
        self,
        tokens: float,
        sizes: Float64,
        budgets: Float64,
        *,
        floor: float = 0.0,
        parameters: float = math.nan,
    ) -> Float64:
        """Return the (K,) proportions of least weighted loss, with the pull to the prior (`Allocator.allocate`).

        Raises:
            FloorError, BudgetError: floor and budgets leave no mixture.
            FitError: it has not been fitted, or the solution was not found.
            WeightsError: the prior is of other sources.
        """
        law = self._fitted()
        region = region_of(tokens, sizes, budgets, floor, law.sources)
        prior = prior_shares(self.prior, sizes, law.sources)
        weights = target_weights(self.targets, law.targets)
        scale = 1 + self.kl

        def objective(shares: Float64) -> tuple[float, Float64]:
            terms = weights * np.exp(law.exponents @ shares)
            entropy, slopes = relative_entropy(shares, prior)
            # 1: a constant, so that the value is of the size of its terms also where relative entropy is 0
            value = float(weights @ law.floors + terms.sum() + self.kl * (1 + entropy))
            return value / scale, (terms @ law.exponents + self.kl * slopes) / scale

        starts = np.array([region.project(prior), region.project(np.ones(len(prior)))])
        return minimise(region, objective, of=self.name, starts=starts).proportions

    def _fitted(self) -> ExponentialLaw:
        if self.law is None:
            raise FitError(f"{self.name} has not been fitted; call fit with a table of runs")
        return self.law


@dataclass(frozen=True, eq=False)
class MixingLaw(ExponentialPlanner):
    """L = c + k exp(t r)."""

    name: ClassVar[str] = "mixing-law"

    @property
    def _parameters(self) -> str:
        return "a floor, and "

    def _fit_one(self, shares: Float64, losses: Float64, before: Float64 | None, of: str) -> Float64:
        def residuals(x: Float64) -> Float64:
            errors: Float64 = x[0] + np.exp(shares @ x[1:]) - losses
            return errors

        def jacobian(x: Float64) -> Float64:
            return np.column_stack([np.ones(len(losses)), np.exp(shares @ x[1:])[:, None] * shares])

        count = shares.shape[1]
        box = (np.append(0.0, np.full(count, LEAST)), np.append(losses.max(), np.full(count, MOST)))
        floors = [share * losses.min() for share in FLOORS]
        starts = [np.append(floor, _regressed(shares, np.log(losses - floor))) for floor in floors]
        chosen = np.array(starts if before is None else [before])
        return fit_from(chosen, residuals, box, of=of, jacobian=jacobian, delta=self.delta).parameters


@dataclass(frozen=True, eq=False)
class LogLinear(ExponentialPlanner):
    """log L = a + t r: a linear regression, with Huber's loss of what is relatively wrong."""

    name: ClassVar[str] = "log-linear"

    @property
    def _parameters(self) -> str:
        return ""

    def _fit_one(self, shares: Float64, losses: Float64, before: Float64 | None, of: str) -> Float64:
        logs = np.log(losses)
        count = shares.shape[1]
        start = _regressed(shares, logs) if before is None else before[1:]
        found = fit_from(
            start[None],
            lambda u: np.asarray(shares @ u - logs),
            (np.full(count, LEAST), np.full(count, MOST)),
            of=of,
            jacobian=lambda u: shares,
            delta=self.delta,
        )
        return np.append(0.0, found.parameters)


def relative_entropy(shares: Float64, prior: Float64) -> tuple[float, Float64]:
    """Return sum_j r_j log(r_j / q_j) and its (K,) slopes, which a bend keeps finite at r_j = 0.

    Below e_j = q_j / 10,000 a term is r_j log(e_j / q_j) + (r_j^2 / e_j - e_j) / 2, of the same value and slope at
    e_j; in all, the sum is at most 1/20,000 too low, and what would be less than e_j can be 0.
    """
    least = BEND * prior
    logs = np.log(np.maximum(shares, least) / prior)
    below = np.minimum(shares, least)
    terms = shares * logs + np.where(shares < least, (below**2 / least - least) / 2, 0)
    return float(terms.sum()), logs + below / least


def _regressed(shares: Float64, logs: Float64) -> Float64:
    """Return the (K,) u of least squares of shares u - logs."""
    solved: Float64 = np.linalg.lstsq(shares, logs, rcond=None)[0]
    return solved
