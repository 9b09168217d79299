"""The lookout: tells the shard store, while a run goes on, what it reads next."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from mixstream.loader.foresight import Forecaster
from mixstream.loader.sampler import MixtureSampler
from mixstream.streams.catalog import Stream
from mixstream.streams.store import ShardStore

EVERY_SECONDS = 0.1
EVERY_SECONDS_IN_LITTLE_ROOM = 0.01  # where what is needed last goes, what is known of it must be new
_SHARE = 10  # of the time, one part in so many goes into looking
_SHARE_OF_WAITING = 2  # the same once a reader has waited: the last look was too old, and time is lost anyway


class Lookout:
    """Looks ahead from where the loader is, in a thread: every so often, when weights change, and when a reader waited.

    A look that is old ranks shards that have been read meanwhile as those that are needed next, and the cache keeps
    them for others: so a reader that waits is a sign that it is time to look.
    """

    def __init__(self, store: ShardStore, streams: Sequence[Stream]) -> None:
        """Look for `store`, at the shards of the plan's `streams`."""
        self._store = store
        self._streams = streams
        self._forecaster: Forecaster | None = None
        self._thread = ThreadPoolExecutor(1, "mixstream-lookout")
        self._looking: Future[None] | None = None
        self._hurries = True
        self._waits = 0  # of readers, when it looked last
        self._next_if_waited = 0.0
        self._next = 0.0  # when to look again at the soonest, and
        self._next_batch = 0.0  # before which batch at the latest

    def begin(self, forecaster: Forecaster, sampler: MixtureSampler) -> None:
        """Look from a new place, at once."""
        self._forecaster = forecaster
        self.hurry()
        self.look(sampler)

    def hurry(self) -> None:
        """Look again the next time: weights have changed."""
        self._hurries = True

    def look(self, sampler: MixtureSampler) -> None:
        """Look, if it is time; called by the thread that draws."""
        now, waits = time.monotonic(), self._store.waits
        is_time = now >= self._next and sampler.consumed >= self._next_batch
        is_time = is_time or (waits > self._waits and now >= self._next_if_waited)
        if not (self._hurries or is_time) or (self._looking is not None and not self._looking.done()):
            return
        if self._looking is not None:
            self._looking.result()  # what went wrong in the thread goes wrong here
        ledger, pending = sampler.ahead()
        self._waits = waits
        has_room = self._store.cache_limit is None
        self._next, self._hurries = now + (EVERY_SECONDS if has_room else EVERY_SECONDS_IN_LITTLE_ROOM), False

        def run() -> None:
            assert self._forecaster is not None, "there is one since `begin`"
            foresight = self._forecaster.look(ledger, pending)
            self._next_batch = self._store.foresee(self._streams, foresight)
            taken = time.monotonic() - now
            self._next = max(self._next, now + _SHARE * taken)
            self._next_if_waited = now + _SHARE_OF_WAITING * taken

        self._looking = self._thread.submit(run)

    def close(self) -> None:
        """End looking."""
        self._thread.shutdown(cancel_futures=True)
