"""A state carried over to another plan: streams that came, went or grew, another batch size, other weights.

Every stream that both plans have goes on where it was, so that nothing is read again before its turn. What decides a
stream's order (seed, lanes, window, sequence length) must stay.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mixstream.errors import StateError
from mixstream.loader.batches import GlobalOrder
from mixstream.loader.order import Growth
from mixstream.loader.planned import samples_of
from mixstream.loader.state import (
    DroppedStream,
    LoaderState,
    SavedState,
    check_account,
    growth_of,
    read_state,
    state_differences,
)
from mixstream.mixture.differences import KEPT
from mixstream.mixture.ledger import Ledger, Terms, enter_phase, open_ledger, reweigh
from mixstream.mixture.plan import Plan, PlannedStream
from mixstream.streams.catalog import Stream
from mixstream.streams.index import Int64


def migrate_state(text: str, plan: Plan, streams: Sequence[Stream]) -> tuple[LoaderState, list[str]]:
    """Return a state of another plan as one of `plan`, and what differs between the two, a sentence each.

    Batches are counted on in the new plan's size, so its token budget is that of the whole run, what was read
    included. What was owed under the old weights is forgiven; weights that were still to act are dropped.

    Args:
        text: what `state_dict` returned.
        plan: the plan to go on with.
        streams: its streams, opened.

    Raises:
        StateError: it is no state, or the plans differ in what decides the order of a stream, or a stream has changed
            otherwise than by shards at its end.
    """
    saved = read_state(text)
    differences = state_differences(saved, plan)
    old = saved.plan
    for key in KEPT:
        if getattr(old, key) != getattr(plan, key):
            raise StateError(
                f"the state's plan has {key}={getattr(old, key)!r}, this one {getattr(plan, key)!r}; it decides the "
                f"order of every stream, so none could go on where it was: keep it, or start anew in another folder"
            )
    check_account(saved, old.batch_size, [entry.name for entry in old.entries], plan.lanes, old.num_batches)
    columns = {entry.name: entry.token_column for entry in old.entries}
    for entry in plan.entries:
        if columns.get(entry.name, entry.token_column) != entry.token_column:
            raise StateError(
                f"stream {entry.name!r} was read from column {columns[entry.name]!r}, is now from "
                f"{entry.token_column!r}; give it another name, or keep the column"
            )
    places = _places(saved)
    cursors, growth = [], {}
    for entry, stream in zip(plan.entries, streams, strict=True):
        place = places.pop(entry.name, None)
        own, grown = _go_on(entry, stream, place, plan)
        cursors.append(own)
        if grown:
            growth[entry.name] = grown
    terms = GlobalOrder(plan, [samples_of(plan, stream) for stream in streams], growth).terms
    batch = -(-saved.samples // plan.batch_size)
    if batch > plan.num_batches:
        raise StateError(
            f"the state has read {saved.samples:,} samples, the plan's whole run is "
            f"{plan.num_batches * plan.batch_size:,}; plan it with a larger budget_tokens"
        )
    ledger = _ledger(batch, np.array(cursors, dtype=np.int64).T, plan, terms)
    return LoaderState(ledger, saved.samples, {}, growth, places), differences


def _places(saved: SavedState) -> dict[str, DroppedStream]:
    """Return where every stream is that the state knows of."""
    here = {
        entry.name: DroppedStream(
            num_samples=entry.num_samples,
            fingerprint=entry.fingerprint,
            cursors=tuple(lane[number] for lane in saved.cursors),
            growth=saved.growth.get(entry.name, ()),
        )
        for number, entry in enumerate(saved.plan.entries)
    }
    return {**saved.dropped, **here}


def _go_on(
    entry: PlannedStream, stream: Stream, place: DroppedStream | None, plan: Plan
) -> tuple[tuple[int, ...], tuple[Growth, ...]]:
    """Return a stream's cursors, and how it has grown.

    Raises:
        StateError: it is not what it was, nor that with shards added.
    """
    if place is None:
        return (0,) * plan.lanes, ()
    growth = tuple(growth_of(grown) for grown in place.growth)
    if place.fingerprint == entry.fingerprint and place.num_samples == entry.num_samples:
        return place.cursors, growth
    ends = np.cumsum(samples_of(plan, stream))
    num_shards = int(np.searchsorted(ends, place.num_samples)) + 1
    is_prefix = num_shards < len(ends) and ends[num_shards - 1] == place.num_samples
    if not is_prefix or stream.index.prefix_fingerprint(num_shards) != place.fingerprint:
        raise StateError(
            f"stream {entry.name!r} has changed: it had {place.num_samples:,} samples, fingerprint "
            f"{place.fingerprint}, and has {entry.num_samples:,}, {entry.fingerprint}; a run goes on only where its "
            f"first {place.num_samples:,} are the same, with shards added behind them: put the old shards back, or "
            f"give the stream another name"
        )
    return place.cursors, (*growth, Growth(place.num_samples, place.cursors))


def _ledger(batch: int, cursors: Int64, plan: Plan, terms: Terms) -> Ledger:
    fresh = open_ledger(terms)
    ledger = Ledger(batch, terms.num_batches, cursors, fresh.owed, fresh.shares)
    return enter_phase(ledger, terms) if plan.schedule else reweigh(ledger, terms, plan.weights)
