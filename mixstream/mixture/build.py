"""Deciding a plan: from streams, weights and budgets to what a run reads, or a refusal with the ways out."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mixstream.errors import BudgetError, MixtureError
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
from mixstream.mixture.phases import Phase, fit_scale, phases_of, total_units, whole_draws
from mixstream.mixture.plan import Plan, PlannedStream
from mixstream.mixture.schedule import Change, Clock, PlannedChange, phase_weights, resolve_schedule
from mixstream.mixture.simplex import Float64
from mixstream.mixture.supply import check_phases
from mixstream.mixture.weights import WeightsSpec, resolve_weights
from mixstream.streams.catalog import Catalog, Stream
from mixstream.streams.index import Int64
from mixstream.streams.manifest import MAX_COUNT
from mixstream.streams.place import absolute

WINDOW_SAMPLES = 32_768


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
    budget_tokens = whole_number("budget_tokens", budget_tokens, least=1)
    batch_size = whole_number("batch_size", batch_size, least=1)
    lanes = whole_number("lanes", lanes, least=1)
    window_samples = whole_number("window_samples", window_samples, least=1)
    seed = whole_number("seed", seed, least=0)
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
        root=str(absolute(catalog.root)),
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


def whole_number(name: str, value: object, least: int) -> int:
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
    if not isinstance(catalog, Catalog):
        raise MixtureError(f"catalog={catalog!r}; expected a Catalog: Catalog.open(FOLDER) opens one")
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
    length = whole_number("sequence_length", asked, least=1)
    if stored % length:
        works = [length for length in range(stored, 0, -1) if stored % length == 0]
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
    scale = fit_scale(weights, draws, limits, floor, names)
    return scale, phases_of(firsts, weights, scale, floor)


def _num_batches(budget_tokens: int, batch_size: int, sequence_length: int) -> int:
    num_batches = budget_tokens // (batch_size * sequence_length)
    if num_batches < 1:
        raise BudgetError(
            f"budget_tokens={budget_tokens:,} does not pay one batch of {batch_size} samples of "
            f"{sequence_length} tokens ({batch_size * sequence_length:,}); raise it or make the batch smaller"
        )
    return num_batches
