"""One question, one answer: which proportions a run should have, what is expected of it, and how sure that is.

The answer always stands beside natural, uniform and UniMax, since a planner can lose to them by its own law (an
objective other than the mean loss, a pull to a prior, a search that ended too early), and beside what is known of
its reach and its errors.

    mean loss = sum_t w_t L_t,     w the planner's targets, all alike where it has none

A law may be unable to tell a loss (nan), as CLIMB's of a language that is not read: so is the mean then, unless the
loss has no weight, and a warning says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard, get_args

import numpy as np

from mixstream.errors import FitError, RunTableError
from mixstream.methods.planning.asked import AskedRun, asked_run
from mixstream.methods.planning.bootstrap import Bootstrap, Resample, bootstrap, interval, relative_errors
from mixstream.methods.planning.planner import Allocator, Planner, target_weights
from mixstream.methods.planning.reach import Pilots, Reach, pilots_of, reach
from mixstream.methods.planning.table import RunTable
from mixstream.mixture.budget import MaxRepeats
from mixstream.mixture.simplex import Float64

SURE = 0.9  # of the refits must find the answer better than a baseline
BEYOND_ERRORS = (
    2.0  # times the law's held-out error: a gain of less may be none, and what is chosen as best is flattered
)
SAME = 1e-9  # mean losses that differ by less, relatively, are the same


@dataclass(frozen=True, eq=False)
class Beside:
    """A simple mixture beside the answer.

    Attributes:
        name: natural, uniform, or unimax:4.
        proportions: (K,), the rule's, or the nearest that floor and budgets allow.
        held: sources of which they do not allow the rule's.
        losses: (M,) that the law expects of it; None without a law.
        mean_loss: of them; nan without a law, or where it cannot tell one.
        wins: share of the refits that expect a lower mean loss of the answer; nan without refits that can tell.
    """

    name: str
    proportions: Float64
    held: tuple[str, ...]
    losses: Float64 | None
    mean_loss: float
    wins: float


@dataclass(frozen=True, eq=False)
class Expected:
    """What a law expects of the answer.

    Attributes:
        targets: M names.
        target_weights: (M,) w, sum 1.
        losses: (M,).
        loss_intervals: (M, 2) over the refits; None without.
        mean_loss: of the losses.
        mean_interval: (2,); None without refits.
        seen_error: median relative error on the losses that the law was fitted to; nan without the runs.
        heldout_error: on those that refits had not seen; nan where nothing was held out.
    """

    targets: tuple[str, ...]
    target_weights: Float64
    losses: Float64
    loss_intervals: Float64 | None
    mean_loss: float
    mean_interval: Float64 | None
    seen_error: float
    heldout_error: float


@dataclass(frozen=True, eq=False)
class Answer:
    """The proportions of a run, and what is known of them.

    Attributes:
        method: the planner's name.
        run: that was asked about, with its sources, sizes and budgets.
        proportions: (K,), sum 1.
        intervals, spread: (K, 2) and standard deviation (K,) of the proportions over the refits; None without.
        expected: by the law; None of a method without one.
        beside: natural, uniform, UniMax.
        reach: how far the answer is from the pilots; None where they are not known.
        refits, failures: of the bootstrap: how many were tried, and what those said that failed.
        warnings: a sentence each.
    """

    method: str
    run: AskedRun
    proportions: Float64
    intervals: Float64 | None
    spread: Float64 | None
    expected: Expected | None
    beside: tuple[Beside, ...]
    reach: Reach | None
    refits: int
    failures: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def weights(self) -> dict[str, float]:
        """{source: proportion}, sum 1."""
        return dict(zip(self.run.sources, (self.proportions / math.fsum(self.proportions)).tolist(), strict=True))

    @property
    def repeats(self) -> Float64:
        """(K,) r = p D / U."""
        repeats: Float64 = self.proportions * self.run.tokens / self.run.sizes
        return repeats


def answer(
    planner: Allocator,
    runs: RunTable | None,
    sizes: Mapping[str, float],
    tokens: float,
    *,
    max_repeats: MaxRepeats = None,
    floor: float = 0.0,
    parameters: float = math.nan,
    refits: int = 0,
    resample: Resample = "runs",
    seed: int = 0,
    pilots: Pilots | None = None,
    targets: Sequence[str] | None = None,
) -> Answer:
    """Return the proportions that a planner gives a run, and what is known of them.

    Args:
        planner: with a law, it is fitted to `runs`; without one, it takes none.
        runs: that the law learns from; None: the planner is fitted already.
        sizes: {source: unique tokens}, of the sources of the runs.
        tokens: D.
        max_repeats: as `build_plan`'s: of all sources, or {source: number, "*": of the rest}; None: unlimited.
        floor: least proportion of every source.
        parameters: N; nan: that of the runs.
        refits: of the bootstrap; 0: none, else 2 or more.
        resample: what the bootstrap draws: runs, or residuals.
        seed: of the bootstrap.
        pilots: that a planner given without `runs` was fitted to.
        targets: M names of what such a planner predicts; None: its sources.

    Raises:
        RunTableError: other sources than the runs', runs for a method that takes none, or a bad number.
        FitError: too few runs, no convergence, or refits without runs.
        FloorError, BudgetError: floor and budgets leave no mixture.
    """
    told = pilots_of(runs) if runs is not None else pilots
    sources = tuple(sizes) if told is None else told.sources
    run = asked_run(sources, sizes, tokens, max_repeats=max_repeats, floor=floor, parameters=parameters)
    if not has_law(planner):
        if runs is not None or refits:
            raise RunTableError(f"{planner.name} learns nothing from runs; leave runs and refits out")
        return _without_law(planner, run)
    if resample not in get_args(Resample):
        raise FitError(f"resample={resample!r}; expected one of {', '.join(get_args(Resample))}")
    if runs is None and refits:
        raise FitError("a bootstrap fits to runs again; give the runs, or go without intervals")
    fitted = planner if runs is None else planner.fit(runs)
    names = tuple(runs.targets if runs is not None else targets or sources)
    own = run.allocated_by(fitted)
    mixtures = np.array([own, *(simple.proportions for simple in run.simple_mixtures())])
    found = _refitted(fitted, runs, run, mixtures, refits, resample, seed) if runs is not None and refits else None
    losses = run.expected_by(fitted, mixtures)
    weights = target_weights(getattr(fitted, "targets", None), names)
    means = _means(losses, weights)
    expected = Expected(
        targets=names,
        target_weights=weights,
        losses=losses[0],
        loss_intervals=interval(found.losses[:, 0]) if found else None,
        mean_loss=float(means[0]),
        mean_interval=interval(_means(found.losses[:, 0], weights)) if found else None,
        seen_error=float(np.median(relative_errors(fitted, runs))) if runs is not None else math.nan,
        heldout_error=found.heldout_error if found else math.nan,
    )
    beside = _beside(run, means, losses, _means(found.losses, weights) if found else None)
    near = None
    if told is not None:
        near = reach(told, own, run.tokens, parameters=run.parameters, repeats=own * run.tokens / run.sizes)
    return Answer(
        method=fitted.name,
        run=run,
        proportions=own,
        intervals=interval(found.proportions) if found else None,
        spread=found.proportions.std(axis=0, ddof=1) if found else None,
        expected=expected,
        beside=beside,
        reach=near,
        refits=refits,
        failures=found.failures if found else (),
        warnings=(
            *_untold(expected, beside),
            *_doubts(expected, beside, found),
            *(near.warnings if near else ()),
            *_notes(fitted),
        ),
    )


def has_law(planner: Allocator) -> TypeGuard[Planner]:
    """Return whether a planner learns a law from runs."""
    return hasattr(planner, "fit") and hasattr(planner, "predict")


def _without_law(planner: Allocator, run: AskedRun) -> Answer:
    from mixstream.methods.baselines import Baseline

    held = run.held_of(planner.wanted(run.tokens, run.sizes)) if isinstance(planner, Baseline) else ()
    return Answer(
        method=planner.name,
        run=run,
        proportions=run.allocated_by(planner),
        intervals=None,
        spread=None,
        expected=None,
        beside=tuple(
            Beside(one.name, one.proportions, one.held, None, math.nan, math.nan) for one in run.simple_mixtures()
        ),
        reach=None,
        refits=0,
        failures=(),
        warnings=(
            f"{planner.name} cannot be had: floor and repeat budgets hold {', '.join(held[:5])} ({len(held)} of "
            f"{len(run.sources)} sources); this is the nearest that they allow",
        )
        if held
        else (),
    )


def _means(losses: Float64, weights: Float64) -> Float64:
    """Return the weighted means (...,) of losses (..., M); what counts nothing need not be told."""
    counted = weights > 0
    means: Float64 = losses[..., counted] @ weights[counted]
    return means


def _refitted(
    fitted: Planner, runs: RunTable, run: AskedRun, mixtures: Float64, num: int, resample: Resample, seed: int
) -> Bootstrap:
    def expected(refit: Planner) -> Float64:
        return run.expected_by(refit, mixtures)

    return bootstrap(fitted, runs, run.allocated_by, expected, num=num, seed=seed, resample=resample)


def _beside(run: AskedRun, means: Float64, losses: Float64, refits: Float64 | None) -> tuple[Beside, ...]:
    """Return the simple mixtures; of `means` (X,), `losses` (X, M) and `refits` (B, X) the first is the answer's."""
    return tuple(
        Beside(
            name=one.name,
            proportions=one.proportions,
            held=one.held,
            losses=losses[number],
            mean_loss=float(means[number]),
            wins=math.nan if refits is None else _wins(refits[:, 0], refits[:, number]),
        )
        for number, one in enumerate(run.simple_mixtures(), start=1)
    )


def _wins(own: Float64, other: Float64) -> float:
    """Return in which share of the refits (B,) the own mean is the lower one, of those that know both."""
    both = ~np.isnan(own + other)
    return float((own[both] < other[both]).mean()) if both.any() else math.nan


def _untold(expected: Expected, beside: Sequence[Beside]) -> list[str]:
    """Return of which mixtures the law cannot tell which losses."""
    mixtures = [("this answer", expected.losses), *((one.name, one.losses) for one in beside if one.losses is not None)]
    told = []
    for name, losses in mixtures:
        missing = [target for target, loss in zip(expected.targets, losses, strict=True) if math.isnan(loss)]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            told.append(
                f"what the loss of {', '.join(missing[:5])}{more} would be by {name} is not known: the law says "
                f"nothing of what is hardly read; a floor has it read"
            )
    return told


def _doubts(expected: Expected, beside: Sequence[Beside], found: Bootstrap | None) -> list[str]:
    """Return what speaks against the answer, by the law itself."""
    told = []
    for names, one in _different(beside):
        held = ", held within floor and budgets," if one.held else ""
        if one.mean_loss < expected.mean_loss * (1 - SAME):
            told.append(
                f"by its own law {names}{held} is better: a mean loss of {one.mean_loss:.5f} is expected of it, "
                f"{expected.mean_loss:.5f} of this answer; take it, or another objective"
            )
            continue
        gain = one.mean_loss / expected.mean_loss - 1
        if one.wins < SURE and gain > SAME:
            told.append(f"that it is better than {names}{held} is not sure: {one.wins:.0%} of the refits say so")
        if SAME < gain < BEYOND_ERRORS * expected.heldout_error:
            told.append(
                f"the gain over {names}{held} is {gain:.2%} of the loss, and the law errs by "
                f"{expected.heldout_error:.2%} on runs that it has not seen: it may be none"
            )
    if found is not None and found.failures:
        told.append(
            f"{len(found.failures)} of {found.num} refits failed, and the intervals are those of the others "
            f"(the first: {found.failures[0]})"
        )
    return told


def _different(beside: Sequence[Beside]) -> list[tuple[str, Beside]]:
    """Return the mixtures that differ from each other, each with the names of all that are the same."""
    groups: list[list[Beside]] = []
    for one in beside:
        same = (group for group in groups if np.allclose(group[0].proportions, one.proportions, rtol=0, atol=1e-6))
        group = next(same, None)
        if group is None:
            groups.append([one])
        else:
            group.append(one)
    return [(" = ".join(one.name for one in group), group[0]) for group in groups]


def _notes(fitted: Planner) -> Sequence[str]:
    """Return what a fit left open, as laws that know of it keep in `planner.fitted.notes`."""
    return tuple(getattr(getattr(fitted, "fitted", None), "notes", ()))
