"""What the proxy asks its upstream, and what it keeps of the answers."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncGenerator
from typing import NamedTuple
from urllib.parse import urlsplit

from .wire import Answer, Head, Headers, Request, Wire, just, whole


class Upstream:
    """The server behind the proxy, with the connections to it that wait for a next request."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self.place = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.idle: list[Wire] = []

    async def ask(self, request: Request, without: frozenset[str] = frozenset()) -> Answer:
        """Return its answer to a request; `without` names headers, in lower case, that are left out.

        Raises:
            ConnectionError: it cannot be reached, or broke off.
        """
        carried = [(key, value) for key, value in request.head.carried() if key.lower() not in without]
        length = (
            [("Content-Length", str(len(request.body)))] if request.body or request.method in ("PUT", "POST") else []
        )
        lines = [" ".join(request.head.first[:2]) + " HTTP/1.1", *(f"{k}: {v}" for k, v in carried + length)]
        message = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + request.body
        wire, head = await self._exchange(message)
        if request.method == "HEAD" or head.first[1] in ("204", "304"):
            self._done(wire, head)
            return Answer(int(head.first[1]), head.carried(), int(head.get("content-length") or 0), just(b""))
        if (size := head.get("content-length")) is not None:
            return Answer(int(head.first[1]), head.carried(), int(size), self._body(wire, head, int(size)))
        if (head.get("transfer-encoding") or "").lower() == "chunked":
            body = await wire.chunked()
            self._done(wire, head)
        else:
            body = await wire.to_the_end()
            wire.close()
        return Answer(int(head.first[1]), head.carried(), len(body), just(body))

    async def _exchange(self, message: bytes) -> tuple[Wire, Head]:
        while self.idle:  # one that waited may have been closed meanwhile: then the next is asked
            wire = self.idle.pop()
            try:
                await wire.send(message)
                if (head := await wire.head()) is not None:
                    return wire, head
            except ConnectionError:
                pass
            wire.close()
        sock = socket.socket()
        wire = Wire(sock)
        try:
            await asyncio.get_running_loop().sock_connect(sock, self.place)
            await wire.send(message)
            if (head := await wire.head()) is not None:
                return wire, head
        except ConnectionError:
            wire.close()
            raise
        wire.close()
        raise ConnectionResetError("the upstream closed without an answer")

    async def _body(self, wire: Wire, head: Head, size: int) -> AsyncGenerator[bytes, None]:
        complete = False
        try:
            async for part in wire.sized(size):
                yield part
            complete = True
        finally:
            if complete:
                self._done(wire, head)
            else:
                wire.close()

    def _done(self, wire: Wire, head: Head) -> None:
        if head.keeps_alive:
            self.idle.append(wire)
        else:
            wire.close()


class Kept(NamedTuple):
    """A whole object, and its headers."""

    headers: Headers
    body: memoryview


class Cache:
    """Whole objects that were asked for once, by path; nothing is ever dropped but what is written anew.

    Azure signs ranges, so that a range cannot be asked for as a whole: there only what was asked for whole is kept.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.kept: dict[str, Kept] = {}
        self.locks: dict[str, asyncio.Lock] = {}

    async def ask(self, request: Request) -> Answer:
        """Return the answer to a request: from memory where it is an object's GET without conditions."""
        if request.method not in ("GET", "HEAD"):
            self.kept.pop(request.path, None)
        conditions = any(key.lower().startswith("if-") for key, _ in request.head.headers)
        if request.method != "GET" or request.query not in ("", "x-id=GetObject") or conditions:
            return await self.upstream.ask(request)
        async with self.locks.setdefault(request.path, asyncio.Lock()):
            if (kept := self.kept.get(request.path)) is None:
                answer = await self.upstream.ask(request, without=frozenset(["range", "x-ms-range"]))
                if answer.status != 200:  # also where a signature covers the range, as Azure's do
                    await answer.parts.aclose()
                    return await self.upstream.ask(request)
                kept = self.kept[request.path] = Kept(answer.headers, memoryview(await whole(answer.parts)))
        return _ranged(kept, request.head.get("range") or request.head.get("x-ms-range"))


def _ranged(kept: Kept, asked: str | None) -> Answer:
    size = len(kept.body)
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked or "")
    if not match or match.groups() == ("", ""):
        return Answer(200, kept.headers, size, just(kept.body))
    first, last = match.groups()
    start = int(first) if first else max(0, size - int(last))
    stop = min(size, int(last) + 1) if first and last else size
    if start >= stop:
        return Answer(416, [("Content-Range", f"bytes */{size}")], 0, just(b""))
    headers = [(k, v) for k, v in kept.headers if not k.lower().startswith(("x-amz-checksum", "content-md5"))]
    headers.append(("Content-Range", f"bytes {start}-{stop - 1}/{size}"))
    return Answer(206, headers, stop - start, just(kept.body[start:stop]))
