"""How well a planner predicts runs that it was not fitted to.

The mixtures of a table are dealt to F folds by chance; each fold is predicted from all other runs. A mixture that was
trained by several seeds, at one budget, is dealt as one: its twins would tell its losses. Runs of one source
alone stay in every fit: a law that has them needs them, and their own source's loss is not what is asked.

    error = L^ / L - 1

Beside it stands what costs nothing: the geometric mean of the losses, source by source, of the other mixtures of the
same token budget. A law that errs more has learnt nothing of the mixture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixstream.errors import FitError
from mixstream.methods.planning.bootstrap import predict_runs
from mixstream.methods.planning.planner import Planner
from mixstream.methods.planning.table import RunTable
from mixstream.mixture.simplex import BoolArray, Float64
from mixstream.streams.index import Int64

SAME_SHARES = 1e-3  # mixtures of one budget of which no share differs by more are one
ALONE = 0.999  # share from which a run is of one source
SAME_BUDGET = 0.05  # budgets that differ by less, relatively, are one


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Relative errors on R' runs that were left out, each once.

    Attributes:
        runs: their names.
        errors: (R', M) of the law; nan where a run has no loss, or the law cannot tell it.
        of_means: (R', M) of the mean of the other runs.
        folds: in how many fits.
    """

    runs: tuple[str, ...]
    errors: Float64
    of_means: Float64
    folds: int


def held_out(planner: Planner, runs: RunTable, folds: int, seed: int = 0) -> HeldOut:
    """Return a planner's errors on the mixtures of a table, each predicted by a fit without it.

    Args:
        planner: not fitted, or it would start from what it has seen.
        runs: the table.
        folds: fits, from 2 to the number of mixtures, twins counted once.
        seed: of the dealing.

    Raises:
        FitError: too few mixtures for the folds, or a fit without one of them fails: too few runs, no convergence.
    """
    mixtures = np.flatnonzero(_is_mixture(runs))
    count = len(set(twins(runs)[mixtures].tolist()))
    if not 2 <= folds <= count:
        raise FitError(f"{folds} folds of {count} mixtures; expected from 2 to as many as there are")
    dealt = dealt_to_folds(runs, mixtures, folds, seed)
    errors, of_means = np.full(runs.losses.shape, np.nan), np.full(runs.losses.shape, np.nan)
    for fold in range(folds):
        out, kept = runs.rows(dealt == fold), runs.rows(dealt != fold)
        try:
            fitted = planner.fit(kept)
        except FitError as problem:
            raise FitError(f"without {', '.join(out.runs[:3])} ({len(out)} runs left out): {problem}") from None
        errors[dealt == fold] = predict_runs(fitted, out) / out.losses - 1
        of_means[dealt == fold] = _mean_losses(kept, out) / out.losses - 1
    return HeldOut(
        runs=tuple(runs.runs[i] for i in mixtures), errors=errors[mixtures], of_means=of_means[mixtures], folds=folds
    )


def dealt_to_folds(runs: RunTable, mixtures: Int64, folds: int, seed: int) -> Int64:
    """Return the fold (R,) of each run; -1 of those that are not among the numbers of `mixtures`. Twins share one."""
    groups = twins(runs)
    names = np.unique(groups[mixtures])
    fold_of = np.full(len(runs), -1)
    fold_of[np.random.default_rng(seed).permutation(names)] = np.arange(len(names)) % folds
    dealt = np.full(len(runs), -1)
    dealt[mixtures] = fold_of[groups[mixtures]]
    return dealt


def twins(runs: RunTable) -> Int64:
    """Return for each run (R,) the number of the first one of the same proportions, tokens and model size."""
    sizes = np.nan_to_num(np.log(runs.parameters))
    numbers = np.zeros(len(runs), dtype=np.int64)
    for i in range(len(runs)):
        same = (
            (np.abs(runs.proportions[: i + 1] - runs.proportions[i]).max(axis=1) <= SAME_SHARES)
            & (np.abs(runs.tokens[: i + 1] / runs.tokens[i] - 1) < SAME_BUDGET)
            & (np.abs(sizes[: i + 1] - sizes[i]) < SAME_BUDGET)
        )
        first = int(same.argmax())
        numbers[i] = numbers[first] if first < i else i
    return numbers


def _is_mixture(runs: RunTable) -> BoolArray:
    mixture: BoolArray = runs.proportions.max(axis=1) < ALONE
    return mixture


def _mean_losses(kept: RunTable, out: RunTable) -> Float64:
    """Return (R', M) geometric means of the losses of mixtures whose budget is that of a run, else of all; or nan."""
    mixed, known = _is_mixture(kept), ~np.isnan(kept.losses)
    logs = np.log(np.where(known, kept.losses, 1))
    means = np.full(out.losses.shape, np.nan)
    for i, tokens in enumerate(out.tokens):
        same = mixed & (np.abs(kept.tokens / tokens - 1) < SAME_BUDGET)
        chosen = same if same.any() else mixed
        counts = known[chosen].sum(axis=0)
        means[i, counts > 0] = np.exp(logs[chosen].sum(axis=0)[counts > 0] / counts[counts > 0])
    return means
