"""Which proportions, how many repeats of each source, what loss to expect, and how sure that is.

With a fitted law of `mixstream.methods.mixture_law` it is asked. Without, each source is taken for a language that
learns from itself alone, by the constants that Muennighoff et al. fitted to English, with the saturation S:

    L_i = E + A / N^alpha + B / (U_i S(p_i D / U_i; R*))^beta          p* = argmin_p mean_i L_i

How sure: with the runs, the law is fitted again to runs drawn from them with replacement, and allocates again.
Without, R* is moved over the range that papers report, from 4 to 40.

Sources: arXiv 2305.16264 (constants), 2605.12715 (the law; scarce targets are reused 15 to 20 times at best, and the
best weight of the target falls with the model's size), 2606.07597 (so does the best number of repeats). What is
allocated without runs is our reading.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mixstream.errors import FitError, RunTableError, nearest
from mixstream.methods.mixture_law import FittedMixture, MixtureLaw
from mixstream.methods.mixture_law.law import LossLaw
from mixstream.methods.muennighoff import PUBLISHED
from mixstream.methods.planning.bootstrap import LEVEL, bootstrap, interval
from mixstream.methods.planning.table import RunTable
from mixstream.methods.repeat_warnings import MOST_REPEATS, warnings_of_law, warnings_of_repeats
from mixstream.mixture.budget import MaxRepeats, repeat_budgets
from mixstream.mixture.simplex import Float64, is_real

SATURATIONS = (4.0, 40.0)  # the range of R* that papers report
UNSEEN = (
    "no runs of yours were given: the constants are those of English web text, and sources are taken to learn nothing "
    "from each other; trust neither the losses nor more than the order of the proportions"
)


@dataclass(frozen=True, eq=False)
class Recommendation:
    """What to read.

    Attributes:
        sources: K names; `targets`: M of losses.
        proportions: (K,) sum 1.
        proportions_between: (2, K) least and greatest that are likely.
        repeats: (K,) p D / U.
        repeats_between: (2, K).
        losses: (M,) expected, in the unit of the runs (nats/token without runs).
        losses_between: (2, M) at `proportions`.
        between: what the ranges are, in words.
        warnings: what to know before this is used.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    proportions: Float64
    proportions_between: Float64
    repeats: Float64
    repeats_between: Float64
    losses: Float64
    losses_between: Float64
    between: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Asked:
    """What is asked of every law: D, U (K,), R (K,), floor, N."""

    tokens: float
    unique: Float64
    budgets: Float64
    floor: float
    parameters: float

    def proportions(self, law: MixtureLaw) -> Float64:
        return law.allocate(self.tokens, self.unique, self.budgets, floor=self.floor, parameters=self.parameters)

    def losses(self, law: MixtureLaw, proportions: Float64) -> Float64:
        losses = law.predict(proportions[None], self.tokens, parameters=self.parameters, unique=self.unique)
        return np.asarray(losses[0])


@dataclass(frozen=True, eq=False)
class _Likely:
    """Ranges of proportions (2, K) and of losses (2, M), over what in words, and what failed refits said."""

    proportions: Float64
    losses: Float64
    between: str
    failures: tuple[str, ...]


def recommend(
    sizes: Mapping[str, float],
    tokens: float,
    *,
    parameters: float = math.nan,
    law: MixtureLaw | None = None,
    runs: RunTable | None = None,
    max_repeats: MaxRepeats = MOST_REPEATS,
    floor: float = 0.0,
    refits: int = 50,
    seed: int = 0,
) -> Recommendation:
    """Return what a run of `tokens` should read.

    Args:
        sizes: {source: unique tokens}; infinite where they cannot run out.
        tokens: D of the run.
        parameters: N of the model; needed without a law, and by a law of several model sizes.
        law: fitted, or options for a fit to `runs`; None without runs: published constants.
        runs: that the law is fitted to, for how sure it is.
        max_repeats: one number for all, {source: number} with "*" for the others, or None: unlimited.
        floor: least proportion of every source.
        refits: on resampled runs, at least 2.
        seed: of the resampling.

    Raises:
        RunTableError: no sources, other sources than the law's, or sizes or tokens that are not above 0.
        FitError: no model size where one is needed, a law that was not fitted and no runs, or no convergence, also of
            more than a quarter of the refits.
        BudgetError, FloorError: repeat budgets and floor leave no mixture.
    """
    names = _checked(sizes, law, runs, refits)
    told = [sizes[name] for name in names]
    budgets = [math.inf if limit is None else limit for limit in repeat_budgets(max_repeats, names)]
    asked = _Asked(tokens, np.array(told, dtype=np.float64), np.array(budgets), floor, parameters)
    chosen = (law or MixtureLaw()).fit(runs) if runs is not None else law or without_runs(names, parameters)
    proportions = asked.proportions(chosen)
    if runs is None:
        likely = _by_saturations(asked, chosen, proportions)
    else:
        likely = _by_refits(asked, chosen, proportions, runs, refits, seed)
    repeats = proportions * tokens / asked.unique
    fitted = chosen.fitted
    assert fitted is not None
    warnings = warnings_of_repeats(names, repeats)
    if law is None and runs is None:
        warnings.append(UNSEEN)
    else:
        warnings += warnings_of_law(fitted, tokens, repeats, parameters)
    if likely.failures:
        warnings.append(
            f"{len(likely.failures)} of {refits} fits to resampled runs failed; the runs hardly determine the law (the "
            f"first: {likely.failures[0]})"
        )
    return Recommendation(
        sources=tuple(names),
        targets=fitted.targets,
        proportions=proportions,
        proportions_between=likely.proportions,
        repeats=repeats,
        repeats_between=likely.proportions * tokens / asked.unique,
        losses=asked.losses(chosen, proportions),
        losses_between=likely.losses,
        between=likely.between,
        warnings=tuple(warnings),
    )


def without_runs(sources: list[str], parameters: float, saturation: float = PUBLISHED.data_saturation) -> MixtureLaw:
    """Return the law that is used without runs: each source by itself, with published constants.

    Args:
        sources: K names, which are the targets too.
        parameters: N > 0.
        saturation: R* > 0.

    Raises:
        FitError: no model size.
    """
    if not (parameters > 0 and math.isfinite(parameters)):
        raise FitError(f"parameters={parameters}; without runs the model's size is needed, a finite number above 0")
    count = len(sources)
    capacity = math.exp(PUBLISHED.log_model_scale - PUBLISHED.model_exponent * math.log(parameters))
    reference = 1e9
    laws = tuple(
        LossLaw(
            floor=PUBLISHED.floor + capacity,
            scale=math.exp(PUBLISHED.log_data_scale - PUBLISHED.data_exponent * math.log(reference)),
            exponent=PUBLISHED.data_exponent,
            transfer=np.eye(count)[number],
            saturation=np.full(count, saturation),
            penalty=np.zeros(count),
            reference_tokens=reference,
        )
        for number in range(count)
    )
    unknown = (math.nan, math.nan)
    nothing = np.full(count, math.nan)
    return MixtureLaw(
        saturation=saturation,
        fitted=FittedMixture(tuple(sources), tuple(sources), laws, unknown, unknown, nothing, nothing),
    )


def _checked(sizes: Mapping[str, float], law: MixtureLaw | None, runs: RunTable | None, refits: int) -> list[str]:
    """Return the sources in the order of the law, or of the runs."""
    if not sizes:
        raise RunTableError("no sources; give {name: unique tokens}")
    if refits < 2:
        raise FitError(f"refits={refits}; expected at least 2 to tell a range")
    for name, size in sizes.items():
        if not (is_real(size) and size > 0):
            raise RunTableError(f"{name!r} has {size!r} unique tokens; expected a number above 0, or leave it out")
    if runs is None and law is not None and law.fitted is None:
        raise FitError("the law has not been fitted; give the runs, or what law.fit(runs) returns")
    known = runs.sources if runs is not None else law.fitted.sources if law is not None and law.fitted else tuple(sizes)
    for name in sizes:
        if name not in known:
            raise RunTableError(f"the law knows nothing of {name!r}{nearest(name, known)}; it has {', '.join(known)}")
    missing = [name for name in known if name not in sizes]
    if missing:
        raise RunTableError(f"no size of {', '.join(missing)}, which the law was fitted to; give every source one")
    return list(known)


def _by_refits(asked: _Asked, law: MixtureLaw, share: Float64, runs: RunTable, refits: int, seed: int) -> _Likely:
    """Return the ranges over fits to runs drawn with replacement; losses are those at the `share` of the answer.

    Raises:
        FitError: too many of them fail.
    """
    found = bootstrap(
        law, runs, asked.proportions, lambda refit: asked.losses(refit, share)[None], num=refits, seed=seed
    )
    told = f"the middle {LEVEL:.0%} of {len(found.losses)} fits to resampled runs"
    return _Likely(interval(found.proportions).T, interval(found.losses[:, 0]).T, told, found.failures)


def _by_saturations(asked: _Asked, law: MixtureLaw, share: Float64) -> _Likely:
    """Return the ranges over R*."""
    laws = [law, *(_with_saturation(law, value) for value in SATURATIONS)]
    proportions = np.array([asked.proportions(one) for one in laws])
    losses = np.array([asked.losses(one, share) for one in laws])
    told = f"R* from {SATURATIONS[0]:g} to {SATURATIONS[1]:g}, the range that papers report"
    return _Likely(np.quantile(proportions, (0, 1), axis=0), np.quantile(losses, (0, 1), axis=0), told, ())


def _with_saturation(law: MixtureLaw, saturation: float) -> MixtureLaw:
    """Return the law with another R* everywhere."""
    assert law.fitted is not None
    laws = tuple(replace(one, saturation=np.full_like(one.saturation, saturation)) for one in law.fitted.laws)
    return replace(law, fitted=replace(law.fitted, laws=laws))
