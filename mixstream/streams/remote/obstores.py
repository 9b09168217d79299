"""S3, GCS, Azure, HTTP and files, through obstore: one request a call, no retry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixstream.streams.remote.faults import faults
from mixstream.streams.remote.opening import open_store
from mixstream.streams.remote.retry import Fault
from mixstream.streams.remote.urls import Root

CHUNK_BYTES = 1 << 18  # least part of a body that is handed on
PUT_STALL_SECONDS = 120.0  # an upload gets no byte of an answer before its last is sent


@dataclass(frozen=True)
class Body:
    """The answer to one request.

    Attributes:
        size: bytes of the whole object, whatever part was asked for.
        etag: what the store calls this version of it, if it does.
        chunks: the bytes asked for, as read-only buffers; going on may raise a `Fault`.
        whole: the server sends all of it whatever part is asked for; what is before that part is thrown away.
    """

    size: int
    etag: str | None
    chunks: Iterator[Any]
    whole: bool = False


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
            result, skip, whole = obstore.get(opened.store, path, options=options), 0, False
        except NotSupportedError:
            if options is None:
                raise
            result, skip, whole = (
                obstore.get(opened.store, path),
                start or 0,
                True,
            )  # a plain server that sends all or nothing
        meta, most = result.meta, None if stop is None else stop - (start or 0)
    return Body(meta["size"], meta["e_tag"], _cut(_chunks(result, opened.host), skip, most), whole)


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


def look(root: Root, path: str, stall_seconds: float) -> tuple[int, str | None]:
    """Return the size of an object in bytes, and its etag, if it has one.

    Raises:
        Fault: there is no good answer.
    """
    import obstore

    opened = open_store(root, stall_seconds)
    with faults(opened.host):
        meta = obstore.head(opened.store, path)
    return meta["size"], meta["e_tag"]


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
