"""Shards through the cache: which entry a shard has, who has it open, and what is brought before it is asked for."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path

from mixstream.streams.cache.agenda import NEVER, Agenda
from mixstream.streams.cache.crew import Crew
from mixstream.streams.cache.folder import CacheFolder, Entry
from mixstream.streams.cache.making import Job
from mixstream.streams.cache.traffic import Meter
from mixstream.streams.files import Shards
from mixstream.streams.needs import Foresight
from mixstream.streams.remote import Patience

REQUESTS = 16  # at a time, of one process
AHEAD_BYTES = 2 << 30  # to have here before they are read
MAX_AHEAD = 4096  # shards to look at
COUNT_SECONDS = 1.0  # between looks at what others have reserved
LOOKS = 8  # while what is seen to come is read

Forget = Callable[[str, int], None]


class CachedShards:
    """One user of a cache folder, with threads of its own: begun by its first use, ended by `close` or as garbage.

    Attributes:
        folder: of the cache.
        meter: counts what is moved.
    """

    def __init__(
        self,
        path: Path,
        limit: int | None,
        verify_hashes: bool,
        patience: Patience,
        meter: Meter,
        is_elsewhere: Callable[[Shards, int], bool],
    ) -> None:
        """Open the folder `path`; see `ShardStore` and `CacheFolder`.

        Args:
            path, limit: the folder, and the bytes that it may hold.
            verify_hashes: compare also what is decompressed here.
            patience: with object stores.
            meter: counts what is moved.
            is_elsewhere: whether a shard must come into the cache to be read.

        Raises:
            CacheError: the folder cannot be made or written.
        """
        self.meter = meter
        self.folder = CacheFolder(path, limit, lambda entry: meter.add(entry.folder.rpartition("-")[0], evicted=1))
        self._is_elsewhere = is_elsewhere
        self._working_set = 0
        self._room = 0
        self._counted = float("-inf")
        self._foresees = False
        self._forget: Forget | None = None
        self._opened: dict[Entry, tuple[str, int]] = {}  # what a reader has open, or is about to
        self._by_file: dict[str, dict[str, int]] = {}
        forget = weakref.WeakMethod(self._forget_entry)  # the threads must not keep this from being garbage
        self._crew = Crew(
            self.folder, meter, patience, _threads(), verify_hashes, lambda entry: (own := forget()) and own(entry)
        )
        self.close = weakref.finalize(self, self._crew.close)

    @property
    def waits(self) -> int:
        """How often a reader had to wait for a shard so far."""
        return self._crew.waits

    def on_forget(self, forget: Forget) -> None:
        """Have ``forget(stream name, shard number)`` called before a shard that was opened is given up."""
        self._forget = forget

    def reserve(self, name: str, size: int, told: str) -> None:
        """Note the bytes that are needed at a time; see `CacheFolder.reserve`.

        Raises:
            CacheError: the limit is too small for them, and those that others have reserved.
        """
        self.folder.reserve(name, size, told)
        self._working_set = size

    def expect(self, shards: Shards, number: int) -> None:
        """Have a shard brought that will be asked for in a moment."""
        self._crew.expect(job_of(shards, number))

    def withdraw(self, shards: Sequence[tuple[Shards, int]]) -> None:
        """Note that shards that were expected will not be asked for."""
        self._crew.withdraw(job_of(*own).entry for own in shards)

    def is_here(self, shards: Shards, number: int) -> bool:
        """Return whether a shard is here and in use."""
        return self._crew.holds(job_of(shards, number).entry)

    def bring(self, shards: Shards, number: int) -> Path:
        """Return a shard's raw file, waiting until it is here.

        Raises:
            RemoteError, ShardError, CacheError: why it cannot be brought.
        """
        job = job_of(shards, number)
        self._opened[job.entry] = shards.name, number  # it may be given up before `demand` returns, and here anew
        self.meter.add(shards.name, waited_seconds=self._crew.demand(job))
        if not self._foresees and self.folder.limit is not None:
            self._crew.keep_latest(max(self._working_set, job.size))
        self._opened[job.entry] = shards.name, number
        return self.folder.path_of(job.entry)

    def drop(self, shards: Shards, number: int) -> bool:
        """Remove a shard that is damaged; False: it was not there, or others use it."""
        entry = job_of(shards, number).entry
        self._opened.pop(entry, None)
        return self._crew.drop(entry)

    def foresee(self, streams: Sequence[Shards], foresight: Foresight) -> float:
        """Take a new look into the future of `streams`, which `foresight` numbers.

        Returns:
            The batch by which to look again, if weights do not change.
        """
        self._foresees = True
        near, last = self._near(streams, foresight)
        # What is removed is chosen by when it is needed next; without a limit nothing is.
        next_use = (lambda entry: NEVER) if self.folder.limit is None else self._next_use(streams, foresight)
        is_complete = self._crew.foresee(Agenda(near, next_use))
        first = next((batch for batch, _ in near.values()), last)
        if self.folder.limit is not None and not is_complete:
            return first  # as long as something is fetched, what goes for it is to be chosen by a new look
        return first + (last - first) / LOOKS

    def _near(self, streams: Sequence[Shards], foresight: Foresight) -> tuple[dict[Entry, tuple[float, Job]], float]:
        """Return what is to be here before it is asked for, in the order of need, and how far that was looked for.

        Room goes also to what is read again: streams that fit into it would be looked through to the run's end.
        """
        room, last = self._room_ahead(), 0.0
        near: dict[Entry, tuple[float, Job]] = {}
        for need in islice(foresight.upcoming(), MAX_AHEAD):
            if self._is_elsewhere(streams[need.stream], need.shard):
                job = job_of(streams[need.stream], need.shard)
                room -= job.size
                if room < 0:
                    break
                near.setdefault(job.entry, (need.batch, job))
            last = need.batch
        return near, last

    def _room_ahead(self) -> int:
        """Return the bytes to have here that are needed next: what was reserved, and more where that takes no one's.

        Of a limit only a part: what is fetched long before its time takes the place of what will be read again.
        """
        limit, now = self.folder.limit, time.monotonic()
        if limit is None:
            return max(AHEAD_BYTES, self._working_set)
        if now > self._counted + COUNT_SECONDS:
            self._counted = now
            free, users = self.folder.unreserved()
            self._room = max(self._working_set, min(limit // 4, self._working_set + free // max(1, users)))
        return self._room

    def _next_use(self, streams: Sequence[Shards], foresight: Foresight) -> Callable[[Entry], float]:
        """Return what tells when an entry is needed next: never, where it is of none of the streams."""
        uses = {folder_of(shards): foresight.next_use(number) for number, shards in enumerate(streams)}
        numbers = {folder_of(shards): self._numbers(shards) for shards in streams}

        def next_use(entry: Entry) -> float:
            number = numbers[entry.folder].get(entry.file) if entry.folder in uses else None
            return NEVER if number is None else float(uses[entry.folder][number])

        return next_use

    def _numbers(self, shards: Shards) -> dict[str, int]:
        """Return the number of each raw file of a stream."""
        folder = folder_of(shards)
        if folder not in self._by_file:
            self._by_file[folder] = {file: number for number, file in enumerate(shards.index.files)}
        return self._by_file[folder]

    def _forget_entry(self, entry: Entry) -> None:
        opened = self._opened.pop(entry, None)
        if opened is not None and self._forget is not None:
            self._forget(*opened)


def folder_of(shards: Shards) -> str:
    """Return the name of a stream's folder in the cache: a stream that has changed gets another one."""
    return f"{shards.name}-{shards.index.fingerprint}"


def job_of(shards: Shards, number: int) -> Job:
    """Return what is to be done to have a shard in the cache."""
    entry = Entry(folder_of(shards), shards.index.files[number])
    return Job(shards, number, entry, int(shards.index.file_bytes[number]))


def _threads() -> int:
    """Return how many threads one of the node's processes has."""
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(4, REQUESTS // int(ranks)) if ranks.isdecimal() and int(ranks) else REQUESTS
