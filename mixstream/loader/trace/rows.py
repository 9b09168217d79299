"""A batch of a run, row by row; and the inverse: the batches in which samples of a stream were read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from mixstream.errors import StateError
from mixstream.loader.batches import Draws
from mixstream.loader.inverse import Reading, readings, times_before
from mixstream.loader.trace.batch import Origin, origins
from mixstream.loader.trace.history import History
from mixstream.loader.trace.legs import Leg
from mixstream.loader.trace.walk import Block, Start, decide_batch, decide_within, ledger_before, walk


class TracedRow(NamedTuple):
    """One row of a batch.

    Attributes:
        row: in the global batch.
        sample: in the stream, of the length that is read.
        seen: how often the run had read the sample before.
        origin: where it is from.
    """

    row: int
    sample: int
    seen: int
    origin: Origin


class TracedDraw(NamedTuple):
    """One time that a sample was read.

    Attributes:
        leg: of the run; its batches are counted by its own plan.
        batch, row: of the global batch.
        sample: in the stream.
        repeat: of the stream in its lane.
        seen: how often the run had read the sample before.
    """

    leg: int
    batch: int
    row: int
    sample: int
    repeat: int
    seen: int


def rows_of_batch(leg: Leg, batch: int) -> list[TracedRow]:
    """Return where the rows of one of a leg's batches are from, in order.

    Raises:
        StateError: the leg does not come to it.
        StreamError: a stream that is gone or has changed since.
    """
    decided = decide_batch(leg.order, leg.start_before(batch), batch)
    if decided is None:
        last = ledger_before(leg.order, leg.start_before(batch), batch).batch - 1
        raise StateError(
            f"batch {batch}: the run ends with batch {last}, where the streams that have weight have used up their "
            f"repeat budgets; choose one up to it"
        )
    draws = decided.draws.take(0)
    found = origins(leg.plan, leg.streams, draws)
    columns = zip(*(column.tolist() for column in draws), strict=True)
    return [
        TracedRow(row, sample, times_before(leg.order.orders[stream], sample, repeat), origin)
        for row, ((stream, sample, repeat), origin) in enumerate(zip(columns, found, strict=True))
    ]


def draws_of_samples(history: History, stream: str, samples: Iterable[int]) -> list[TracedDraw]:
    """Return when samples of a stream were read, over all of a run's legs, in order.

    Of a plan that was not run, when they would be, with the plan's own weights.

    Raises:
        StreamError: a stream that is gone or has changed since.
    """
    wanted = sorted(set(samples))
    return [
        draw for leg in history.legs if stream in leg.plan.streams for draw in _in_leg(history, leg, stream, wanted)
    ]


def _in_leg(history: History, leg: Leg, stream: str, samples: Sequence[int]) -> list[TracedDraw]:
    number = leg.plan.streams.index(stream)
    order = leg.order.orders[number]
    until = leg.end
    if until is None:
        until = leg.plan.num_batches if history.trained is None else min(history.trained, leg.plan.num_batches)
    begins = leg.start_before(leg.first).ledger.cursors[:, number].tolist()
    ends = ledger_before(leg.order, leg.start_before(until), until).cursors[:, number].tolist()
    wanted = {
        reading: sample
        for sample in samples
        if sample < order.size
        for reading in readings(order, sample, begins, ends)
    }
    found = []
    for start, own in _by_start(leg, number, wanted):
        for reading, batch, draws in _batches_of(leg, start, number, own):
            at = (draws.stream == number) & (draws.sample == wanted[reading]) & (draws.repeat == reading.repeat)
            seen = times_before(order, wanted[reading], reading.repeat)
            row = int(np.flatnonzero(at)[0])
            found.append(TracedDraw(leg.number, batch, row, wanted[reading], reading.repeat, seen))
    return sorted(found)


def _by_start(leg: Leg, stream: int, wanted: Iterable[Reading]) -> list[tuple[Start, list[Reading]]]:
    """Return readings by the last known position before each."""
    starts: dict[int, tuple[Start, list[Reading]]] = {}
    for reading in wanted:
        start = leg.start_before_draw(reading.lane, stream, reading.position)
        starts.setdefault(start.ledger.batch, (start, []))[1].append(reading)
    return list(starts.values())


def _batches_of(leg: Leg, start: Start, stream: int, wanted: Sequence[Reading]) -> Iterable[tuple[Reading, int, Draws]]:
    """Yield readings after a position, the batch that each is in, and the draws (B,) of that batch."""
    left = set(wanted)
    for block in walk(leg.order, start, leg.plan.num_batches):
        drawn = block.ledger.cursors[:, stream] + np.cumsum(block.counts[:, :, stream], axis=0)  # (n, L)
        for reading in [one for one in left if one.position < drawn[-1, one.lane]]:
            batch = block.ledger.batch + int(np.searchsorted(drawn[:, reading.lane], reading.position, side="right"))
            yield reading, batch, _draws(leg, block, batch)
            left.remove(reading)
        if not left:
            return


def _draws(leg: Leg, block: Block, batch: int) -> Draws:
    decided = decide_within(leg.order, block, batch)
    assert decided is not None, "the batch was counted"
    return decided.draws.take(0)
