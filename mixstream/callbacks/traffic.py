"""What object stores and caches did for a run: bytes, requests, faults, hits, evictions by stream, and time waited."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from composer.core import Callback, State
from composer.loggers import Logger

from mixstream.callbacks.rows import over_ranks
from mixstream.streams.cache.traffic import Traffic

COUNTS = ("bytes", "requests", "hits", "faults", "evicted")
SECONDS = ("waited_seconds", "seconds")


class Source(Protocol):
    """What reads through a cache: a loader, or the reader of held-out splits."""

    def traffic(self) -> dict[str, Traffic]:
        """Return what this process has moved so far, by stream."""

    @property
    def waited_seconds(self) -> float:
        """Seconds that training waited for it."""


class StoreTraffic(Callback):
    """Logs, every `interval_batches` and at the end, what came through the cache since the run's beginning.

    All counts are sums over ranks and go on after a checkpoint: ``store/bytes/STREAM`` and the others of `COUNTS`,
    the held-out split's included; ``store/waited_seconds``, and ``store/seconds``, the time of which they are a part.
    """

    def __init__(
        self, sources: Sequence[Source], streams: Sequence[str], interval_batches: int, num_batches: int
    ) -> None:
        """Watch `sources`, which read `streams`, in a run of `num_batches`, whose end is logged by itself."""
        self._sources = sources
        self._names = tuple(streams)
        self._interval_batches = interval_batches
        self._num_batches = num_batches
        self._totals = self._nothing()  # (5 K + 2,) of all ranks, to the last batch's end
        self._before = self._nothing()  # of this process, then
        self._begun = time.monotonic()

    def fit_start(self, state: State, logger: Logger) -> None:
        """Begin to count the run's time; what was fetched before it began counts too."""
        self._begun = time.monotonic()

    def batch_end(self, state: State, logger: Logger) -> None:
        """Add up over ranks; log, if it is time."""
        self._add(state)
        batch = int(state.timestamp.batch)
        if batch % self._interval_batches == 0 and batch < self._num_batches:
            logger.log_metrics(self._metrics())

    def fit_end(self, state: State, logger: Logger) -> None:
        """Log what the whole run came to."""
        self._add(state)
        logger.log_metrics(self._metrics())

    def state_dict(self) -> dict[str, Any]:
        """Return the totals, by stream, as one JSON string."""
        counts, seconds = self._totals[: -len(SECONDS)], self._totals[-len(SECONDS) :]
        by_stream = dict(zip(self._names, counts.reshape(-1, len(COUNTS)).tolist(), strict=True))
        return {"traffic": json.dumps({"streams": by_stream, "seconds": seconds.tolist()})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on adding up; streams may have come and gone."""
        content = json.loads(state["traffic"])
        counts = [content["streams"].get(name, [0.0] * len(COUNTS)) for name in self._names]
        self._totals = torch.tensor([*(count for own in counts for count in own), *content["seconds"]]).double()

    def _add(self, state: State) -> None:
        now = self._now()
        self._totals += over_ranks(now - self._before, state)
        self._before = now

    def _now(self) -> torch.Tensor:
        """Return the counts of this process: those of each stream, one stream after the other, then `SECONDS`."""
        counts = torch.zeros(len(self._names), len(COUNTS), dtype=torch.float64)
        places = {name: place for place, name in enumerate(self._names)}
        for source in self._sources:
            for name, traffic in source.traffic().items():
                if name in places:
                    own = [float(getattr(traffic, count)) for count in COUNTS]
                    counts[places[name]] += torch.tensor(own, dtype=torch.float64)
        seconds = [sum(source.waited_seconds for source in self._sources), time.monotonic() - self._begun]
        return torch.cat([counts.flatten(), torch.tensor(seconds, dtype=torch.float64)])

    def _metrics(self) -> dict[str, float]:
        totals = self._totals.tolist()
        keys = [f"store/{count}/{name}" for name in self._names for count in COUNTS]
        return dict(zip([*keys, *(f"store/{what}" for what in SECONDS)], totals, strict=True))

    def _nothing(self) -> torch.Tensor:
        return torch.zeros(len(COUNTS) * len(self._names) + len(SECONDS), dtype=torch.float64)
