"""The cache folder: raw files of shards, whole or absent, within a limit that all processes keep together.

A file is written as ``.NAME.part``, which has its full size from the beginning, and renamed. Who makes it holds its
lock alone, who reads it or is about to shares it, who removes it holds it alone again: so a shard is made once however
many processes ask for it, what is in use stays, and what a dead process left is told apart from what is being made.

The file ``.cache`` has the locks, and in its first bytes the size of all that lies here. That is counted anew
whenever the folder is opened, so that nobody's death makes it wrong for long.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from mixstream.errors import CacheError
from mixstream.streams.cache.locks import NamedLocks
from mixstream.streams.cache.reservations import Reservations

LOCKS = ".cache"
RESERVED = ".reserved"
_OF_A_STREAM = re.compile(r".*-[0-9a-f]{16}")  # its name and its fingerprint: all else is never looked into
_SIZE_BYTES = 8


class Entry(NamedTuple):
    """A file of the cache.

    Attributes:
        folder: of its stream.
        file: its path there.
    """

    folder: str
    file: str

    def __str__(self) -> str:
        return f"{self.folder}/{self.file}"


class CacheFolder:
    """One user of a cache folder; several threads share it, every process and every store has its own."""

    def __init__(
        self, path: Path, limit: int | None = None, on_evict: Callable[[Entry], object] = lambda entry: None
    ) -> None:
        """Open a folder, made if it is not there, private to the user; what dead processes left is removed.

        Args:
            path: the folder.
            limit: bytes that it may hold; None: what the disk does.
            on_evict: is told of entries that were removed to make room.

        Raises:
            CacheError: it cannot be made or written, or holds what no cache does.
        """
        self.path = path
        self.limit = limit
        self.entries: dict[Entry, int] = {}  # as last seen: others add and remove
        self._on_evict = on_evict
        self._begun: set[Entry] = set()  # made here: this user's own locks do not keep it from removing them
        self._thread_lock = threading.Lock()
        with self._told():
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_own(path)
            self._locks = NamedLocks(path / LOCKS)
            self._reservations = Reservations(path / RESERVED)
            self.recount()

    def path_of(self, entry: Entry) -> Path:
        """Return where an entry's file is, or would be."""
        return self.path / entry.folder / entry.file

    def holds(self, entry: Entry, size: int) -> bool:
        """Return whether an entry is there in its full size.

        Raises:
            CacheError: the folder cannot be read.
        """
        try:
            return os.stat(f"{self.path}/{entry.folder}/{entry.file}").st_size == size  # noqa: PTH116  it is asked often
        except FileNotFoundError:
            return False
        except OSError as problem:
            raise cannot_write(self.path, problem) from None

    def use(self, entry: Entry, size: int) -> bool:
        """Keep an entry from being removed, if it is there in its full size; else, or while it is made: False."""
        if not self._locks.share(str(entry)):
            return False
        if self.holds(entry, size):
            self._begun.discard(entry)
            self.entries[entry] = size
            return True
        self.leave(entry)
        return False

    def leave(self, entry: Entry) -> None:
        """End `use`, or `begin`."""
        self._begun.discard(entry)
        self._locks.release(str(entry))

    def begin(self, entry: Entry) -> bool:
        """Begin to make an entry; False: somebody else is at it, or uses it."""
        if not self._locks.seize(str(entry)):
            return False
        self._begun.add(entry)
        return True

    def reserve_part(self, entry: Entry, size: int, victims: Iterator[Entry]) -> Path | None:
        """Return a part file of full size for an entry that is being made, or None where there is no room.

        Args:
            entry: that was begun.
            size: bytes of the raw file.
            victims: entries to remove for it, the first first; as many as are needed are asked for.

        Raises:
            CacheError: the disk is full, or the folder cannot be written.
        """
        with self._told(size), self._accounted() as used:
            held = self.path_of(entry)
            if (damaged := _size_of(held)) is not None:  # of another size than it must be
                held.unlink()
                used -= damaged
            part = part_of(held)
            if (left := _size_of(part)) is not None:  # of one who died since it was counted
                part.unlink()
                used -= left
            while self.limit is not None and used + size > self.limit:
                victim = next(victims, None)
                if victim is None:
                    self._write_used(used)
                    return None
                if removed := self._remove(victim):
                    used -= removed
                    self._on_evict(victim)
            self._write_used(used)
            for folder in reversed(held.relative_to(self.path).parents):  # each private
                (self.path / folder).mkdir(mode=0o700, exist_ok=True)
            _allocate(part, size)
            self._write_used(used + size)
            return part

    def finish(self, entry: Entry, part: Path, size: int) -> None:
        """Put a part in its place; it is in use from then on."""
        with self._told(), self._accounted():  # or `recount` might see neither of the two names, or both
            part.rename(self.path_of(entry))
            self.entries[entry] = size
            self._begun.discard(entry)
            self._locks.share(str(entry))

    def abandon(self, entry: Entry, part: Path | None, size: int) -> None:
        """Remove a part that will not be finished, and let others try."""
        if part is not None:
            with self._told(), self._accounted() as used:
                part.unlink(missing_ok=True)
                self._write_used(used - size)
        self.leave(entry)

    def remove(self, entry: Entry) -> bool:
        """Remove an entry, if nobody else uses it."""
        with self._told(), self._accounted() as used:
            removed = self._remove(entry)
            self._write_used(used - removed)
            return removed > 0

    def reserve(self, name: str, size: int, told: str) -> None:
        """Note what this user needs at a time, so that others do not count on it; ends with `close`.

        Args:
            name: of what is read: those who read the same at the same time give the same one and count once.
            size: bytes.
            told: what it is, for messages.

        Raises:
            CacheError: that is more than the limit leaves, with the numbers.
        """
        with self._told(), self._accounted():
            others = sum(own for other, own in self._reservations.sizes().items() if other != name)
            if self.limit is not None and size + others > self.limit:
                beside = f" and {others:,} bytes are reserved by others that use {self.path} now" if others else ""
                raise CacheError(
                    f"cache_limit={self.limit:,} bytes, but {told} needs {size:,} bytes at a time{beside}; give a "
                    f"cache_limit of {size + others:,} bytes or more, or plan with a smaller window_samples"
                )
            self._reservations.make(name, size)

    def unreserved(self) -> tuple[int, int]:
        """Return the bytes of the limit that nobody has reserved, and how many have reserved some."""
        with self._accounted():
            sizes = self._reservations.sizes()
            return max(0, (self.limit or 0) - sum(sizes.values())), len(sizes)

    def recount(self) -> None:
        """Look at what is there, remove what dead processes left half-made, and count it all."""
        with self._told(), self._accounted():
            self.entries.clear()
            used = 0
            for file, size in _files_below(self.path):
                name = file.name
                if name.startswith(".") and name.endswith(".part"):
                    entry = self._entry_of(file.with_name(name[1:-5]))
                    if entry not in self._begun and self._locks.seize(str(entry)):
                        file.unlink(missing_ok=True)
                        self._locks.release(str(entry))
                    else:
                        used += size
                elif not name.startswith("."):
                    self.entries[self._entry_of(file)] = size
                    used += size
            self._write_used(used)

    def used(self) -> int:
        """Return the bytes that are here or reserved for what is being made."""
        with self._accounted() as used:
            return used

    def unreserve(self) -> None:
        """End `reserve`."""
        self._reservations.end()

    def close(self) -> None:
        """Give back what is in use or reserved."""
        self.unreserve()
        self._locks.close()

    def _remove(self, entry: Entry) -> int:
        """Remove an entry that nobody else uses; return the bytes that it had."""
        if entry in self._begun or not self._locks.seize(str(entry)):
            return 0
        try:
            path = self.path_of(entry)
            size = _size_of(path) or 0
            path.unlink(missing_ok=True)
            self.entries.pop(entry, None)
            return size
        finally:
            self._locks.release(str(entry))

    def _entry_of(self, file: Path) -> Entry:
        folder, *rest = file.relative_to(self.path).parts
        return Entry(folder, "/".join(rest))

    @contextlib.contextmanager
    def _accounted(self) -> Iterator[int]:
        """Hold the account, in which the bytes used are told."""
        with self._thread_lock:
            self._locks.seize_all()
            try:
                yield int.from_bytes(os.pread(self._locks.file, _SIZE_BYTES, 0), "little")
            finally:
                self._locks.release_all()

    def _write_used(self, used: int) -> None:
        os.pwrite(self._locks.file, max(0, used).to_bytes(_SIZE_BYTES, "little"), 0)

    @contextlib.contextmanager
    def _told(self, size: int = 0) -> Iterator[None]:
        """Turn what the system refuses into an error of ours."""
        try:
            yield
        except OSError as problem:
            raise cannot_write(self.path, problem, size) from None


def cannot_write(path: Path, problem: OSError, size: int = 0) -> CacheError:
    """Return the error that tells why a cache cannot be written."""
    wanted = f" {size:,} bytes more" if size else ""
    way_out = "choose a cache_dir with more room, or a cache_limit that the disk has room for"
    if problem.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        way_out = "choose a cache_dir that can be written"
    return CacheError(f"cache {path}: cannot be written{wanted} ({problem.strerror}); {way_out}")


def _check_own(path: Path) -> None:
    """Refuse to make a cache of a folder that is used for something else: what is in a cache may go at any time."""
    if (path / LOCKS).is_file():
        return
    names = sorted(file.name for file in path.iterdir() if not _OF_A_STREAM.fullmatch(file.name))
    others = [name for name in names if not name.startswith(".") and name != "lost+found"]
    if others:
        raise CacheError(
            f"cache {path}: holds {others[0]!r}, which is of no cache; give a folder of its own, such as "
            f"{path / 'mixstream-cache'}"
        )


def part_of(path: Path) -> Path:
    """Return where a file is while it is made."""
    return path.with_name(f".{path.name}.part")


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _allocate(part: Path, size: int) -> None:
    """Make a file of a size whose place on the disk is sure, where the file system can tell."""
    file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(file, 0, max(1, size))
    except OSError as problem:
        if problem.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            part.unlink()
            raise
        os.ftruncate(file, size)
    finally:
        os.close(file)


def _files_below(path: Path) -> Iterator[tuple[Path, int]]:
    """Yield (file, bytes) of all files in the streams' folders of a cache; what vanishes meanwhile is left out."""
    with os.scandir(path) as found:
        streams = [entry for entry in found if _OF_A_STREAM.fullmatch(entry.name)]
    folders = [Path(entry.path) for entry in streams if entry.is_dir(follow_symlinks=False)]
    while folders:
        with contextlib.suppress(FileNotFoundError), os.scandir(folders.pop()) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                    continue
                with contextlib.suppress(FileNotFoundError):
                    yield Path(entry.path), entry.stat(follow_symlinks=False).st_size
