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
_SHARE = 10  # of the time, one part in so many goes into looking


class Lookout:
    """Looks ahead from where the loader is, in a thread, every so often and whenever weights change."""

    def __init__(self, store: ShardStore, streams: Sequence[Stream]) -> None:
        """Look for `store`, at the shards of the plan's `streams`."""
        self._store = store
        self._streams = streams
        self._forecaster: Forecaster | None = None
        self._thread = ThreadPoolExecutor(1, "mixstream-lookout")
        self._looking: Future[None] | None = None
        self._next = 0.0
        self._seen: object = None

    def begin(self, forecaster: Forecaster, sampler: MixtureSampler) -> None:
        """Look from a new place, at once."""
        self._forecaster = forecaster
        self._next = 0.0
        self.look(sampler)

    def hurry(self) -> None:
        """Look again the next time: weights have changed."""
        self._next = 0.0

    def look(self, sampler: MixtureSampler) -> None:
        """Look, if it is time; called by the thread that draws."""
        now = time.monotonic()
        if now < self._next or (self._looking is not None and not self._looking.done()):
            return
        if self._looking is not None:
            self._looking.result()  # what went wrong in the thread goes wrong here
        ledger, pending = sampler.ahead()
        begun = now
        self._next = now + EVERY_SECONDS

        def run() -> None:
            assert self._forecaster is not None, "there is one since `begin`"
            self._store.foresee(self._streams, self._forecaster.look(ledger, pending))
            self._next = max(self._next, begun + _SHARE * (time.monotonic() - begun))

        self._looking = self._thread.submit(run)

    def close(self) -> None:
        """End looking."""
        self._thread.shutdown(cancel_futures=True)
