"""Where a store is and how it is reached, as the environment says; nothing is opened here.

obstore reads the credentials from the environment itself. What is decided here is what it would leave open: which
endpoint, whether it may be without encryption, and which hosts may be asked at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from mixstream.errors import RemoteError
from mixstream.streams.remote.faults import ALLOW_REDIRECTS, NOWHERE
from mixstream.streams.remote.urls import LOOPBACK, Root

S3_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "S3_ENDPOINT_URL")
REQUEST_STALLS = 4
METADATA_HOSTS = ("169.254.169.254", "169.254.170.2", "169.254.170.23")  # instances and containers ask for credentials
DEFAULT_REGION = "us-east-1"


class Place(NamedTuple):
    """How a store is reached.

    Attributes:
        config: what its obstore class is given.
        endpoint: URL of its server.
        hosts: that may be asked, its own first; names below one of them are meant too.
    """

    config: dict[str, Any]
    endpoint: str
    hosts: tuple[str, ...]


def place_of(root: Root, environ: Mapping[str, str]) -> Place:
    """Return how a store is reached.

    Raises:
        RemoteError: an endpoint that is no URL, or an Azure account that nothing names.
    """
    if root.scheme == "s3":
        return _s3(root.bucket, environ)
    if root.scheme == "gs":
        return _gcs(environ)
    if root.scheme == "az":
        return _azure(root, environ)
    endpoint = f"{root.scheme}://{root.bucket}"
    return Place({}, endpoint, (_host(endpoint, "the URL"),))


def _s3(bucket: str, environ: Mapping[str, str]) -> Place:
    name = next((name for name in S3_ENDPOINTS if environ.get(name)), None)
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    config: dict[str, Any] = {"disable_bulk_delete": True}  # which not every S3-compatible store has
    if region:
        config["region"] = region
    named = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_METADATA_ENDPOINT")
    extra = ["amazonaws.com.cn", *METADATA_HOSTS, *(_host(environ[key], key) for key in named if environ.get(key))]
    if name is None:
        return Place(config, "https://amazonaws.com", ("amazonaws.com", *extra))
    host, endpoint = _host(environ[name], name), environ[name].rstrip("/")
    if is_on(environ.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST")) and not host.startswith(f"{bucket}."):
        endpoint = endpoint.replace("://", f"://{bucket}.", 1)  # where obstore expects it
    config |= {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint}
    return Place(config, endpoint, (host, "amazonaws.com", *extra))


def _gcs(environ: Mapping[str, str]) -> Place:
    endpoint = environ.get("GOOGLE_BASE_URL") or "https://storage.googleapis.com"
    hosts = (_host(endpoint, "GOOGLE_BASE_URL"), "googleapis.com", "metadata.google.internal", *METADATA_HOSTS)
    return Place({"base_url": endpoint} if environ.get("GOOGLE_BASE_URL") else {}, endpoint, hosts)


def _azure(root: Root, environ: Mapping[str, str]) -> Place:
    config: dict[str, Any] = {} if root.account is None else {"account_name": root.account}
    account = root.account or environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    emulated = is_on(environ.get("AZURE_STORAGE_USE_EMULATOR"))
    if not account and not emulated:
        raise RemoteError(
            f"az://{root.bucket}: which account? Set AZURE_STORAGE_ACCOUNT_NAME, or write "
            f"https://ACCOUNT.blob.core.windows.net/{root.bucket}/PATH"
        )
    name = next((name for name in ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT") if environ.get(name)), None)
    if name is not None:
        endpoint = config["endpoint"] = environ[name]
    elif emulated:
        endpoint = environ.get("AZURITE_BLOB_STORAGE_URL") or "http://127.0.0.1:10000"
    else:
        endpoint = f"https://{account}.blob.core.windows.net"
    named = ("AZURE_STORAGE_AUTHORITY_HOST", "AZURE_AUTHORITY_HOST", "AZURE_IDENTITY_ENDPOINT", "AZURE_MSI_ENDPOINT")
    extra = [_host(environ[key], key) for key in named if environ.get(key)]
    return Place(config, endpoint, (_host(endpoint, name or "URL"), "microsoftonline.com", *METADATA_HOSTS, *extra))


def client_options(
    place: Place, stall_seconds: float, environ: Mapping[str, str], proxied: Callable[[str], bool]
) -> dict[str, Any]:
    """Return the options of a store's HTTP client.

    obstore's client follows redirects, to any host. So that it cannot, every host but the store's own is asked through
    a proxy that is not there.

    Args:
        place: how the store is reached.
        stall_seconds: without a byte, until a request fails; `REQUEST_STALLS` times that for all of it.
        environ: the environment.
        proxied: whether the environment has a proxy for a URL.

    Raises:
        RemoteError: a real proxy is asked for, through which redirects would be followed.
    """
    options: dict[str, Any] = {
        "allow_http": place.endpoint.startswith("http://"),
        "connect_timeout": _seconds(min(stall_seconds, 5.0)),
        "read_timeout": _seconds(stall_seconds),
        "timeout": _seconds(REQUEST_STALLS * stall_seconds),  # what drips is no stall; another request goes on
    }
    if environ.get(ALLOW_REDIRECTS) == "1":
        return options
    if place.hosts[0] not in LOOPBACK and proxied(place.endpoint):
        raise RemoteError(
            f"{place.hosts[0]}: is asked through the proxy that the environment names (HTTPS_PROXY or such), where "
            f"redirects to other hosts cannot be refused; set {ALLOW_REDIRECTS}=1 to go without, or put the host "
            f"into NO_PROXY to ask it directly"
        )
    return options | {"proxy_url": f"http://{NOWHERE}", "proxy_excludes": ",".join(dict.fromkeys(place.hosts))}


def is_on(value: str | None) -> bool:
    """Return whether a variable of the environment says yes, as obstore reads it."""
    return (value or "").lower() in ("1", "true", "yes", "on", "y")


def _seconds(seconds: float) -> str:
    return f"{max(1, round(seconds * 1000))}ms"


def _host(url: str, name: str) -> str:
    """Return a URL's host; `name` says where the URL is from."""
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.scheme in ("http", "https") and parts.port != 0 else None
    except ValueError:  # a port that is no number
        host = None
    if not host or parts.username is not None:
        raise RemoteError(
            f"{name} is no URL of a server without user and password; write https://HOST or https://HOST:PORT"
        )
    return host
