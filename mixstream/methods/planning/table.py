"""What finished runs read, and what losses they ended with: all that a planner is fitted to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mixstream.errors import RunTableError, nearest
from mixstream.mixture.simplex import BoolArray, Float64
from mixstream.streams.index import Int64

SUM_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class RunTable:
    """R runs over K sources, and their losses on M targets; checked when it is made.

    Sources and targets are languages, streams or domains; of a planner that learns a language's loss from its
    own share they are the same, elsewhere they need not be.

    Attributes:
        sources: K names of what was mixed.
        targets: M names of what losses were measured on.
        runs: R names.
        proportions: (R, K) share of each source in what a run read, each row with sum 1 within 1e-6 (a row is
            divided by its sum).
        tokens: (R,) D > 0, tokens that a run read.
        losses: (R, M) held-out losses in nats/token (any one unit, in all of the table), above 0; nan where
            a run has none.
        parameters: (R,) N > 0, parameters of the model; nan where it is not told.
        unique: (R, K) U > 0, unique tokens of each source that the run had; infinite where nothing was repeated,
            or it is not told.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    runs: tuple[str, ...]
    proportions: Float64
    tokens: Float64
    losses: Float64
    parameters: Float64
    unique: Float64

    def __post_init__(self) -> None:
        """Refuse what is no table of runs.

        Raises:
            RunTableError: names twice, shapes that do not fit, or a value that cannot be, with run and place.
        """
        for kind, names in (("source", self.sources), ("target", self.targets), ("run", self.runs)):
            twice = [name for name in names if names.count(name) > 1] if len(set(names)) < len(names) else []
            if twice or not names:
                raise RunTableError(f"{kind} {twice[0]!r} stands twice" if twice else f"the table has no {kind}")
        num_runs, num_sources, num_targets = len(self.runs), len(self.sources), len(self.targets)
        for name, shape in (
            ("proportions", (num_runs, num_sources)),
            ("tokens", (num_runs,)),
            ("losses", (num_runs, num_targets)),
            ("parameters", (num_runs,)),
            ("unique", (num_runs, num_sources)),
        ):
            if getattr(self, name).shape != shape:
                raise RunTableError(f"{name} are of shape {getattr(self, name).shape}, expected {shape}")
        self._refuse("proportions", ~(self.proportions >= 0), self.sources, "a number of at least 0")
        self._refuse("tokens", ~((self.tokens > 0) & np.isfinite(self.tokens)), (), "a finite number above 0")
        bad = ~((self.losses > 0) & np.isfinite(self.losses)) & ~np.isnan(self.losses)
        self._refuse("losses", bad, self.targets, "a finite number above 0, or nothing where there is none")
        bad = ~((self.parameters > 0) & np.isfinite(self.parameters)) & ~np.isnan(self.parameters)
        self._refuse("parameters", bad, (), "a finite number above 0, or nothing where it is not known")
        self._refuse("unique", ~(self.unique > 0), self.sources, "a number of tokens above 0")
        sums = self.proportions.sum(axis=1)
        off = np.abs(sums - 1) > SUM_TOLERANCE
        if off.any():
            first = int(np.argmax(off))
            raise RunTableError(
                f"run {self.runs[first]!r}: its proportions sum to {sums[first]:.9g} ({int(off.sum())} of {num_runs} "
                f"runs), expected 1 within {SUM_TOLERANCE:g}; give every source its share, or divide by the sum"
            )
        object.__setattr__(self, "proportions", self.proportions / sums[:, None])

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def repeats(self) -> Float64:
        """(R, K) r = proportion x tokens / unique: how often each source was read; 0 where nothing is repeated."""
        repeats: Float64 = self.proportions * self.tokens[:, None] / self.unique
        return repeats

    def rows(self, chosen: BoolArray | Int64 | Sequence[int]) -> RunTable:
        """Return the runs that are chosen, by a mask (R,) or by numbers, which may stand in any order.

        A run that is chosen more than once, as a bootstrap does, is told apart by its name: ``a``, ``a#2``.

        Raises:
            RunTableError: no run is chosen, or a mask is of another length than the table.
        """
        asked = np.asarray(chosen)
        if asked.dtype == np.bool_ and asked.shape != (len(self),):
            raise RunTableError(
                f"a mask of shape {asked.shape} chooses runs; expected one entry for each of {len(self)}"
            )
        numbers = np.arange(len(self))[asked] if asked.size else np.empty(0, dtype=np.int64)
        names = _told_apart([self.runs[number] for number in numbers.tolist()])
        arrays: dict[str, Any] = {
            name: getattr(self, name)[numbers] for name in ("proportions", "tokens", "losses", "parameters", "unique")
        }
        return replace(self, runs=tuple(names), **arrays)

    def target(self, name: str) -> int:
        """Return the number of a target.

        Raises:
            RunTableError: there is no such target.
        """
        if name not in self.targets:
            raise RunTableError(
                f"no losses of {name!r}{nearest(name, self.targets)} (the table has {', '.join(self.targets)})"
            )
        return self.targets.index(name)

    def _refuse(self, what: str, bad: BoolArray, columns: Sequence[str], expected: str) -> None:
        if not bad.any():
            return
        place = np.argwhere(bad)[0]
        value = float(getattr(self, what)[tuple(place)])
        of = f" of {columns[place[1]]!r}" if len(place) > 1 else ""
        raise RunTableError(f"run {self.runs[place[0]]!r}: {what}{of}: found {value:g}, expected {expected}")


def _told_apart(names: Sequence[str]) -> list[str]:
    """Return names of which no two are the same: what comes again gets a number that no other name has."""
    taken, seen, told = set(names), set(), []
    for name in names:
        own = name
        if name in seen:
            own = next(other for number in itertools.count(2) if (other := f"{name}#{number}") not in taken)
        seen.add(name)
        taken.add(own)
        told.append(own)
    return told


def table_of(
    sources: Sequence[str],
    proportions: Float64,
    tokens: Float64 | float,
    losses: Float64,
    *,
    targets: Sequence[str] | None = None,
    runs: Sequence[str] | None = None,
    parameters: Float64 | float | None = None,
    unique: Float64 | None = None,
) -> RunTable:
    """Return a table of runs from arrays; what is left out is filled in.

    Args:
        sources: K names.
        proportions: (R, K).
        tokens: (R,), or one number for all runs.
        losses: (R, M).
        targets: M names; None: the sources.
        runs: R names; None: numbers.
        parameters: (R,), one number for all runs, or None where it is not known.
        unique: (R, K), (K,) for all runs, or None where nothing was repeated.

    Raises:
        RunTableError: as `RunTable`.
    """
    shares = np.asarray(proportions, dtype=np.float64)
    count = len(shares)
    return RunTable(
        sources=tuple(sources),
        targets=tuple(sources if targets is None else targets),
        runs=tuple(str(number) for number in range(count)) if runs is None else tuple(runs),
        proportions=shares,
        tokens=_spread("tokens", tokens, (count,)),
        losses=np.asarray(losses, dtype=np.float64),
        parameters=_spread("parameters", math.nan if parameters is None else parameters, (count,)),
        unique=_spread("unique", math.inf if unique is None else unique, shares.shape),
    )


def _spread(what: str, value: Float64 | float, shape: tuple[int, ...]) -> Float64:
    """Return a value for each entry of `shape`.

    Raises:
        RunTableError: it is of a shape that does not fit.
    """
    given = np.asarray(value, dtype=np.float64)
    try:
        return np.array(np.broadcast_to(given, shape))
    except ValueError:
        raise RunTableError(f"{what} are of shape {given.shape}, expected {shape}") from None
