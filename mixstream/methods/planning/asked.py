"""The run that is asked about: what a planner may give it, and the simple mixtures that it could have instead."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixstream.errors import FitError, RunTableError, nearest
from mixstream.methods.planning.allocating import Region, region_of
from mixstream.methods.planning.planner import Allocator, Planner
from mixstream.mixture.budget import MaxRepeats, repeat_budgets
from mixstream.mixture.simplex import Float64
from mixstream.mixture.weights import natural, uniform, unimax

UNIMAX_REPEATS = 4.0  # the most that its paper takes
WITHIN = 1e-6  # of floor and budgets, that an allocation keeps


@dataclass(frozen=True, eq=False)
class AskedRun:
    """A run over K sources.

    Attributes:
        sources: K names.
        sizes: (K,) U, unique tokens; budgets: (K,) R, most repeats, infinite: unlimited.
        tokens, parameters: D, and N (nan: that of the runs a planner learnt from).
        floor: least proportion of every source.
        region: where its proportions may lie.
    """

    sources: tuple[str, ...]
    sizes: Float64
    budgets: Float64
    tokens: float
    parameters: float
    floor: float
    region: Region

    def allocated_by(self, planner: Allocator) -> Float64:
        """Return a planner's (K,) proportions, checked.

        Raises:
            FitError: they are outside floor and budgets.
        """
        found = planner.allocate(self.tokens, self.sizes, self.budgets, floor=self.floor, parameters=self.parameters)
        within = (found >= self.region.least - WITHIN) & (found <= self.region.most + WITHIN)
        if not within.all() or not abs(found.sum() - 1) <= WITHIN:
            raise FitError(
                f"{planner.name} allocated proportions outside floor and budgets (least {found.min():.6g}, sum "
                f"{found.sum():.9g}): a fault of the planner, which its author should be told"
            )
        return np.clip(found, self.region.least, self.region.most)

    def expected_by(self, planner: Planner, mixtures: Float64) -> Float64:
        """Return the (X, M) losses that a planner expects of (X, K) mixtures; nan where its law cannot tell.

        Raises:
            FitError: they are infinite, or its law can tell none of a mixture.
        """
        losses = planner.predict(mixtures, self.tokens, parameters=self.parameters, unique=self.sizes)
        if np.isinf(losses).any() or np.isnan(losses).all(axis=1).any():
            raise FitError(f"{planner.name} expects losses of this run that are not finite; look at the runs' losses")
        return losses

    def simple_mixtures(self) -> list[SimpleMixture]:
        """Return natural, uniform and UniMax, held within floor and budgets.

        UniMax is of 4 repeats, or of as many as the run needs.
        """
        repeats = max(UNIMAX_REPEATS, float(math.ceil(self.tokens / self.sizes.sum())))
        wanted = {
            "natural": natural(self.sizes),
            "uniform": uniform(self.sizes),
            f"unimax:{repeats:g}": unimax(self.sizes, repeats, self.tokens),
        }
        return [self._held(name, shares) for name, shares in wanted.items()]

    def held_of(self, wanted: Float64) -> tuple[str, ...]:
        """Return the sources of which floor and budgets do not allow the (K,) proportions that are wanted."""
        outside = (wanted < self.region.least - WITHIN) | (wanted > self.region.most + WITHIN)
        return tuple(source for source, is_out in zip(self.sources, outside, strict=True) if is_out)

    def _held(self, name: str, wanted: Float64) -> SimpleMixture:
        held = self.held_of(wanted)
        return SimpleMixture(name=name, proportions=self.region.project(wanted) if held else wanted, held=held)


@dataclass(frozen=True, eq=False)
class SimpleMixture:
    """A mixture by a rule.

    Attributes:
        name: of the rule.
        proportions: (K,), the rule's, or the nearest that floor and budgets allow.
        held: sources of which they do not allow the rule's; empty: the rule can be had.
    """

    name: str
    proportions: Float64
    held: tuple[str, ...]


def asked_run(
    sources: Sequence[str],
    sizes: Mapping[str, float],
    tokens: float,
    *,
    max_repeats: MaxRepeats = None,
    floor: float = 0.0,
    parameters: float = math.nan,
) -> AskedRun:
    """Return the run that is asked about, its numbers in the order of `sources`.

    Args:
        sources: K names.
        sizes: {source: unique tokens}.
        tokens: D.
        max_repeats: of all sources, or {source: number, "*": of the rest}; None: unlimited.
        floor: least proportion of every source.
        parameters: N; nan: not told.

    Raises:
        RunTableError: sizes of other sources, or numbers that are not above 0.
        FloorError, BudgetError: floor and budgets leave no mixture, or name an unknown source.
    """
    unknown = [name for name in sizes if name not in sources]
    missing = [name for name in sources if name not in sizes]
    for lost, told, known in (
        (unknown, "no source of the runs", list(sources)),
        (missing, "in the runs, but has no size", list(sizes)),
    ):
        if lost:
            raise RunTableError(
                f"{lost[0]!r} ({len(lost)} such) is {told}{nearest(lost[0], known)}; ask for exactly the sources of "
                f"the runs: {', '.join(list(sources)[:8])}"
            )
    if not math.isnan(parameters) and not 0 < parameters < math.inf:
        raise RunTableError(f"a model of {parameters} parameters; expected a finite number above 0")
    ordered = np.array([float(sizes[name]) for name in sources])
    if np.isinf(ordered).any():
        endless = sources[int(np.argmax(np.isinf(ordered)))]
        raise RunTableError(
            f"{endless!r} has infinite unique tokens; natural and UniMax, beside the answer, need a number"
        )
    budgets = np.array([math.inf if own is None else own for own in repeat_budgets(max_repeats, sources)])
    return AskedRun(
        sources=tuple(sources),
        sizes=ordered,
        budgets=budgets,
        tokens=float(tokens),
        parameters=float(parameters),
        floor=float(floor),
        region=region_of(tokens, ordered, budgets, floor, sources),
    )
