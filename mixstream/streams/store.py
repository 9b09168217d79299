"""The shard store: makes the raw file of a shard be here, checks it and maps it.

A raw shard of a local stream is mapped in its place and never written. What is compressed, or lies in an object store,
comes into a cache folder first, once a node, from then on only mapped (see `mixstream.streams.cache`). A store that is
told the future (`foresee`) has shards brought before they are asked for, and in a cache with a limit removes what is
needed last; a store that is not removes what was asked for least lately.
"""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mixstream.errors import CacheError, ShardError, StreamError
from mixstream.streams.cache.crew import NEVER, Agenda, Crew
from mixstream.streams.cache.folder import CacheFolder, Entry
from mixstream.streams.cache.making import Job
from mixstream.streams.cache.traffic import Meter, Traffic
from mixstream.streams.files import Shards, check_files, verify_raw
from mixstream.streams.hashes import KNOWN
from mixstream.streams.mapped import Bytes, MappedShard, map_file
from mixstream.streams.needs import Foresight
from mixstream.streams.remote import Patience, RemoteFolder
from mixstream.streams.shard import Shard
from mixstream.streams.tokens import TokenColumn

OpenT = TypeVar("OpenT")

REQUESTS = 16  # at a time, of one process
AHEAD_BYTES = 2 << 30  # to have here before they are read
MAX_AHEAD = 4096  # shards
OPENINGS = 10  # of one shard that others remove again and again
LOOKS = 8  # while what is seen to come is read


class TokenShards(Shards, Protocol):
    """What has shards of tokens: a stream."""

    @property
    def column(self) -> TokenColumn:
        """Where a sample keeps them."""


class ShardStore:
    """Opens the shards of streams; for several threads at once, and for processes that get it pickled."""

    def __init__(
        self,
        cache_dir: str | Path | None = None,
        verify_hashes: bool = False,
        cache_limit: int | None = None,
        patience: Patience | None = None,
    ) -> None:
        """Prepare to open shards.

        Args:
            cache_dir: where raw files of shards are kept that are compressed or lie in an object store, in a folder a
                stream; on a disk of this machine. None: such streams are refused.
            verify_hashes: compare each shard with the hash that index.json notes of it, once a process; what comes from
                an object store is compared when it comes, in any case.
            cache_limit: bytes that the cache folder may hold, whoever put them there; None: as many as the disk.
            patience: with object stores that fail; None: as `Patience` has it.
        """
        self.cache_dir = None if cache_dir is None else Path(cache_dir).absolute()
        self.cache_limit = cache_limit
        self.verify_hashes = verify_hashes
        self._patience = patience or Patience()
        self._begin()

    def _begin(self) -> None:
        self._meter = Meter()
        self._verified: set[Path] = set()
        self._warned: set[str] = set()
        self._working_set = 0
        self._foresees_nothing = True
        self._by_file: dict[str, dict[str, int]] = {}
        self._forget: Callable[[str, int], None] | None = None
        self._opened: dict[Entry, tuple[str, int]] = {}  # what a reader has from the cache
        self._crew: Crew | None = None
        self._cache: CacheFolder | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {
            "cache_dir": self.cache_dir,
            "cache_limit": self.cache_limit,
            "verify_hashes": self.verify_hashes,
            "_patience": self._patience,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def check(self, shards: Shards) -> bool:
        """Check, without reading, that every shard can be opened as far as its file and the cache go.

        Of an object store nothing is asked: what is missing there is told when it is fetched.

        Returns:
            Whether shards come into the cache.

        Raises:
            ShardError: a file is missing or of another size.
            StreamError: a shard must come into the cache, and there is no cache folder.
        """
        is_cached = isinstance(shards.directory, RemoteFolder) or bool(check_files(shards))
        if is_cached:
            self._folder_of(shards)
        return is_cached

    def reserve(self, name: str, size: int, told: str) -> None:
        """Note the bytes that are needed in the cache at a time; see `CacheFolder.reserve`.

        Raises:
            CacheError: the limit is too small for them, and those that others have reserved.
        """
        self._working_set = size
        self._open_cache()[0].reserve(name, size, told)

    def open_shard(self, stream: TokenShards, number: int) -> Shard:
        """Open one shard of a stream for its tokens; waits until it is here.

        Raises:
            ShardError: it is not what index.json says.
            RemoteError: the object store refuses it, or does not answer for long.
            CacheError: the cache cannot be written, or has no room.
            StreamError: it must come into the cache and there is no cache folder.
        """
        samples = int(stream.index.shard_samples[number])
        return self._open(stream, number, lambda path, data: Shard(path, data, samples, stream.column))

    def map_shard(self, shards: Shards, number: int) -> MappedShard:
        """Open one shard for all its columns; raises what `open_shard` raises."""
        index = shards.index
        samples = int(index.shard_samples[number])
        return self._open(shards, number, lambda path, data: MappedShard(path, data, samples, index.column_sizes))

    def expect(self, shards: Shards, number: int) -> None:
        """Have a shard brought that will be opened in a moment, while others are."""
        if not self._local_path(shards, number):
            job = self._job(shards, number)
            self._open_cache()[1].expect(job)

    def on_forget(self, forget: Callable[[str, int], None]) -> None:
        """Have ``forget(stream name, shard number)`` called before a shard that was opened leaves the cache.

        Whoever has it open should close it, since its place on the disk is free only then.
        """
        self._forget = forget

    def is_here(self, shards: Shards, number: int) -> bool:
        """Return whether a shard can be opened without waiting."""
        if self._local_path(shards, number):
            return True
        return self._open_cache()[1].holds(self._job(shards, number).entry)

    def foresee(self, streams: Sequence[Shards], foresight: Foresight) -> float:
        """Take a new look into the future of `streams`, which `foresight` numbers.

        Returns:
            The batch by which to look again, if weights do not change.
        """
        cache, crew = self._open_cache()
        self._foresees_nothing = False
        ahead = AHEAD_BYTES if cache.limit is None else cache.limit // 4
        near: dict[Entry, tuple[float, Job]] = {}
        room = max(ahead, self._working_set)
        for need in foresight.upcoming():
            if self._local_path(streams[need.stream], need.shard):
                continue
            job = self._job(streams[need.stream], need.shard)
            if job.entry in near:
                continue
            room -= job.size
            if room < 0 or len(near) == MAX_AHEAD:
                break
            near[job.entry] = need.batch, job
        seen = [batch for batch, _ in near.values()] or [0.0]
        again = seen[0] + (seen[-1] - seen[0]) / LOOKS
        if cache.limit is None:  # nothing is removed
            crew.foresee(Agenda(near))
            return again
        uses = {self._folder_of(shards): foresight.next_use(number) for number, shards in enumerate(streams)}
        numbers = {self._folder_of(shards): self._numbers(shards) for shards in streams}

        def next_use(entry: Entry) -> float:
            number = numbers[entry.folder].get(entry.file) if entry.folder in uses else None
            return NEVER if number is None else float(uses[entry.folder][number])

        crew.foresee(Agenda(near, next_use))
        return again

    @property
    def waits(self) -> int:
        """How often a reader had to wait for a shard so far."""
        return 0 if self._crew is None else self._crew.waits

    def traffic(self) -> dict[str, Traffic]:
        """Return what was moved so far, by stream."""
        return self._meter.read()

    def close(self) -> None:
        """End all that goes on; what is open stays so."""
        if self._crew is not None:
            self._finalizer()

    def _open(self, shards: Shards, number: int, make: Callable[[Path, Bytes], OpenT]) -> OpenT:
        path = self._local_path(shards, number)
        if path is not None:
            return make(path, self._map(shards, number, path))
        job = self._job(shards, number)  # refuses where there is no cache folder
        cache, crew = self._open_cache()
        path = cache.path_of(job.entry)
        is_anew = False
        for _ in range(OPENINGS):
            self._opened[job.entry] = shards.name, number  # it may be given up before `demand` returns, and here anew
            self._meter.add(shards.name, waited_seconds=crew.demand(job))
            if self._foresees_nothing and cache.limit is not None:
                crew.keep_latest(max(self._working_set, job.size))
            self._opened[job.entry] = shards.name, number
            try:
                return make(path, self._map(shards, number, path))
            except ShardError as problem:
                self._opened.pop(job.entry, None)
                if not crew.drop(job.entry):  # it had been removed, for what was needed sooner
                    continue
                if is_anew:
                    raise ShardError(f"{problem}; so it is in {job}, convert or upload the stream again") from None
                is_anew = True
        raise CacheError(
            f"{path}: was removed or damaged {OPENINGS} times before it could be opened; see who does that"
        )

    def _map(self, shards: Shards, number: int, path: Path) -> Bytes:
        data = map_file(path, int(shards.index.file_bytes[number]))
        if self.verify_hashes:
            self._verify(shards, number, path, data)
        return data

    def _verify(self, shards: Shards, number: int, path: Path, data: Bytes) -> None:
        where = str(shards.directory)
        if where not in self._warned and not set(KNOWN) & set(shards.index.hashes):
            self._warned.add(where)
            warnings.warn(
                f"stream {shards.name!r}: index.json notes no hash of its shards that is known, so none can be checked",
                stacklevel=6,
            )
        if path not in self._verified:
            verify_raw(shards, number, path, data)
            self._verified.add(path)

    def _local_path(self, shards: Shards, number: int) -> Path | None:
        """Return where a shard lies raw, outside the cache; None where it must come into it."""
        directory = shards.directory
        if isinstance(directory, RemoteFolder):
            return None
        path = directory / shards.index.files[number]
        return None if shards.index.compression and not path.exists() else path

    def _folder_of(self, shards: Shards) -> str:
        """Return the name of a stream's folder in the cache."""
        if self.cache_dir is None:
            raw_bytes = int(shards.index.file_bytes.sum())
            compression = shards.index.compression
            told = f"are compressed ({compression})" if compression else "lie in an object store"
            raise StreamError(
                f"stream {shards.name!r}: its shards {told} and are read from raw copies of {raw_bytes:,} bytes in "
                f"all; give a cache_dir with room for them, or for a part of them and a cache_limit"
            )
        return f"{shards.name}-{shards.index.fingerprint}"

    def _numbers(self, shards: Shards) -> dict[str, int]:
        """Return the number of each raw file of a stream."""
        folder = self._folder_of(shards)
        if folder not in self._by_file:
            self._by_file[folder] = {file: number for number, file in enumerate(shards.index.files)}
        return self._by_file[folder]

    def _job(self, shards: Shards, number: int) -> Job:
        entry = Entry(self._folder_of(shards), shards.index.files[number])
        return Job(shards, number, entry, int(shards.index.file_bytes[number]))

    def _open_cache(self) -> tuple[CacheFolder, Crew]:
        with self._lock:
            if self._cache is None or self._crew is None:
                assert self.cache_dir is not None, "checked by `_folder_of`"
                meter = self._meter
                self._cache = CacheFolder(
                    self.cache_dir,
                    self.cache_limit,
                    lambda entry: meter.add(entry.folder.rpartition("-")[0], evicted=1),
                )
                forget = weakref.WeakMethod(self._forget_entry)
                self._crew = Crew(
                    self._cache,
                    self._meter,
                    self._patience,
                    max(4, REQUESTS // int(os.environ.get("LOCAL_WORLD_SIZE") or 1)),
                    self.verify_hashes,
                    lambda entry: (own := forget()) and own(entry),
                )
                self._finalizer = weakref.finalize(self, self._crew.close)
            return self._cache, self._crew

    def _forget_entry(self, entry: Entry) -> None:
        opened = self._opened.pop(entry, None)
        if opened is not None and self._forget is not None:
            self._forget(*opened)
