"""The threads that bring shards into a cache: what is waited for first, then what is needed next.

A thread that is free takes the most urgent piece of work there is at that moment, so a new look into the future takes
effect at once. What is needed soon is in use in the cache's sense, though no reader has opened it yet; what is not
needed soon any more is given up, and removed where room is wanted (agenda.py).
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from mixstream.errors import CacheError, MixstreamError
from mixstream.streams.cache.agenda import NEVER, NOW, SOON, Agenda, Removal
from mixstream.streams.cache.folder import CacheFolder, Entry, cannot_write
from mixstream.streams.cache.making import SLOW_SECONDS, Job, Making, Piece, StoppedError
from mixstream.streams.cache.traffic import Meter
from mixstream.streams.cache.workers import Task, Workers
from mixstream.streams.remote import Patience

ELSEWHERE_SECONDS = 0.01  # between looks at what another process makes
MOMENT_SECONDS = 0.001  # in which a thread takes up what is here
STALL_SECONDS = 10.0  # between warnings of a reader that waits
GIVE_UP_SECONDS = 600.0  # for another process, or for room: one that was stopped must not stop the others for ever
RECOUNT_SECONDS = 5.0

_log = logging.getLogger("mixstream")


class Crew:
    """Brings jobs into the cache; several threads ask it, some of its own work.

    Attributes:
        waits: how often a demand took longer than a moment.
    """

    def __init__(
        self,
        cache: CacheFolder,
        meter: Meter,
        patience: Patience,
        num_threads: int,
        verify_hashes: bool,
        forget: Callable[[Entry], None],
    ) -> None:
        """Begin without work.

        Args:
            cache: where files go.
            meter: counts.
            patience: with object stores.
            num_threads: that work, and so requests at a time.
            verify_hashes: compare what was decompressed here, too.
            forget: is called before an entry is given up: whoever has it open is to close it.
        """
        self._cache = cache
        self._meter = meter
        self._patience = patience
        self._verify_hashes = verify_hashes
        self._forget = forget
        self._agenda = Agenda()
        self._wanted: dict[Entry, None] = {}  # of the agenda, what is still to be begun, in its order
        self._first: set[Entry] | None = None  # what the first batch needs and is not here; None: before all agendas
        self._demanded: dict[Entry, Job] = {}  # what readers wait for, or will in a moment
        self._waited: Counter[Entry] = Counter()  # readers that do at this moment
        self._expected: set[Entry] = set()  # not waited for since
        self._held: dict[Entry, int] = {}  # in use by this store; when it was demanded last, by a clock of demands
        self._makings: dict[Entry, Making] = {}
        self._beginning: set[Entry] = set()
        self._failed: dict[Entry, MixstreamError] = {}
        self._later: dict[Entry, float] = {}  # when to look again at what others make, or what there was no room for
        self._no_room = False  # for what is not demanded
        self._removal = Removal()
        self._recounted = time.monotonic()
        self._clock = 0
        self.waits = 0
        self._workers = Workers(num_threads, self._next, self._pause, self._end)
        self._changed = self._workers.changed
        self._stop = self._workers.stop

    def expect(self, job: Job) -> None:
        """Begin to bring what will be demanded in a moment."""
        with self._changed:
            if job.entry not in self._held and job.entry not in self._demanded:
                self._failed.pop(job.entry, None)  # it may have been mended
                self._demanded[job.entry] = job
                self._expected.add(job.entry)
                self._wake()

    def withdraw(self, entries: Iterable[Entry]) -> None:
        """Note that what was expected will not be demanded."""
        with self._changed:
            self._expected.difference_update(entries)

    def demand(self, job: Job) -> float:
        """Wait until a shard is in the cache and in use; return the seconds that took.

        Raises:
            RemoteError, ShardError, CacheError: why it cannot be brought.
        """
        with self._changed:
            self._waited[job.entry] += 1
            try:
                return self._wait_for(job)
            finally:
                self._waited -= Counter([job.entry])
                self._expected.discard(job.entry)

    def _wait_for(self, job: Job) -> float:
        entry, begun, limit = job.entry, time.monotonic(), self._cache.limit
        if limit is not None and job.size > limit:
            raise CacheError(f"{job}: has {job.size:,} bytes, more than cache_limit={limit:,}; give a larger one")
        self.expect(job)
        next_told = begun + STALL_SECONDS
        while entry not in self._held:
            if entry in self._failed:
                raise self._failed[entry]  # which stays: only who demands it has it tried again
            if entry not in self._demanded:
                self._demanded[entry] = job
                self._wake()
            self._changed.wait(1.0)
            now = time.monotonic()
            if self._stop.is_set() or (now > begun + GIVE_UP_SECONDS and entry not in self._makings):
                told = "the store was closed" if self._stop.is_set() else self._progress(entry)
                self._demanded.pop(entry, None)
                self._later.pop(entry, None)
                raise self._workers.crash or CacheError(f"{job}: gave up after {now - begun:.0f} s; {told}")
            if now > next_told:
                next_told = now + STALL_SECONDS
                _log.warning("waiting for %s since %.0f s: %s", job, now - begun, self._progress(entry))
        self._clock += 1
        self._held[entry] = self._clock
        waited = time.monotonic() - begun
        self.waits += waited > MOMENT_SECONDS
        return waited

    def drop(self, entry: Entry) -> bool:
        """Remove an entry that is damaged; False: it was not there, or others use it."""
        with self._changed:
            if entry in self._held:
                self._give_up(entry)
        return self._cache.remove(entry)

    def foresee(self, agenda: Agenda) -> bool:
        """Take the latest look into the future; give up what is not needed soon any more.

        Returns:
            Whether all that is near is here.
        """
        with self._changed:
            self._agenda = agenda
            self._wanted = dict.fromkeys(entry for entry in agenda.near if entry not in self._held)
            self._first = agenda.soonest() if self._first is None else self._first & agenda.near.keys()
            self._first -= self._held.keys()
            self._removal.expire()
            self._no_room = False
            kept = {*agenda.near, *self._waited, *self._expected}
            for entry in [entry for entry in self._held if entry not in kept]:
                self._give_up(entry)
            near = {*agenda.near, *self._demanded}
            self._failed = {entry: problem for entry, problem in self._failed.items() if entry in near}
            self._later = {entry: when for entry, when in self._later.items() if entry in near}
            is_complete = not self._wanted
            self._wake()
            return is_complete

    def holds(self, entry: Entry) -> bool:
        """Return whether an entry is here and in use."""
        with self._changed:
            return entry in self._held

    def keep_latest(self, size: int) -> None:
        """Give up what was demanded least lately, but for the latest `size` bytes: who has no agenda does so."""
        with self._changed:
            for entry in sorted(self._held, key=self._held.__getitem__, reverse=True):
                size -= self._cache.entries.get(entry, 0)
                if size < 0 and entry not in self._waited and entry not in self._expected:
                    self._give_up(entry)

    def close(self) -> None:
        """Give up all that is held, and end the threads; the last one closes the cache."""
        with self._changed:
            if self._stop.is_set():
                return
            self._stop.set()
            for entry in self._held:
                self._cache.leave(entry)
            self._held.clear()
            self._cache.unreserve()
        self._workers.close()

    def _end(self) -> None:
        """Close the cache: no thread is left that might still write there."""
        for making in self._makings.values():
            self._abandon(making)
        self._cache.close()

    def _wake(self) -> None:
        pieces = sum(making.num_pieces for making in self._makings.values())
        self._workers.wake(len(self._demanded) + len(self._wanted) + pieces)

    def _pause(self) -> float | None:
        """Return when to look again at what others make, or at what is slow."""
        if self._later:
            return ELSEWHERE_SECONDS
        return SLOW_SECONDS / 10 if self._demanded else None

    def _next(self) -> Task | None:
        """Return the most urgent piece of work, or None."""
        now = time.monotonic()
        for entry in sorted(self._demanded, key=lambda entry: entry not in self._waited):
            if (piece := self._piece(entry, is_waited_for=entry in self._waited)) is not None:
                return piece
            if self._may_begin(entry, now):
                return self._beginning_of(self._demanded[entry], NOW if entry in self._waited else SOON)
        for entry in self._makings:  # in the order in which they were begun, which is that of need
            if (piece := self._piece(entry)) is not None:
                return piece
        return None if self._no_room else self._next_wanted(now)

    def _next_wanted(self, now: float) -> Task | None:
        """Return how the first is begun of what is wanted: of what the first batch needs, until all of that is here."""
        for entry in self._wanted:
            is_its_turn = not self._first or entry in self._first  # else it would take of the link what that waits for
            if is_its_turn and self._may_begin(entry, now):
                del self._wanted[entry]
                batch, job = self._agenda.near[entry]
                return self._beginning_of(job, batch)
        return None

    def _piece(self, entry: Entry, is_waited_for: bool = False) -> Task | None:
        making = self._makings.get(entry)
        piece = making.take(is_waited_for) if making else None
        if making is None or piece is None:
            return None
        making.workers += 1
        return partial(self._work, making, piece)

    def _may_begin(self, entry: Entry, now: float) -> bool:
        known = entry in self._held or entry in self._makings or entry in self._beginning or entry in self._failed
        return not known and self._later.get(entry, now) <= now

    def _beginning_of(self, job: Job, batch: float) -> Task:
        self._later.pop(job.entry, None)
        self._beginning.add(job.entry)
        return partial(self._begin, job, batch)

    def _begin(self, job: Job, batch: float) -> None:
        """Take an entry into use, or begin to make it, or note that it must wait."""
        try:
            making = self._take_or_make(job, batch)
        except MixstreamError as problem:
            self._cache.leave(job.entry)
            self._fail(job.entry, problem)
            return
        with self._changed:
            self._beginning.discard(job.entry)
            if making is not None:
                self._makings[job.entry] = making
                making.workers = 1 if making.is_fetched else 0
            self._wake()
        if making is not None and making.is_fetched:  # nothing to fetch, only to decompress
            self._work(making, None)

    def _take_or_make(self, job: Job, batch: float) -> Making | None:
        """Return a making that was begun, or None where the entry is here, or must wait."""
        entry, cache = job.entry, self._cache
        if cache.use(entry, job.size):
            self._meter.add(job.shards.name, hits=1)
            self._hold(entry)
            return None
        if not cache.begin(entry):
            self._postpone(entry)
            return None
        if cache.holds(entry, job.size):  # another process has made it meanwhile
            if cache.use(entry, job.size):
                self._hold(entry)
            return None
        part = cache.reserve_part(entry, job.size, self._victims(batch))
        if part is None and self._recounted + RECOUNT_SECONDS < time.monotonic():  # others have come and gone
            self._recounted = time.monotonic()
            self._removal.expire()
            cache.recount()
            part = cache.reserve_part(entry, job.size, self._victims(batch))
        if part is None:
            cache.leave(entry)
            if batch <= SOON:
                self._postpone(entry)
            else:
                with self._changed:
                    self._no_room = True
                    self._want_again(entry)
            return None
        try:
            return Making(job, part, self._verify_hashes, self._patience, self._meter)
        except OSError as problem:
            cache.abandon(entry, part, job.size)
            raise cannot_write(part, problem) from None

    def _hold(self, entry: Entry) -> None:
        with self._changed:
            self._held[entry] = 0
            self._wanted.pop(entry, None)
            self._first = self._first and self._first - {entry}
            self._makings.pop(entry, None)
            self._beginning.discard(entry)
            self._demanded.pop(entry, None)
            self._later.pop(entry, None)
            self._failed.pop(entry, None)
            self._changed.notify_all()

    def _postpone(self, entry: Entry) -> None:
        with self._changed:
            self._later[entry] = time.monotonic() + ELSEWHERE_SECONDS
            self._want_again(entry)

    def _want_again(self, entry: Entry) -> None:
        if entry in self._agenda.near:
            self._wanted[entry] = None

    def _work(self, making: Making, piece: Piece | None) -> None:
        """Fetch a piece; after the last one, finish. What is broken is left by the last who works at it."""
        entry, problem = making.job.entry, None
        try:
            if (piece is None or making.work(piece, self._stop)) and making.finish():
                self._cache.finish(entry, making.part, making.job.size)
                making.is_finished = True
                self._hold(entry)
        except StoppedError:
            pass
        except MixstreamError as found:
            problem = found
        with self._changed:
            making.workers -= 1
            if problem is not None and not making.is_finished:
                making.spoil(problem)
            is_last = not making.workers  # seen by one of them only, who closes it
            has_failed = making.problem is not None and is_last and not making.is_finished
            if has_failed:
                del self._makings[entry]
                self._beginning.add(entry)  # nobody may begin it anew while its part is being removed
            self._changed.notify_all()
        if has_failed and making.problem is not None:
            self._abandon(making)
            self._fail(entry, making.problem)
        elif making.is_finished and is_last:
            making.close()

    def _abandon(self, making: Making) -> None:
        making.close()
        self._cache.abandon(making.job.entry, making.part, making.job.size)

    def _fail(self, entry: Entry, problem: MixstreamError) -> None:
        """Note why an entry cannot be brought, for who demands it; nobody may do so for long."""
        with self._changed:
            self._beginning.discard(entry)
            self._failed[entry] = problem
            self._first = self._first and self._first - {entry}
            demanded = self._demanded.pop(entry, None)
            batch = self._agenda.near[entry][0] if entry in self._agenda.near else NEVER
            self._changed.notify_all()
        if demanded is None:
            _log.warning("%s; it is needed in batch %.0f, where it will be tried once more", problem, batch)

    def _give_up(self, entry: Entry) -> None:
        """Leave an entry to who wants to remove it, once nobody here has it open."""
        del self._held[entry]
        self._forget(entry)
        self._cache.leave(entry)

    def _victims(self, batch: float) -> Iterator[Entry]:
        """Yield what may go for what is needed in `batch`, what is needed last first."""

        def stays(entry: Entry) -> bool:
            is_made = entry in self._demanded or entry in self._beginning or entry in self._makings
            is_to_be_opened = entry in self._waited or (batch > NOW and entry in self._expected)
            return is_made or is_to_be_opened or entry not in self._cache.entries

        with self._changed:  # once: others may use all there is, and go on doing so
            self._removal.renew(list(self._cache.entries), self._agenda, self._held)
        while True:
            with self._changed:
                victim = self._removal.take(batch, stays)
                if victim is None:
                    return
                if victim in self._held:
                    self._give_up(victim)
            yield victim

    def _progress(self, entry: Entry) -> str:
        """Return what has become of what is waited for, in words."""
        if entry in self._makings:
            return self._makings[entry].told
        limit = self._cache.limit
        if limit is not None:
            return f"another process makes it, or the cache of {limit:,} bytes has no room for it"
        return "another process makes it" if entry in self._later else "it is about to begin"
