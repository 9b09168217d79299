"""The repetition-aware law as a planner: fitted to runs, it says how often scarce sources are worth repeating.

    p* = argmin_p  sum_t w_t L_t(p, D, N; U)      floor <= p_i <= min(1, R_i U_i / D),  sum_i p_i = 1

with one law L_t of `mixstream.methods.mixture_law.law` for each target t: its own E, A, alpha, tau, gamma and R*.

Source: Sedova et al. 2026 (arXiv 2605.12715). Their setting, one target and one generic pool, is a table of two
sources and one target; more sources follow those who extend it (tau_i, and one R* for all sources, which they
found most stable). A law for each of several targets, weighted, is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mixstream.errors import FitError, RunTableError
from mixstream.methods.mixture_law.fit import DELTA, NAME, Penalty, fit_loss, form_of
from mixstream.methods.mixture_law.law import LossLaw
from mixstream.methods.planning.allocating import minimise, region_of
from mixstream.methods.planning.checks import check_amounts, check_mixtures, knows_sizes
from mixstream.methods.planning.planner import target_weights
from mixstream.methods.planning.table import RunTable
from mixstream.mixture.simplex import Float64


@dataclass(frozen=True, eq=False)
class FittedMixture:
    """The laws of M targets over K sources, and what they were fitted to.

    Attributes:
        sources, targets: names.
        laws: M of them.
        tokens: least and greatest D of the runs.
        parameters: least and greatest N of the runs; nan where it was not told.
        repeats: (K,) greatest r of each source in the runs.
        error: (M,) root mean square of the relative residuals; nan of a law that was given.
        notes: what the runs did not determine well, in words.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    laws: tuple[LossLaw, ...]
    tokens: tuple[float, float]
    parameters: tuple[float, float]
    repeats: Float64
    error: Float64
    notes: tuple[str, ...] = ()

    @property
    def transfer(self) -> Float64:
        """(M, K) tau, the largest of each target 1."""
        return np.array([law.transfer for law in self.laws])


@dataclass(frozen=True, eq=False)
class MixtureLaw:
    """A planner that knows what repeats are worth.

    Attributes:
        targets: {target: weight} in what `allocate` minimises; None: all alike.
        saturation: R* of all sources, not fitted; None: fitted, and runs without repeats are refused.
        each_saturation: fit an R* for each source, which needs more runs, instead of one for all.
        penalty: which sources have a gamma: the target's own (of a target that is no source, the only one that
            was ever repeated), all, or none.
        by_repeats: weigh runs by max(r h, eps) of the target's source, as the paper's fit does; evenly weighted
            ones found planted optima about twice as closely (benchmarks/planted_repetition.py).
        delta: of Huber's loss, on relative errors.
        seed: of the starts of `allocate`.
        fitted: what was fitted, or given.
    """

    targets: Mapping[str, float] | None = None
    saturation: float | None = None
    each_saturation: bool = False
    penalty: Penalty = "own"
    by_repeats: bool = False
    delta: float = DELTA
    seed: int = 0
    fitted: FittedMixture | None = None

    def __post_init__(self) -> None:
        """Refuse options that are none.

        Raises:
            FitError: an R* or delta that is not above 0, or an unknown penalty.
        """
        if self.saturation is not None and not self.saturation > 0:
            raise FitError(f"saturation={self.saturation}; expected repeats above 0, such as 15.39, or None to fit it")
        if not self.delta > 0:
            raise FitError(f"delta={self.delta} of Huber's loss; expected a number above 0")
        if self.penalty not in ("own", "all", "none"):
            raise FitError(f"penalty={self.penalty!r}; expected own, all or none")

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return "repetition"

    def fit(self, runs: RunTable) -> MixtureLaw:
        """Return a planner fitted to `runs`, from where this one is if it was fitted to the same sources and targets.

        Raises:
            RunTableError: model sizes that are told of some runs only, or a penalty that fits no source.
            FitError: two model sizes, too few runs, nothing repeated, unknowns that the runs do not determine, or no
                convergence.
        """
        target_weights(self.targets, runs.targets)
        before = self._laws_before(runs)
        found = []
        for number, name in enumerate(runs.targets):
            rows, form = form_of(
                runs,
                number,
                saturation=self.saturation,
                each_saturation=self.each_saturation,
                penalty=self.penalty,
            )
            start = before[number] if before else None
            found.append(fit_loss(rows, form, of=repr(name), delta=self.delta, by_repeats=self.by_repeats, start=start))
        return replace(
            self,
            fitted=FittedMixture(
                sources=runs.sources,
                targets=runs.targets,
                laws=tuple(one.law for one in found),
                tokens=(float(runs.tokens.min()), float(runs.tokens.max())),
                parameters=(float(runs.parameters.min()), float(runs.parameters.max())),
                repeats=runs.repeats.max(axis=0),
                error=np.array([one.error for one in found]),
                notes=tuple(note for one in found for note in one.notes),
            ),
        )

    def predict(
        self,
        proportions: Float64,
        tokens: Float64 | float,
        *,
        parameters: Float64 | float = math.nan,
        unique: Float64 | None = None,
    ) -> Float64:
        """Return the (R, M) losses that the laws expect; see `Planner.predict`.

        A law that was fitted to runs of one model size does not know what N changes, and leaves `parameters` be.

        Raises:
            FitError: not fitted, or the laws know of several model sizes and none is told.
            RunTableError: mixtures of other sources, or that do not sum to 1; tokens or sizes that are not above 0.
        """
        fitted = self._fitted()
        shares = check_mixtures(proportions, fitted.sources)
        count = len(shares)
        total = check_amounts("tokens", tokens, count)
        sizes = np.array(np.broadcast_to(math.inf if unique is None else unique, shares.shape), dtype=np.float64)
        if not (sizes > 0).all():
            raise RunTableError(f"unique tokens: found {np.min(sizes):g}, expected numbers above 0")
        models = self._sizes(parameters, count)
        return np.stack([law.losses(shares, total, models, sizes) for law in fitted.laws], axis=1)

    def allocate(
        self,
        tokens: float,
        sizes: Float64,
        budgets: Float64,
        *,
        floor: float = 0.0,
        parameters: float = math.nan,
    ) -> Float64:
        """Return the (K,) proportions at which the weighted losses are least; see `Allocator.allocate`.

        Raises:
            FitError: not fitted, no model size where the laws need one, or no solution was found.
            FloorError, BudgetError, RunTableError: floor, budgets, sizes or tokens leave no mixture.
        """
        fitted = self._fitted()
        unique = np.asarray(sizes, dtype=np.float64)
        if unique.shape != (len(fitted.sources),):
            raise RunTableError(f"{unique.size} sizes; the law was fitted to {len(fitted.sources)} sources")
        region = region_of(tokens, unique, np.asarray(budgets, dtype=np.float64), floor, fitted.sources)
        weights = target_weights(self.targets, fitted.targets)
        counted = [(law, weight) for law, weight in zip(fitted.laws, weights, strict=True) if weight]
        models, total = self._sizes(parameters, 1), np.array([float(tokens)])

        def objective(shares: Float64) -> tuple[float, Float64]:
            at = (np.clip(shares, 0, None)[None], total, models, unique[None])
            value = sum(weight * law.losses(*at)[0] for law, weight in counted)
            return float(value), np.sum([weight * law.slopes(*at)[0] for law, weight in counted], axis=0)

        finite = np.where(np.isfinite(unique), unique, tokens)
        natural = region.project(finite / finite.sum())
        starts = np.vstack([region.starts(5, self.seed), natural])
        return minimise(region, objective, of=NAME, starts=starts).proportions

    def _laws_before(self, runs: RunTable) -> tuple[LossLaw, ...] | None:
        """Return the laws of the fit before, if they are of the same form as those of these runs."""
        before = self.fitted
        if before is None or (before.sources, before.targets) != (runs.sources, runs.targets):
            return None
        same = all(law.any_size == knows_sizes(runs, NAME) for law in before.laws)
        return before.laws if same else None

    def _fitted(self) -> FittedMixture:
        if self.fitted is None:
            raise FitError("the repetition law has not been fitted; call fit(runs), and use what it returns")
        return self.fitted

    def _sizes(self, parameters: Float64 | float, count: int) -> Float64:
        """Return N, (count,), of which laws of one size make no use."""
        models = np.array(np.broadcast_to(parameters, (count,)), dtype=np.float64)
        needed = any(law.any_size for law in self._fitted().laws)
        if needed and not (np.isfinite(models) & (models > 0)).all():
            raise FitError(
                "the repetition law was fitted to runs of several model sizes; tell the parameters of the model, a "
                "finite number above 0"
            )
        return models
