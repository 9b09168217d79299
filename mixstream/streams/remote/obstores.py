"""S3, GCS, Azure, HTTP and files, through obstore: one request a call, no retry.

A store (its pool of connections) is opened once a process for each root and shared by its threads. obstore's client
does not live on in a process that was forked after it had been used, where every request would wait for ever: there
every call is refused.
"""

from __future__ import annotations

import os
import re
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mixstream.errors import MissingExtraError, RemoteError
from mixstream.streams.remote.credentials import s3_credentials
from mixstream.streams.remote.environment import DEFAULT_REGION, client_options, place_of
from mixstream.streams.remote.faults import faults
from mixstream.streams.remote.retry import Fault
from mixstream.streams.remote.urls import Root

CHUNK_BYTES = 1 << 18  # least part of a body that is handed on
PUT_STALL_SECONDS = 120.0  # an upload gets no byte of an answer before its last is sent

_opening = threading.Lock()
_TELLING = re.compile(r"^(AWS|AZUR|GOOGLE|MIXSTREAM)|S3_ENDPOINT_URL|PROXY|proxy$")
_used = False  # by this process or one that it was forked from
_lost = False


@dataclass(frozen=True)
class Body:
    """The answer to one request.

    Attributes:
        size: bytes of the whole object, whatever part was asked for.
        etag: what the store calls this version of it, if it does.
        chunks: the bytes asked for, as read-only buffers; going on may raise a `Fault`.
    """

    size: int
    etag: str | None
    chunks: Iterator[Any]


@dataclass(frozen=True)
class _Opened:
    """A store, its host, and a hash of the environment that it was opened in: another one may tell another store."""

    store: Any
    host: str
    told: int


_stores: dict[tuple[Root, float], _Opened] = {}


def _forget() -> None:
    global _stores, _opening, _lost
    _stores, _opening, _lost = {}, threading.Lock(), _used


os.register_at_fork(after_in_child=_forget)


def open_store(root: Root, stall_seconds: float) -> _Opened:
    """Return the store of a root, opened on the first call.

    Raises:
        RemoteError: the environment does not say how to reach it, or the process was forked from one that used it.
        MissingExtraError: obstore is not installed, or boto3 is needed and is not.
    """
    global _used
    if _lost:
        raise RemoteError(
            f"{root.scheme}: this process was forked from one that had asked an object store already, and the client "
            f"does not live on in forks; start it by 'spawn' or 'forkserver'"
        )
    told = hash(tuple(item for item in os.environ.items() if _TELLING.search(item[0])))
    with _opening:
        key = root, stall_seconds
        if key not in _stores or _stores[key].told != told:
            _stores[key] = _Opened(*_open(root, stall_seconds), told)
        _used = True
        return _stores[key]


def _open(root: Root, stall_seconds: float) -> tuple[Any, str]:
    try:
        from obstore import store as stores
    except ModuleNotFoundError:
        raise MissingExtraError(
            "object stores need the package 'obstore', which needs Python 3.11 or later; install it with "
            "pip install 'mixstream-llm[remote]'"
        ) from None
    if root.scheme == "file":
        return stores.LocalStore("/"), ""
    place = place_of(root, os.environ)
    kept: dict[str, Any] = {
        "client_options": client_options(place, stall_seconds, os.environ, _proxied),
        "retry_config": {"max_retries": 0},
    }
    host, config = place.hosts[0], dict(place.config)
    if root.scheme == "s3":
        provider = s3_credentials(os.environ)
        if provider is not None:
            kept["credential_provider"] = provider
        region = None if provider is None else provider.config.get("region")
        config.setdefault("region", region or DEFAULT_REGION)
    try:
        with faults(host):
            if root.scheme in ("http", "https"):
                return stores.HTTPStore(place.endpoint, **kept), host
            kinds: dict[str, Any] = {"s3": stores.S3Store, "gs": stores.GCSStore, "az": stores.AzureStore}
            return kinds[root.scheme](root.bucket, config=config, **kept), host
    except Fault as fault:
        raise RemoteError(f"{root.scheme}://{root.bucket}: cannot be opened: {fault.told}") from None


def _proxied(url: str) -> bool:
    proxies = urllib.request.getproxies_environment()
    parts = urlsplit(url)
    named = parts.scheme in proxies or "all" in proxies
    return named and not urllib.request.proxy_bypass(parts.hostname or "")


def get(root: Root, path: str, start: int | None, stop: int | None, stall_seconds: float) -> Body:
    """Ask for an object, or its bytes from `start` up to `stop`; the answer's head is here, the body is to come.

    Raises:
        Fault: there is no good answer.
    """
    import obstore
    from obstore.exceptions import NotSupportedError

    opened = open_store(root, stall_seconds)
    options: Any = None
    if stop is not None:
        options = {"range": (start or 0, stop)}
    elif start:
        options = {"range": {"offset": start}}
    with faults(opened.host):
        try:
            result, skip = obstore.get(opened.store, path, options=options), 0
        except NotSupportedError:
            if options is None:
                raise
            result, skip = obstore.get(opened.store, path), start or 0  # a plain server that sends all or nothing
        meta, most = result.meta, None if stop is None else stop - (start or 0)
    return Body(meta["size"], meta["e_tag"], _cut(_chunks(result, opened.host), skip, most))


def _chunks(result: Any, host: str) -> Iterator[Any]:
    with faults(host):
        for chunk in result.stream(min_chunk_size=CHUNK_BYTES):
            yield memoryview(chunk)


def _cut(chunks: Iterator[Any], skip: int, most: int | None) -> Iterator[Any]:
    """Yield what the chunks hold after `skip` bytes, and no more than `most` bytes of it."""
    for chunk in chunks:
        rest = chunk[skip:]
        skip -= len(chunk) - len(rest)
        if most is not None:
            rest = rest[:most]
            most -= len(rest)
        if len(rest):
            yield rest
        if most == 0:
            return


def is_there(root: Root, path: str, stall_seconds: float) -> bool:
    """Return whether there is an object of that path.

    Raises:
        Fault: there is no good answer.
    """
    import obstore

    opened = open_store(root, stall_seconds)
    try:
        with faults(opened.host):
            obstore.head(opened.store, path)
    except Fault as fault:
        if fault.kind == "missing":
            return False
        raise
    return True


def put(root: Root, path: str, source: Path | bytes, stall_seconds: float) -> None:
    """Upload an object, in parts where it is large; it is there whole or not at all.

    Raises:
        Fault: there is no good answer.
    """
    import obstore

    opened = open_store(root, max(stall_seconds, PUT_STALL_SECONDS))
    with faults(opened.host):
        obstore.put(opened.store, path, source, max_concurrency=4)


def delete(root: Root, path: str, stall_seconds: float) -> None:
    """Delete an object, if there is one.

    Raises:
        Fault: there is no good answer.
    """
    import obstore

    opened = open_store(root, stall_seconds)
    try:
        with faults(opened.host):
            obstore.delete(opened.store, path)
    except Fault as fault:
        if fault.kind != "missing":
            raise


def list_folders(root: Root, path: str, stall_seconds: float) -> list[str]:
    """Return the names of the folders one level below a path.

    Raises:
        Fault: there is no good answer.
    """
    import obstore

    opened = open_store(root, stall_seconds)
    with faults(opened.host):
        found = obstore.list_with_delimiter(opened.store, path or None)
    return [prefix.rpartition("/")[2] for prefix in found["common_prefixes"]]


def list_sizes(root: Root, path: str, after: str | None, stall_seconds: float) -> Iterator[tuple[str, int]]:
    """Yield the path and the bytes of every object below a path, in the order of paths where a store has one.

    Args:
        root: where.
        path: the folder.
        after: leave out the paths up to this one.
        stall_seconds: without a byte, until a request fails.

    Raises:
        Fault: there is no good answer.
    """
    import obstore

    opened = open_store(root, stall_seconds)
    with faults(opened.host):
        for page in obstore.list(opened.store, path or None, offset=after, chunk_size=1000):
            for meta in page:
                yield meta["path"], meta["size"]
