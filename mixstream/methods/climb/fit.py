"""The whole law, fitted to a table of runs language by language, and the form of r~ chosen by held-out error.

    error(form) = mean | log L_predicted - log L |        over mixtures that the fit has not seen

The mixtures are dealt into 5 folds, the same by the same seed; each fold is predicted from the others and all
monolingual runs. The form of the least error is kept, with the errors of all. (Not of the least squared error: where
a wrong form fails by far at some mixtures, its square is all noise, and so is that of the right one.)

Source: PAPERS' reading of Guo et al. 2025, CLIMB (arXiv 2509.15556), whose form could not be seen: choosing by
held-out error is ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mixstream.errors import FitError
from mixstream.methods.climb.forms import FORMS, form_named
from mixstream.methods.climb.law import Law
from mixstream.methods.climb.needs import (
    Kinds,
    check_enough,
    check_languages,
    kinds_of,
    monolingual_budgets,
    num_budgets,
    sizes_of,
)
from mixstream.methods.climb.receiver import HEAD, Observed, ReceiverLaw, fit_receiver
from mixstream.methods.planning.table import RunTable
from mixstream.mixture.simplex import BoolArray, Float64
from mixstream.streams.index import Int64

FOLDS = 5
AUTO = "auto"


@dataclass(frozen=True, eq=False)
class Chosen:
    """A law that was fitted, and what is known of how well.

    Attributes:
        law: of the best form, fitted to all runs.
        errors: {form: held-out error of log L}; infinite where the form, or a fold, did not converge; empty where
            there was nothing to choose.
        residual: (K,) root mean square of log L - log L observed, of the runs fitted to.
        notes: what the pilots leave open, for people.
    """

    law: Law
    errors: Mapping[str, float]
    residual: Float64
    notes: tuple[str, ...]


def fit_law(runs: RunTable, form: str = AUTO, seed: int = 0, former: Law | None = None) -> Chosen:
    """Return the law of a table of runs.

    Args:
        runs: sources and targets are the same K languages.
        form: F1, F2, F3, or auto: by held-out error.
        seed: deals mixtures into folds.
        former: a law of these languages to start from, of the form wanted; only there, and its runs are taken to
            have been enough (a bootstrap's resample may lack a run).

    Raises:
        RunTableError: other sources than targets, or runs of which only some tell their size.
        FitError: too few runs, or no convergence.
    """
    check_languages(runs)
    sizes, kinds = sizes_of(runs), kinds_of(runs)
    if former is not None:
        return _again(runs, kinds, former)
    check_enough(runs, kinds)
    reference = _references(runs, kinds, sizes)
    observed = _all_observed(runs, kinds, reference, sizes)
    names = list(FORMS) if form == AUTO else [form]
    if len(runs.sources) == 1:
        names = names[:1]  # a language alone: all forms are one
    fitted = _fitted_forms(names, observed)
    errors = _held_out(fitted, observed, _folds(kinds, seed)) if len(names) > 1 else {}
    errors |= dict.fromkeys((name for name in names if name not in fitted), math.inf)
    best = min(errors, key=lambda name: errors[name]) if errors else names[0]
    if errors and not math.isfinite(errors[best]):
        raise FitError(
            f"none of {', '.join(errors)} could be fitted with a fifth of the mixtures held out, so no form can be "
            f"chosen; name one, or give more mixtures"
        )
    law = _law_of(best, fitted[best], reference, sizes)
    residual = _residuals(best, fitted[best], observed)
    return Chosen(law=law, errors=errors, residual=residual, notes=_notes(runs, kinds, sizes))


@dataclass(frozen=True)
class _References:
    """D0 and N0: geometric means."""

    tokens: float
    size: float


def _references(runs: RunTable, kinds: Kinds, sizes: tuple[float, ...]) -> _References:
    which = kinds.mixed if kinds.mixed.any() else np.ones(len(runs), dtype=bool)
    size = float(np.exp(np.log(sizes).mean())) if sizes else math.nan
    return _References(tokens=float(np.exp(np.log(runs.tokens[which]).mean())), size=size)


def _observed(
    runs: RunTable, kinds: Kinds, number: int, reference: _References, sizes: tuple[float, ...]
) -> tuple[Observed, Int64]:
    """Return what the runs say of a language, and which runs these are."""
    rows = np.flatnonzero(kinds.known[:, number])
    alone = kinds.alone[rows] == number
    shares = runs.proportions[rows]
    observed = Observed(
        language=runs.sources[number],
        own=shares[:, number],
        others=np.delete(shares, number, axis=1),
        scaled_tokens=runs.tokens[rows] / reference.tokens,
        scaled_sizes=runs.parameters[rows] / reference.size if len(sizes) > 1 else None,
        losses=runs.losses[rows, number],
        alone=alone,
    )
    return observed, rows


def _all_observed(
    runs: RunTable, kinds: Kinds, reference: _References, sizes: tuple[float, ...]
) -> list[tuple[Observed, Int64]]:
    return [_observed(runs, kinds, number, reference, sizes) for number in range(len(runs.sources))]


def _again(runs: RunTable, kinds: Kinds, former: Law) -> Chosen:
    """Fit from a law that was fitted before; a language of which no run tells keeps what it had."""
    reference = _References(tokens=former.reference_tokens, size=former.reference_size)
    observed = _all_observed(runs, kinds, reference, former.sizes)
    fitted = []
    for number, (one, rows) in enumerate(observed):
        start = _parameters(former, number)
        fitted.append(fit_receiver(form_named(former.form), one, start) if len(rows) else start)
    law = _law_of(former.form, fitted, reference, former.sizes)
    return Chosen(law=law, errors={}, residual=_residuals(former.form, fitted, observed), notes=())


def _parameters(law: Law, number: int) -> Float64:
    """Return x of a language, the inverse of `_law_of`."""
    head = [
        math.log(law.scale[number]),
        math.log(law.exponent[number]),
        law.floor[number],
        math.log(law.saturation[number]),
    ]
    if len(law.sizes) > 1:
        head += [math.log(law.size_scale[number]), law.size_exponent[number]]
    return np.concatenate([head, np.delete(law.transfer[:, number], number), np.delete(law.fading[:, number], number)])


def _fitted_forms(names: list[str], observed: list[tuple[Observed, Int64]]) -> dict[str, list[Float64]]:
    """Return the parameters of every language by form; without forms that do not converge.

    Raises:
        FitError: none converges; what the last said.
    """
    fitted = {}
    for name in names:
        try:
            fitted[name] = _fit_all(name, observed)
        except FitError:
            if name == names[-1] and not fitted:
                raise
    return fitted


def _fit_all(name: str, observed: list[tuple[Observed, Int64]]) -> list[Float64]:
    return [fit_receiver(form_named(name), one) for one, _ in observed]


def _folds(kinds: Kinds, seed: int) -> Int64:
    """Return the fold of each run, (R,); -1: monolingual, never held out."""
    mixed = np.flatnonzero(kinds.mixed)
    folds = np.full(len(kinds.alone), -1)
    folds[np.random.default_rng(seed).permutation(mixed)] = np.arange(len(mixed)) % FOLDS
    return folds


def _held_out(
    fitted: Mapping[str, list[Float64]], observed: list[tuple[Observed, Int64]], folds: Int64
) -> dict[str, float]:
    """Return the error of every form over all folds."""
    errors = {}
    for name, found in fitted.items():
        try:
            missed = [
                _missed(name, start, one, folds[rows] == fold)
                for fold in range(FOLDS)
                for start, (one, rows) in zip(found, observed, strict=True)
            ]
        except FitError:  # a form that does not converge without a fold is not chosen; its error says so
            errors[name] = math.inf
            continue
        errors[name] = float(np.abs(np.concatenate(missed)).mean())
    return errors


def _missed(name: str, start: Float64, observed: Observed, held: BoolArray) -> Float64:
    """Return log L predicted - log L of the runs held out, from a fit to the others."""
    form = form_named(name)
    found = fit_receiver(form, observed.rows(~held), start)
    return _errors(name, found, observed.rows(held)) if held.any() else np.zeros(0)


def _errors(name: str, found: Float64, observed: Observed) -> Float64:
    errors: Float64 = ReceiverLaw(form_named(name), observed).log_losses(found) - np.log(observed.losses)
    return errors


def _residuals(name: str, fitted: list[Float64], observed: list[tuple[Observed, Int64]]) -> Float64:
    missed = [_errors(name, found, one) for found, (one, _) in zip(fitted, observed, strict=True)]
    return np.array([math.sqrt(np.mean(one**2)) if len(one) else math.nan for one in missed])


def _law_of(name: str, fitted: list[Float64], reference: _References, sizes: tuple[float, ...]) -> Law:
    count = len(fitted)
    heads = np.array([x[:HEAD] for x in fitted])
    with_size = len(sizes) > 1
    split = HEAD + 2 * with_size
    transfer, fading = np.zeros((count, count)), np.zeros((count, count))
    beside = ~np.eye(count, dtype=bool)
    for number, x in enumerate(fitted):
        transfer[beside[:, number], number] = x[split : split + count - 1]
        fading[beside[:, number], number] = x[split + count - 1 :]
    return Law(
        form=name,
        reference_tokens=reference.tokens,
        scale=np.exp(heads[:, 0]),
        exponent=np.exp(heads[:, 1]),
        floor=heads[:, 2],
        saturation=np.exp(heads[:, 3]),
        transfer=transfer,
        fading=fading,
        reference_size=reference.size,
        size_scale=np.array([math.exp(x[HEAD]) if with_size else 0.0 for x in fitted]),
        size_exponent=np.array([x[HEAD + 1] if with_size else 0.0 for x in fitted]),
        sizes=sizes,
    )


def _notes(runs: RunTable, kinds: Kinds, sizes: tuple[float, ...]) -> tuple[str, ...]:
    notes = []
    if num_budgets(runs.tokens[kinds.mixed]) == 2:
        notes.append(
            "the mixtures have two token budgets, which determine b and k of each pair exactly: whether transfer "
            "fades as 1/D is assumed, not checked"
        )
    joint = [name for number, name in enumerate(runs.sources) if monolingual_budgets(runs, kinds, number) == 2]
    if joint:
        notes.append(
            f"{', '.join(joint[:5])}{f' and {len(joint) - 5} more' if len(joint) > 5 else ''}: trained alone at two "
            f"token budgets only, so B, beta and E come from these together with the mixtures"
        )
    if len(sizes) == 2:
        notes.append(
            "the pilots have two model sizes, which do not tell how fast the gain of size fades: the exponent is "
            "drawn to 0.35"
        )
    return tuple(notes)
