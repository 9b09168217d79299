"""The inverse of a stream's order: at which positions a sample is read.

`StreamOrder` says which row is read at a position. Every step of it can be undone: a pass over a lane lays its pieces
in a line, the line is cut into windows, and a window's permutation has an inverse.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from mixstream.loader.order import ROUNDS, Layout, StreamOrder, UInt64, Window, below, grid, mix, shuffled
from mixstream.streams.index import Int64


class Reading(NamedTuple):
    """One draw of a sample.

    Attributes:
        lane, position: draw number `position` of the stream in that lane.
        repeat: number of the repeat that it is in.
    """

    lane: int
    position: int
    repeat: int


def readings(order: StreamOrder, sample: int, begins: Sequence[int], ends: Sequence[int]) -> list[Reading]:
    """Return when a sample is drawn, in order, among the draws `begins` to `ends` - 1 (one of each a lane)."""
    lane, part = home_of(order, sample)
    found = []
    for start in _pass_starts(order, lane, part, begins[lane], ends[lane]):
        layout = order.layout(lane, start)
        window = order.window(lane, start + _place_in(layout, sample))
        position = window.start + position_in(window, start + _place_in(layout, sample) - window.start)
        if begins[lane] <= position < ends[lane]:
            found.append(Reading(lane, position, layout.repeat))
    return found


def home_of(order: StreamOrder, sample: int) -> tuple[int, int]:
    """Return the lane that reads a sample, and the part (what a growth added is one) that it came with.

    Raises:
        IndexError: there is no such sample.
    """
    if not 0 <= sample < order.size:
        raise IndexError(f"stream {order.name!r}: sample {sample} of {order.size}")
    part = bisect_right(order.bounds, sample) - 1
    pieces = (order.pieces(lane)[part] for lane in range(len(order.spans)))
    holds = (((rows <= sample) & (sample < rows + counts)).any() for rows, counts in pieces)
    return next(lane for lane, held in enumerate(holds) if held), part


def times_before(order: StreamOrder, sample: int, repeat: int) -> int:
    """Return how often a sample is drawn before a repeat; less than its number, if the sample came later."""
    if len(order.bounds) == 2:
        return repeat
    lane, part = home_of(order, sample)
    spans = order.spans[lane]
    times = 0
    for number, span in enumerate(spans):
        if span.parts[0] <= part < span.parts[1]:
            passes = repeat - span.repeat
            if number + 1 < len(spans):
                passes = min(passes, (spans[number + 1].start - span.start) // span.size)
            times += max(0, passes)
    return times


def _pass_starts(order: StreamOrder, lane: int, part: int, begin: int, end: int) -> Iterator[int]:
    """Yield where the passes over a part begin that have a position from `begin` to `end` - 1."""
    spans = order.spans[lane]
    for number, span in enumerate(spans):
        stop = min(end, spans[number + 1].start) if number + 1 < len(spans) else end
        if span.parts[0] <= part < span.parts[1]:
            turn = max(0, begin - span.start) // span.size
            yield from range(span.start + turn * span.size, stop, span.size)


def _place_in(layout: Layout, sample: int) -> int:
    """Return the place of a sample in the line of a pass that reads it."""
    counts = np.diff(layout.starts)
    piece = int(np.flatnonzero((layout.rows <= sample) & (sample < layout.rows + counts))[0])
    return int(layout.starts[piece] + sample - layout.rows[piece])


def position_in(window: Window, place: int) -> int:
    """Return the position, from the window's start, at which a place of it is read: the inverse of `places`."""
    size = window.end - window.start
    if window.rows is not None:
        return int(np.flatnonzero(shuffled(size, window.key) == place)[0])
    return int(unpermute(np.array([place]), size, window.key)[0])


def unpermute(moved: Int64, count: int, key: int) -> Int64:
    """Return the places that `permute` sends to `moved` (n,): its rounds backwards, until it is inside again."""
    a, b = (np.uint64(side) for side in grid(count))
    places = _feistel_back(moved.astype(np.uint64), a, b, key)
    outside = places >= count
    while outside.any():
        places[outside] = _feistel_back(places[outside], a, b, key)
        outside = places >= count
    return places.astype(np.int64)


def _feistel_back(moved: UInt64, a: np.uint64, b: np.uint64, key: int) -> UInt64:
    left, right = moved % a, moved // a
    for number in reversed(range(0, ROUNDS, 2)):
        right = (right + b - below(mix(left, key + number + 1), b)) % b
        left = (left + a - below(mix(right, key + number), a)) % a
    return left + right * a
