"""The fit of the repetition-aware law to runs, one loss at a time.

    min   sum_n w_n H( (L_hat_n - L_n) / L_n )       over E, A, alpha, tau, R*, gamma (and C, beta, delta)

H is Huber's loss. Residuals are relative, so that a source whose loss is large does not count more. tau of the
first source is held at 1 in the fit (A takes its scale); afterwards the largest tau of each law is 1.

Source: Sedova et al. 2026 (arXiv 2605.12715) as others transcribe it: Huber's loss, rows weighted by
max(r h, eps), the box and the five starts of (alpha, beta, delta, R*). Ours: residuals relative to the loss, even
weights by default (docs: what that changes), linear coefficients of every start by least squares and then all
unknowns together by Gauss-Newton steps, and the check that the runs determine all unknowns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from mixstream.errors import FitError
from mixstream.methods.planning.fitting import fit_from
from mixstream.methods.repetition_law import NOTHING, LossLaw, worth_of_shares
from mixstream.mixture.simplex import BoolArray, Float64

DELTA = 0.01  # of Huber's loss: relative errors beyond count linearly
EPSILON = 1e-3  # of the papers' weights of rows
# (alpha, beta, delta, R*), of Marin's fit
STARTS = ((0.25, 0.25, 0.25, 1.0), (0.35, 0.35, 0.35, 3.0), (0.5, 0.25, 0.5, 10.0), (0.15, 0.5, 0.15, 30.0), (0.75, 0.15, 0.75, 5.0))
OWN_TRANSFERS = (1.0, 10.0)  # each start is tried with these tau of the target's own source
LEAST_SATURATION, MOST_SATURATION = 1e-3, 100.0
MOST_TRANSFER = math.exp(14)  # of one source over another; with 1 / it, worth nothing
SAME_DIRECTION = 1e-10  # of singular values, relative: below it an unknown is not determined


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

    x = (E, log A, log alpha, log tau_2..K, gamma_i of `penalised`, log R* (none, one, or K), log C, log beta, delta)

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
        return np.array(
            [law.floor, scale, math.log(law.exponent), *(logs[1:] - logs[0]), *law.penalty[self.penalised]]
            + list(np.log(saturations) if self.saturation is None else ())
            + list(size)
        )

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
        """Return the law with E, A, gamma and C by least squares of relative residuals; kept where they are positive."""
        logs = law.log_effective(rows.proportions, rows.tokens, rows.unique)
        columns = [np.ones(len(logs)), law.data_term(logs, rows.parameters)]
        columns += [law.capacity_term(rows.parameters)] if self.any_size else []
        columns += list(rows.proportions[:, self.penalised].T)
        matrix = np.stack(columns, axis=1) / rows.losses[:, None]
        best = np.linalg.lstsq(matrix, np.ones(len(logs)), rcond=None)[0]
        middle = float(np.median(rows.losses)) / 3
        penalty = np.zeros(len(self.sources))
        penalty[self.penalised] = best[3 if self.any_size else 2 :]
        return LossLaw(
            **vars(law)
            | {
                "floor": max(float(best[0]), 0.0),
                "scale": float(best[1]) if best[1] > 0 else middle,
                "capacity": (float(best[2]) if best[2] > 0 else middle) if self.any_size else 0.0,
                "penalty": penalty,
            }
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


@dataclass(frozen=True, eq=False)
class FittedLoss:
    """A law that was fitted to one loss.

    Attributes:
        law: its largest tau is 1.
        error: root mean square of the relative residuals.
        agreed, starts: how many of the starts found this minimum.
        notes: what the runs did not determine well, in words.
    """

    law: LossLaw
    error: float
    agreed: int
    starts: int
    notes: tuple[str, ...]


def fit_loss(
    rows: Rows, form: Form, *, of: str, delta: float = DELTA, by_repeats: bool = False, start: LossLaw | None = None
) -> FittedLoss:
    """Return the law of `form` that fits the runs of one loss best.

    Args:
        rows: the runs that have this loss.
        form: which unknowns.
        of: whose loss, for messages.
        delta: of Huber's loss.
        by_repeats: weigh rows by max(r h, eps) of the target's own source, as the paper's fit does, not evenly.
        start: a law to start from, alone.

    Raises:
        FitError: fewer runs than unknowns, unknowns that the runs do not determine, or no convergence.
    """
    _check_determined(rows, form, of)
    weights = np.sqrt(_weights(rows, form) if by_repeats else np.ones(len(rows.losses)))

    def residuals(x: Float64) -> Float64:
        expected = form.law(x).losses(rows.proportions, rows.tokens, rows.parameters, rows.unique)
        return np.asarray(weights * (expected / rows.losses - 1))

    def jacobian(x: Float64) -> Float64:
        return np.asarray((weights / rows.losses)[:, None] * form.jacobian(x, rows))

    solve = partial(fit_from, residuals=residuals, bounds=form.box(rows.losses), jacobian=jacobian, delta=delta)
    fit = solve(form.starts(rows) if start is None else form.numbers(start)[None], of=f"the repetition law of {of}")
    law = form.law(fit.parameters)
    largest = float(law.transfer.max())
    scaled = {"transfer": law.transfer / largest, "scale": law.scale * largest**-law.exponent}
    starts = len(STARTS) * (1 if form.own is None else len(OWN_TRANSFERS)) if start is None else 1
    return FittedLoss(
        law=LossLaw(**vars(law) | scaled),
        error=float(np.sqrt(np.mean((fit.residuals / weights) ** 2))),
        agreed=fit.agreed,
        starts=starts,
        notes=_notes(fit.parameters, form, rows, of),
    )


def _weights(rows: Rows, form: Form) -> Float64:
    """Return max(r h, eps), (n,), with mean 1; of the target's own source, else of the one that is repeated most."""
    own = int(np.argmax(rows.repeats.max(axis=0))) if form.own is None else form.own
    weights = np.maximum(rows.repeats[:, own] * rows.proportions[:, own], EPSILON)
    return np.asarray(weights / weights.mean())


def _check_determined(rows: Rows, form: Form, of: str) -> None:
    """Refuse runs that leave an unknown free.

    Raises:
        FitError: with how many runs are missing, or which unknowns are not determined.
    """
    names = form.names
    absent = [name for name, used in zip(form.sources, (rows.proportions > 0).any(axis=0), strict=True) if not used]
    if absent:
        raise FitError(
            f"the repetition law of {of}: no run that has its loss read anything of {', '.join(absent)}, so what it is "
            f"worth is not determined; give runs with it, or leave it out of the table"
        )
    if form.saturation is None and not (rows.repeats > 1).any():
        raise FitError(
            f"the repetition law of {of}: no source was read more than once in any of its {len(rows.losses)} runs, so "
            f"R* is not determined; tell the unique tokens that they had and give runs with repeats, or fix it "
            f"(saturation=15.39, as Muennighoff et al. fit it to English)"
        )
    if len(rows.losses) < len(names):
        raise FitError(
            f"the repetition law of {of} has {len(names)} unknowns ({', '.join(names)}), but {len(rows.losses)} runs "
            f"have its loss: {len(names) - len(rows.losses)} more are needed at least, with other shares, tokens "
            f"and repeats"
        )
    spread = np.linspace(-0.7, 0.9, len(names))  # anywhere at which no two unknowns are alike by chance
    least, most = form.box(rows.losses)
    middle = form.numbers(form.law(form.starts(rows)[2]))
    point = np.clip(middle + 0.3 * spread, least, most)
    matrix = form.jacobian(point, rows) / rows.losses[:, None]
    lengths = np.linalg.norm(matrix, axis=0)
    _, values, directions = np.linalg.svd(matrix / np.where(lengths > 0, lengths, 1), full_matrices=False)
    free = directions[values < SAME_DIRECTION * values[0]]
    if len(free):
        loose = [name for name, part in zip(names, np.abs(free).max(axis=0), strict=True) if part > 0.1]
        raise FitError(
            f"the repetition law of {of}: its {len(rows.losses)} runs leave {len(free)} of {len(names)} unknowns "
            f"undetermined, among {', '.join(loose)}; vary shares, tokens and repeats independently, with every source "
            f"in some runs"
        )


def _notes(x: Float64, form: Form, rows: Rows, of: str) -> tuple[str, ...]:
    """Return what lies at an end of its box, in words."""
    least, most = form.box(rows.losses)
    width = most - least
    told = []
    for name, value, low, high, wide in zip(form.names, x, least, most, width, strict=True):
        if name.startswith(("alpha", "beta", "delta", "R*")) and not low + 1e-3 * wide < value < high - 1e-3 * wide:
            shown = value if name == "delta" else math.exp(value)
            told.append(f"{of}: {name} = {shown:.3g} is an end of what is allowed; the runs hardly determine it")
    return tuple(told)
