"""The unknowns of the repetition-aware law, as the vector that is fitted to the runs of one loss.

    x = (E, log A, log alpha, log tau_2..K, gamma, log R*, log C, log beta, delta)

tau of the first source is 1 here: only ratios of tau count. E, A, C and gamma are linear in the loss, so that every
start of (alpha, beta, delta, R*) gets those that fit best.

Source: the box and the five starts are those of an open fit of the law of Sedova et al. 2026 (arXiv 2605.12715);
the starts of tau are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from mixstream.methods.mixture_law.law import NOTHING, LossLaw, worth_of_shares
from mixstream.mixture.simplex import BoolArray, Float64

# alpha, beta, delta, R*
STARTS = (
    (0.25, 0.25, 0.25, 1.0),
    (0.35, 0.35, 0.35, 3.0),
    (0.5, 0.25, 0.5, 10.0),
    (0.15, 0.5, 0.15, 30.0),
    (0.75, 0.15, 0.75, 5.0),
)
OWN_TRANSFERS = (1.0, 10.0)  # each start is tried with these tau of the target's own source
LEAST_SATURATION, MOST_SATURATION = 1e-3, 100.0
MOST_TRANSFER = math.exp(14)  # of one source over another; with 1 / it, worth nothing


@dataclass(frozen=True, eq=False)
class Rows:
    """The runs of one loss: shares (n, K), D (n,), N (n,), U (n, K), losses (n,)."""

    proportions: Float64
    tokens: Float64
    parameters: Float64
    unique: Float64
    losses: Float64

    @property
    def repeats(self) -> Float64:
        """(n, K) r."""
        repeats: Float64 = self.proportions * self.tokens[:, None] / self.unique
        return repeats


@dataclass(frozen=True, eq=False)
class Form:
    """Which unknowns a law has, and where they stand in the vector that is fitted.

    Attributes:
        sources: K names.
        penalised: (K,) which have a gamma.
        saturation: R* that is given; None: fitted.
        each_saturation: one R* a source, not one for all.
        any_size: C, beta and delta too.
        own: number of the target's own source, or None.
        reference_tokens, reference_parameters: D_0, N_0.
    """

    sources: tuple[str, ...]
    penalised: BoolArray
    saturation: float | None
    each_saturation: bool
    any_size: bool
    own: int | None
    reference_tokens: float
    reference_parameters: float

    @property
    def names(self) -> list[str]:
        """The unknowns, in the order of x."""
        names = ["E", "A", "alpha", *(f"tau of {name!r}" for name in self.sources[1:])]
        names += [f"gamma of {name!r}" for name, has in zip(self.sources, self.penalised, strict=True) if has]
        if self.saturation is None:
            names += [f"R* of {name!r}" for name in self.sources] if self.each_saturation else ["R*"]
        return names + (["C", "beta", "delta"] if self.any_size else [])

    def law(self, x: Float64) -> LossLaw:
        """Return the law of these numbers, as they stand in the fit: tau of the first source is 1."""
        count = len(self.sources)
        penalty = np.zeros(count)
        at = 2 + count
        ends = at + int(self.penalised.sum())
        penalty[self.penalised] = x[at:ends]
        saturations = self._num_saturations
        fitted = np.exp(x[ends : ends + saturations]) if saturations else np.array([self.saturation])
        size = x[ends + saturations :]
        return LossLaw(
            floor=float(x[0]),
            scale=math.exp(x[1]),
            exponent=math.exp(x[2]),
            transfer=np.exp(np.concatenate([[0.0], x[3:at]])),
            saturation=np.array(np.broadcast_to(fitted, (count,)), dtype=np.float64),
            penalty=penalty,
            reference_tokens=self.reference_tokens,
            capacity=math.exp(size[0]) if self.any_size else 0.0,
            capacity_exponent=math.exp(size[1]) if self.any_size else 0.0,
            size_exponent=float(size[2]) if self.any_size else 0.0,
            reference_parameters=self.reference_parameters if self.any_size else math.nan,
        )

    def numbers(self, law: LossLaw) -> Float64:
        """Return x of a law: the way back, wherever its scale of tau is."""
        logs = np.log(np.maximum(law.transfer, 1 / MOST_TRANSFER**2))
        scale = math.log(law.scale) - law.exponent * logs[0]
        saturations = law.saturation if self.each_saturation else law.saturation[:1]
        size = (math.log(law.capacity), math.log(law.capacity_exponent), law.size_exponent) if self.any_size else ()
        fitted = np.log(saturations) if self.saturation is None else ()
        first = (law.floor, scale, math.log(law.exponent))
        return np.array([*first, *(logs[1:] - logs[0]), *law.penalty[self.penalised], *fitted, *size])

    def box(self, losses: Float64) -> tuple[Float64, Float64]:
        """Return the least and greatest x, for losses (n,): E is not above the least of them."""
        wide = math.log(MOST_TRANSFER)
        greatest = float(losses.max())
        sides = [(0.0, float(losses.min())), (-30.0, 45.0), (math.log(0.02), math.log(2.0))]
        sides += [(-wide, wide)] * (len(self.sources) - 1)
        sides += [(-greatest, greatest)] * int(self.penalised.sum())
        sides += [(math.log(LEAST_SATURATION), math.log(MOST_SATURATION))] * self._num_saturations
        if self.any_size:
            sides += [(-30.0, 10.0), (math.log(0.02), math.log(2.0)), (1e-3, 2.0)]
        least, most = np.array(sides).T
        return least, most

    def starts(self, rows: Rows) -> Float64:
        """Return (S, P): the papers' starts, with the linear coefficients that are best for each."""
        found = []
        for alpha, beta, delta, saturation in STARTS:
            for own in OWN_TRANSFERS if self.own is not None else OWN_TRANSFERS[:1]:
                transfer = np.ones(len(self.sources))
                transfer[self.own if self.own is not None else 0] = own
                law = LossLaw(
                    floor=0.0,
                    scale=1.0,
                    exponent=alpha,
                    transfer=transfer,
                    saturation=np.full(len(transfer), self.saturation or saturation),
                    penalty=np.zeros(len(transfer)),
                    reference_tokens=self.reference_tokens,
                    capacity=1.0 if self.any_size else 0.0,
                    capacity_exponent=beta if self.any_size else 0.0,
                    size_exponent=delta if self.any_size else 0.0,
                    reference_parameters=self.reference_parameters if self.any_size else math.nan,
                )
                found.append(self.numbers(self._with_best_linear(law, rows)))
        return np.array(found)

    def _with_best_linear(self, law: LossLaw, rows: Rows) -> LossLaw:
        """Return the law with E, A, gamma and C by least squares of relative residuals, A and C above 0."""
        logs = law.log_effective(rows.proportions, rows.tokens, rows.unique)
        columns = [np.ones(len(logs)), law.data_term(logs, rows.parameters)]
        columns += [law.capacity_term(rows.parameters)] if self.any_size else []
        columns += list(rows.proportions[:, self.penalised].T)
        matrix = np.stack(columns, axis=1) / rows.losses[:, None]
        best = np.linalg.lstsq(matrix, np.ones(len(logs)), rcond=None)[0]
        middle = float(np.median(rows.losses)) / 3
        penalty = np.zeros(len(self.sources))
        penalty[self.penalised] = best[3 if self.any_size else 2 :]
        return replace(
            law,
            floor=max(float(best[0]), 0.0),
            scale=float(best[1]) if best[1] > 0 else middle,
            capacity=(float(best[2]) if best[2] > 0 else middle) if self.any_size else 0.0,
            penalty=penalty,
        )

    @property
    def _num_saturations(self) -> int:
        if self.saturation is not None:
            return 0
        return len(self.sources) if self.each_saturation else 1

    def jacobian(self, x: Float64, rows: Rows) -> Float64:
        """Return d(L_hat) / dx, (n, P)."""
        law = self.law(x)
        worth = worth_of_shares(rows.proportions, rows.tokens, rows.unique, law.saturation) * law.transfer
        logs = law.log_effective(rows.proportions, rows.tokens, rows.unique)
        data = law.data_term(logs, rows.parameters)
        fall = -law.exponent * data / (worth.sum(axis=1) + NOTHING)  # dL / d(D_eff / D)
        columns = [np.ones_like(data), data, -law.exponent * logs * data]
        columns += list((fall[:, None] * worth)[:, 1:].T)
        columns += list(rows.proportions[:, self.penalised].T)
        if self.saturation is None:
            more = fall[:, None] * law.transfer * _worth_by_log_saturation(rows, law.saturation)
            columns += list(more.T) if self.each_saturation else [more.sum(axis=1)]
        if self.any_size:
            capacity = law.capacity_term(rows.parameters)
            logs_of_size = np.log(rows.parameters / self.reference_parameters)
            columns += [capacity, -law.capacity_exponent * logs_of_size * capacity, logs_of_size * data]
        return np.stack(columns, axis=1)


def _worth_by_log_saturation(rows: Rows, saturation: Float64) -> Float64:
    """Return R* d(U S / D) / dR*, (n, K): R* (1 - e^-b - b e^-b) U / D with b = (r - 1) / R*, where r > 1."""
    repeats = rows.repeats
    beyond = np.maximum(repeats - 1, 0) / saturation
    rise = saturation * (-np.expm1(-beyond) - beyond * np.exp(-beyond))
    shares: Float64 = np.where(repeats > 1, rows.proportions * rise / np.maximum(repeats, 1), 0.0)
    return shares
