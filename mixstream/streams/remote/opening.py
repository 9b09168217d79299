"""Stores are opened once a process for each root, and shared by its threads.

obstore's client does not live on in a process that was forked after it had been used, where every request would wait
for ever: there it is refused.
"""

from __future__ import annotations

import os
import re
import threading
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mixstream.errors import MissingExtraError, RemoteError
from mixstream.streams.remote.credentials import s3_credentials
from mixstream.streams.remote.environment import DEFAULT_REGION, client_options, place_of
from mixstream.streams.remote.faults import faults
from mixstream.streams.remote.retry import Fault
from mixstream.streams.remote.urls import Root

_opening = threading.Lock()
_TELLING = re.compile(r"^(AWS|AZUR|GOOGLE|MIXSTREAM)|S3_ENDPOINT_URL|PROXY|proxy$")
_used = False  # by this process or one that it was forked from
_lost = False


@dataclass(frozen=True)
class Opened:
    """A store, its host, and a hash of the environment that it was opened in: another one may tell another store."""

    store: Any
    host: str
    told: int


_stores: dict[tuple[Root, float], Opened] = {}


def _forget() -> None:
    global _stores, _opening, _lost
    _stores, _opening, _lost = {}, threading.Lock(), _used


os.register_at_fork(after_in_child=_forget)


def open_store(root: Root, stall_seconds: float) -> Opened:
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
            _stores[key] = Opened(*_open(root, stall_seconds), told)
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
