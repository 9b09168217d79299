"""Weights as a function of training time: changes at given times, at once or along a ramp.

A schedule is decided in whole batches, and a ramp in steps, so that what a run reads is exactly
piecewise constant: a list of phases, each with its weights.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from mixstream.errors import FormatError, MixstreamError, MixtureError
from mixstream.formats import FileModel, load_yaml, parse
from mixstream.mixture.simplex import Float64
from mixstream.mixture.weights import resolve_weights
from mixstream.streams.index import Int64
from mixstream.streams.manifest import Count

RAMP_STEPS = 256  # of one ramp at most
ALL_STEPS = 1024  # of all ramps of a schedule together
MAX_CHANGES = 32

_TIME = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE]\+?[0-9]{1,2})?) ?([a-z]+)")
_NO_UNITS = ("ep", "iter", "sec")  # Composer's, which do not name a batch of a run

Share = Annotated[float, Field(ge=0, le=1)]


class Change(FileModel):
    """One change of a schedule, as it is asked for.

    Attributes:
        at: the time at which it begins: ``1000ba``, ``0.5dur``, ``200000sp`` or ``5000000tok``.
        weights: {name: weight}, a rule, or the path of a weights file.
        ramp: how long the weights take to get there, linearly; None: they jump.
    """

    at: str
    weights: str | dict[str, float]
    ramp: str | None = None


class PlannedChange(FileModel):
    """One change of a schedule, as it was decided.

    Attributes:
        at_batch: the first global batch that it acts on.
        ramp_batches: batches over which the weights move to `weights`; 0: they jump.
        weights: of every stream.
    """

    at_batch: Count
    ramp_batches: Count
    weights: dict[str, Share]


class Schedule(FileModel):
    """What `--schedule FILE` reads, under one key: {"changes": [...]}."""

    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Clock:
    """What a time is counted with.

    Attributes:
        num_batches: global batches of the run.
        batch_size: samples of a global batch.
        sequence_length: tokens of a sample.
    """

    num_batches: int
    batch_size: int
    sequence_length: int

    def batches(self, time: str) -> Fraction:
        """Return a time in batches.

        Args:
            time: a number and a unit of Composer's: ba (batches), sp (samples), tok (tokens), or dur (share of
                the run).

        Raises:
            MixtureError: it is no time, or is told in a unit that names no batch of a run.
        """
        found = _TIME.fullmatch(time) if isinstance(time, str) else None
        units = {"ba": 1, "sp": self.batch_size, "tok": self.batch_size * self.sequence_length}
        if found is None or found[2] not in (*units, "dur", *_NO_UNITS):
            raise MixtureError(
                f"time {time!r}; expected a number and a unit, as in 1000ba, 200000sp, 5000000tok or 0.5dur"
            )
        amount, unit = Fraction(found[1]), found[2]
        if unit in _NO_UNITS:
            raise MixtureError(
                f"time {time!r}: a run is one epoch and its length is told in tokens; use ba, sp, tok or dur "
                f"(the run has {self.num_batches:,}ba)"
            )
        if unit == "dur":
            return amount * self.num_batches
        if amount.denominator != 1:
            raise MixtureError(f"time {time!r}; expected a whole number of {unit} (parts of a run are told in dur)")
        return amount / units[unit]


def read_schedule(path: Path) -> tuple[Change, ...]:
    """Read the list of changes in a YAML or JSON file.

    Raises:
        FormatError: it is missing, or is no list of changes.
    """
    remedy = "write a list of changes, each with keys at, weights and, for a ramp, ramp"
    content = load_yaml(path, remedy)
    if not content:
        raise FormatError(f"{path}: holds no change; {remedy}, or leave the schedule out")
    return parse(Schedule, {"changes": content}, str(path), remedy).changes


def resolve_schedule(
    schedule: Sequence[Change | Mapping[str, Any]] | None, clock: Clock, tokens: Mapping[str, int], budget_tokens: int
) -> tuple[PlannedChange, ...]:
    """Decide a schedule's changes in batches, over the streams of `tokens` ({name: tokens}).

    Raises:
        MixtureError: a change outside the run, out of order or within the ramp before, or weights that are none.
        FormatError: a change has other keys, or its weights file is none.
    """
    if schedule is None:
        return ()
    if isinstance(schedule, (str, Mapping)) or not isinstance(schedule, Sequence):
        raise MixtureError(
            f"schedule is {type(schedule).__name__}; expected a list of changes (read_schedule reads one)"
        )
    if len(schedule) > MAX_CHANGES:
        raise MixtureError(f"schedule has {len(schedule)} changes; expected {MAX_CHANGES} at most, use ramps")
    changes: list[PlannedChange] = []
    for number, asked in enumerate(schedule, start=1):
        where = f"change {number} of the schedule"
        wanted = asked if isinstance(asked, Change) else parse(Change, asked, where)
        try:
            change = _resolve(wanted, clock, tokens, budget_tokens)
            _check_place(change, changes[-1] if changes else None, clock)
        except MixstreamError as problem:
            raise type(problem)(f"{where}: {problem}") from None
        changes.append(change)
    return tuple(changes)


def _resolve(change: Change, clock: Clock, tokens: Mapping[str, int], budget_tokens: int) -> PlannedChange:
    """Decide a change: it begins, and its ramp ends, with the first batch at or after the time."""
    at, ramp = clock.batches(change.at), clock.batches(change.ramp or "0ba")
    if change.ramp is not None and not ramp:
        raise MixtureError(f"ramp {change.ramp!r} is no time at all; leave it out for a jump")
    weights = resolve_weights(change.weights, tokens, budget_tokens)
    return PlannedChange(
        at_batch=math.ceil(at),
        ramp_batches=math.ceil(at + ramp) - math.ceil(at),
        weights=dict(zip(tokens, weights.tolist(), strict=True)),
    )


def _check_place(change: PlannedChange, before: PlannedChange | None, clock: Clock) -> None:
    """Refuse a change that is out of order or outside the run.

    Raises:
        MixtureError: with the batches in question.
    """
    start, end = change.at_batch, change.at_batch + change.ramp_batches
    if start >= clock.num_batches or end > clock.num_batches:
        what = f"its ramp ends at batch {end}" if change.ramp_batches else f"it begins at batch {start}"
        raise MixtureError(
            f"{what}, but the run has {clock.num_batches} batches; begin it earlier, shorten it, or raise budget_tokens"
        )
    if start == 0 and not change.ramp_batches:
        raise MixtureError("it begins at batch 0, where the plan's own weights hold; give these as weights instead")
    if before is None:
        return
    free = before.at_batch + max(1, before.ramp_batches)
    if start < free:
        told = (
            f"the ramp before it lasts to batch {free}"
            if before.ramp_batches
            else f"the one before begins at {free - 1}"
        )
        raise MixtureError(f"it begins at batch {start}, but {told}; begin it at batch {free} or later")


def phase_weights(
    weights: Float64, changes: Sequence[PlannedChange], names: Sequence[str], num_batches: int
) -> tuple[Int64, Float64]:
    """Return a schedule as P phases of constant weights over K streams.

    A ramp is cut into steps of whole batches, equal to within one batch; a step has the weights that the
    ramp has at its middle, so that the steps and the ramp come to the same over their whole length.

    Args:
        weights: (K,) before the first change.
        changes: in order.
        names: the K streams.
        num_batches: batches of the run.

    Returns:
        (P,) the batch with which each phase begins, rising from 0; (P, K) weights.
    """
    firsts, rows = [0], [weights]
    most = min(RAMP_STEPS, ALL_STEPS // max(1, sum(change.ramp_batches > 0 for change in changes)))
    for change in changes:
        start, goal = rows[-1], np.array([change.weights[name] for name in names])
        length = change.ramp_batches
        steps = min(most, length)
        for step in range(steps):
            begin, end = length * step // steps, length * (step + 1) // steps
            part = (begin + end) / (2 * length)
            firsts.append(change.at_batch + begin)
            rows.append((1 - part) * start + part * goal)
        firsts.append(change.at_batch + length)
        rows.append(goal)
    starts = np.array(firsts, dtype=np.int64)
    lasting = np.diff(starts, append=num_batches) > 0  # no batch before a ramp from the start, or after one to the end
    return starts[lasting], np.array(rows)[lasting]
