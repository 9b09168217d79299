"""ATLAS: a language's loss from its own tokens and those of the others that transfer to it, repeats worth less.

For target t of M, each of which is one of the K sources, with D_s = p_s D tokens read of s and U_s unique ones:

    L_t(N, D_eff) = E_t + A_t / N^alpha_t + B_t / D_eff^beta_t
    D_eff         = sum_s tau_{s->t} U_s S(D_s / U_s; R*),    tau_{t->t} = 1,   S of `repetition`, lambda = 1/R*

    BTS_{s->t}    = -(sigma - 2 d) / d      sigma: tokens that half s, half t needs for the loss of d tokens of t
                  = 2 tau / (1 + tau)       in this law while nothing is repeated; 0: no help, 1: as good as t

    fit       min over E, A, alpha, B, beta, tau by target, and one R*, of  sum H(log L - log L_n)
    allocate  min over p of  sum_t w_t L_t

A given transfer matrix is kept, else tau is fitted; R* likewise. For a given R* the targets do not touch each
other, so R* is sought by itself around them. N and D count from the geometric means of the runs, so that 1e5
tokens fit as 1e13 do.

Source: Longpre et al. 2025 (arXiv 2510.22037), the law, the shared lambda and BTS, as a third party's notes tell
them. Ours: one tau a source, where they group sources without one of their own ("other"); the second line of BTS;
Huber's loss on logs (delta 0.02); runs of one model size leave out A, which then is a part of E, and two sizes,
which cannot tell A from alpha, are refused. A tau below 0, interference, is allowed: the optimum then need not be
the only one, and is sought from several starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from mixstream.errors import FitError, RunTableError, nearest
from mixstream.methods.atlas.fit import fit_law
from mixstream.methods.atlas.law import AtlasLaw
from mixstream.methods.planning.allocating import Region, minimise, region_of
from mixstream.methods.planning.checks import SAME, check_amounts, check_mixtures, check_option, knows_sizes
from mixstream.methods.planning.planner import target_weights
from mixstream.methods.planning.table import RunTable
from mixstream.mixture.simplex import Float64, is_real

ONCE = 1 + 1e-9  # repeats up to here are none: what a budget of 1 allows, and rounding
Transfer = Mapping[str, Mapping[str, float]]


def bilingual_transfer_score(bilingual: Float64, monolingual: Float64) -> Float64:
    """Return BTS = -(sigma - 2 d) / d, of any shape: 0 where a second language neither helps nor harms, 1 at best.

    Args:
        bilingual: sigma, tokens after which half-and-half training has the loss.
        monolingual: d, tokens after which the language alone has it; 42e9 in the paper.

    Raises:
        RunTableError: tokens that are not finite numbers above 0.
    """
    for what, tokens in (("bilingual", bilingual), ("monolingual", monolingual)):
        check_amounts(f"{what} tokens", np.ravel(tokens), np.size(tokens))
    score: Float64 = -(bilingual - 2 * monolingual) / monolingual
    return score


def score_of_transfer(transfer: Float64) -> Float64:
    """Return BTS = 2 tau / (1 + tau) of tau > -1."""
    score: Float64 = 2 * transfer / (1 + transfer)
    return score


def transfer_of_score(score: Float64) -> Float64:
    """Return tau = BTS / (2 - BTS) of BTS < 2, so that a matrix of measured scores can be given."""
    transfer: Float64 = score / (2 - score)
    return transfer


@dataclass(frozen=True, eq=False)
class Atlas:
    """A planner of languages that transfer to each other.

    Attributes:
        transfer: {source: {target: tau}} of all pairs but a language with itself; None: fitted.
        saturation: R* > 0; None: fitted if runs repeat anything, else not known.
        targets: {target: weight} in what is minimised; None: all alike.
        delta: of Huber's loss, relative.
        seed: of the starts.
        law: what was fitted.
    """

    transfer: Transfer | None = None
    saturation: float | None = None
    targets: Mapping[str, float] | None = None
    delta: float = 0.02
    seed: int = 0
    law: AtlasLaw | None = None
    name: ClassVar[str] = "atlas"

    def __post_init__(self) -> None:
        """Refuse options that cannot be.

        Raises:
            FitError: with what was found.
        """
        check_option("delta", self.delta, 1e-9)
        if self.saturation is not None:
            check_option("saturation", self.saturation, 1e-3)

    def fit(self, runs: RunTable) -> Atlas:
        """Return the planner fitted to `runs` (`Planner.fit`).

        Raises:
            RunTableError: a target that is no source, transfer of other names, or model sizes told of some runs only.
            FitError: too few runs, two model sizes, sources that the runs do not tell apart, or no convergence.
        """
        for target in runs.targets:
            if target not in runs.sources:
                raise RunTableError(
                    f"atlas: target {target!r} is none of the sources{nearest(target, runs.sources)}; its law "
                    f"starts from a language's own tokens"
                )
        given = None if self.transfer is None else given_transfer(self.transfer, runs.sources, runs.targets)
        known = self.law is not None and (self.law.sources, self.law.targets) == (runs.sources, runs.targets)
        before = self.law if known and self.law is not None and self.law.sized == knows_sizes(runs, "atlas") else None
        return replace(self, law=fit_law(runs, given, self.saturation, self.delta, before))

    def predict(
        self,
        proportions: Float64,
        tokens: Float64 | float,
        *,
        parameters: Float64 | float = math.nan,
        unique: Float64 | None = None,
    ) -> Float64:
        """Return the (R, M) losses that the law expects (`Planner.predict`).

        Raises:
            FitError: it has not been fitted, knows one other model size only, or is asked about repeats and saw none.
            RunTableError: proportions, tokens or parameters that cannot be.
        """
        law = self._fitted()
        shares = check_mixtures(proportions, law.sources)
        count = len(shares)
        amounts = check_amounts("tokens", tokens, count)
        sizes = np.array(np.broadcast_to(math.inf if unique is None else unique, shares.shape), dtype=np.float64)
        if np.isnan(law.saturation) and (shares * amounts[:, None] > sizes * ONCE).any():
            raise FitError(self._unknown_repeats("the mixtures that are asked about do"))
        return law.losses(shares * amounts[:, None], sizes, self._model_sizes(law, parameters, count))

    def allocate(
        self,
        tokens: float,
        sizes: Float64,
        budgets: Float64,
        *,
        floor: float = 0.0,
        parameters: float = math.nan,
    ) -> Float64:
        """Return the (K,) proportions of least weighted loss (`Allocator.allocate`), the same for every model size.

        Raises:
            FloorError, BudgetError: floor and budgets leave no mixture.
            FitError: it has not been fitted, could repeat and saw no repeats, or the solution was not found.
        """
        law = self._fitted()
        region = region_of(tokens, sizes, budgets, floor, law.sources)
        if np.isnan(law.saturation):
            self._check_no_repeats(region, tokens, sizes)
        weights = target_weights(self.targets, law.targets)

        def objective(shares: Float64) -> tuple[float, Float64]:
            values, slopes = law.data_terms(shares * tokens, sizes)
            return float(weights @ values), weights @ slopes * tokens

        return minimise(region, objective, of=self.name, seed=self.seed).proportions

    def _model_sizes(self, law: AtlasLaw, parameters: Float64 | float, count: int) -> Float64:
        """Return (R,) N to predict for."""
        if law.sized:
            return check_amounts("parameters, as the runs were of several model sizes,", parameters, count)
        asked = np.broadcast_to(np.asarray(parameters, dtype=np.float64), (count,))
        check_amounts("parameters", asked[~np.isnan(asked)], int((~np.isnan(asked)).sum()))
        far = np.abs(np.log(asked / law.parameters)) > math.log(SAME)  # never of nan
        if far.any():
            raise FitError(
                f"atlas: asked about {asked[int(np.argmax(far))]:,.0f} parameters, but all runs had "
                f"{law.parameters:,.0f}; fit it to runs of 3 model sizes or more"
            )
        return np.full(count, law.reference_parameters)

    def _check_no_repeats(self, region: Region, tokens: float, sizes: Float64) -> None:
        could = region.most * tokens > sizes * ONCE
        if could.any():
            raise FitError(self._unknown_repeats(f"the budgets of {int(could.sum())} sources allow it"))

    def _unknown_repeats(self, why: str) -> str:
        return (
            f"atlas: no run that it was fitted to repeats a source, and {why}; give saturation, the repeats after "
            f"which one is worth 1/e (15.39 in English, Muennighoff et al.), or add runs that repeat"
        )

    def _fitted(self) -> AtlasLaw:
        if self.law is None:
            raise FitError("atlas has not been fitted; call fit with a table of runs")
        return self.law


def given_transfer(transfer: Transfer, sources: tuple[str, ...], targets: tuple[str, ...]) -> Float64:
    """Return (M, K) tau of a given matrix, 1 from a language to itself.

    Raises:
        RunTableError: no matrix, an unknown name, a pair that is missing, or a tau that is no number above -1.
    """
    if not isinstance(transfer, Mapping) or not all(isinstance(row, Mapping) for row in transfer.values()):
        raise RunTableError(f"transfer is {str(transfer)[:60]}; expected {{source: {{target: worth}}}} of all pairs")
    for kind, names, known in (
        ("source", list(transfer), sources),
        ("target", [target for row in transfer.values() for target in row], (*targets, *sources)),
    ):
        for name in names:
            if name not in known:
                raise RunTableError(f"transfer: {kind} {name!r} is not in the table of runs{nearest(name, known)}")
    matrix = np.eye(len(sources))[[sources.index(target) for target in targets]]
    for row, target in enumerate(targets):
        for column, source in enumerate(sources):
            if source != target:
                matrix[row, column] = _tau(transfer.get(source, {}).get(target), source, target)
    return matrix


def _tau(value: float | None, source: str, target: str) -> float:
    if value is None or not (is_real(value) and math.isfinite(value) and value > -1):
        raise RunTableError(
            f"transfer from {source!r} to {target!r} is {value}; expected a number above -1, 0 for none"
        )
    return float(value)
