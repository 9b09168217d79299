"""The fit of ATLAS's law: each target by itself for a given R*, and a search for R* around them.

The equations, and which of this is ours, are in `mixstream.methods.atlas`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.optimize import minimize_scalar

from mixstream.errors import FitError
from mixstream.methods.atlas.law import LEAST_SHARE, AtlasLaw, effective_tokens
from mixstream.methods.planning.checks import knows_sizes, with_losses
from mixstream.methods.planning.fitting import TOLERANCE, Fit, fit_from
from mixstream.methods.planning.table import RunTable
from mixstream.mixture.simplex import Float64

STARTS = ((0.3, 0.3), (0.6, 0.1), (0.8, 0.1), (0.9, 0.0))  # E as a share of the least loss, tau
EXPONENTS = (0.01, 2.0)  # of alpha and beta
TRANSFER = (-0.95, 3.0)  # of tau
REPEATS = (-0.5, 3.0)  # of log10 R*
GRID = 8
ROUGH = 1e-6  # tolerance of fits while R* is sought
FAILED = 1e12  # in place of the objective of fits that have not converged


def fit_law(
    runs: RunTable, transfer: Float64 | None, saturation: float | None, delta: float, before: AtlasLaw | None
) -> AtlasLaw:
    """Return the law fitted to runs whose targets are sources.

    Args:
        runs: of any budgets and repeats.
        transfer: (M, K) tau; None: fitted.
        saturation: R*; None: fitted if a run repeats anything.
        delta: of Huber's loss, relative.
        before: what was fitted to the same names before; the fit starts there.

    Raises:
        FitError: too few runs, or no convergence.
    """
    fitting = _Fitting(runs, transfer, delta, before)
    if saturation is None and (runs.repeats > 1 + 1e-6).any():
        saturation = fitting.best_saturation(before)
    fitted = fitting.at(math.nan if saturation is None else saturation)
    rows = np.array([one.parameters for one in fitted])
    told = runs.parameters[~np.isnan(runs.parameters)]
    own = fitting.own
    if transfer is None:
        transfer = np.array([np.insert(row[5:], place, 1.0) for row, place in zip(rows, own, strict=True)])
    return AtlasLaw(
        sources=runs.sources,
        targets=runs.targets,
        floors=rows[:, 0],
        model=rows[:, 3:5] if fitting.sized else np.zeros((len(rows), 2)),
        data=rows[:, 1:3],
        transfer=transfer,
        saturation=math.nan if saturation is None else saturation,
        sized=fitting.sized,
        parameters=math.nan if fitting.sized or not len(told) else float(np.exp(np.log(told).mean())),
        reference_parameters=fitting.reference_parameters,
        reference_tokens=fitting.reference_tokens,
    )


@dataclass(frozen=True, eq=False)
class _Target:
    """What the law of one target is fitted to: n runs, and the place of its own tokens among the K sources.

    A law is x = (E, B_0, beta, A_0, alpha, tau of the other K - 1 sources).
    """

    told: str
    own: int
    draws: Float64  # (n, K)
    unique: Float64  # (n, K)
    logs: Float64  # (n,) log L
    size: Float64  # (n,) log(N / N_0)
    reference: float  # D_0

    def terms(self, x: Float64, worth: Float64) -> tuple[Float64, ...]:
        """Return (n,) D_eff, log(D_eff / D_0), L, and its (D_eff / D_0)^-beta and (N / N_0)^-alpha."""
        effective = np.maximum(worth @ np.insert(x[5:], self.own, 1.0), LEAST_SHARE * self.draws.sum(axis=1))
        ratio = np.log(effective / self.reference)
        data, model = np.exp(-x[2] * ratio), np.exp(-x[4] * self.size)
        return effective, ratio, x[0] + x[1] * data + x[3] * model, data, model

    def residuals(self, x: Float64, worth: Float64) -> Float64:
        """Return (n,) log L(x) - log L."""
        errors: Float64 = np.log(self.terms(x, worth)[2]) - self.logs
        return errors

    def jacobian(self, x: Float64, worth: Float64) -> Float64:
        """Return (n, 4 + K) derivatives of the residuals."""
        effective, ratio, losses, data, model = self.terms(x, worth)
        others = np.delete(worth, self.own, axis=1) * (-x[1] * data * x[2] / effective)[:, None]
        columns = [np.ones(len(losses)), data, -x[1] * data * ratio, model, -x[3] * model * self.size, others]
        slopes: Float64 = np.column_stack(columns) / losses[:, None]
        return slopes

    def start(self, share: float, tau: Float64, sized: bool, worth: Float64) -> Float64:
        """Return an x whose E is a share of the least loss, and whose other terms share the rest of the median."""
        floor, exponent = share * float(np.exp(self.logs.min())), 0.3
        rest = (float(np.exp(np.median(self.logs))) - floor) / (2 if sized else 1)
        x = np.concatenate([[floor, rest, exponent, rest if sized else 0.0, exponent if sized else 0.0], tau])
        x[1] = rest / float(np.median(self.terms(x, worth)[3]))
        return x


class _Fitting:
    """The laws of all targets of a table, for one R* after the other; each starts where the last one ended."""

    def __init__(self, runs: RunTable, transfer: Float64 | None, delta: float, before: AtlasLaw | None) -> None:
        self.sized = knows_sizes(runs, "atlas")
        self.reference_tokens = float(np.exp(np.log(runs.tokens).mean()))
        self.reference_parameters = float(np.exp(np.log(runs.parameters).mean())) if self.sized else 1.0
        self.own = [runs.sources.index(target) for target in runs.targets]
        self._delta = delta
        others = len(runs.sources) - 1 if transfer is None else 0
        told = "E, B and beta" + (", A and alpha" if self.sized else "") + (f", {others} of transfer" if others else "")
        count = 3 + 2 * self.sized + others
        used = [
            with_losses(runs, number, count, "atlas", told, apart=transfer is None)
            for number in range(len(runs.targets))
        ]
        self._targets = [
            _Target(
                told=f"atlas, target {runs.targets[number]!r}",
                own=own,
                draws=table.proportions * table.tokens[:, None],
                unique=table.unique,
                logs=np.log(losses),
                size=np.log(table.parameters / self.reference_parameters) if self.sized else np.zeros(len(table)),
                reference=self.reference_tokens,
            )
            for number, (own, (table, losses)) in enumerate(zip(self.own, used, strict=True))
        ]
        self._free = np.concatenate([[True] * 3, [self.sized] * 2, np.full(len(runs.sources) - 1, transfer is None)])
        self._given = (
            [None] * len(self.own)
            if transfer is None
            else [np.delete(row, own) for row, own in zip(transfer, self.own, strict=True)]
        )
        self._last: list[Float64] | None = None if before is None else self._moved(before)

    def at(self, saturation: float, tolerance: float = TOLERANCE) -> list[Fit]:
        """Return the fit of each target for an R*, to a tolerance; x is whole in it.

        Raises:
            FitError: one has not converged.
        """
        fits = [self._fit(number, saturation, tolerance) for number in range(len(self._targets))]
        self._last = [fit.parameters for fit in fits]
        return fits

    def best_saturation(self, before: AtlasLaw | None) -> float:
        """Return the R* of the least sum of objectives: on a grid of log10 R*, then between its best neighbours.

        Far from the right R* a law may wander off without an end; what does not converge is not the best.

        Raises:
            FitError: it was not found.
        """

        def total(log: float) -> float:
            try:
                return sum(fit.objective for fit in self.at(10.0**log, ROUGH))
            except FitError:
                return FAILED

        low, high = REPEATS
        if before is not None and not np.isnan(before.saturation):
            middle = math.log10(before.saturation)
            low, high = max(low, middle - 0.5), min(high, middle + 0.5)
        else:
            grid = np.linspace(low, high, GRID)
            totals = [total(log) for log in grid]
            best = int(np.argmin(totals))
            low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, GRID - 1)])
        found = minimize_scalar(total, bounds=(low, high), method="bounded", options={"xatol": 1e-4, "maxiter": 100})
        if not found.success or found.fun >= FAILED:
            raise FitError(f"atlas: R* was not found between 10^{low:.2f} and 10^{high:.2f}; give saturation")
        return float(10.0**found.x)

    def _fit(self, number: int, saturation: float, tolerance: float) -> Fit:
        target, free = self._targets[number], self._free
        worth = effective_tokens(target.draws, target.unique, saturation)
        given = self._given[number]
        count = worth.shape[1] - 1
        whole = [
            target.start(share, np.full(count, tau) if given is None else given, self.sized, worth)
            for share, tau in STARTS
        ]
        base = whole[0].copy()

        def filled(x: Float64) -> Float64:
            base[free] = x
            return base

        least = np.concatenate([[0.0, 0.0, EXPONENTS[0], 0.0, EXPONENTS[0]], np.full(count, TRANSFER[0])])
        most = np.concatenate([[np.inf, np.inf, EXPONENTS[1], np.inf, EXPONENTS[1]], np.full(count, TRANSFER[1])])
        solve = partial(
            fit_from,
            residuals=lambda x: target.residuals(filled(x), worth),
            bounds=(least[free], most[free]),
            of=target.told,
            jacobian=lambda x: target.jacobian(filled(x), worth)[:, free],
            delta=self._delta,
            tolerance=tolerance,
        )
        starts = np.array(whole if self._last is None else [self._last[number]])[:, free]
        try:
            fit = solve(starts)
        except FitError:
            if self._last is None:
                raise
            fit = solve(np.array(whole)[:, free])
        return Fit(filled(fit.parameters).copy(), fit.objective, fit.residuals, fit.converged, fit.agreed)

    def _moved(self, before: AtlasLaw) -> list[Float64]:
        """Return the x of an earlier law, whose references were others."""
        tokens = self.reference_tokens / before.reference_tokens
        sizes = self.reference_parameters / before.reference_parameters
        (data, betas), (model, alphas) = before.data.T, before.model.T
        moved = [before.floors, data * tokens**-betas, betas, model * sizes**-alphas, alphas]
        return [
            np.append(x, np.delete(before.transfer[row], own))
            for row, (x, own) in enumerate(zip(np.column_stack(moved), self.own, strict=True))
        ]
