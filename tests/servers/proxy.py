"""A proxy between a client and any HTTP server on loopback: it is slow, fails and counts, as it is told.

with fault_proxy(server.endpoint, latency_seconds=0.05, cache=True) as proxy:
    ...  # clients use proxy.endpoint
    proxy.set(fault_share=0.05, fault_kinds=("reset", "503"))
    ...
    downloads = [record for record in proxy.log() if record.method == "GET"]
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from .children import START_SECONDS, Child, child, module
from .faults import EARLY, KINDS, LATE, Record, Settings

__all__ = ["EARLY", "KINDS", "LATE", "FaultProxy", "Record", "Settings", "fault_proxy"]


class FaultProxy:
    """A running proxy.

    Attributes:
        endpoint: its URL.
        settings: what it does now.
    """

    def __init__(self, running: Child, endpoint: str, settings: Settings) -> None:
        self._child = running
        self.endpoint = endpoint
        self.settings = settings
        self.set()

    def set(self, **settings: Any) -> None:
        """Change some settings; requests under way keep theirs, but for the speeds. A storm ends."""
        self.settings = replace(self.settings, **settings)
        self._child.ask(set=asdict(self.settings))

    def log(self) -> list[Record]:
        """Return all requests since the start or the last `clear`, in the order in which they came."""
        return [Record(*row) for row in self._child.ask(log=True)]

    def clear(self) -> None:
        """Forget the log, and the faults that were given; the cache stays."""
        self._child.ask(clear=True)


@contextmanager
def fault_proxy(upstream: str, **settings: Any) -> Iterator[FaultProxy]:
    """Run a proxy in front of a server until the end of the block.

    Args:
        upstream: the server's endpoint, as in `http://127.0.0.1:9000`.
        settings: of `Settings`.
    """
    checked = Settings(**settings)
    with child(module("relay", upstream)) as running:
        yield FaultProxy(running, json.loads(running.line(START_SECONDS))["endpoint"], checked)
