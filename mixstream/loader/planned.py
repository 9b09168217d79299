"""The streams of a plan, opened and compared with what they were when it was made."""

from __future__ import annotations

from mixstream.errors import StreamError
from mixstream.mixture.plan import Plan, PlannedStream
from mixstream.streams.catalog import Stream, open_stream
from mixstream.streams.index import Int64
from mixstream.streams.place import Place, all_together, find_place


def open_planned(plan: Plan) -> list[Stream]:
    """Return the plan's streams, in its order; O(shards), no shard is opened.

    Raises:
        StreamError: a stream that is gone, or has changed since the plan was made.
        RemoteError: an object store refuses, or does not answer for long.
    """
    root = find_place(plan.root)
    return all_together(lambda entry: _open(entry, plan, root), plan.entries, root)


def samples_of(plan: Plan, stream: Stream) -> Int64:
    """Return the samples, of the plan's sequence length, in each shard (S,)."""
    return stream.index.shard_samples * (plan.stored_sequence_length // plan.sequence_length)


def _open(entry: PlannedStream, plan: Plan, root: Place) -> Stream:
    place = root / entry.name
    stream = open_stream(entry.name, place / plan.split if plan.split else place, entry.token_column)
    found = (stream.fingerprint, int(samples_of(plan, stream).sum()), stream.sequence_length)
    planned = (entry.fingerprint, entry.num_samples, plan.stored_sequence_length)
    if found != planned:
        raise StreamError(
            f"stream {entry.name!r} has changed since the plan was made: fingerprint, samples and sequence length "
            f"are {found}, planned {planned}; make the plan again"
        )
    return stream
