"""The fit of the repetition-aware law to runs, one loss at a time.

    min   sum_n H( sqrt(w_n) (L_hat_n - L_n) / L_n )       over E, A, alpha, tau, R*, gamma (and C, beta, delta)

H is Huber's loss, so that w_n weighs the square of what does not err much. Residuals are relative, so that a source
whose loss is large does not count more.

Source: Sedova et al. 2026 (arXiv 2605.12715) as others transcribe it: Huber's loss, and rows weighted by
max(r h, eps). Ours: residuals relative to the loss, and weights within H; even weights by default, for they found
planted optima more closely (benchmarks/planted_repetition.py); all unknowns together, by Gauss-Newton steps; and the
check that the runs determine them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from mixstream.errors import FitError, RunTableError
from mixstream.methods.mixture_law.form import Form, Rows
from mixstream.methods.mixture_law.law import LossLaw
from mixstream.methods.planning.checks import knows_sizes
from mixstream.methods.planning.fitting import fit_from
from mixstream.methods.planning.table import RunTable
from mixstream.mixture.simplex import BoolArray, Float64

DELTA = 0.01  # of Huber's loss: relative errors beyond count linearly
EPSILON = 1e-3  # of the paper's weights of rows
SAME_DIRECTION = 1e-10  # of singular values, relative: below it an unknown is not determined
NAME = "the repetition law"
Penalty = Literal["own", "all", "none"]


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


def form_of(
    runs: RunTable, number: int, *, saturation: float | None, each_saturation: bool, penalty: Penalty
) -> tuple[Rows, Form]:
    """Return the runs that have a target's loss, and the unknowns of its law.

    Args:
        runs: the table.
        number: of the target.
        saturation, each_saturation: of `Form`.
        penalty: which sources have a gamma: the target's own (of a target that is no source, the only one that was
            ever repeated), all but the first (shares sum to 1, so E has its part), or none.

    Raises:
        FitError: no run has the loss, or the runs are of two model sizes.
        RunTableError: sizes that are told of some runs only, or a penalty that fits no source.
    """
    name = runs.targets[number]
    have = ~np.isnan(runs.losses[:, number])
    if not have.any():
        raise FitError(f"no run has a loss of {name!r}; give some, or leave the target out of the table")
    rows = Rows(
        runs.proportions[have], runs.tokens[have], runs.parameters[have], runs.unique[have], runs.losses[have, number]
    )
    own = runs.sources.index(name) if name in runs.sources else _only_repeated(runs)
    any_size = knows_sizes(runs, NAME)
    return rows, Form(
        sources=runs.sources,
        penalised=_penalised(len(runs.sources), own, name, penalty),
        saturation=saturation,
        each_saturation=each_saturation,
        any_size=any_size,
        own=own,
        reference_tokens=_middle(rows.tokens),
        reference_parameters=_middle(rows.parameters) if any_size else math.nan,
    )


def _penalised(count: int, own: int | None, target: str, penalty: Penalty) -> BoolArray:
    """Return which of `count` sources have a gamma."""
    numbers = np.arange(count)
    if penalty == "own" and own is None:
        raise RunTableError(
            f"target {target!r} is no source of the table, and not exactly one source was repeated, so it is not "
            f"told whose share gamma penalises; choose penalty='all' or penalty='none'"
        )
    if penalty == "own":
        return np.asarray(numbers == own)
    return np.asarray((numbers > 0) & (penalty == "all"))


def _only_repeated(runs: RunTable) -> int | None:
    """Return the number of the only source that was read more than once, if there is one alone."""
    repeated = np.flatnonzero((runs.repeats > 1).any(axis=0))
    return int(repeated[0]) if len(repeated) == 1 else None


def _middle(values: Float64) -> float:
    """Return the geometric mean."""
    return float(np.exp(np.log(values).mean()))


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
    starts = form.starts(rows) if start is None else form.numbers(start)[None]
    fit = solve(starts, of=f"{NAME} of {of}")
    law = form.law(fit.parameters)
    largest = float(law.transfer.max())
    return FittedLoss(
        law=replace(law, transfer=law.transfer / largest, scale=law.scale * largest**-law.exponent),
        error=float(np.sqrt(np.mean((fit.residuals / weights) ** 2))),
        agreed=fit.agreed,
        starts=len(starts),
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
            f"{NAME} of {of}: no run that has its loss read anything of {', '.join(absent)}, so what it is "
            f"worth is not determined; give runs with it, or leave it out of the table"
        )
    if form.saturation is None and not (rows.repeats > 1).any():
        raise FitError(
            f"{NAME} of {of}: no source was read more than once in any of its {len(rows.losses)} runs, so "
            f"R* is not determined; tell the unique tokens that they had and give runs with repeats, or fix it "
            f"(saturation=15.39, as Muennighoff et al. fit it to English)"
        )
    if len(rows.losses) < len(names):
        raise FitError(
            f"{NAME} of {of} has {len(names)} unknowns ({', '.join(names)}), but {len(rows.losses)} runs "
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
            f"{NAME} of {of}: its {len(rows.losses)} runs leave {len(free)} of {len(names)} unknowns "
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
