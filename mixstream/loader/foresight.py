"""What a run reads next, shard by shard, and when: exact in order, and in time as exact as shares are.

Where a shard's rows lie in a stream's order does not depend on weights (order.py); weights only tell when the stream
gets there (mixture/flow.py). So what is heavy, the places of rows in windows, is found once, and after a change of
weights only turned into other batches.

Draw number n (from 1) of a stream in one of L lanes is taken to be made when the stream's shares come to L (n - 1/2)
draws: the engine is within one draw of its shares, and a lane within a few of its even part of them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from operator import attrgetter
from typing import TypeVar

import numpy as np

from mixstream.loader.batches import GlobalOrder
from mixstream.loader.order import Growth, StreamOrder, Window
from mixstream.mixture.flow import Flow, flow_ahead, most_draws
from mixstream.mixture.lanes import UNBOUNDED
from mixstream.mixture.ledger import Ledger
from mixstream.mixture.plan import Plan
from mixstream.mixture.simplex import Float64
from mixstream.streams.index import Int64
from mixstream.streams.needs import Need
from mixstream.streams.shard import shard_starts

ItemT = TypeVar("ItemT")

KEPT_WINDOWS = 16  # of each stream in each lane: as far as a look-ahead mostly goes
KEPT_PASSES = 3
_ROWS_SOUGHT = 8  # per shard of an open window, before more are looked through


def lanes_read(plan: Plan, rank: int, world_size: int) -> range:
    """Return the lanes that a rank's part of a batch comes from."""
    return range(rank * plan.lanes // world_size, -(-(rank + 1) * plan.lanes // world_size))


@dataclass(frozen=True, eq=False)
class Visit:
    """The shards of one window, P of them, and where in the lane's order their rows are.

    Attributes:
        window: that they are read in.
        shards: (P,) their numbers.
        first, last: (P,) positions of the first and the last row of each.
    """

    window: Window
    shards: Int64
    first: Int64
    last: Int64

    @classmethod
    def of(cls, window: Window, starts: Int64) -> Visit:
        """Find the rows of a window in a stream whose shards start at `starts` (S + 1,): O(rows of the window)."""
        size = window.end - window.start
        begins = np.concatenate([[0], window.ends[:-1]])
        position = np.empty(size, dtype=np.int64)  # at which each place is read
        position[window.places(window.start, size)] = np.arange(window.start, window.end)
        shards = np.searchsorted(starts, window.shifts + begins, side="right") - 1
        return cls(window, shards, np.minimum.reduceat(position, begins), np.maximum.reduceat(position, begins))

    def holds(self, position: int) -> bool:
        """Return whether a position is in the window."""
        return self.window.start <= position < self.window.end

    def unread(self, position: int) -> Int64:
        """Return the position of each shard's first row from `position` on, (P,); UNBOUNDED where all were read.

        Rows are looked through until every shard has shown one, which takes few: kept for all places of all open
        windows, they would take much memory.
        """
        found = np.where(self.last < position, UNBOUNDED, self.first)
        sought = (self.first < position) & (position <= self.last)
        count = _ROWS_SOUGHT * len(self.shards)
        while sought.any():
            places = self.window.places(position, min(count, self.window.end - position))
            at = np.full(len(self.shards), UNBOUNDED)
            np.minimum.at(
                at, np.searchsorted(self.window.ends, places, side="right"), position + np.arange(len(places))
            )
            seen = sought & (at < UNBOUNDED)
            found[seen] = at[seen]
            sought &= ~seen
            position, count = position + len(places), 2 * count
        return found


@dataclass(frozen=True, eq=False)
class _Pass:
    """One pass over a lane's shards, P of them.

    Attributes:
        start, end: its positions.
        whole: whether it reads all the lane has, also what growths added.
        shards: (P,) their numbers.
        opens: (P,) positions at which their windows begin.
    """

    start: int
    end: int
    whole: bool
    shards: Int64
    opens: Int64


class _Track:
    """One stream in one lane: its windows and passes from any position on, the latest of them kept."""

    def __init__(self, stream: int, lane: int, order: StreamOrder, starts: Int64) -> None:
        self.stream = stream
        self.lane = lane
        self.num_shards = len(starts) - 1
        self._order = order
        self._starts = starts
        self._visits: dict[int, Visit] = {}
        self._passes: dict[int, _Pass] = {}

    def visit(self, position: int) -> Visit:
        """Return the visit that a position is in."""
        found = self._visits.get(position) or next((v for v in self._visits.values() if v.holds(position)), None)
        if found is None:
            window = self._order.window(self.lane, position)
            found = _keep(self._visits, window.start, Visit.of(window, self._starts), KEPT_WINDOWS)
        return found

    def next_positions(self, position: int, limit: int) -> tuple[Int64, Int64]:
        """Return where each shard is read next from `position` on, and the shards of the window that is open now.

        The first row is told in the window of `position` and in the next one; beyond, that of the shard's window.

        Args:
            position: of the next draw.
            limit: position that is not reached; passes beyond are not looked at.

        Returns:
            (S,) positions, UNBOUNDED where a shard is not read before `limit`, or not at all; (n,) shards that have
            rows left in a window some rows of which have been read.
        """
        found = np.full(self.num_shards, UNBOUNDED)
        here = self.visit(position)
        current = self._pass(position)
        passes = self._passes_after(current, limit)
        for later in reversed(passes):
            found[later.shards] = later.opens
        to_come = current.opens > here.window.start
        found[current.shards[to_come]] = current.opens[to_come]
        following = self.visit(here.window.end)
        found[following.shards] = following.first
        unread = here.unread(position)
        left = unread < UNBOUNDED
        found[here.shards[left]] = unread[left]
        is_open = left & (unread < limit) & (here.window.start < position)
        return np.where(found < limit, found, UNBOUNDED), here.shards[is_open]

    def _passes_after(self, current: _Pass, limit: int) -> list[_Pass]:
        """Return the passes after one, until all shards of the lane have come."""
        passes: list[_Pass] = []
        while current.end < limit:
            current = self._pass(current.end)
            passes.append(current)
            if current.whole:
                break
        return passes

    def _pass(self, position: int) -> _Pass:
        found = next((own for own in self._passes.values() if own.start <= position < own.end), None)
        if found is None:
            layout = self._order.layout(self.lane, position)
            windows = np.array(layout.windows)
            opens = windows[np.searchsorted(windows, layout.starts[:-1], side="right") - 1] + layout.start
            shards = np.searchsorted(self._starts, layout.rows, side="right") - 1
            whole = layout.parts == self._order.all_parts
            found = _keep(
                self._passes, layout.start, _Pass(layout.start, layout.end, whole, shards, opens), KEPT_PASSES
            )
        return found


class Outlook:
    """What a run reads from a ledger on: a `Foresight` (streams/needs.py)."""

    def __init__(self, batch: int, flow: Flow, cursors: Int64, most: Int64, tracks: Sequence[Sequence[_Track]]) -> None:
        """Look ahead from `batch`.

        Args:
            batch: the next one.
            flow: of the streams from there on.
            cursors: (L, K) draws before it.
            most: (L, K) draws by the end of the run.
            tracks: by stream.
        """
        self._batch = batch
        self._flow = flow
        self._lanes = len(cursors)
        self._cursors = cursors
        self._most = most
        self._tracks = tracks

    def upcoming(self) -> Iterator[Need]:
        """Return what is needed from now to the end of the run, in order of `batch`; found as it is asked for."""
        needs = [
            self._needs(track)
            for tracks in self._tracks
            for track in tracks
            if self._cursors[track.lane, track.stream] < self._most[track.lane, track.stream]
        ]
        return heapq.merge(*needs, key=attrgetter("batch"))

    def next_use(self, stream: int) -> Float64:
        """Return when each shard of a stream is needed next, (S,): of far ones, when their window begins."""
        tracks = self._tracks[stream]
        found = np.full(tracks[0].num_shards if tracks else 0, np.inf)
        for track in tracks:
            cursor, limit = int(self._cursors[track.lane, stream]), int(self._most[track.lane, stream])
            if cursor >= limit:
                continue
            positions, is_open = track.next_positions(cursor, limit)
            batches = np.full(len(found), np.inf)
            read = np.flatnonzero(positions < UNBOUNDED)
            batches[read] = self._when(stream, positions[read])
            batches[is_open] = self._batch
            np.minimum(found, batches, out=found)
        return found

    def _needs(self, track: _Track) -> Iterator[Need]:
        position, limit = int(self._cursors[track.lane, track.stream]), int(self._most[track.lane, track.stream])
        while position < limit:
            visit = track.visit(position)
            first = visit.unread(position)
            order = np.argsort(first)[: np.count_nonzero(first < limit)]
            batches = self._when(track.stream, first[order])
            until = self._when(track.stream, visit.last[order])
            yield from map(Need, repeat(track.stream), visit.shards[order].tolist(), batches.tolist(), until.tolist())
            position = visit.window.end

    def _when(self, stream: int, positions: Int64) -> Float64:
        """Return when the rows at positions (n,) of a stream's lanes are drawn; the end for what may just be."""
        batches = self._flow.when(stream, (positions + 0.5) * self._lanes)
        return np.minimum(batches, self._flow.batches[-1])


class Forecaster:
    """Looks ahead from any position of a run; for one thread at a time.

    It has orders of its own: what they keep of windows and passes is not shared with the thread that reads.
    """

    def __init__(
        self,
        plan: Plan,
        shard_samples: Sequence[Int64],
        growth: Mapping[str, tuple[Growth, ...]],
        lanes: Iterable[int],
    ) -> None:
        """Prepare for a run.

        Args:
            plan: what is read.
            shard_samples: K arrays (S,) of the samples in each shard, of the plan's sequence length.
            growth: how streams have grown on the way, those that have.
            lanes: those that this process reads (`lanes_read`).
        """
        order = GlobalOrder(plan, shard_samples, growth)
        own = sorted(set(lanes))
        self._terms = order.terms
        self._tracks = [
            [_Track(stream, lane, order.orders[stream], starts) for lane in own]
            for stream, starts in enumerate(map(shard_starts, shard_samples))
        ]

    def look(self, ledger: Ledger, pending: Mapping[int, Float64]) -> Outlook:
        """Return what is read from a ledger's next batch on, with weights (K,) that act from batches to come on."""
        flow = flow_ahead(ledger, self._terms, pending)
        most = most_draws(flow, ledger.cursors, self._terms.limits, self._terms.lane_limits)
        return Outlook(ledger.batch, flow, ledger.cursors, most, self._tracks)


def _keep(items: dict[int, ItemT], start: int, item: ItemT, most: int) -> ItemT:
    """Add an item to those kept, and forget the one kept for longest where they are more than `most`."""
    items[start] = item
    if len(items) > most:
        del items[next(iter(items))]
    return item
