"""The legs of a run: what it read under one plan after the other, and where each can be counted from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mixstream.errors import FormatError, StateError, StreamError
from mixstream.loader.batches import GlobalOrder
from mixstream.loader.order import Growth
from mixstream.loader.planned import samples_of
from mixstream.loader.positions import PositionLine
from mixstream.loader.trace.lines import Key, SortedLines
from mixstream.loader.trace.walk import Change, Start, in_order, ledger_before
from mixstream.methods.learning.history import WeightsUpdate
from mixstream.mixture.ledger import Ledger, open_ledger
from mixstream.mixture.plan import Plan, PlannedStream
from mixstream.mixture.position import Position
from mixstream.mixture.simplex import check_weights
from mixstream.streams.catalog import Stream, open_stream
from mixstream.streams.index import Int64
from mixstream.streams.place import Place, all_together, find_place


@dataclass(frozen=True)
class Logs:
    """positions.jsonl and weights.jsonl of a run, one or both of them empty."""

    positions: SortedLines
    weights: SortedLines

    @classmethod
    def none(cls) -> Logs:
        """Return logs that tell nothing."""
        return cls(*(SortedLines(Path(os.devnull)) for _ in range(2)))


@dataclass(frozen=True)
class Leg:
    """What a run read under one plan.

    Attributes:
        number: how often the run had been carried over before.
        plan: of the leg.
        roots: {stream: folder or URL where it was last}, of those that are not at the plan's root.
        logs: of the run.
        metrics: where it logged its metrics.
        line: its first line of positions.jsonl, if it has one.
        from_start: whether it can be counted from the plan's first batch.
        end: batch before which it ended, in its own count; None: the last leg.
    """

    number: int
    plan: Plan
    roots: dict[str, str]
    logs: Logs
    metrics: Path
    line: PositionLine | None
    from_start: bool
    end: int | None
    _met: set[int] = field(default_factory=set, init=False, compare=False)  # batches from which the next is met

    @property
    def first(self) -> int:
        """The first batch that can be traced."""
        return 0 if self.from_start or self.line is None else self.line.position.batch

    @cached_property
    def streams(self) -> list[Stream]:
        """The plan's streams as they are now: those that have grown since, too.

        Raises:
            StreamError: one is gone, or has changed otherwise than by shards at its end.
        """
        places = {root: find_place(root) for root in {self.plan.root, *self.roots.values()}}

        def opened(entry: PlannedStream) -> Stream:
            return _open(entry, self.plan, places[self.roots.get(entry.name, self.plan.root)])

        return all_together(opened, self.plan.entries, places[self.plan.root])

    @cached_property
    def order(self) -> GlobalOrder:
        """The order of its batches."""
        samples = [
            _as_planned(samples_of(self.plan, stream), entry.num_samples)
            for stream, entry in zip(self.streams, self.plan.entries, strict=True)
        ]
        growth: dict[str, tuple[Growth, ...]] = {} if self.line is None else self.line.grown()
        return GlobalOrder(self.plan, samples, growth)

    def start_before(self, batch: int) -> Start:
        """Return the last position that is known at a batch or before it."""
        return self._start(_batch, batch)

    def start_before_draw(self, lane: int, stream: int, draw: int) -> Start:
        """Return the last position that is known before draw number `draw` of a stream in a lane."""
        return self._start(lambda position: position["cursors"][lane][stream], draw)

    def ranks_at(self, batch: int) -> int | None:
        """Return how many processes trained at a batch, as far as was noted."""
        noted = self._noted(_batch, batch) or self.line
        return None if noted is None else noted.ranks

    def _start(self, key: Key, bound: int) -> Start:
        known: list[tuple[Ledger, dict[int, dict[str, float]]]] = []
        noted = self._noted(key, bound)
        if noted is not None:
            known.append((self._ledger(noted.position, self.logs.positions), dict(noted.pending)))
        learnt = self._learnt(key, bound)
        if learnt is not None:
            known.append((self._ledger(learnt, self.logs.weights), {}))
        if not known:
            known.append((open_ledger(self.order.terms), {}))
        ledger, pending = max(known, key=lambda one: one[0].batch)
        own = sorted((at, check_weights(weights, self.plan.streams)) for at, weights in pending.items())
        if ledger.batch not in self._met:
            self._check(Start(ledger, in_order(iter(own), self._changes(ledger.batch))))
            self._met.add(ledger.batch)
        return Start(ledger, in_order(iter(own), self._changes(ledger.batch)))

    def _check(self, start: Start) -> None:
        """Count from a position to the next one that is known.

        Raises:
            StateError: they do not meet: weights were set that no log tells of.
        """
        first, noted = start.ledger.batch, self._next_after(start.ledger.batch)
        if noted is None:
            return
        counted = ledger_before(self.order, start, noted.batch)
        # What is owed tells of other weights also where they have come to the same draws.
        met = ((counted.cursors == noted.cursors).all(), (counted.owed == noted.owed).all())
        if counted.batch != noted.batch or not all(met):
            raise StateError(
                f"{self.logs.positions.path.parent}: between batches {first} and {noted.batch} the run read otherwise "
                f"than its logs tell: weights acted that weights.jsonl has not, so what batches {first} to "
                f"{noted.batch - 1} read is not known; bring that file back"
            )

    def _next_after(self, batch: int) -> Ledger | None:
        """Return the first position that is known after a batch."""
        positions, weights, known = self.logs.positions, self.logs.weights, []
        at = positions.count_up_to(self._in_leg(_batch), (self.number, batch))
        line = positions.parse(at, PositionLine) if at < positions.end else None
        if line is not None and line.leg == self.number:
            known.append(self._ledger(line.position, positions))
        at = weights.count_up_to(_learnt_at(_batch), batch)
        learnt = self._update(at).position if at < weights.end else None
        if learnt is not None:
            known.append(self._ledger(learnt, weights))
        return min(known, key=lambda one: one.batch, default=None)

    def _in_leg(self, key: Key) -> Key:
        """Return the key of a line of positions.jsonl: its leg, and in this leg what its position comes to."""
        return lambda line: (line["leg"], key(line["position"]) if line["leg"] == self.number else 0)

    def _noted(self, key: Key, bound: int) -> PositionLine | None:
        """Return the leg's last line of positions.jsonl whose key is at most `bound`."""
        log = self.logs.positions
        start = log.last_up_to(self._in_leg(key), (self.number, bound))
        line = None if start is None else log.parse(start, PositionLine)
        return line if line is not None and line.leg == self.number else None

    def _learnt(self, key: Key, bound: int) -> Position | None:
        """Return the last position in weights.jsonl whose key is at most `bound`; lines of old versions have none."""
        log = self.logs.weights
        start = log.last_up_to(_learnt_at(key), bound)
        return None if start is None else self._update(start).position

    def _changes(self, batch: int) -> Iterator[Change]:
        """Yield the weights that weights.jsonl says acted on the loader, from a batch on."""
        log = self.logs.weights
        for start, _ in log.from_(log.count_up_to(lambda line: line["at_batch"], batch - 1)):
            update = self._update(start)
            is_first = update.update == update.at_batch == 0  # tells what the plan began with
            if update.apply == "sampling" and not is_first:
                yield update.at_batch, check_weights(update.weights, self.plan.streams)

    def _update(self, start: int) -> WeightsUpdate:
        return self.logs.weights.parse(start, WeightsUpdate)

    def _ledger(self, position: Position, log: SortedLines) -> Ledger:
        ledger, shape = position.ledger(), (self.plan.lanes, len(self.plan.streams))
        if (ledger.cursors.shape, ledger.owed.shape, ledger.shares.shape) != (shape, shape[1:], shape[1:]):
            raise FormatError(
                f"{log.path}: its position at batch {position.batch} is not of {shape[0]} lanes and {shape[1]} streams"
                f", as the plan is; the file is of another run, bring the right one back"
            )
        return ledger


def _batch(position: dict[str, Any]) -> Any:
    return position["batch"]


def _learnt_at(key: Key) -> Key:
    """Return the key of a line of weights.jsonl; those of old versions have no position."""
    return lambda line: key(line["position"]) if line.get("position") else -1


def _open(entry: PlannedStream, plan: Plan, root: Place) -> Stream:
    place = root / entry.name
    stream = open_stream(entry.name, place / plan.split if plan.split else place, entry.token_column)
    ends = np.cumsum(samples_of(plan, stream))
    shards = int(np.searchsorted(ends, entry.num_samples)) + 1
    whole = shards <= len(ends) and ends[shards - 1] == entry.num_samples
    if not whole or stream.sequence_length != plan.stored_sequence_length or not _is_prefix(stream, shards, entry):
        raise StreamError(
            f"{place}: not the stream that was read: it has {int(ends[-1]):,} samples, fingerprint "
            f"{stream.fingerprint}, and had {entry.num_samples:,}, {entry.fingerprint}; bring its shards back"
        )
    return stream


def _is_prefix(stream: Stream, shards: int, entry: PlannedStream) -> bool:
    if shards == len(stream.index.files):
        return stream.fingerprint == entry.fingerprint
    return stream.index.prefix_fingerprint(shards) == entry.fingerprint


def _as_planned(samples: Int64, num_samples: int) -> Int64:
    """Return the samples of the first shards, `num_samples` in all: those that were there then."""
    return samples[: int(np.searchsorted(np.cumsum(samples), num_samples)) + 1]
