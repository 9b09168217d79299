"""A run walked without reading it: draws, repeats, when budgets are spent, bytes to fetch and to keep.

What a run reads follows from the plan's phases alone, so nothing is walked batch by batch: the draws of
stream i after b batches are D_i(b), the sum of its shares (flow.py). Times are told where D_i passes half a
draw below the number in question: they are right to within the batches that the stream takes for one draw.

Bytes are upper bounds, and exact or nearly so where a stream's shards are of one size but for one smaller
one, which is how they are written. Shards are put in a new order for every repeat, cut into windows of
`window_samples` samples or more, and a window's shards are all open while it is read. Let m be the number
of a stream's smallest shards that are needed to fill a window: no window has more than m shards, nor more
bytes than the m largest. The smallest shard can be set aside first and counted on top, since what is left of
a window without it has the same bound; the lower of the two bounds holds.

A lane is taken to hold its equal part of every stream in whole shards, but for the two at its ends, which it
may share with other lanes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mixstream.errors import StateError
from mixstream.mixture.flow import Flow, flow_ahead
from mixstream.mixture.ledger import open_ledger
from mixstream.mixture.plan import Plan
from mixstream.streams.catalog import Catalog, Stream
from mixstream.streams.index import Int64

REPEATS_TOLD = 8
OPEN_WINDOWS = 2  # the one that is read, and the one after it that is fetched meanwhile


@dataclass(frozen=True)
class StreamForecast:
    """What a run does with one stream. Batches are global batches, counted from 0.

    Attributes:
        name: of the stream.
        samples: draws of the whole run.
        repeats: draws / samples of the stream.
        repeat_batches: the batches in which its second, third ... repeat begins, eight at most.
        spent_batch: the batch in which its repeat budget is spent; None where it is not, or there is none.
        stored_bytes: size of all its files, compressed where they are.
        once_bytes: bytes to fetch where every shard that was fetched is kept.
        windows_bytes: bytes to fetch where only open windows are kept, so that each repeat fetches again.
        cache_bytes: of the raw shards of two windows, on each lane's node.
    """

    name: str
    samples: int
    repeats: float
    repeat_batches: tuple[int, ...]
    spent_batch: int | None
    stored_bytes: int
    once_bytes: int
    windows_bytes: int
    cache_bytes: int


@dataclass(frozen=True)
class Simulation:
    """What a plan's run comes to.

    Attributes:
        num_batches: global batches; the repeat budgets were checked to supply them all.
        tokens: that it reads.
        unread_tokens: of the token budget, too few for one more batch.
        lanes: nodes that the streams are dealt to.
        streams: one a stream, in the plan's order.
    """

    num_batches: int
    tokens: int
    unread_tokens: int
    lanes: int
    streams: tuple[StreamForecast, ...]

    @property
    def spent(self) -> tuple[StreamForecast, ...]:
        """Streams whose repeat budget is spent, the first first."""
        return tuple(
            sorted((s for s in self.streams if s.spent_batch is not None), key=lambda s: (s.spent_batch or 0, s.name))
        )

    def total(self, what: str) -> int:
        """Return the sum over the streams of one of their whole numbers, such as ``once_bytes``."""
        return sum(int(getattr(stream, what)) for stream in self.streams)


def simulate(plan: Plan, catalog: Catalog) -> Simulation:
    """Return what the run of a plan comes to; reads nothing, O(shards + streams x phases).

    Args:
        plan: the decided run.
        catalog: its streams, as they were when it was made.

    Raises:
        StateError: a stream of the plan has changed or is gone.
    """
    _check_same(plan, catalog)
    terms = plan.terms
    flow = flow_ahead(open_ledger(terms), terms, {})
    most = plan.num_batches * plan.batch_size
    streams = []
    for i, entry in enumerate(plan.entries):
        index = catalog[entry.name].index
        rows = index.shard_samples * (plan.stored_sequence_length // plan.sequence_length)
        fetched = _Reading(plan, rows, index.compressed_bytes if index.compression else index.file_bytes)
        kept = _Reading(plan, rows, index.file_bytes) if index.compression else fetched
        begun = _made_in(flow, i, np.arange(1, REPEATS_TOLD + 1) * entry.num_samples + 1)
        budgeted = entry.max_repeats is not None and entry.max_repeats * entry.num_samples < most + 1
        spent = _made_in(flow, i, terms.limits[i : i + 1]) if budgeted else []
        streams.append(
            StreamForecast(
                name=entry.name,
                samples=entry.samples,
                repeats=entry.repeats,
                repeat_batches=tuple(begun),
                spent_batch=spent[0] if spent else None,
                stored_bytes=fetched.total,
                once_bytes=fetched.once(entry.samples),
                windows_bytes=fetched.windows(entry.samples),
                cache_bytes=kept.cache() if entry.samples else 0,
            )
        )
    tokens = plan.num_batches * plan.batch_size * plan.sequence_length
    return Simulation(plan.num_batches, tokens, plan.budget_tokens - tokens, plan.lanes, tuple(streams))


def working_set_bytes(
    plan: Plan, catalog: Catalog | Mapping[str, Stream], lanes: int, growths: Mapping[str, int] | None = None
) -> int:
    """Return a size of cache that always holds what some lanes have open: in every stream the window that is read and
    the next one, of raw files.

    All streams count, also those without weight, which may be given some on the way.

    Args:
        plan: of the run.
        catalog: its streams.
        lanes: how many of the plan's lanes one process, or one node, reads.
        growths: {name: times} that streams have grown since the run began.
    """
    rows_a_row = plan.stored_sequence_length // plan.sequence_length
    total = 0
    for entry in plan.entries:
        index = catalog[entry.name].index
        parts = 1 + (growths or {}).get(entry.name, 0)
        reading = _Reading(plan, index.shard_samples * rows_a_row, index.file_bytes, parts)
        total += min(reading.total, lanes * reading.cache())
    return total


def _check_same(plan: Plan, catalog: Catalog) -> None:
    for entry in plan.entries:
        found = catalog.streams.get(entry.name)
        if found is None or found.fingerprint != entry.fingerprint:
            told = "is gone" if found is None else f"has changed (fingerprint {found.fingerprint})"
            raise StateError(
                f"stream {entry.name!r} {told} since the plan was made ({entry.fingerprint}); make the plan again"
            )


def _made_in(flow: Flow, stream: int, draws: Int64) -> list[int]:
    """Return the batches in which a stream's draws number `draws` (n,), from 1, are made, of those that are."""
    when = flow.when(stream, draws - 0.5)
    batches: list[int] = np.ceil(when[(draws > 0) & (when < np.inf)] - 1).astype(np.int64).tolist()
    return batches


class _Shards:
    """How many bytes a stream's shards can have that are opened until they hold some rows; S shards."""

    def __init__(self, rows: Int64, sizes: Int64) -> None:
        """Take shards of `rows` (S,) samples and `sizes` (S,) bytes."""
        self._rows = np.cumsum(np.sort(rows))
        self._sizes = np.cumsum(np.sort(sizes)[::-1])

    def most(self, rows: int) -> int:
        """Return the most bytes of shards, in any order, the last of which is the one that fills `rows`."""
        count = int(np.searchsorted(self._rows, rows))
        return int(self._sizes[min(count, len(self._sizes) - 1)])


class _Reading:
    """Bytes that reading one stream takes, of files of one kind: as they are fetched, or as they are kept."""

    def __init__(self, plan: Plan, rows: Int64, sizes: Int64, parts: int = 1) -> None:
        """Take shards of `rows` (S,) samples in files of `sizes` (S,) bytes, dealt to lanes in `parts` (growth)."""
        small = int(rows.argmin())
        self._all = _Shards(rows, sizes)
        self._others = _Shards(np.delete(rows, small), np.delete(sizes, small)) if len(rows) > 1 else None
        self._smallest = int(sizes[small])
        self.total = int(sizes.sum())
        self._window_samples = plan.window_samples
        self._lanes = plan.lanes
        self._samples = int(rows.sum())
        self._cut = int(sizes.max()) if plan.lanes > 1 else 0  # a shard that two lanes share
        cuts = 2 * parts  # of a lane, one at either end of each part
        self._lane = min(self.total, self._most(-(-self._samples // plan.lanes)) + (cuts - 1) * self._cut)
        self._window = min(self._lane, self._most(plan.window_samples) + cuts * self._cut)

    def once(self, draws: int) -> int:
        """Return the bytes that all lanes fetch for `draws` draws, each shard once."""
        return min(self._whole(), self._lanes * self._first(-(-draws // self._lanes))) if draws else 0

    def windows(self, draws: int) -> int:
        """Return the bytes that all lanes fetch for `draws` draws, each shard once a repeat."""
        least = self._samples // self._lanes  # of the lanes, that with one sample less comes round first
        whole, rest = divmod(-(-draws // self._lanes), least)
        return whole * self._whole() + min(self._whole(), self._lanes * self._first(rest))

    def cache(self) -> int:
        """Return the bytes of the windows that are open at a time, on one lane's node."""
        return min(self._lane, OPEN_WINDOWS * self._window)

    def _whole(self) -> int:
        """Return the bytes that all lanes fetch for one repeat."""
        return min(self._lanes * self._lane, self.total + (self._lanes - 1) * self._cut)

    def _first(self, draws: int) -> int:
        """Return the bytes of the windows in which a lane's first draws of a repeat lie."""
        if draws == 0:
            return 0
        by_window = -(-draws // self._window_samples) * self._window
        by_rows = self._most(draws - 1 + self._window_samples) + 2 * self._cut
        return min(self._lane, by_window, by_rows)

    def _most(self, rows: int) -> int:
        most = self._all.most(rows)
        return min(most, self._smallest + self._others.most(rows)) if self._others else most


def told_bytes(count: int) -> str:
    """Return a number of bytes as a person reads it: 1.5 GB, powers of 1000."""
    size, units = float(count), ("B", "kB", "MB", "GB", "TB", "PB")
    unit = 0
    while size >= 999.5 and unit + 1 < len(units):
        size, unit = size / 1000, unit + 1
    return f"{size:.3g} {units[unit]}"
