"""The order of one stream: which row is read at a position, for ever, without a list of them.

A stream's samples are dealt to lanes in equal parts (mixture/lanes.py); each lane has an order of its own. Its position
p is draw number p of the stream in the lane. In every repeat the lane's shards are put in a random order and cut into
windows of consecutive shards, each of `window_samples` rows or more; a window's rows are read in a random order before
the next window begins (M8). So a repeat reads every row once (M2), a shard's rows lie in one window, and any place can
be found at once.

All randomness is hashing of (seed, stream, lane, repeat, ...): nothing to store, the same on every machine.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mixstream.kernels import native
from mixstream.mixture.lanes import lane_bounds
from mixstream.streams.index import Int64
from mixstream.streams.shard import shard_starts

UInt64 = npt.NDArray[np.uint64]

SMALL = 512  # rows that are shuffled as a list; more are shuffled by a permutation that is computed
ROUNDS = 6
_MASK = (1 << 64) - 1


def key_of(*facts: object) -> int:
    """Return a 64-bit key of facts such as a seed and a name."""
    text = "\x1f".join(str(fact) for fact in facts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def mix(values: UInt64, key: int) -> UInt64:
    """Return 64 well-mixed bits for each value: SplitMix64's finaliser (Steele et al. 2014)."""
    z = values * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key & _MASK)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def below(bits: UInt64, count: UInt64 | np.uint64) -> UInt64:
    """Return numbers below `count` (< 2^32) from 64 mixed bits each."""
    return ((bits >> np.uint64(32)) * count) >> np.uint64(32)


def shuffled(count: int, key: int) -> Int64:
    """Return a random permutation of range(count), kept whole: for shards and for the rows of a small window."""
    return np.argsort(mix(np.arange(count, dtype=np.uint64), key), kind="stable").astype(np.int64)


def grid(count: int) -> tuple[int, int]:
    """Return the sides of the smallest square-like grid of at least `count` places."""
    a = int(np.ceil(np.sqrt(count)))
    return a, -(-count // a)


def permute(places: Int64, count: int, key: int) -> Int64:
    """Return where `places` of range(count) go under a random permutation that is never written down.

    A generalised Feistel network (Black and Rogaway 2002): a place is a pair (left, right) on an a x b grid just large
    enough; rounds add a hash of one to the other; a pair that falls outside the range is sent through again until it
    is inside, which keeps the map one-to-one.

    Args:
        places: (n,) each in [0, count).
        count: size of the range.
        key: chooses the permutation.
    """
    a, b = (np.uint64(side) for side in grid(count))
    moved = _feistel(places.astype(np.uint64), a, b, key)
    outside = moved >= count
    while outside.any():
        moved[outside] = _feistel(moved[outside], a, b, key)
        outside = moved >= count
    return moved.astype(np.int64)


def _feistel(places: UInt64, a: np.uint64, b: np.uint64, key: int) -> UInt64:
    left, right = places % a, places // a
    for number in range(0, ROUNDS, 2):
        left = (left + below(mix(right, key + number), a)) % a
        right = (right + below(mix(left, key + number + 1), b)) % b
    return left + right * a


@dataclass(frozen=True)
class Growth:
    """A stream that grew by shards at its end, in a run that had begun to read it.

    Attributes:
        num_samples: samples before.
        positions: L positions, where each lane was.
    """

    num_samples: int
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Span:
    """Passes of one kind over some pieces of a lane, one after the other.

    Attributes:
        start: position of the first.
        size: rows of a pass.
        repeat: number of the first pass.
        parts: first and last + 1 of the parts (what a growth added is one) that a pass reads.
    """

    start: int
    size: int
    repeat: int
    parts: tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """One pass over a lane's pieces, as they are read; P pieces, V windows.

    Attributes:
        start: position at which the pass starts.
        repeat: number of the repeat that it is in.
        parts: first and last + 1 of the parts (what a growth added is one) that it reads.
        rows: (P,) first row of each piece, in reading order.
        starts: (P + 1,) place at which each of them starts.
        windows: V + 1 places at which each window starts.
    """

    start: int
    repeat: int
    parts: tuple[int, int]
    rows: Int64
    starts: Int64
    windows: list[int]

    @property
    def end(self) -> int:
        """The position after its last."""
        return self.start + self.windows[-1]


@dataclass(frozen=True)
class Window:
    """A stretch of positions whose rows are shuffled together.

    Attributes:
        start, end: its positions.
        repeat: number of the repeat that it is in.
        key: of its permutation.
        sides: of the permutation's grid.
        ends: place in the window at which each of its pieces ends.
        shifts: row of each piece's first place, less that place.
        rows: its rows in reading order, where it is small.
    """

    start: int
    end: int
    repeat: int
    key: int
    sides: tuple[int, int]
    ends: Int64
    shifts: Int64
    rows: Int64 | None

    def read(self, position: int, count: int) -> Int64:
        """Return the rows at `count` positions from `position` on."""
        if self.rows is not None:
            first = position - self.start
            return self.rows[first : first + count]
        return self._permuted(position, count, self.shifts)

    def places(self, position: int, count: int) -> Int64:
        """Return the places in the window that are read at `count` positions from `position` on."""
        if self.rows is not None:
            first = position - self.start
            return shuffled(len(self.rows), self.key)[first : first + count]
        return self._permuted(position, count, np.zeros_like(self.shifts))

    def _permuted(self, position: int, count: int, shifts: Int64) -> Int64:
        """Return the places in a large window at `count` positions, each plus its piece's shift."""
        first, size = position - self.start, self.end - self.start
        if native is None:
            places = permute(np.arange(first, first + count), size, self.key)
            return places + shifts[np.searchsorted(self.ends, places, side="right")]
        moved = np.empty(count, dtype=np.int64)
        native.window_rows(moved, first, size, *self.sides, self.key, self.ends, shifts)
        return moved


class StreamOrder:
    """The order of one stream: a pure function of its name, shards, lanes, window and seed."""

    def __init__(
        self,
        name: str,
        shard_samples: Int64,
        window_samples: int,
        seed: int,
        lanes: int = 1,
        growth: Sequence[Growth] = (),
    ) -> None:
        """Describe a stream of S shards with `shard_samples` (S,) rows each; `growth` tells how it came to them."""
        self.name = name
        self.size = int(shard_samples.sum())
        self._shard_starts = shard_starts(shard_samples)
        self._window_samples = window_samples
        self._seed = seed
        self._lanes = lanes
        self._growth = growth
        self.all_parts = 0, len(growth) + 1
        self.bounds = [0, *(grown.num_samples for grown in growth), self.size]
        self.pieces = lru_cache(maxsize=lanes)(self._deal)
        self.spans = [self._spans_of(lane) for lane in range(lanes)]
        self._layout = lru_cache(maxsize=2 * lanes)(self._lay_out)
        self._windows: list[Window | None] = [None] * lanes

    def rows(self, position: int, count: int, lane: int = 0) -> tuple[Int64, Int64]:
        """Return the (count,) rows and repeats at positions `position` .. `position + count - 1` of a lane."""
        segments = [(np.empty(0, np.int64), 0), *self.segments(position, count, lane)]
        rows, repeats = zip(*segments, strict=True)
        return np.concatenate(rows), np.repeat(repeats, [len(own) for own in rows])

    def segments(self, position: int, count: int, lane: int = 0) -> list[tuple[Int64, int]]:
        """Return what `rows` does as stretches of one repeat each, of rows and the repeat's number."""
        found = []
        while count > 0:
            window = self._windows[lane]
            if window is None or not window.start <= position < window.end:
                window = self._windows[lane] = self.window(lane, position)
            taken = min(count, window.end - position)
            found.append((window.read(position, taken), window.repeat))
            position += taken
            count -= taken
        return found

    def lane_size(self, lane: int) -> int:
        """Return the rows of a repeat in one lane."""
        return self.spans[lane][-1].size

    def draws_before(self, lane: int, repeat: int) -> int:
        """Return the draws of a lane before any sample comes for the (repeat + 1)th time."""
        spans = self.spans[lane]
        ends = [span.start for span in spans[1:]]
        for span, end in zip(spans, ends, strict=False):
            if span.repeat + (end - span.start) // span.size > repeat:
                return span.start + max(0, repeat - span.repeat) * span.size
        last = spans[-1]
        return last.start + max(0, repeat - last.repeat) * last.size

    def _deal(self, lane: int) -> list[tuple[Int64, Int64]]:
        """Return a lane's pieces of each part: first rows and row counts.

        A part's shards are put in a random order once and for ever, and the line is cut into equal lanes.
        """
        parts = []
        for number, (low, high) in enumerate(zip(self.bounds[:-1], self.bounds[1:], strict=True)):
            first, last = np.searchsorted(self._shard_starts, [low, high]).tolist()
            own = self._shard_starts[first : last + 1]
            order = np.arange(last - first)
            if self._lanes > 1:
                order = shuffled(last - first, key_of(self._seed, self.name, "deal", number))
            ends = np.cumsum(np.diff(own)[order])
            begin, end = lane_bounds(self.name, low, high, self._lanes)[lane : lane + 2]
            starts = ends - np.diff(own)[order]
            held = (ends > begin) & (starts < end)
            skipped = np.maximum(begin - starts[held], 0)
            counts = np.minimum(ends[held], end) - starts[held] - skipped
            parts.append((own[:-1][order][held] + skipped, counts))
        return parts

    def _spans_of(self, lane: int) -> list[Span]:
        """Return how a lane is read: repeats over what there was, the rest of what came then, repeats over all."""
        sizes = [
            int(np.diff(lane_bounds(self.name, low, high, self._lanes))[lane])
            for low, high in zip(self.bounds[:-1], self.bounds[1:], strict=True)
        ]
        spans = []
        start = repeat = 0
        for number, grown in enumerate(self._growth, start=1):
            position = grown.positions[lane]
            size = sum(sizes[:number])
            if position > start:
                passes = -(-(position - start) // size)
                spans.append(Span(start, size, repeat, (0, number)))
                start, repeat = start + passes * size, repeat + passes
            if position < start:  # within a repeat: what was added belongs to it and is read at its end
                spans.append(Span(start, sizes[number], repeat - 1, (number, number + 1)))
                start += sizes[number]
        spans.append(Span(start, sum(sizes), repeat, (0, len(sizes))))
        return [span for span in spans if span.size]

    def window(self, lane: int, position: int) -> Window:
        """Return the window that a lane's position is in."""
        layout = self.layout(lane, position)
        place = position - layout.start
        at = bisect_right(layout.windows, place) - 1
        low, high = layout.windows[at : at + 2]
        first, last = np.searchsorted(layout.starts, [low, high]).tolist()
        starts = layout.starts[first : last + 1] - low
        shifts = layout.rows[first:last] - starts[:-1]
        key = key_of(self._seed, self.name, lane, *layout.parts, layout.repeat, "window", at)
        rows = None
        if high - low <= SMALL:
            places = shuffled(high - low, key)
            rows = places + shifts[np.searchsorted(starts[1:], places, side="right")]
        sides = grid(high - low)
        ends = np.ascontiguousarray(starts[1:])
        return Window(layout.start + low, layout.start + high, layout.repeat, key, sides, ends, shifts, rows)

    def layout(self, lane: int, position: int) -> Layout:
        """Return the pass that a lane's position is in."""
        spans = self.spans[lane]
        number = bisect_right(spans, position, key=lambda span: span.start) - 1
        return self._layout(lane, number, (position - spans[number].start) // spans[number].size)

    def _lay_out(self, lane: int, number: int, turn: int) -> Layout:
        span = self.spans[lane][number]
        repeat = span.repeat + turn
        first, last = span.parts
        rows, counts = (np.concatenate(parts) for parts in zip(*self.pieces(lane)[first:last], strict=True))
        order = shuffled(len(rows), key_of(self._seed, self.name, lane, *span.parts, repeat, "shards"))
        starts = shard_starts(counts[order])
        windows = cut_windows(starts, self._window_samples)
        return Layout(span.start + turn * span.size, repeat, span.parts, rows[order], starts, windows)


def cut_windows(starts: Int64, window_samples: int) -> list[int]:
    """Cut shards that start at `starts` (S + 1,) into windows; return the places where these start, and the end.

    A window closes with the shard that fills it.
    """
    places = starts.tolist()
    cuts = [0]
    while cuts[-1] < places[-1]:
        filled = bisect_right(places, cuts[-1] + window_samples - 1)
        cuts.append(places[min(filled, len(places) - 1)])
    return cuts
