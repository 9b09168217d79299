"""One shard on its way into the cache: fetched in pieces that several threads work at, checked, decompressed."""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mixstream.errors import MixstreamError, ShardError
from mixstream.streams.cache.folder import Entry, cannot_write
from mixstream.streams.cache.traffic import Meter
from mixstream.streams.compression import decompress
from mixstream.streams.files import Shards, read_raw
from mixstream.streams.hashes import check_hash, noted_hash
from mixstream.streams.remote import Fault, Patience, RemoteFolder, Trying

PIECE_BYTES = 8 << 20  # of a request: a store gives a connection some tens of MB/s, but many connections
ATTEMPTS = 3  # at a shard that comes damaged
SLOW_SECONDS = 3.0  # without a chunk, until another request is sent for the same piece where a reader waits for it

Piece = tuple[int, int]


class StoppedError(Exception):
    """The store was closed while a shard was fetched."""


@dataclass(frozen=True)
class Job:
    """A shard that is wanted in the cache.

    Attributes:
        shards: what it is a shard of.
        number: which.
        entry: its raw file in the cache.
        size: of that, bytes.
    """

    shards: Shards
    number: int
    entry: Entry
    size: int

    @property
    def source(self) -> tuple[str, int]:
        """The file that it is made of: its path in the stream's folder, and its bytes."""
        index = self.shards.index
        if index.compression:
            return index.compressed_files[self.number], int(index.compressed_bytes[self.number])
        return index.files[self.number], self.size

    def __str__(self) -> str:
        return f"{self.shards.directory}/{self.source[0]}"


class Making:
    """The work on one part file: `take` and `work` at pieces; after the last one, `finish`.

    Attributes:
        job, part: what is made, and where.
        workers: threads that work at it; the last to leave closes it.
        problem: why it cannot be made, once that is known.
        is_finished: whether it is in its place.
    """

    def __init__(self, job: Job, part: Path, verify_hashes: bool, patience: Patience, meter: Meter) -> None:
        """Prepare to fill `part`; a shard that lies here compressed has no pieces."""
        self.job = job
        self.part = part
        self._verify_hashes = verify_hashes
        self._patience = patience
        self._meter = meter
        self._file = os.open(part, os.O_RDWR | os.O_CLOEXEC)
        self._damaged = 0
        self._misfits = 0
        self._lock = threading.Lock()
        self._trying: Trying | None = None
        self.workers = 0
        self.problem: MixstreamError | None = None
        self.is_finished = False
        self._begin()

    @property
    def told(self) -> str:
        """How far it is, in words."""
        fault = self._trying.last if self._trying else None
        return f"{self._received:,} of {self.job.source[1]:,} bytes are here{f'; last: {fault.told}' if fault else ''}"

    @property
    def is_fetched(self) -> bool:
        """Whether no piece is left to fetch, nor being fetched."""
        return not self._left

    @property
    def num_pieces(self) -> int:
        """Pieces that nobody works at yet."""
        return len(self._pieces)

    def spoil(self, problem: MixstreamError) -> None:
        """Note why it cannot be made; what nobody works at yet is dropped."""
        self.problem = self.problem or problem
        self._pieces.clear()

    def take(self, is_waited_for: bool = False) -> Piece | None:
        """Return a piece that nobody works at, or of what is waited for one whose request is slow; or None."""
        with self._lock:
            now = time.monotonic()
            piece = self._pieces.popleft() if self._pieces else None
            if piece is None and is_waited_for:
                piece = next((own for own, last in self._flying.items() if last + SLOW_SECONDS < now), None)
            if piece is not None:
                self._flying[piece] = now
            return piece

    def work(self, piece: Piece, stop: threading.Event) -> bool:
        """Fetch a piece; return whether it was the last one. Several threads may at once, each its own.

        Raises:
            RemoteError: the object store refuses it, or does not answer for long.
            ShardError: the object is of another size than index.json says.
            CacheError: the disk is full.
            StoppedError: `stop` was set meanwhile.
        """
        folder, flying = self.job.shards.directory, self._flying
        assert isinstance(folder, RemoteFolder), "what lies here has no pieces"
        folder = replace(folder, patience=self._patience)  # the store's, not the catalog's
        try:
            (self._fetch if folder.ranged else self._copy)(folder, piece, stop)
        except MixstreamError:
            if piece in flying:
                raise
        except OSError as problem:
            raise cannot_write(self.part, problem, self.job.size) from None
        with self._lock:
            if flying.pop(piece, None) is None:  # another request was faster
                return False
            self._left -= 1
            return not self._left

    def finish(self) -> bool:
        """Check what came, and decompress it; return False where it is damaged and is to be fetched again.

        Raises:
            ShardError: it was damaged `ATTEMPTS` times, or is so where it lies.
            CacheError: the disk is full.
        """
        try:
            self._check()
        except ShardError as problem:
            self._damaged += 1
            self._meter.add(self.job.shards.name, faults=1)
            if isinstance(self.job.shards.directory, Path):
                raise
            if self._damaged == ATTEMPTS:
                raise ShardError(f"{problem} (fetched {ATTEMPTS} times)") from None
            self._begin()
            return False
        except OSError as problem:
            raise cannot_write(self.part, problem, self.job.size) from None
        self._meter.add(self.job.shards.name, shards=1)
        return True

    def close(self) -> None:
        """Close the part file."""
        os.close(self._file)

    def _begin(self) -> None:
        folder, (_, size) = self.job.shards.directory, self.job.source
        self._received = 0
        self._etags: set[str | None] = set()
        step = PIECE_BYTES if isinstance(folder, RemoteFolder) and folder.ranged else size
        starts = range(0, size, step) if isinstance(folder, RemoteFolder) and size else ()
        self._pieces = deque((start, min(start + step, size)) for start in starts)
        self._flying: dict[Piece, float] = {}  # pieces that are worked at, and when their last chunk came
        self._left = len(self._pieces)
        self._packed = bytearray(size) if self._pieces and self.job.shards.index.compression else None

    def _fetch(self, folder: RemoteFolder, piece: Piece, stop: threading.Event) -> None:
        """Fetch bytes [start, stop) of the object, going on from where a request broke off.

        Another thread may be at the same piece, where this one was slow; both write the same.
        """
        (at, end), write, flying = piece, self._writer(), self._flying
        self._trying = trying = Trying(str(self.job), self._patience, stop)
        while at < end and _goes_on(piece, flying, stop):
            try:
                for chunk in self._request(folder, at, end):
                    with self._lock:  # or a request that was overtaken might write into what was checked since
                        if not _goes_on(piece, flying, stop):
                            return
                        write(at, chunk)
                        flying[piece] = time.monotonic()
                    at += len(chunk)
                    self._received += len(chunk)
                    self._meter.add(self.job.shards.name, bytes=len(chunk))
                    trying.progressed()
                if at < end:
                    raise Fault(f"ended after {at - piece[0]:,} of {end - piece[0]:,} bytes", "passing")
            except Fault as fault:
                self._meter.add(self.job.shards.name, faults=1)
                if fault.told.startswith("416"):  # it ends before the range that was asked for
                    raise ShardError(
                        f"{self.job}: has no byte {at:,}, index.json says {self.job.source[1]:,}; upload it again"
                    ) from None
                trying.failed(fault)

    def _request(self, folder: RemoteFolder, at: int, end: int) -> Iterator[Any]:
        """Yield what one request for bytes [at, end) brings.

        Raises:
            Fault: it failed, or brings more than that.
            ShardError: the object was of another size `ATTEMPTS` times.
        """
        name, size = self.job.source
        self._meter.add(self.job.shards.name, requests=1)
        body = (folder / name).get(at, end) if end - at < size else (folder / name).get()
        if body.size != size:
            self._misfits += 1
            told = f"{self.job}: {body.size:,} bytes, index.json says {size:,}"
            if self._misfits >= ATTEMPTS:
                raise ShardError(f"{told} (asked {ATTEMPTS} times); upload it again")
            raise Fault(told, "passing")
        self._etags.add(body.etag)
        for chunk in body.chunks:
            at += len(chunk)
            if at > end:
                raise Fault(f"brought {at - end:,} bytes more than were asked for", "passing")
            yield chunk

    def _copy(self, folder: RemoteFolder, piece: Piece, stop: threading.Event) -> None:
        """Have the whole object copied into the part file."""
        name, size = self.job.source
        self._trying = trying = Trying(str(self.job), self._patience, stop)
        while True:
            if stop.is_set():
                raise StoppedError
            self._meter.add(self.job.shards.name, requests=1)
            try:
                (folder / name).copy_to(self.part)
                break
            except Fault as fault:
                self._meter.add(self.job.shards.name, faults=1)
                trying.failed(fault)
        copy = os.open(self.part, os.O_RDWR | os.O_CLOEXEC)  # it may be another file now
        os.close(self._file)
        self._file = copy
        found = os.fstat(self._file).st_size
        if found != size:
            raise ShardError(f"{self.job}: {found:,} bytes, index.json says {size:,}; upload it again")
        if self._packed is not None:
            self._packed[:] = os.pread(self._file, size, 0)
        self._meter.add(self.job.shards.name, bytes=size)
        self._received = size

    def _writer(self) -> Callable[[int, Any], None]:
        """Return what puts a chunk in its place: into memory, where it is to be decompressed, or the file."""
        packed = self._packed
        if packed is not None:

            def write_packed(at: int, chunk: Any) -> None:
                packed[at : at + len(chunk)] = chunk

            return write_packed

        def write(at: int, chunk: Any) -> None:
            rest = memoryview(chunk)
            while rest:
                written = os.pwrite(self._file, rest, at)
                rest, at = rest[written:], at + written

        return write

    def _check(self) -> None:
        """Compare sizes and hashes with index.json; where the shard is compressed, write what it holds."""
        shards, number, index = self.job.shards, self.job.number, self.job.shards.index
        if len(self._etags) > 1:
            raise ShardError(f"{self.job}: was replaced by another object while it was read; fetch it again")
        where = str(self.job)
        if isinstance(shards.directory, Path):
            self._write_raw(read_raw(shards, number, self._verify_hashes)[1])
            return
        raw = noted_hash(index.hashes, number)
        if self._packed is None:
            if raw:
                with mmap.mmap(self._file, 0, prot=mmap.PROT_READ) as data:
                    check_hash(where, data, raw)
            return
        packed = noted_hash(index.compressed_hashes, number)
        if packed:
            check_hash(where, self._packed, packed)
        data = decompress(where, self._packed, index.compression or "", self.job.size)
        if raw and (self._verify_hashes or not packed):
            check_hash(where, data, raw)
        self._packed = None
        self._write_raw(np.frombuffer(data, np.uint8))

    def _write_raw(self, data: Any) -> None:
        os.ftruncate(self._file, self.job.size)
        rest, at = memoryview(data), 0
        while at < self.job.size:
            at += os.pwrite(self._file, rest[at:], at)


def _goes_on(piece: Piece, flying: dict[Piece, float], stop: threading.Event) -> bool:
    """Return whether a piece is still to be fetched: no other thread has.

    Raises:
        StoppedError: the store was closed.
    """
    if stop.is_set():
        raise StoppedError
    return piece in flying
