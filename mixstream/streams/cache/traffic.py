"""What a store has moved, by stream: bytes, requests, faults, hits, shards made and removed."""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass


@dataclass
class Traffic:
    """Counts of one stream, of one process.

    Attributes:
        requests: made of the object store, those that failed included.
        bytes: received.
        faults: requests that failed, or brought what was damaged.
        shards: that were fetched or decompressed.
        hits: shards that were in the cache when they were first wanted again.
        evicted: shards removed from the cache to make room.
        waited_seconds: that readers waited for shards.
    """

    requests: int = 0
    bytes: int = 0
    faults: int = 0
    shards: int = 0
    hits: int = 0
    evicted: int = 0
    waited_seconds: float = 0.0


class Meter:
    """Traffic by stream, counted by several threads."""

    def __init__(self) -> None:
        """Begin at nothing."""
        self._traffic: dict[str, Traffic] = {}
        self._lock = threading.Lock()

    def add(self, stream: str, **counts: float) -> None:
        """Add to a stream's counts, such as ``requests=1``."""
        with self._lock:
            traffic = self._traffic.setdefault(stream, Traffic())
            for name, count in counts.items():
                setattr(traffic, name, getattr(traffic, name) + count)

    def read(self) -> dict[str, Traffic]:
        """Return the counts so far, by stream."""
        with self._lock:
            return {name: dataclasses.replace(traffic) for name, traffic in sorted(self._traffic.items())}
