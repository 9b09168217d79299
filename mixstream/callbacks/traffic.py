"""What object stores and caches did for a run: bytes, requests, faults, hits, evictions by stream."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from composer.core import Callback, State
from composer.loggers import Logger

from mixstream.callbacks.rows import over_ranks
from mixstream.metrics import STORE, STORE_COUNTS, of_stream
from mixstream.streams.cache.traffic import Traffic


class Source(Protocol):
    """What reads through a cache: a loader, or the reader of held-out splits."""

    def traffic(self) -> dict[str, Traffic]:
        """Return what this process has moved so far, by stream."""


class StoreTraffic(Callback):
    """Logs, every `interval_batches` and at the end, what came through the cache since the run's beginning.

    All counts are sums over ranks and go on after a checkpoint: ``store/bytes``, ``store/bytes/STREAM`` and the others
    of `STORE_COUNTS`, the held-out splits' included.
    """

    def __init__(
        self, sources: Sequence[Source], streams: Sequence[str], interval_batches: int, num_batches: int
    ) -> None:
        """Watch `sources`, which read `streams`, in a run of `num_batches`, whose end is logged by itself."""
        self._sources = sources
        self._names = tuple(streams)
        self._interval_batches = interval_batches
        self._num_batches = num_batches
        self._totals = self._nothing()  # (K, 5) of all ranks, to the last batch's end
        self._before = self._nothing()  # of this process, then; what was fetched before the run began counts too

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
        return {"traffic": json.dumps({"streams": dict(zip(self._names, self._totals.tolist(), strict=True))})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on adding up; streams may have come and gone."""
        content = json.loads(state["traffic"])
        counts = [content["streams"].get(name, [0.0] * len(STORE_COUNTS)) for name in self._names]
        self._totals = torch.tensor(counts, dtype=torch.float64)

    def _add(self, state: State) -> None:
        now = self._now()
        self._totals += over_ranks(now - self._before, state)
        self._before = now

    def _now(self) -> torch.Tensor:
        """Return the counts of this process, a row a stream."""
        counts = self._nothing()
        places = {name: place for place, name in enumerate(self._names)}
        for source in self._sources:
            for name, traffic in source.traffic().items():
                if name in places:
                    own = [float(getattr(traffic, count)) for count in STORE_COUNTS]
                    counts[places[name]] += torch.tensor(own, dtype=torch.float64)
        return counts

    def _metrics(self) -> dict[str, float]:
        whats = [f"{STORE}/{count}" for count in STORE_COUNTS]
        metrics = dict(zip(whats, self._totals.sum(dim=0).tolist(), strict=True))
        for name, counts in zip(self._names, self._totals.tolist(), strict=True):
            metrics |= {of_stream(what, name): count for what, count in zip(whats, counts, strict=True)}
        return metrics

    def _nothing(self) -> torch.Tensor:
        return torch.zeros(len(self._names), len(STORE_COUNTS), dtype=torch.float64)
