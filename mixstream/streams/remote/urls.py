"""Which URLs are taken, what they name, and what must not be told of them.

A URL of ours ends up in plan.json, in logs and in errors, so none may hold a secret: whatever could be one is
refused here, without being repeated, and what other libraries say goes through `redact`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from mixstream.errors import RemoteError, nearest

OBSTORE_SCHEMES = ("s3", "gs", "az", "https", "http", "file")
DOWNLOADER_SCHEMES = ("oci", "sftp", "hf", "dbfs", "azure", "azure-dl", "alipan")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ALLOW_HTTP = "MIXSTREAM_ALLOW_HTTP"

_AZURE_HOST = ".blob.core.windows.net"
_BUCKET = re.compile(r"[A-Za-z0-9$][A-Za-z0-9._-]*")
_QUOTED = ("http", "https", "file")  # in whose URLs %20 is a space; elsewhere a key is written as it is
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
_SECRET_NAME = re.compile(r"SECRET|TOKEN|KEY|PASSW|SAS|CREDENTIAL")


@dataclass(frozen=True)
class Root:
    """What a client is opened for: a bucket, a container, a server or the file system.

    Attributes:
        scheme: one of `OBSTORE_SCHEMES` or `DOWNLOADER_SCHEMES`.
        bucket: the bucket or container; of a server ``host`` or ``host:port``; empty for files.
        account: Azure's account, where the URL names it; else the environment does.
    """

    scheme: str
    bucket: str
    account: str | None = None

    @property
    def ranged(self) -> bool:
        """Whether parts of an object can be asked for."""
        return self.scheme in OBSTORE_SCHEMES

    @property
    def lists(self) -> bool:
        """Whether it tells what is in a folder."""
        return self.scheme in ("s3", "gs", "az", "file")


def is_url(place: str) -> bool:
    """Tell whether a place is given as a URL, not as a path of this machine."""
    scheme = place.partition(":")[0]
    return "://" in place or (scheme == "dbfs" and place.startswith("dbfs:/"))


def parse_url(url: str, environ: Mapping[str, str] = os.environ) -> tuple[Root, str]:
    """Return what a URL names: the root and the path below it, without slashes around it.

    Raises:
        RemoteError: an unknown scheme, something that may be a secret, a path that could climb, plain HTTP to
            another machine; no part of the URL that may hold a secret is repeated.
    """
    scheme = url.partition(":")[0].lower()
    url = scheme + url[len(scheme) :]
    known = (*OBSTORE_SCHEMES, *DOWNLOADER_SCHEMES)
    if not is_url(url) or scheme not in known:
        found = f"{scheme}:" if is_url(url) and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]{0,20}", scheme) else "none"
        raise RemoteError(
            f"a URL of scheme {found} is not known{nearest(scheme, known) if found != 'none' else ''}; "
            f"known are {', '.join(known)}"
        )
    told = f"a URL of scheme {scheme}:"
    if _CONTROL.search(url):  # before it is split: that drops some of them without a word
        raise RemoteError(f"{told} holds a control character or a backslash; write it without")
    if "?" in url or "#" in url:
        raise RemoteError(
            f"{told} holds a query or a fragment (? or #), which may be a secret such as a signature and would be "
            f"written to plan.json; leave it out and put credentials into the environment"
        )
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    if ":" in user or (at and scheme not in DOWNLOADER_SCHEMES):
        raise RemoteError(
            f"{told} holds user:password@, which would be written to plan.json; leave it out and put credentials "
            f"into the environment"
        )
    return _root_and_path(scheme, parts.netloc, host, parts.path, told, environ)


def _root_and_path(
    scheme: str, netloc: str, host: str, raw: str, told: str, environ: Mapping[str, str]
) -> tuple[Root, str]:
    path = join_path("", _unquoted(raw, told) if scheme in _QUOTED else raw.strip("/"))
    if scheme in ("s3", "gs", "az"):
        if not _BUCKET.fullmatch(netloc):
            raise RemoteError(f"{told} names no bucket that there could be; write {scheme}://BUCKET/PATH")
        return Root(scheme, netloc), path
    if scheme == "file":
        if netloc not in ("", "localhost"):
            raise RemoteError(f"{told} names another machine; write file:///PATH")
        return Root(scheme, ""), path
    if scheme not in _QUOTED:
        return Root(scheme, netloc), path
    if not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?", host):
        raise RemoteError(f"{told} names no server that there could be; write {scheme}://HOST/PATH")
    host = host.lower()
    if scheme == "http" and (urlsplit(f"//{host}").hostname not in LOOPBACK) and environ.get(ALLOW_HTTP) != "1":
        raise RemoteError(
            f"{told} asks another machine without encryption; use https:, or set {ALLOW_HTTP}=1 if that is meant"
        )
    if host.endswith(_AZURE_HOST):
        container, _, path = path.partition("/")
        if not _BUCKET.fullmatch(container):
            raise RemoteError(f"{told} names no container; write https://ACCOUNT{_AZURE_HOST}/CONTAINER/PATH")
        return Root("az", container, host.removesuffix(_AZURE_HOST)), path
    return Root(scheme, host), path


def _unquoted(raw: str, told: str) -> str:
    parts = [unquote(part) for part in raw.strip("/").split("/")]
    if any("/" in part or "\ufffd" in part for part in parts):
        raise RemoteError(f"{told} holds a part that is no name once %XX is undone; rename it")
    return "/".join(parts)


def url_of(root: Root, path: str) -> str:
    """Return the URL of a path below a root; `parse_url` undoes it."""
    if root.account is not None:
        return f"https://{root.account}{_AZURE_HOST}/{quote('/'.join(filter(None, (root.bucket, path))))}"
    shown = quote(path) if root.scheme in _QUOTED else path
    if root.scheme == "dbfs":
        return f"dbfs:/{shown}"
    return f"{root.scheme}://{root.bucket}/{shown}" if shown or not root.bucket else f"{root.scheme}://{root.bucket}"


def join_path(path: str, name: str) -> str:
    """Return `name`, of one part or more, below `path`; an empty `name` is `path` itself only where that is empty too.

    Raises:
        RemoteError: a part that is empty, ``.``, ``..`` or holds a backslash or a control character.
    """
    if not path and not name:
        return ""
    for part in name.split("/"):
        if part in ("", ".", "..") or _CONTROL.search(part):
            raise RemoteError(
                f"{name!r} is not the name of an object below a folder: part {part!r} could lead out of it; rename it"
            )
    return f"{path}/{name}" if path else name


def redact(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return a text of another library on one line, without queries, users in URLs and the environment's secrets."""
    text = " ".join(text.split())
    secrets = {value for name, value in environ.items() if len(value) >= 8 and _SECRET_NAME.search(name.upper())}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = re.sub(r"//[^/\s@\"']*@", "//***@", text)
    return re.sub(r"(\w+://[^\s?\"']*)\?[^\s\"']*", r"\1?***", text)
