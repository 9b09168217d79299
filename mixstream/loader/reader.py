"""Draws to tokens: one gather of all rows of a batch, from the shards that are mapped now."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from mixstream.errors import MixstreamError, ShardError
from mixstream.kernels import native
from mixstream.streams.catalog import Stream
from mixstream.streams.index import Int64
from mixstream.streams.shard import Shard, shard_starts
from mixstream.streams.store import ShardStore
from mixstream.streams.tokens import TOKEN_DTYPES

# Mapped at a time. A compiled map holds no file descriptor; one of Python does, and 1024 is a common limit.
MAX_OPEN_SHARDS = 8192 if native else 256
CLOSED = -2  # what a gather returns where a shard is not open
_NOTHING = np.empty((0, 0), dtype=np.int64)
_NO_LIMIT = 1 << 63


class TokenReader:
    """Reads samples of several streams into one array; for several threads at once.

    The shards of all streams are numbered through; S of them, where a sample lies is found for a whole batch at once.

    Attributes:
        waited_seconds: that `read` spent opening shards, of all threads together.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        store: ShardStore | None = None,
        sequence_length: int | None = None,
        vocab_size: int | None = None,
    ) -> None:
        """Prepare to read.

        Args:
            streams: all of one stored sequence length.
            store: opens their shards; None: raw ones only.
            sequence_length: a length that divides the stored one; None: as stored.
            vocab_size: tokens are below it; None: unknown.
        """
        sequence_length = sequence_length or streams[0].sequence_length
        self._streams = streams
        self._store = store or ShardStore()
        self._store.on_forget(self.forget)
        self._numbers = {stream.name: number for number, stream in enumerate(streams)}
        self.waited_seconds = 0.0
        self._length = sequence_length
        self._limit = vocab_size or _NO_LIMIT
        self._parts = streams[0].sequence_length // sequence_length
        counts = [len(stream.index.files) for stream in streams]
        self._first_shard = np.cumsum([0, *counts])
        self._starts = shard_starts(np.concatenate([stream.index.shard_samples for stream in streams]) * self._parts)
        self._dtype = np.repeat(
            np.array([TOKEN_DTYPES.index(stream.column.dtype.name) for stream in streams], dtype=np.uint8), counts
        )
        self._address = np.zeros(sum(counts), dtype=np.int64)
        self._offsets = np.zeros(sum(counts), dtype=np.int64)
        self._used = np.zeros(sum(counts), dtype=np.int64)
        self._arrays = self._first_shard, self._starts, self._address, self._offsets, self._dtype, self._used
        self._least_bytes = min(stream.column.dtype.itemsize for stream in streams)
        self._open: dict[int, Shard] = {}
        self._closed: list[Shard] = []  # that somebody may still be reading from
        self._needed: Counter[int] = Counter()  # by threads that open what they read; together, or they never had all
        self._forgotten: set[int] = set()  # meanwhile: read once, and then closed
        self._readers = 0
        self._clock = 0
        self._lock = threading.Lock()

    def read(self, stream: Int64, sample: Int64, out: Int64, again: Int64 | None = None) -> None:
        """Write the tokens of n samples to `out`, and to `again` if given.

        Args:
            stream: (n,) place of the stream.
            sample: (n,) sample in the stream, each of `sequence_length` tokens.
            out, again: (n, sequence_length).

        Raises:
            ShardError: a shard that is not what index.json says, of another sequence length, or with a token
                that the tokenizer does not have.
        """
        if len(stream) > MAX_OPEN_SHARDS:
            for first in range(0, len(stream), MAX_OPEN_SHARDS):
                rows = slice(first, first + MAX_OPEN_SHARDS)
                self.read(stream[rows], sample[rows], out[rows], None if again is None else again[rows])
            return
        shard, needed = np.empty_like(stream), Counter[int]()
        try:
            while True:
                self._begin()
                try:
                    bad = self._gather(stream, sample, shard, out, _NOTHING if again is None else again)
                finally:
                    self._end()
                if bad != CLOSED:
                    break
                begun = time.perf_counter()
                self._open_all(shard, needed)
                self.waited_seconds += time.perf_counter() - begun
        finally:
            if needed:
                self._let_go(needed)
        if bad >= 0:
            self._refuse(int(stream[bad]), int(sample[bad]), out[bad])

    def tokens(self, number: int, sample: Int64) -> torch.Tensor:
        """Return the tokens of samples (n,) of one stream, (n, sequence_length) int64; errors as `read`."""
        out = np.empty((len(sample), self._length), dtype=np.int64)
        self.read(np.full(len(sample), number), np.ascontiguousarray(sample), out)
        return torch.from_numpy(out)

    def forget(self, name: str, shard: int) -> None:
        """Close a shard of a stream, if it is open: it is about to leave the cache."""
        number = int(self._first_shard[self._numbers[name]]) + shard
        with self._lock:
            if number in self._needed:
                self._forgotten.add(number)
            elif number in self._open:
                self._close(number)
            if not self._readers:
                self._closed.clear()

    def is_open(self, stream: Int64, sample: Int64) -> bool:
        """Return whether the shards of samples (n,) are open."""
        return self._locate(stream, sample, np.empty_like(stream), np.empty_like(stream)) != CLOSED

    def warm(self, stream: Int64, sample: Int64) -> float:
        """Open the shards of samples (n,) and bring their tokens into memory, for a `read` to come; errors as there.

        Shards that are still to come into the cache are left out: the store knows best which comes first.

        Returns:
            The seconds that the latter took, a sample.
        """
        seconds = 0.0
        for first in range(0, len(stream), MAX_OPEN_SHARDS):
            rows = slice(first, first + MAX_OPEN_SHARDS)
            shard, source, needed = np.empty_like(stream[rows]), np.empty_like(stream[rows]), Counter[int]()
            try:
                while True:
                    self._begin()
                    try:
                        known = self._locate(stream[rows], sample[rows], shard, source)
                        begun = time.perf_counter()
                        if native is not None and known != CLOSED:
                            native.touch(source, self._length * self._least_bytes)
                    finally:
                        self._end()
                    if known != CLOSED or not self._open_all(shard, needed, wait=False):
                        break
            finally:
                if needed:
                    self._let_go(needed)
            seconds += time.perf_counter() - begun
        return seconds / max(1, len(stream))

    def _begin(self) -> None:
        """Note that rows are being read: what others close meanwhile stays mapped."""
        self._lock.acquire()
        if native is not None:  # the twins look shards up while they read, and keep the lock
            self._readers += 1
            self._lock.release()

    def _end(self) -> None:
        """Note that rows have been read."""
        if native is not None:
            self._lock.acquire()
            self._readers -= 1
        if not self._readers:
            self._closed.clear()
        self._lock.release()

    def _let_go(self, needed: Counter[int]) -> None:
        """Note that a thread has read the shards it needed; those that were to be closed meanwhile are."""
        with self._lock:
            self._needed -= needed  # and what is at none is left out
            for number in [number for number in needed if number in self._forgotten and number not in self._needed]:
                self._forgotten.discard(number)
                if number in self._open:
                    self._close(number)
            if not self._readers:
                self._closed.clear()

    def _table(self) -> tuple[Any, ...]:
        self._clock += 1
        return (*self._arrays, self._clock, self._parts, self._length)

    def _gather(self, stream: Int64, sample: Int64, shard: Int64, out: Int64, again: Int64) -> int:
        """Write shards (n,) and tokens; return CLOSED, or the first row with a token out of range, or -1."""
        if native is not None:
            return int(native.gather(*self._table(), stream, sample, shard, out, again, self._limit))
        row = self._find(stream, sample, shard)
        if not self._address[shard].all():
            return CLOSED
        stored, part = np.divmod(row, self._parts)
        for number in np.unique(shard):
            here = np.flatnonzero(shard == number)
            tokens = self._open[int(number)].read(stored[here]).reshape(len(here), self._parts, -1)
            out[here] = tokens[np.arange(len(here)), part[here]]
        again[:] = out[: len(again)]
        outside = ((out < 0) | (out >= self._limit)).any(axis=1)
        return int(outside.argmax()) if outside.any() else -1

    def _locate(self, stream: Int64, sample: Int64, shard: Int64, source: Int64) -> int:
        """Write shards (n,) and the addresses of tokens; return CLOSED where some are not open, or -1."""
        if native is not None:
            return int(native.sources(*self._table(), stream, sample, shard, source))
        self._find(stream, sample, shard)
        return -1 if self._address[shard].all() else CLOSED

    def _find(self, stream: Int64, sample: Int64, shard: Int64) -> Int64:
        """Write the shard (n,) of each sample; return its place there."""
        places = self._starts[self._first_shard[stream]] + sample
        shard[:] = np.searchsorted(self._starts, places, side="right") - 1
        self._clock += 1
        self._used[shard] = self._clock
        row: Int64 = places - self._starts[shard]
        return row

    def _open_all(self, shard: Int64, needed: Counter[int], wait: bool = True) -> bool:
        """Open those of `shard` that are not, and close those read least lately beyond the limit.

        What is slow about it happens without the lock, for which a reader of open shards would have to wait. What is
        open or opened stays so until `needed`, which counts it, is let go.

        Returns:
            Whether all were here; where not, and it was not to wait, none is opened.
        """
        numbers = list(dict.fromkeys(shard.tolist()))
        missing = [number for number in numbers if not self._address[number]]
        if not wait and not all(self._store.is_here(*self._place(number)) for number in missing):
            return False
        with self._lock:
            needed.update(numbers)
            self._needed.update(numbers)
        places = list(map(self._place, missing))
        for place in places:  # in the order in which they are waited for
            self._store.expect(*place)
        try:
            self._note({number: self._open_shard(number) for number in missing})
        except MixstreamError:
            self._store.withdraw(places)
            raise
        return True

    def _note(self, opened: Mapping[int, Shard]) -> None:
        with self._lock:
            surplus = len(self._open) + len(opened) - MAX_OPEN_SHARDS
            if surplus > 0:
                for number in sorted(self._open, key=lambda number: self._used[number])[:surplus]:
                    self._close(number)
            for number, own in opened.items():
                if number in self._open:  # by another thread meanwhile
                    continue
                self._open[number] = own
                self._offsets[number] = own.token_offsets.ctypes.data
                self._address[number] = own.address  # last: it says that the shard is open

    def _close(self, number: int) -> None:
        self._address[number] = 0
        self._closed.append(self._open.pop(number))

    def _open_shard(self, number: int) -> Shard:
        stream, shard = self._place(number)
        opened = self._store.open_shard(stream, shard)
        if opened.length(0) != self._parts * self._length:
            raise ShardError(
                f"stream {stream.name!r}: shard {stream.index.files[shard]} has samples of {opened.length(0)} "
                f"tokens, expected {self._parts * self._length}"
            )
        return opened

    def _place(self, number: int) -> tuple[Stream, int]:
        """Return the stream that a shard belongs to, and its number there."""
        stream = int(np.searchsorted(self._first_shard, number, side="right")) - 1
        return self._streams[stream], number - int(self._first_shard[stream])

    def _refuse(self, number: int, sample: int, tokens: Int64) -> None:
        stream = self._streams[number]
        row = sample // self._parts
        shard = int(np.searchsorted(shard_starts(stream.index.shard_samples), row, side="right")) - 1
        token = int(tokens[(tokens < 0) | (tokens >= self._limit)][0])
        known = f"to {self._limit - 1}, the tokenizer's last" if self._limit < _NO_LIMIT else "up"
        raise ShardError(
            f"{stream.directory / stream.index.files[shard]}: row {row} of the stream has token {token}, expected one "
            f"from 0 {known}; the shard is damaged, copy it or convert stream {stream.name!r} again with --overwrite"
        )
