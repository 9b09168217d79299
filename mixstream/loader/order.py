"""The order of one stream: which row is read at a position, for ever, without a list of them.

Position p is draw number p of the stream: repeat p // size, and within it place p % size. In every repeat
the shards are put in a random order and cut into windows of consecutive shards, each of `window_samples`
rows or more; a window's rows are read in a random order before the next window begins (M8). So a repeat
reads every row once (M2), a shard's rows lie in one window, and any place can be found at once.

All randomness is hashing of (seed, stream, repeat, ...): nothing to store, the same on every machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mixstream.streams.index import Int64
from mixstream.streams.shard import shard_starts

UInt64 = npt.NDArray[np.uint64]

BLOCK = 512  # positions computed at a time, since a batch asks for a few
_ROUNDS = 6
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


def shuffled(count: int, key: int) -> Int64:
    """Return a random permutation of range(count), kept whole: for shards and for the rows of a batch."""
    return np.argsort(mix(np.arange(count, dtype=np.uint64), key), kind="stable").astype(np.int64)


def permute(places: Int64, count: int, key: int) -> Int64:
    """Return where `places` of range(count) go under a random permutation.

    A small one is made whole, and every permutation is as likely. A large one is never written down: a
    generalised Feistel network (Black and Rogaway 2002): a place is a pair (left, right) on an a x b
    grid just large enough; rounds add a hash of one to the other; a pair that falls outside the range is
    sent through again until it is inside, which keeps the map one-to-one.

    Args:
        places: (n,) each in [0, count).
        count: size of the range.
        key: chooses the permutation.
    """
    if count <= BLOCK:
        return shuffled(count, key)[places]
    a = np.uint64(int(np.ceil(np.sqrt(count))))
    b = np.uint64(-(-count // int(a)))
    moved = _feistel(places.astype(np.uint64), a, b, key)
    outside = moved >= count
    while outside.any():
        moved[outside] = _feistel(moved[outside], a, b, key)
        outside = moved >= count
    return moved.astype(np.int64)


def _feistel(places: UInt64, a: np.uint64, b: np.uint64, key: int) -> UInt64:
    left, right = places % a, places // a
    for round_number in range(_ROUNDS):
        if round_number % 2:
            right = (right + mix(left, key + round_number) % b) % b
        else:
            left = (left + mix(right, key + round_number) % a) % a
    return left + right * a


@dataclass(frozen=True)
class _Layout:
    """One repeat's shards as they are read; S shards, V windows.

    Attributes:
        shards: (S,) shard numbers in reading order.
        starts: (S + 1,) place at which each of them starts.
        windows: (V + 1,) place at which each window starts.
    """

    shards: Int64
    starts: Int64
    windows: Int64


class StreamOrder:
    """The order of one stream: a pure function of its name, shards, window and seed."""

    def __init__(self, name: str, shard_samples: Int64, window_samples: int, seed: int) -> None:
        """Describe a stream of S shards with `shard_samples` (S,) rows each."""
        self.name = name
        self.size = int(shard_samples.sum())
        self._shard_samples = shard_samples
        self._shard_starts = shard_starts(shard_samples)
        self._window_samples = window_samples
        self._seed = seed
        self._layout = lru_cache(maxsize=2)(self._compute_layout)
        self._block = lru_cache(maxsize=2)(self._compute_block)

    def rows(self, position: int, count: int) -> tuple[Int64, Int64]:
        """Return the (count,) rows and repeats at positions `position` .. `position + count - 1`."""
        parts = []
        while count > 0:
            number, skip = divmod(position, BLOCK)
            rows, repeats = self._block(number)
            taken = min(count, BLOCK - skip)
            parts.append((rows[skip : skip + taken], repeats[skip : skip + taken]))
            position += taken
            count -= taken
        if not parts:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        rows, repeats = zip(*parts, strict=True)
        return np.concatenate(rows), np.concatenate(repeats)

    def _compute_block(self, number: int) -> tuple[Int64, Int64]:
        """Return the rows and repeats of one aligned block of positions."""
        positions = np.arange(number * BLOCK, (number + 1) * BLOCK)
        repeats, places = np.divmod(positions, self.size)
        rows = np.empty(BLOCK, dtype=np.int64)
        for repeat in np.unique(repeats):
            here = repeats == repeat
            rows[here] = self._rows_of(int(repeat), places[here])
        return rows, repeats

    def _rows_of(self, repeat: int, places: Int64) -> Int64:
        """Return the rows at `places` (n,) of one repeat."""
        layout = self._layout(repeat)
        window_of = np.searchsorted(layout.windows, places, side="right") - 1
        shuffled_places = np.empty_like(places)
        for window in np.unique(window_of):
            here = window_of == window
            start, end = layout.windows[window : window + 2].tolist()
            key = key_of(self._seed, self.name, repeat, "window", window)
            shuffled_places[here] = start + permute(places[here] - start, end - start, key)
        slot = np.searchsorted(layout.starts, shuffled_places, side="right") - 1
        rows: Int64 = self._shard_starts[layout.shards[slot]] + shuffled_places - layout.starts[slot]
        return rows

    def _compute_layout(self, repeat: int) -> _Layout:
        shards = shuffled(len(self._shard_samples), key_of(self._seed, self.name, repeat, "shards"))
        starts = shard_starts(self._shard_samples[shards])
        return _Layout(shards, starts, _windows(starts, self._window_samples))


def _windows(starts: Int64, window_samples: int) -> Int64:
    """Cut shards that start at `starts` (S + 1,) into windows; return the places where these start.

    A window closes with the shard that fills it.
    """
    cuts = [0]
    while cuts[-1] < starts[-1]:
        filled = int(np.searchsorted(starts, cuts[-1] + window_samples))
        cuts.append(int(starts[min(filled, len(starts) - 1)]))
    return np.array(cuts, dtype=np.int64)
