"""Places: a folder of this machine or of an object store; both have the little that reading streams asks of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from mixstream.errors import StreamError
from mixstream.streams.remote import Patience, RemoteFolder, is_url

Place = Path | RemoteFolder

ItemT = TypeVar("ItemT")
FoundT = TypeVar("FoundT")

REQUESTS = 16  # at a time: of many small objects each costs the store's latency
LOOKING = Patience(give_up_seconds=60.0)  # at indexes, when a mistyped endpoint is likelier than a store that is down

_ONE_SLASH = re.compile(r"[a-z][a-z0-9+.-]+:/[^/]", re.IGNORECASE)


def find_place(root: str | Path) -> Place:
    """Return the place that a path or a URL names; nothing is looked at.

    Raises:
        RemoteError: the URL is refused.
        StreamError: it is a URL that lost a slash.
    """
    text = str(root)
    if isinstance(root, str) and is_url(root):
        return RemoteFolder.open(root, LOOKING)
    if _ONE_SLASH.match(text) and not Path(text).exists():  # pathlib takes one of the two
        meant = text.replace(":/", "://", 1)
        raise StreamError(f"{text}: is a URL that lost a slash, as it does where it becomes a path; write {meant}")
    return Path(root)


def absolute(place: Place) -> Place:
    """Return a place that does not depend on the folder that the process is in."""
    return place.absolute() if isinstance(place, Path) else place


def all_together(work: Callable[[ItemT], FoundT], items: Iterable[ItemT], place: Place) -> list[FoundT]:
    """Return ``work(item)`` of every item in order, several at a time where `place` is not of this machine."""
    if isinstance(place, Path):
        return [work(item) for item in items]
    with ThreadPoolExecutor(REQUESTS, "mixstream-look") as threads:
        return list(threads.map(work, items))
