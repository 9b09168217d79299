"""CLIMB as a planner: fitted to pilots, it predicts every language's loss and allocates a budget.

Source: Guo et al. 2025, CLIMB / "Polyglot Harmony" (arXiv 2509.15556). What is the paper's and what is our reading
is told in each file: forms, ratio, monolingual, receiver, fit, allocate; schedule and neighbours are ours.

Repeats are not in the law: pilots should repeat as the run will (see `mixstream view`), and budgets cap what a
source may be repeated. So `predict` takes no notice of `unique`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixstream.errors import FitError, RunTableError, nearest
from mixstream.methods.climb.allocate import OBJECTIVES, allocate
from mixstream.methods.climb.fit import AUTO, Chosen, fit_law
from mixstream.methods.climb.forms import FORMS
from mixstream.methods.climb.law import Law, check_size
from mixstream.methods.climb.needs import check_languages, kinds_of
from mixstream.methods.climb.neighbours import Guess, extended
from mixstream.methods.climb.schedule import STEPS, Dynamic, dynamic
from mixstream.methods.planning.allocating import Region, region_of
from mixstream.methods.planning.checks import check_amounts, check_mixtures
from mixstream.methods.planning.planner import target_weights
from mixstream.methods.planning.reach import Pilots, pilots_of
from mixstream.methods.planning.table import RunTable
from mixstream.mixture.simplex import Float64


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a fit found.

    Attributes:
        languages: K names, in the order of the law.
        law: of all of them.
        errors: {form: held-out error of log L}; empty where there was nothing to choose.
        residual: (K,) root mean square error of log L over the runs fitted to; nan of languages not measured.
        guesses: languages that were not measured, and whose mean they are.
        notes: what the pilots leave open.
        pilots: where the runs lie: what tells how far an answer is from them.
    """

    languages: tuple[str, ...]
    law: Law
    errors: Mapping[str, float]
    residual: Float64
    guesses: Mapping[str, Guess]
    notes: tuple[str, ...]
    pilots: Pilots


@dataclass(frozen=True, eq=False)
class Climb:
    """The CLIMB planner: options, and once fitted, the law.

    Attributes:
        form: of r~: F1, F2, F3, or auto: by held-out error.
        objective: of `allocate`: two_step, sum_loss or max_excess.
        targets: {language: weight} in the objective; None: all alike.
        seed: of folds and starts.
        neighbours: {language without runs: languages with runs that are like it}.
        fitted: what `fit` found.
    """

    form: str = AUTO
    objective: str = "two_step"
    targets: Mapping[str, float] | None = None
    seed: int = 0
    neighbours: Mapping[str, Sequence[str]] | None = None
    fitted: Fitted | None = None

    def __post_init__(self) -> None:
        """Refuse options that there are not.

        Raises:
            FitError: with those that there are.
        """
        for what, asked, known in (
            ("form", self.form, (AUTO, *FORMS)),
            ("objective", self.objective, OBJECTIVES),
        ):
            if asked not in known:
                raise FitError(f"{what} {asked!r} of CLIMB; expected one of {', '.join(known)}{nearest(asked, known)}")

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return "climb"

    def fit(self, runs: RunTable) -> Climb:
        """Return a planner fitted to `runs`; this one stays as it was.

        Raises:
            RunTableError: other sources than targets, a language with neither data nor neighbours, or runs of which
                only some tell their model size.
            FitError: too few runs (how many are missing, of which kind), or no convergence.
        """
        return self._fit(runs, None)

    def refit(self, runs: RunTable) -> Climb:
        """Return a planner fitted to runs drawn anew from those that this one was fitted to, as a bootstrap draws them.

        It keeps the form and starts from the law, which is quick, and what the draw lacks stays as the law has it.

        Raises:
            RunTableError: other languages than those of the law.
            FitError: it has not been fitted, or no convergence.
        """
        former = self._known()
        if former.languages != runs.sources:
            raise RunTableError(
                f"runs of {', '.join(runs.sources[:8])} are no draw of those that the law was fitted to, of "
                f"{', '.join(former.languages[:8])}; fit a planner to them"
            )
        return self._fit(runs, former)

    def _fit(self, runs: RunTable, former: Fitted | None) -> Climb:
        check_languages(runs)
        measured = _measured(runs) if former is None else [n for n in runs.sources if n not in former.guesses]
        found = fit_law(
            _only(runs, measured), self.form, self.seed, None if former is None else _law_among(former, measured)
        )
        law, guesses = extended(found.law, measured, self.neighbours or {}, runs.sources)
        return replace(self, fitted=_fitted(runs, measured, law, guesses, found, former))

    def predict(
        self,
        proportions: Float64,
        tokens: Float64 | float,
        *,
        parameters: Float64 | float = math.nan,
        unique: Float64 | None = None,
    ) -> Float64:
        """Return the (R, K) losses that the law expects, in the unit of the table it was fitted to.

        nan where it says nothing: of a language that is hardly read (r~ below 1e-4).

        Args:
            proportions: (R, K), each row with sum 1.
            tokens: (R,) or one number: D.
            parameters: (R,) or one number: N; nan: the size of the pilots, where it is one.
            unique: not used: repeats are not in the law.

        Raises:
            FitError: it has not been fitted, or a model size of which the pilots cannot tell.
        """
        fitted = self._known()
        shares = check_mixtures(proportions, fitted.languages)
        amounts = check_amounts("tokens", tokens, len(shares))
        losses = fitted.law.losses(shares, amounts, parameters)
        return np.where(fitted.law.tells(shares, amounts), losses, math.nan)

    def allocate(
        self,
        tokens: float,
        sizes: Float64,
        budgets: Float64,
        *,
        floor: float = 0.0,
        parameters: float = math.nan,
    ) -> Float64:
        """Return the (K,) proportions, sum 1, of a run, by this planner's objective.

        Args:
            tokens: D, of the run.
            sizes: (K,) U, unique tokens of each source.
            budgets: (K,) most repeats of each source; infinite: unlimited.
            floor: least proportion of every source.
            parameters: N; the best proportions do not change with it, but it must be one that the pilots tell of.

        Raises:
            FloorError, BudgetError: floor and budgets leave no mixture.
            FitError: it has not been fitted, or the solution was not found.
        """
        region = self._region(tokens, sizes, budgets, floor, parameters)
        return self._best(tokens, region)

    def dynamic(
        self,
        tokens: float,
        sizes: Float64,
        budgets: Float64,
        *,
        floor: float = 0.0,
        steps: int = STEPS,
        parameters: float = math.nan,
    ) -> Dynamic:
        """Return a schedule of proportions: what was read is the best mixture for so many tokens at any time.

        Args:
            tokens, sizes, budgets, floor, parameters: as of `allocate`.
            steps: phases.

        Raises:
            FloorError, BudgetError: floor and budgets leave no mixture.
            MixtureError: the run has no room for so many phases.
            FitError: it has not been fitted, or a solution was not found.
        """
        region = self._region(tokens, sizes, budgets, floor, parameters)
        return dynamic(lambda at: self._best(at, region), tokens, region, self._known().languages, steps=steps)

    def _region(self, tokens: float, sizes: Float64, budgets: Float64, floor: float, parameters: float) -> Region:
        fitted = self._known()
        if not math.isnan(parameters):
            check_size(np.array([parameters]), fitted.law.sizes)
        if not len(sizes) == len(budgets) == len(fitted.languages):
            raise RunTableError(
                f"sizes of {len(sizes)} and budgets of {len(budgets)} sources; expected those of the "
                f"{len(fitted.languages)} that the law was fitted to: {', '.join(fitted.languages[:8])}"
            )
        return region_of(tokens, sizes, budgets, floor, fitted.languages)

    def _best(self, tokens: float, region: Region) -> Float64:
        fitted = self._known()
        utilities = target_weights(self.targets, fitted.languages)
        return allocate(fitted.law, tokens, region, self.objective, utilities, self.seed).proportions

    def extended(self, neighbours: Mapping[str, Sequence[str]]) -> Climb:
        """Return a planner of more languages, which follow those that it has, as their neighbours' means.

        Raises:
            FitError: it has not been fitted.
            RunTableError: a neighbour without data, or a language that has runs of its own.
        """
        fitted = self._known()
        measured = [name for name in fitted.languages if name not in fitted.guesses]
        told = [name for name in neighbours if name in measured]
        if told:
            raise RunTableError(f"{told[0]!r} has runs of its own, and follows no neighbours; leave it out of them")
        known = {name: guess.neighbours for name, guess in fitted.guesses.items()}
        order = (*fitted.languages, *(name for name in neighbours if name not in fitted.languages))
        law, guesses = extended(_law_among(fitted, measured), measured, {**known, **neighbours}, order)
        more = len(order) - len(fitted.languages)
        pilots = replace(
            fitted.pilots,
            sources=order,
            proportions=np.pad(fitted.pilots.proportions, ((0, 0), (0, more))),
            repeats=np.pad(fitted.pilots.repeats, ((0, 0), (0, more))),
        )
        wide = replace(
            fitted,
            languages=order,
            law=law,
            guesses=guesses,
            residual=np.append(fitted.residual, np.full(more, math.nan)),
            pilots=pilots,
        )
        return replace(self, neighbours={**(self.neighbours or {}), **neighbours}, fitted=wide)

    def _known(self) -> Fitted:
        if self.fitted is None:
            raise FitError("CLIMB has not been fitted; fit it to a table of runs first")
        return self.fitted


def _measured(runs: RunTable) -> list[str]:
    """Return the languages of which any run tells."""
    known = kinds_of(runs).known.any(axis=0)
    return [name for name, is_known in zip(runs.sources, known, strict=True) if is_known]


def _only(runs: RunTable, languages: Sequence[str]) -> RunTable:
    """Return the table of some languages.

    Raises:
        RunTableError: no language is left, or a run reads another one.
    """
    if len(languages) == len(runs.sources):
        return runs
    if not languages:
        raise RunTableError("no run tells the loss of a language that it reads; CLIMB is fitted to held-out losses")
    kept = np.array([name in languages for name in runs.sources])
    read = runs.proportions[:, ~kept].max(axis=1)
    if (read > 0).any():
        run = int(read.argmax())
        other = runs.sources[int(np.where(kept, 0.0, runs.proportions[run]).argmax())]
        raise RunTableError(
            f"run {runs.runs[run]!r} reads {read[run]:.3g} of {other!r}, of which no run tells the loss; measure it in "
            f"the runs that read it"
        )
    return replace(
        runs,
        sources=tuple(languages),
        targets=tuple(languages),
        proportions=runs.proportions[:, kept],
        losses=runs.losses[:, kept],
        unique=runs.unique[:, kept],
    )


def _law_among(fitted: Fitted, measured: Sequence[str]) -> Law:
    return extended(fitted.law, fitted.languages, {}, measured)[0]


def _fitted(
    runs: RunTable,
    measured: Sequence[str],
    law: Law,
    guesses: Mapping[str, Guess],
    found: Chosen,
    former: Fitted | None,
) -> Fitted:
    residual = np.full(len(runs.sources), math.nan)
    residual[[runs.sources.index(name) for name in measured]] = found.residual
    return Fitted(
        languages=runs.sources,
        law=law,
        errors=found.errors if former is None else former.errors,
        residual=residual,
        guesses=guesses,
        notes=found.notes if former is None else former.notes,
        pilots=pilots_of(runs),
    )
