"""The shard store: makes the raw file of a shard be there, checks it and maps it.

A raw shard is mapped in its place and never written. A compressed one is decompressed once into a cache
folder, from then on only mapped. A shard of an object store would be one more way for the raw file to get there.

In the cache a raw file is whole or absent: it is written to ``.NAME.part`` and renamed. Who writes that holds its
lock (flock), which the system drops when the process dies, so that a shard is made once however many processes ask
for it, and what a dead one left is told apart from what is being made.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar

from mixstream.errors import ShardError, StreamError
from mixstream.streams.files import Shards, check_files, read_raw, verify_raw
from mixstream.streams.hashes import KNOWN
from mixstream.streams.mapped import Bytes, MappedShard, map_file
from mixstream.streams.shard import Shard
from mixstream.streams.tokens import TokenColumn

OpenT = TypeVar("OpenT")

LOCK_SECONDS = 600  # a shard is decompressed in one; a process that was stopped must not stop the others for ever


class TokenShards(Shards, Protocol):
    """What has shards of tokens: a stream."""

    @property
    def column(self) -> TokenColumn:
        """Where a sample keeps them."""


class ShardStore:
    """Opens the shards of streams; for several threads at once, and for processes that get it pickled."""

    def __init__(self, cache_dir: str | Path | None = None, verify_hashes: bool = False) -> None:
        """Prepare to open shards.

        Args:
            cache_dir: where raw files of compressed shards are kept, in a folder a stream; None: compressed
                streams are refused.
            verify_hashes: compare each shard with the hash that index.json notes of it, once a process.
        """
        self.cache_dir = None if cache_dir is None else Path(cache_dir).absolute()
        self.verify_hashes = verify_hashes
        self._verified: set[Path] = set()
        self._cleaned: set[Path] = set()
        self._warned: set[Path] = set()

    def check(self, shards: Shards) -> None:
        """Check, without reading, that every shard can be opened as far as its file and the cache go.

        Raises:
            ShardError: a file is missing or of another size.
            StreamError: a shard is compressed, and there is no cache folder.
        """
        if check_files(shards):
            self._folder(shards)

    def open_shard(self, stream: TokenShards, number: int) -> Shard:
        """Open one shard of a stream for its tokens.

        Raises:
            ShardError: it is not what index.json says.
            StreamError: it is compressed and there is no cache folder, or that cannot be written.
        """
        samples = int(stream.index.shard_samples[number])
        return self._open(stream, number, lambda path, data: Shard(path, data, samples, stream.column))

    def map_shard(self, shards: Shards, number: int) -> MappedShard:
        """Open one shard for all its columns; raises what `open_shard` raises."""
        index = shards.index
        samples = int(index.shard_samples[number])
        return self._open(shards, number, lambda path, data: MappedShard(path, data, samples, index.column_sizes))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_verified": set(), "_cleaned": set(), "_warned": set()}  # of this process

    def _open(self, shards: Shards, number: int, make: Callable[[Path, Bytes], OpenT]) -> OpenT:
        index = shards.index
        path = shards.directory / index.files[number]
        is_copy = bool(index.compression) and not path.exists()
        if is_copy:
            path = self._cached(shards, number)
        try:
            data = map_file(path, int(index.file_bytes[number]))
            if self.verify_hashes:
                self._verify(shards, number, path, data)
            return make(path, data)
        except ShardError as problem:
            if not is_copy:
                raise
            path.unlink(missing_ok=True)
            raise ShardError(f"{problem}; this copy has been removed, the next run makes it anew") from None

    def _verify(self, shards: Shards, number: int, path: Path, data: Bytes) -> None:
        if shards.directory not in self._warned and not set(KNOWN) & set(shards.index.hashes):
            self._warned.add(shards.directory)
            warnings.warn(
                f"stream {shards.name!r}: index.json notes no hash of its shards that is known, so none can be checked",
                stacklevel=5,
            )
        if path not in self._verified:
            verify_raw(shards, number, path, data)
            self._verified.add(path)

    def _folder(self, shards: Shards) -> Path:
        """Return where the raw files of a compressed stream are kept."""
        if self.cache_dir is None:
            raw_bytes = int(shards.index.file_bytes.sum())
            raise StreamError(
                f"stream {shards.name!r}: its shards are compressed ({shards.index.compression}) and are read from raw "
                f"copies of {raw_bytes:,} bytes in all; give a cache_dir with room for them"
            )
        return self.cache_dir / f"{shards.name}-{shards.index.fingerprint}"

    def _cached(self, shards: Shards, number: int) -> Path:
        """Return the raw file of a compressed shard in the cache, which is made if it is not there."""
        folder = self._folder(shards)
        path = folder / shards.index.files[number]
        try:
            if folder not in self._cleaned:
                _clean_leftovers(folder)
                self._cleaned.add(folder)
            if not _is_whole(path, shards, number):
                self._make(path, shards, number)
        except OSError as problem:
            raise StreamError(
                f"{path}: cannot be written ({problem.strerror}); the cache of stream {shards.name!r} needs "
                f"{int(shards.index.file_bytes.sum()):,} bytes in all, choose a cache_dir with room for them"
            ) from None
        return path

    def _make(self, path: Path, shards: Shards, number: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(f".{path.name}.part")) as part:
            if not _is_whole(path, shards, number):  # another process may have made it meanwhile
                _, data = read_raw(shards, number, self.verify_hashes)
                part.truncate(0)
                part.write(data.data)
                part.flush()
                Path(part.name).rename(path)
                if self.verify_hashes:
                    self._verified.add(path)


def _is_whole(path: Path, shards: Shards, number: int) -> bool:
    try:
        return path.stat().st_size == int(shards.index.file_bytes[number])
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def _locked(part: Path, wait: bool = True) -> Iterator[BinaryIO]:
    """Open a file that no other process or thread holds, made if it is not there; it is removed at the end.

    Raises:
        BlockingIOError: another one holds it.
        StreamError: and did so for `LOCK_SECONDS`.
    """
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        with part.open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise
                if time.monotonic() > deadline:
                    raise StreamError(
                        f"{part}: another process has been making this shard for {LOCK_SECONDS} s; end it if it hangs"
                    ) from None
                time.sleep(0.01)
                continue
            if not _is_same(part, file):  # renamed or removed by who held it before
                continue
            try:
                yield file
                return
            finally:
                if _is_same(part, file):
                    part.unlink()


def _is_same(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _clean_leftovers(folder: Path) -> None:
    """Remove what processes that died left half-made; what is being made is locked."""
    for part in folder.rglob(".*.part"):
        with contextlib.suppress(BlockingIOError), _locked(part, wait=False):
            pass
