"""ATLAS's law and its fit; the equations are in `mixstream.methods.atlas`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from mixstream.errors import FitError, RunTableError
from mixstream.methods.planning.checks import SAME, with_losses
from mixstream.methods.planning.fitting import Fit, fit_from
from mixstream.methods.planning.table import RunTable
from mixstream.methods.repetition import effective_repeats, worth_of_next
from mixstream.mixture.simplex import Float64

LEAST_SHARE = 1e-9  # of D: D_eff is never taken to be less, so that a loss is finite
STARTS = ((0.3, 0.3), (0.6, 0.1), (0.8, 0.1), (0.9, 0.0))  # E as a share of the least loss, tau
EXPONENTS = (0.01, 2.0)  # of alpha and beta
TRANSFER = (-0.95, 3.0)  # of tau
REPEATS = (-0.5, 3.0)  # of log10 R*
GRID = 8


@dataclass(frozen=True, eq=False)
class AtlasLaw:
    """L = E + exp(a - alpha log(N / N_0)) + exp(b - beta log(D_eff / D_0)), fitted; a = -inf without model sizes.

    Attributes:
        sources, targets: K and M names.
        floors: (M,) E.
        model: (M, 2) a and alpha.
        data: (M, 2) b and beta.
        transfer: (M, K) tau, 1 from a language to itself.
        saturation: R*; nan where it is not known.
        sized: whether the model size is in the law.
        parameters: N of the runs, where it is not; nan if it was not told.
        reference_parameters, reference_tokens: N_0 and D_0.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    floors: Float64
    model: Float64
    data: Float64
    transfer: Float64
    saturation: float
    sized: bool
    parameters: float
    reference_parameters: float
    reference_tokens: float

    def losses(self, draws: Float64, unique: Float64, parameters: Float64) -> Float64:
        """Return (R, M) losses of runs that drew (R, K) tokens from (R, K) unique ones with (R,) parameters."""
        effective = effective_tokens(draws, unique, self.saturation) @ self.transfer.T
        ratio = np.maximum(effective, LEAST_SHARE * draws.sum(axis=1, keepdims=True)) / self.reference_tokens
        size = np.log(parameters / self.reference_parameters)[:, None]
        losses: Float64 = (
            self.floors
            + np.exp(self.model[:, 0] - self.model[:, 1] * size)
            + np.exp(self.data[:, 0] - self.data[:, 1] * np.log(ratio))
        )
        return losses

    def data_terms(self, draws: Float64, sizes: Float64) -> tuple[Float64, Float64]:
        """Return (M,) B / D_eff^beta of one run of (K,) draws, and its (M, K) derivatives by the draws."""
        known = 1.0 if np.isnan(self.saturation) else self.saturation  # not known: nothing is repeated
        effective = self.transfer @ effective_tokens(draws, sizes, known)
        held = np.maximum(effective, LEAST_SHARE * draws.sum())
        values = np.exp(self.data[:, 0] - self.data[:, 1] * np.log(held / self.reference_tokens))
        worth = worth_of_next(draws / sizes, known)
        slopes = (-values * self.data[:, 1] / held)[:, None] * self.transfer * worth
        return values, slopes


def effective_tokens(draws: Float64, unique: Float64, saturation: float) -> Float64:
    """Return U S(D / U; R*), of the shape of `draws`; where U is infinite, D. R* may be nan if nothing is repeated."""
    known = 1.0 if np.isnan(saturation) else saturation
    finite = np.where(np.isinf(unique), 1.0, unique)
    repeats = np.where(np.isinf(unique), 0.0, draws / finite)
    worth: Float64 = np.where(np.isinf(unique), draws, finite * effective_repeats(repeats, known))
    return worth


def model_sizes(runs: RunTable) -> bool:
    """Return whether the runs are of enough model sizes, 3, for a term of their own.

    Raises:
        RunTableError: model sizes are told of some runs only.
        FitError: there are two.
    """
    told = runs.parameters[~np.isnan(runs.parameters)]
    if 0 < len(told) < len(runs):
        raise RunTableError(
            f"atlas: parameters are told of {len(told)} of {len(runs)} runs; tell those of all, or of none"
        )
    steps = np.diff(np.log(np.sort(told))) > math.log(SAME)
    different = 1 + int(steps.sum())
    if different == 2:
        raise FitError(
            f"atlas: runs of 2 model sizes, {told.min():,.0f} and {told.max():,.0f}, cannot tell A from alpha; runs of 1 "
            f"more size are missing, or fit it to those of one"
        )
    return different > 2


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
        floors=np.exp(rows[:, 0]),
        model=rows[:, 3:5] if fitting.sized else np.tile([-math.inf, 0.0], (len(rows), 1)),
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

    A law is x = (log E, b, beta, a, alpha, tau of the other K - 1 sources).
    """

    told: str
    own: int
    draws: Float64  # (n, K)
    unique: Float64  # (n, K)
    logs: Float64  # (n,) log L
    size: Float64  # (n,) log(N / N_0)
    reference: float  # D_0

    def terms(self, x: Float64, worth: Float64) -> tuple[Float64, ...]:
        """Return (n,) D_eff, log(D_eff / D_0) and the three terms of L, from (n, K) effective tokens."""
        effective = np.maximum(worth @ np.insert(x[5:], self.own, 1.0), LEAST_SHARE * self.draws.sum(axis=1))
        ratio = np.log(effective / self.reference)
        floor = np.full(len(ratio), math.exp(x[0]))
        return effective, ratio, floor, np.exp(x[1] - x[2] * ratio), np.exp(x[3] - x[4] * self.size)

    def residuals(self, x: Float64, worth: Float64) -> Float64:
        """Return (n,) log L(x) - log L."""
        _, _, floor, data, model = self.terms(x, worth)
        errors: Float64 = np.log(floor + data + model) - self.logs
        return errors

    def jacobian(self, x: Float64, worth: Float64) -> Float64:
        """Return (n, 4 + K) derivatives of the residuals."""
        effective, ratio, floor, data, model = self.terms(x, worth)
        others = np.delete(worth, self.own, axis=1) * (-data * x[2] / effective)[:, None]
        columns = np.column_stack([floor, data, -data * ratio, model, -model * self.size, others])
        slopes: Float64 = columns / (floor + data + model)[:, None]
        return slopes

    def start(self, share: float, tau: Float64, sized: bool, worth: Float64) -> Float64:
        """Return an x whose E is a share of the least loss, and whose other terms share the rest of the median."""
        floor, exponent = share * float(np.exp(self.logs.min())), 0.3
        rest = (float(np.exp(np.median(self.logs))) - floor) / (2 if sized else 1)
        x = np.concatenate([[math.log(floor), 0.0, exponent, math.log(rest) if sized else -math.inf, exponent], tau])
        x[4] = exponent if sized else 0.0
        x[1] = math.log(rest) + exponent * float(np.median(self.terms(x, worth)[1]))
        return x


class _Fitting:
    """The laws of all targets of a table, for one R* after the other; each starts where the last one ended."""

    def __init__(self, runs: RunTable, transfer: Float64 | None, delta: float, before: AtlasLaw | None) -> None:
        self.sized = model_sizes(runs)
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
        self._given = [None] * len(self.own) if transfer is None else [
            np.delete(row, own) for row, own in zip(transfer, self.own, strict=True)
        ]
        self._last: list[Float64] | None = None if before is None else self._moved(before)

    def at(self, saturation: float) -> list[Fit]:
        """Return the fit of each target for an R*; its parameters are whole x."""
        last = self._last
        fits = [
            self._fit(number, saturation, None if last is None else last[number]) for number in range(len(self._targets))
        ]
        self._last = [fit.parameters for fit in fits]
        return fits

    def best_saturation(self, before: AtlasLaw | None) -> float:
        """Return the R* of the least sum of objectives: on a grid of log10 R*, then between its best neighbours.

        Raises:
            FitError: it was not found.
        """

        def total(log: float) -> float:
            return sum(fit.objective for fit in self.at(10.0**log))

        low, high = REPEATS
        if before is not None and not np.isnan(before.saturation):
            middle = math.log10(before.saturation)
            low, high = max(low, middle - 0.5), min(high, middle + 0.5)
        else:
            grid = np.linspace(low, high, GRID)
            best = int(np.argmin([total(log) for log in grid]))
            low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, GRID - 1)])
        found = minimize_scalar(total, bounds=(low, high), method="bounded", options={"xatol": 1e-4, "maxiter": 100})
        if not found.success:
            raise FitError(f"atlas: R* was not found between 10^{low:.2f} and 10^{high:.2f}; give saturation")
        return float(10.0**found.x)

    def _fit(self, number: int, saturation: float, last: Float64 | None) -> Fit:
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

        least = np.concatenate([[-12.0, -40.0, EXPONENTS[0], -40.0, EXPONENTS[0]], np.full(count, TRANSFER[0])])
        most = np.concatenate([[5.0, 40.0, EXPONENTS[1], 40.0, EXPONENTS[1]], np.full(count, TRANSFER[1])])
        fit = fit_from(
            np.array(whole if last is None else [last])[:, free],
            lambda x: target.residuals(filled(x), worth),
            (least[free], most[free]),
            of=target.told,
            jacobian=lambda x: target.jacobian(filled(x), worth)[:, free],
            delta=self._delta,
        )
        return Fit(filled(fit.parameters).copy(), fit.objective, fit.residuals, fit.converged, fit.agreed)

    def _moved(self, before: AtlasLaw) -> list[Float64]:
        """Return the x of an earlier law, whose references were others."""
        tokens = math.log(self.reference_tokens / before.reference_tokens)
        sizes = math.log(self.reference_parameters / before.reference_parameters) if self.sized else 0.0
        return [
            np.concatenate(
                [
                    [math.log(before.floors[row]), before.data[row, 0] - before.data[row, 1] * tokens],
                    [before.data[row, 1], before.model[row, 0] - before.model[row, 1] * sizes, before.model[row, 1]],
                    np.delete(before.transfer[row], own),
                ]
            )
            for row, own in enumerate(self.own)
        ]
