"""Any batch of a run, again, without the run (M9): from the plan and the weights that were set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mixstream.errors import StateError
from mixstream.loader.batches import Draws, GlobalOrder
from mixstream.loader.planned import open_planned, samples_of
from mixstream.loader.state import LoaderState, parse_state
from mixstream.loader.trace.walk import Start, decide_batch
from mixstream.mixture.build import whole_number
from mixstream.mixture.ledger import open_ledger
from mixstream.mixture.plan import Plan
from mixstream.mixture.simplex import check_weights
from mixstream.streams.catalog import Stream
from mixstream.streams.index import Int64
from mixstream.streams.shard import shard_starts


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
    decided = decide_batch(order, Start(begin.ledger, iter(sorted(acting.items(), key=lambda one: one[0]))), batch)
    if decided is None:
        raise StateError(
            f"batch {batch}: a run of this plan from batch {begin.ledger.batch} on, with these weights, does not come "
            f"to it; batches are counted from 0"
        )
    return origins(plan, streams, decided.draws.take(0))


def origins(plan: Plan, streams: Sequence[Stream], draws: Draws) -> list[Origin]:
    """Return where draws (n,) of a plan's streams are from."""
    starts = {number: shard_starts(streams[number].index.shard_samples) for number in set(draws.stream.tolist())}
    return [
        origin_of(plan, streams[number], starts[number], sample, repeat)
        for number, sample, repeat in zip(*(column.tolist() for column in draws), strict=True)
    ]


def origin_of(plan: Plan, stream: Stream, starts: Int64, sample: int, repeat: int) -> Origin:
    """Return where a sample of a plan's stream is, whose shards start at `starts` (S + 1,)."""
    row, part = divmod(sample, plan.stored_sequence_length // plan.sequence_length)
    shard = int(np.searchsorted(starts, row, side="right")) - 1
    return Origin(stream.name, stream.index.files[shard], row - int(starts[shard]), part, repeat)
