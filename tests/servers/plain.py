"""A client that knows of no retries, so that tests see what a server really does."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import NamedTuple
from urllib.parse import urlsplit

DATA = bytes(range(256)) * 1000


class Seen(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def fetch(endpoint: str, path: str, *, method: str = "GET", asked: str | None = None, timeout: float = 10) -> Seen:
    """Return what a client sees that knows of no retries."""
    with closing(http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=timeout)) as connection:
        connection.request(method, path, headers={"Range": asked} if asked else {})
        with connection.getresponse() as answer:
            return Seen(answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read())


def seconds(call: Callable[[], object]) -> float:
    begin = time.monotonic()
    call()
    return time.monotonic() - begin


def at_once(*calls: Callable[[], object]) -> list[float]:
    """Return the seconds of calls that run beside each other."""
    taken = [0.0] * len(calls)

    def run(i: int) -> None:
        taken[i] = seconds(calls[i])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return taken
