"""The shard store: makes the raw file of a shard be here, checks it and maps it.

A raw shard of a local stream is mapped in its place and never written. What is compressed, or lies in an object store,
comes into a cache folder first, once a node, from then on only mapped (see `mixstream.streams.cache`). A store that is
told the future (`foresee`) has shards brought before they are asked for, and in a cache with a limit removes what is
needed last; a store that is not removes what was asked for least lately.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mixstream.errors import CacheError, ShardError, StreamError
from mixstream.streams.cache.limit import check_cache_dir
from mixstream.streams.cache.shards import CachedShards, Forget, job_of
from mixstream.streams.cache.traffic import Meter, Traffic
from mixstream.streams.files import Shards, check_files, verify_raw
from mixstream.streams.hashes import KNOWN
from mixstream.streams.mapped import Bytes, MappedShard, map_file
from mixstream.streams.needs import Foresight
from mixstream.streams.remote import Patience, RemoteFolder
from mixstream.streams.shard import Shard
from mixstream.streams.tokens import TokenColumn

OpenT = TypeVar("OpenT")

OPENINGS = 10  # of one shard that others remove again and again


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

        Raises:
            CacheError: `cache_dir` is a URL, or an empty text.
        """
        self.cache_dir = None if cache_dir is None else check_cache_dir(cache_dir).absolute()
        self.cache_limit = cache_limit
        self.verify_hashes = verify_hashes
        self._patience = patience or Patience()
        self._begin()

    def _begin(self) -> None:
        self._meter = Meter()
        self._verified: set[Path] = set()
        self._warned: set[str] = set()
        self._forget: Forget | None = None
        self._cached: CachedShards | None = None
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
            self._check_cache(shards)
        return is_cached

    def reserve(self, name: str, size: int, told: str) -> None:
        """Note the bytes that are needed in the cache at a time; see `CacheFolder.reserve`.

        Raises:
            CacheError: the limit is too small for them, and those that others have reserved.
        """
        self._cache().reserve(name, size, told)

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
        if _is_elsewhere(shards, number):
            self._cache(shards).expect(shards, number)

    def withdraw(self, shards: Sequence[tuple[Shards, int]]) -> None:
        """Note that shards that were expected will not be opened."""
        if self._cached is not None:
            self._cached.withdraw(shards)

    def is_here(self, shards: Shards, number: int) -> bool:
        """Return whether a shard can be opened without waiting."""
        return not _is_elsewhere(shards, number) or self._cache(shards).is_here(shards, number)

    def on_forget(self, forget: Forget) -> None:
        """Have ``forget(stream name, shard number)`` called before a shard that was opened leaves the cache.

        Whoever has it open should close it, since its place on the disk is free only then.
        """
        with self._lock:
            self._forget = forget
            if self._cached is not None:
                self._cached.on_forget(forget)

    def foresee(self, streams: Sequence[Shards], foresight: Foresight) -> float:
        """Have brought what comes next; see `CachedShards.foresee`."""
        return self._cache().foresee(streams, foresight)

    @property
    def waits(self) -> int:
        """How often a reader had to wait for a shard so far."""
        return 0 if self._cached is None else self._cached.waits

    def traffic(self) -> dict[str, Traffic]:
        """Return what was moved so far, by stream."""
        return self._meter.read()

    def close(self) -> None:
        """End all that goes on; what is open stays so."""
        with self._lock:
            if self._cached is not None:
                self._cached.close()

    def _open(self, shards: Shards, number: int, make: Callable[[Path, Bytes], OpenT]) -> OpenT:
        if isinstance(shards.directory, Path) and not _is_elsewhere(shards, number):
            path = shards.directory / shards.index.files[number]
            return make(path, self._map(shards, number, path))
        cache, is_anew = self._cache(shards), False
        for _ in range(OPENINGS):
            path = cache.bring(shards, number)
            try:
                return make(path, self._map(shards, number, path))
            except ShardError as problem:
                if not cache.drop(shards, number):  # it had been removed, for what was needed sooner
                    continue
                if is_anew:
                    where = job_of(shards, number)
                    raise ShardError(f"{problem}; so it is in {where}, convert or upload the stream again") from None
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

    def _check_cache(self, shards: Shards) -> None:
        if self.cache_dir is None:
            raw_bytes = int(shards.index.file_bytes.sum())
            compression = shards.index.compression
            told = f"are compressed ({compression})" if compression else "lie in an object store"
            raise StreamError(
                f"stream {shards.name!r}: its shards {told} and are read from raw copies of {raw_bytes:,} bytes in "
                f"all; give a cache_dir with room for them, or for a part of them and a cache_limit"
            )

    def _cache(self, shards: Shards | None = None) -> CachedShards:
        """Return the cache, opened at its first use, which may be for a shard of `shards`."""
        if shards is not None:
            self._check_cache(shards)
        with self._lock:
            if self._cached is None:
                assert self.cache_dir is not None, "checked"
                self._cached = CachedShards(
                    self.cache_dir, self.cache_limit, self.verify_hashes, self._patience, self._meter, _is_elsewhere
                )
                if self._forget is not None:
                    self._cached.on_forget(self._forget)
            return self._cached


def _is_elsewhere(shards: Shards, number: int) -> bool:
    """Return whether a shard must come into the cache: it is not here, or only compressed."""
    if not isinstance(shards.directory, Path):
        return True
    return bool(shards.index.compression) and not (shards.directory / shards.index.files[number]).exists()
