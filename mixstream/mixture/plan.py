"""plan.json: what was decided for a run, immutable, before anything is read."""

from __future__ import annotations

import hashlib
import json
import math
import numbers
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from mixstream.errors import BudgetError, MixtureError
from mixstream.formats import FileModel, dump_json, read_json, write_whole
from mixstream.mixture.apportion import MAX_BATCH_SIZE, UNIT
from mixstream.mixture.budget import (
    MaxRepeats,
    check_floor_within,
    check_supply,
    draw_limits,
    repeat_budgets,
    share_caps,
    shares_within,
)
from mixstream.mixture.ledger import Terms
from mixstream.mixture.phases import Phase, fit_scale, phases_of, total_units, whole_draws
from mixstream.mixture.schedule import Change, Clock, PlannedChange, phase_weights, resolve_schedule
from mixstream.mixture.simplex import Float64
from mixstream.mixture.supply import check_phases
from mixstream.mixture.weights import WeightsSpec, resolve_weights
from mixstream.streams.catalog import Catalog, Stream
from mixstream.streams.index import Int64
from mixstream.streams.manifest import MAX_COUNT, Count, Positive, TokenizerInfo

WINDOW_SAMPLES = 32_768

Share = Annotated[float, Field(ge=0, le=1)]


class PlannedStream(FileModel):
    """What a plan decided for one stream.

    Attributes:
        token_column: the MDS column that holds its tokens.
        num_samples: samples of the length that is read.
        fingerprint: of the stream as it was when the plan was made.
        weight: what was asked for, before the schedule's first change.
        scale: factor on its scheduled weights that keeps it within its repeat budget; 1 without a schedule.
        proportion: its share of the draws, after the floor, the repeat budgets and rounding to 2^-40; under a
            schedule, the mean over the run.
        max_repeats: its repeat budget, None where unlimited.
        samples, tokens: draws of the whole run, to within one sample, and their tokens.
        repeats: draws / samples of the stream.
    """

    name: str
    language: str | None
    domain: str | None
    token_column: str
    num_samples: Positive
    fingerprint: str
    weight: Share
    scale: Share = 1.0
    proportion: Share
    max_repeats: Annotated[float, Field(gt=0)] | None
    samples: Count
    tokens: Count
    repeats: Annotated[float, Field(ge=0)]


class PlanRow(NamedTuple):
    """One line of a plan's table."""

    name: str
    weight: float
    proportion: float
    samples: int
    tokens: int
    repeats: float


class Plan(FileModel):
    """The decided, immutable result of planning a run.

    Attributes:
        root: the folder that holds the streams.
        split: the sub-folder of each that is read, None for the stream itself.
        weights_from: the rule or file that the weights came from, or ``given``.
        entries: one a stream, in the order in which a batch numbers them.
        tokenizer: what made all streams' tokens; None where it is unknown.
        stored_sequence_length: tokens of a row as the streams store it.
        sequence_length: tokens of a sample as it is read: a row is one sample, or several one after the other.
        batch_size: samples of a global batch, over all ranks.
        num_batches: global batches of the run.
        budget_tokens: the token budget asked for; the run reads the whole batches that it pays.
        floor: least proportion of every stream, also of weights set online.
        window_samples: samples among which a stream is shuffled at a time, in whole shards.
        lanes: canonical nodes that each stream's samples are dealt to.
        seed: of everything random in the order of reading.
        schedule: how the weights change in the course of the run.
    """

    format: Literal["mixstream.plan"] = "mixstream.plan"
    version: Literal[1] = 1
    root: str
    split: str | None
    weights_from: str
    tokenizer: TokenizerInfo | None
    stored_sequence_length: Positive
    sequence_length: Positive
    batch_size: Annotated[int, Field(gt=0, le=MAX_BATCH_SIZE)]
    num_batches: Positive
    budget_tokens: Positive
    floor: Share
    window_samples: Positive
    lanes: Positive
    seed: Count
    schedule: tuple[PlannedChange, ...] = ()
    entries: Annotated[tuple[PlannedStream, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Plan:
        if len(set(self.streams)) != len(self.streams):
            raise ValueError("a stream is named twice")
        if self.num_batches * self.batch_size > MAX_COUNT:
            raise ValueError(f"{self.num_batches} batches of {self.batch_size} are more than 2^62 draws")
        if self.batch_size % self.lanes:
            raise ValueError(f"{self.lanes} lanes cannot share batches of {self.batch_size}")
        if self.stored_sequence_length % self.sequence_length:
            raise ValueError(f"rows of {self.stored_sequence_length} tokens hold no samples of {self.sequence_length}")
        if any(change.weights.keys() != set(self.streams) for change in self.schedule):
            raise ValueError("a change of the schedule names other streams than the plan")
        if abs(math.fsum(self.proportions) - 1) > 1e-12:
            raise ValueError(f"proportions sum to {math.fsum(self.proportions)!r}, not to 1")
        means = np.array(total_units(self.phases, self.num_batches), dtype=np.float64) / (self.num_batches * UNIT)
        if (np.abs(means - self.proportions) > 1e-12).any():
            raise ValueError("proportions are not what the schedule comes to")
        return self

    @cached_property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams; a batch's ``stream`` column indexes them."""
        return tuple(entry.name for entry in self.entries)

    @property
    def sizes(self) -> Int64:
        """Samples of each stream, (K,)."""
        return np.array([entry.num_samples for entry in self.entries], dtype=np.int64)

    @property
    def weights(self) -> Float64:
        """Weights asked for, (K,)."""
        return np.array([entry.weight for entry in self.entries])

    @property
    def proportions(self) -> Float64:
        """Shares of what is read, (K,), sum 1; under a schedule, the mean over the run."""
        return np.array([entry.proportion for entry in self.entries])

    @property
    def shares(self) -> Int64:
        """What the run begins with, in units of 2^-40, (K,), sum 2^40; exact."""
        return self.phases[0].shares

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The run as phases of constant shares: one without a schedule."""
        if not self.schedule:
            return (Phase(0, (self.proportions * UNIT).astype(np.int64)),)
        firsts, weights = phase_weights(self.weights, self.schedule, self.streams, self.num_batches)
        scale = np.array([entry.scale for entry in self.entries])
        return phases_of(firsts, weights, scale, self.floor)

    @property
    def terms(self) -> Terms:
        """What the ledger of a run must keep to."""
        budgets = [entry.max_repeats for entry in self.entries]
        limits = draw_limits(self.sizes, budgets, self.num_batches * self.batch_size)
        return Terms(self.batch_size, self.num_batches, limits, self.floor)

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides what a run reads, as JSON: two plans that agree in it read the same."""
        kept = {"name", "token_column", "num_samples", "fingerprint", "weight", "proportion", "max_repeats"}
        whole = {"sequence_length", "batch_size", "num_batches", "floor", "window_samples", "lanes", "seed"}
        identity = self.model_dump(mode="json", include={**dict.fromkeys(whole, True), "entries": {"__all__": kept}})
        return identity | {"schedule": self._schedule_told()}

    def _schedule_told(self) -> str | None:
        """Return the schedule in a few words and the hash of all of it."""
        if not self.schedule:
            return None
        facts = [[entry.scale for entry in self.entries], [change.model_dump() for change in self.schedule]]
        digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()
        return f"changes at batches {', '.join(str(change.at_batch) for change in self.schedule)} ({digest})"

    def table(self) -> list[PlanRow]:
        """Return what was decided, one row a stream."""
        return [PlanRow(*(getattr(entry, key) for key in PlanRow._fields)) for entry in self.entries]

    def save(self, path: str | Path) -> None:
        """Write plan.json, whole or not at all."""
        write_whole(Path(path), dump_json(self))

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan.json.

        Raises:
            FormatError: it is missing or is not one.
        """
        return read_json(Path(path), cls, "`mixstream plan` makes one")


def build_plan(
    catalog: Catalog,
    weights: WeightsSpec,
    budget_tokens: int,
    batch_size: int,
    sequence_length: int | None = None,
    max_repeats: MaxRepeats = None,
    floor: float = 0.0,
    schedule: Sequence[Change | Mapping[str, Any]] | None = None,
    lanes: int = 1,
    window_samples: int = WINDOW_SAMPLES,
    seed: int = 17,
) -> Plan:
    """Decide what a run reads: each stream's proportion, samples, tokens and repeats.

    A stream that its weights would push past its repeat budget is held at it, evenly over the whole run,
    and the others get the rest in proportion (M3).

    Args:
        catalog: the streams.
        weights: {name: weight} that sums to 1, or ``natural``, ``uniform``, ``temperature:0.3``,
            ``unimax:4``, or the path of a weights file.
        budget_tokens: tokens to read at most; the run is the whole batches that they pay.
        batch_size: samples of a global batch, over all ranks.
        sequence_length: tokens of a sample: a divisor of what the streams store, whose rows are then several
            samples each, in order; None: as stored. All else is counted in samples of this length.
        max_repeats: repeat budget of every stream, or {name: budget, "*": budget of the rest}; None:
            unlimited.
        floor: least proportion of every stream, at any time.
        schedule: changes of the weights, in order: each has `at`, a time such as ``1000ba`` or ``0.5dur``, and
            the `weights` from then on; with `ramp`, how long they take to get there, linearly. None: the
            weights stay.
        lanes: canonical nodes that each stream's samples are dealt to, a divisor of `batch_size`.
        window_samples: samples among which a stream is shuffled at a time.
        seed: of everything random in the order of reading.

    Raises:
        StreamError: streams of different tokenizers or sequence lengths.
        WeightsError, FloorError, BudgetError: with the numbers and the ways out.
        FormatError: a weights file or a change of the schedule is none.
        MixtureError: an option that cannot be.
    """
    budget_tokens = _whole_number("budget_tokens", budget_tokens, least=1)
    batch_size = _whole_number("batch_size", batch_size, least=1)
    lanes = _whole_number("lanes", lanes, least=1)
    window_samples = _whole_number("window_samples", window_samples, least=1)
    seed = _whole_number("seed", seed, least=0)
    first = _first_of(catalog)
    length = _length_read(sequence_length, first.sequence_length)
    sizes = np.array([stream.num_tokens // length for stream in catalog], dtype=np.int64)
    by_name = dict(zip(catalog.names, sizes.tolist(), strict=True))
    _check_batch(batch_size, lanes, by_name)
    num_batches = _num_batches(budget_tokens, batch_size, length)
    tokens = catalog.tokens
    asked = resolve_weights(weights, tokens, budget_tokens)
    clock = Clock(num_batches, batch_size, length)
    changes = resolve_schedule(schedule, clock, tokens, budget_tokens)
    budgets = repeat_budgets(max_repeats, catalog.names)
    limits = draw_limits(sizes, budgets, num_batches * batch_size)
    scale, phases = _decide(asked, changes, by_name, limits, floor, clock)
    units = total_units(phases, num_batches)
    samples = np.minimum(whole_draws(units, batch_size), limits)
    return Plan(
        root=str(catalog.root.absolute()),
        split=catalog.split,
        weights_from="given" if isinstance(weights, Mapping) else str(weights),
        tokenizer=first.tokenizer,
        stored_sequence_length=first.sequence_length,
        sequence_length=length,
        batch_size=batch_size,
        num_batches=num_batches,
        budget_tokens=budget_tokens,
        floor=floor,
        window_samples=window_samples,
        lanes=lanes,
        seed=seed,
        schedule=changes,
        entries=tuple(
            PlannedStream(
                name=stream.name,
                language=stream.language,
                domain=stream.domain,
                token_column=stream.column.name,
                num_samples=int(sizes[i]),
                fingerprint=stream.fingerprint,
                weight=float(asked[i]),
                scale=float(scale[i]),
                proportion=units[i] / (num_batches * UNIT),
                max_repeats=budgets[i],
                samples=int(samples[i]),
                tokens=int(samples[i]) * length,
                repeats=int(samples[i]) / int(sizes[i]),
            )
            for i, stream in enumerate(catalog)
        ),
    )


def _whole_number(name: str, value: object, least: int) -> int:
    """Return an option's value, if it is a whole number that can be counted with.

    Raises:
        MixtureError: it is not, or is below `least`.
    """
    number = int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else None
    if number is None or not least <= number <= MAX_COUNT:
        raise MixtureError(f"{name}={value!r}; expected a whole number of at least {least}, below 2^62")
    return number


def _first_of(catalog: Catalog) -> Stream:
    """Return a stream of a catalog, all of which can be mixed."""
    if not len(catalog):
        raise MixtureError("the catalog holds no stream")
    catalog.check_alike()
    return next(iter(catalog))


def _length_read(asked: object, stored: int) -> int:
    """Return the sequence length to read at.

    Raises:
        MixtureError: rows of `stored` tokens are not whole samples of the length asked for.
    """
    if asked is None:
        return stored
    length = _whole_number("sequence_length", asked, least=1)
    if stored % length:
        works = [stored // parts for parts in range(1, min(stored, 64) + 1) if stored % parts == 0]
        raise MixtureError(
            f"sequence_length={length}, but the streams store rows of {stored} tokens, which are to be cut into "
            f"whole samples; choose one of {_some(works)}, or convert with --sequence-length {length}"
        )
    return length


def _check_batch(batch_size: int, lanes: int, sizes: Mapping[str, int]) -> None:
    """Refuse batches or lanes that cannot be dealt out.

    Raises:
        MixtureError: with the numbers that work.
    """
    if batch_size > MAX_BATCH_SIZE:
        raise MixtureError(f"batch_size={batch_size}; expected 1 to {MAX_BATCH_SIZE:,}")
    least = min(sizes, key=lambda name: sizes[name])
    works = [count for count in range(1, min(batch_size, sizes[least]) + 1) if batch_size % count == 0]
    if batch_size % lanes:
        raise MixtureError(
            f"lanes={lanes} cannot share a batch of {batch_size} samples evenly; choose one of {_some(works)}"
        )
    if lanes > sizes[least]:
        raise MixtureError(
            f"lanes={lanes}, but stream {least!r} has {sizes[least]} samples and every lane needs one of each "
            f"stream; choose one of {_some(works)}, or leave the stream out"
        )


def _some(numbers_that_work: Sequence[int]) -> str:
    """Return the first numbers of a list, as a sentence has them."""
    more = ", ..." if len(numbers_that_work) > 12 else ""
    return ", ".join(map(str, numbers_that_work[:12])) + more


def _decide(
    asked: Float64,
    changes: Sequence[PlannedChange],
    sizes: Mapping[str, int],
    limits: Int64,
    floor: float,
    clock: Clock,
) -> tuple[Float64, tuple[Phase, ...]]:
    """Return the (K,) factors on the scheduled weights, and the phases of the run.

    Args:
        asked: (K,) weights before the first change.
        changes: the schedule.
        sizes: {name: samples} of the K streams.
        limits: (K,) most draws of each stream.
        floor: least share of every stream.
        clock: the run's length.

    Raises:
        FloorError, BudgetError: the streams cannot supply it.
    """
    names = tuple(sizes)
    num_draws = clock.num_batches * clock.batch_size
    firsts, weights = phase_weights(asked, changes, names, clock.num_batches)
    check_floor_within(floor, limits / num_draws, names)
    wanted = weights.max(axis=0) + floor
    check_supply(limits, wanted, num_draws, clock.batch_size, clock.sequence_length, sizes)
    if not changes:
        shares = shares_within(asked, floor, share_caps(limits, num_draws))
        return np.ones(len(names)), (Phase(0, shares),)
    if not floor:  # with one, every stream serves every phase
        counts = np.array(list(sizes.values()), dtype=np.int64)
        check_phases(weights, firsts, clock.num_batches, clock.batch_size, limits, counts, names)
    draws = np.diff(firsts, append=clock.num_batches).astype(np.float64) * clock.batch_size
    scale = fit_scale(weights, draws, limits, floor)
    return scale, phases_of(firsts, weights, scale, floor)


def _num_batches(budget_tokens: int, batch_size: int, sequence_length: int) -> int:
    num_batches = budget_tokens // (batch_size * sequence_length)
    if num_batches < 1:
        raise BudgetError(
            f"budget_tokens={budget_tokens:,} does not pay one batch of {batch_size} samples of "
            f"{sequence_length} tokens ({batch_size * sequence_length:,}); raise it or make the batch smaller"
        )
    return num_batches


def named(values: Float64, names: tuple[str, ...]) -> Mapping[str, float]:
    """Return a (K,) array as {name: value}."""
    return dict(zip(names, values.tolist(), strict=True))
