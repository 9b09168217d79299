"""Any batch of a run, again, without the run (M9): from the plan and the weights that were set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mixstream.errors import StateError
from mixstream.loader.batches import Draws, GlobalOrder
from mixstream.loader.planned import open_planned, samples_of
from mixstream.loader.state import LoaderState, parse_state
from mixstream.mixture.build import whole_number
from mixstream.mixture.ledger import Ledger, advance, draw, enter_phase, next_phase, open_ledger
from mixstream.mixture.plan import Plan
from mixstream.mixture.simplex import Float64, check_weights
from mixstream.streams.catalog import Stream
from mixstream.streams.shard import shard_starts

_STEP = 4096  # batches that are counted at a time


class Origin(NamedTuple):
    """Where a row of a batch is from.

    Attributes:
        stream: name.
        shard: file in the stream's directory.
        row: in the shard, from 0.
        part: which of the row's samples, where a row is read as several shorter ones.
        repeat: how often the sample had been read before.
    """

    stream: str
    shard: str
    row: int
    part: int
    repeat: int


def trace_batch(
    plan: Plan, batch: int, changes: Mapping[int, Mapping[str, float]] | None = None, state: str | None = None
) -> list[Origin]:
    """Return where the rows of a global batch are from, in order; counts through the batches before it, reads nothing.

    Args:
        plan: of the run.
        batch: number of the global batch.
        changes: {batch at which they acted: weights}, as weights.jsonl logs them.
        state: what `state_dict` returned at an earlier batch, to begin there; needed for batches after a migration.

    Raises:
        MixtureError: a batch that is no whole number.
        StateError: the run has no such batch, or the state is later, or of another plan.
        StreamError: a stream that has changed since the plan was made.
    """
    batch = whole_number("batch", batch, least=0)
    for at in changes or {}:
        whole_number("a batch at which weights change", at, least=0)
    streams = open_planned(plan)
    begin = parse_state(state, plan) if state is not None else LoaderState(open_ledger(plan.terms))
    order = GlobalOrder(plan, [samples_of(plan, stream) for stream in streams], begin.growth)
    acting = {at: check_weights(weights, plan.streams) for at, weights in {**begin.pending, **(changes or {})}.items()}
    ledger = _ledger_at(order, begin.ledger, batch, acting)
    decided = order.decide(ledger, 1) if ledger is not None else None
    if decided is None:
        raise StateError(
            f"batch {batch}: a run of this plan from batch {begin.ledger.batch} on, with these weights, does not come "
            f"to it; batches are counted from 0"
        )
    return origins(plan, streams, decided.draws.take(0))


def origins(plan: Plan, streams: list[Stream], draws: Draws) -> list[Origin]:
    """Return where draws (n,) of a plan's streams are from."""
    parts = plan.stored_sequence_length // plan.sequence_length
    found = []
    starts = [shard_starts(stream.index.shard_samples) for stream in streams]
    for number, sample, repeat in zip(*(column.tolist() for column in draws), strict=True):
        row, part = divmod(sample, parts)
        shard = int(np.searchsorted(starts[number], row, side="right")) - 1
        name, own = plan.streams[number], streams[number].index.files[shard]
        found.append(Origin(name, own, row - int(starts[number][shard]), part, repeat))
    return found


def _ledger_at(order: GlobalOrder, ledger: Ledger, batch: int, changes: Mapping[int, Float64]) -> Ledger | None:
    """Return the ledger before a batch, its weights set, or None where the run does not come to it."""
    if batch < ledger.batch:
        return None
    while True:
        if ledger.batch in changes:
            ledger = order.reweigh(ledger, changes[ledger.batch])
        if ledger.batch == batch:
            return ledger
        ledger = enter_phase(ledger, order.terms)
        stops = [at for at in (batch, next_phase(ledger, order.terms), *changes) if at > ledger.batch]
        counts = draw(ledger, order.terms, min(_STEP, min(stops) - ledger.batch))
        if not len(counts):
            return None
        ledger = advance(ledger, order.terms, counts)
