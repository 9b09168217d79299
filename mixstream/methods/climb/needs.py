"""Whether a table of runs has what CLIMB's law needs, and how many runs of which kind are missing.

Of each of K languages the law has 2 (K - 1) transfers, eta, B, beta and E. What determines them:

    monolingual runs (share above 0.999)    B, beta, E at three token budgets; at two the mixtures must help
    mixtures at two budgets or more         b and k; at one budget they cannot be told apart
    runs at several model sizes             A at two, a as well at three; so many runs more

Source: the counts of Guo et al. 2025, CLIMB (arXiv 2509.15556): 2 K^2 - K parameters of r~ from 3 x K x 2 runs,
each with a loss of every language.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixstream.errors import FitError, RunTableError
from mixstream.methods.planning.table import RunTable
from mixstream.mixture.simplex import BoolArray, Float64
from mixstream.streams.index import Int64

ALONE = 0.999  # share from which a run is monolingual
LEAST_SHARE = 1e-3  # of a language in a run, below which its loss there is not fitted: r~ says nothing of r = 0
SAME_BUDGET = 0.05  # budgets that differ by less, relatively, are one
EACH_ALONE = 2  # budgets of monolingual runs, and
BUDGETS = 2  # of mixtures, at least


@dataclass(frozen=True, eq=False)
class Kinds:
    """Which runs are what.

    Attributes:
        alone: (R,) the language that a monolingual run reads; -1: a mixture.
        known: (R, K) whether a loss is there, of a language that the run reads.
    """

    alone: Int64
    known: BoolArray

    @property
    def mixed(self) -> BoolArray:
        """(R,) whether a run is a mixture."""
        mixed: BoolArray = self.alone < 0
        return mixed


def kinds_of(runs: RunTable) -> Kinds:
    """Return which runs are monolingual, and which losses can be fitted."""
    highest = runs.proportions.argmax(axis=1)
    alone = np.where(runs.proportions.max(axis=1) > ALONE, highest, -1)
    return Kinds(alone=alone, known=np.isfinite(runs.losses) & (runs.proportions > LEAST_SHARE))


def num_budgets(tokens: Float64) -> int:
    """Return how many different token budgets these are; those within 5 % of the next are one."""
    if not len(tokens):
        return 0
    return 1 + int((np.diff(np.log(np.sort(tokens))) > SAME_BUDGET).sum())


def sizes_of(runs: RunTable) -> tuple[float, ...]:
    """Return the model sizes of the runs, ascending; none where they do not tell.

    Raises:
        RunTableError: some runs tell and others do not.
    """
    told = ~np.isnan(runs.parameters)
    if told.any() and not told.all():
        silent = runs.runs[int(np.argmin(told))]
        raise RunTableError(
            f"{int((~told).sum())} of {len(runs)} runs do not tell their model size ({silent!r} is the first); "
            f"give every run its parameters, or none"
        )
    return tuple(np.unique(runs.parameters[told]).tolist())


def check_languages(runs: RunTable) -> None:
    """Refuse a table whose losses are of other languages than what was mixed.

    Raises:
        RunTableError: naming the first that differs.
    """
    if runs.sources == runs.targets:
        return
    without = [name for name in runs.sources if name not in runs.targets]
    besides = [name for name in runs.targets if name not in runs.sources]
    if not without and not besides:
        told = f"they stand in another order ({', '.join(runs.sources[:4])}; {', '.join(runs.targets[:4])})"
    else:
        told = "; ".join(
            f"{kind}: {', '.join(names[:4])}" + (f" and {len(names) - 4} more" if len(names) > 4 else "")
            for kind, names in (("no losses of", without), ("not mixed", besides))
            if names
        )
    raise RunTableError(
        f"CLIMB predicts each language's loss from its own share, so its sources and targets must be the same: {told}"
    )


def check_enough(runs: RunTable, kinds: Kinds) -> None:
    """Refuse a table with too few runs for the law of any of its languages.

    Raises:
        FitError: what is missing, how many runs and of which kind.
    """
    missing = [told for number in range(len(runs.sources)) for told in _missing(runs, kinds, number)]
    if missing:
        more = f"; and {len(missing) - 4} more needs" if len(missing) > 4 else ""
        raise FitError(f"too few runs for CLIMB's law of {len(runs.sources)} languages: {'; '.join(missing[:4])}{more}")


def monolingual_budgets(runs: RunTable, kinds: Kinds, number: int) -> int:
    """Return at how many budgets a language was trained alone."""
    return num_budgets(runs.tokens[(kinds.alone == number) & kinds.known[:, number]])


def _missing(runs: RunTable, kinds: Kinds, number: int) -> list[str]:
    name, count = runs.sources[number], len(runs.sources)
    told = []
    budgets = monolingual_budgets(runs, kinds, number)
    if budgets < EACH_ALONE:
        told.append(
            f"{name!r} needs {EACH_ALONE - budgets} more monolingual runs (share above {ALONE}): it has them at "
            f"{budgets} token budgets, expected {EACH_ALONE} (3 determine B, beta and E without mixtures)"
        )
    of_size = min(len(sizes_of(runs)[1:]), 2)  # A and a
    if count == 1:
        num_alone = int(kinds.known[:, number].sum())
        if budgets == EACH_ALONE:
            told.append(f"{name!r} needs 1 more monolingual run, at a third token budget: no mixture helps with E")
        elif budgets > EACH_ALONE and num_alone < 3 + of_size:
            told.append(
                f"{name!r} needs {3 + of_size - num_alone} more monolingual runs: it has {num_alone} for "
                f"{3 + of_size} unknowns, as the runs are of several model sizes"
            )
        return told
    mixed = kinds.mixed & kinds.known[:, number]
    unknown = 2 * (count - 1) + 1 + max(0, 3 - max(budgets, EACH_ALONE)) + of_size
    if mixed.sum() < unknown:
        told.append(
            f"{name!r} needs {unknown - int(mixed.sum())} more mixtures that read it (share above {LEAST_SHARE}) and "
            f"tell its loss: it has {int(mixed.sum())} for {unknown} unknowns"
        )
    elif num_budgets(runs.tokens[mixed]) < BUDGETS:
        told.append(
            f"{name!r} needs mixtures at a second token budget: all {int(mixed.sum())} have "
            f"{runs.tokens[mixed].max():.4g} tokens, so transfer that fades as 1/D cannot be told from what lasts"
        )
    return told
