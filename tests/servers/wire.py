"""HTTP/1.1 on sockets that can also be reset: messages read, written, and passed on."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote

READ_BYTES = 1 << 18
Headers = list[tuple[str, str]]
_OF_ONE_HOP = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "content-length", "expect", "te"}


class Head(NamedTuple):
    """The first line of a message, as three words, and its headers."""

    first: tuple[str, str, str]
    headers: Headers

    def get(self, name: str) -> str | None:
        """Return a header's value."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def carried(self) -> Headers:
        """Return the headers that a proxy passes on; Host is one."""
        return [(key, value) for key, value in self.headers if key.lower() not in _OF_ONE_HOP]

    @property
    def keeps_alive(self) -> bool:
        version = self.first[2] if self.first[2].startswith("HTTP/") else self.first[0]
        return version == "HTTP/1.1" and (self.get("connection") or "").lower() != "close"


class Request(NamedTuple):
    """A request with its whole body."""

    head: Head
    body: bytes

    @property
    def method(self) -> str:
        return self.head.first[0]

    @property
    def target(self) -> str:
        return self.head.first[1]

    @property
    def path(self) -> str:
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> str:
        return self.target.partition("?")[2]


@dataclass
class Answer:
    """What is answered: `size` is the Content-Length; the parts of the body follow each other."""

    status: int
    headers: Headers
    size: int
    parts: AsyncGenerator[Any, None]


class Wire:
    """One connection: a socket, and what was read from it and not yet used."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self.buffer = bytearray()
        self.loop = asyncio.get_running_loop()

    async def send(self, data: Any) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def gone(self) -> None:
        """Wait until the other side closes."""
        while await self.loop.sock_recv(self.sock, READ_BYTES):
            pass

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close with RST instead of FIN; what was not yet sent is dropped."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    async def _more(self) -> bool:
        data = await self.loop.sock_recv(self.sock, READ_BYTES)
        self.buffer += data
        return bool(data)

    async def _until(self, mark: bytes) -> bytes | None:
        """Return what comes up to a mark, without it; None: the other side closed."""
        while (end := self.buffer.find(mark)) < 0:
            if not await self._more():
                return None
        data = bytes(self.buffer[:end])
        del self.buffer[: end + len(mark)]
        return data

    async def head(self) -> Head | None:
        text = await self._until(b"\r\n\r\n")
        if text is None:
            return None
        first, *lines = text.decode("latin-1").split("\r\n")
        words = [*first.split(" ", 2), "", ""]
        pairs = (line.partition(":") for line in lines)
        return Head((words[0], words[1], words[2]), [(key.strip(), value.strip()) for key, _, value in pairs])

    async def some(self, most: int) -> bytes:
        """Return up to so many bytes.

        Raises:
            ConnectionError: the other side closed.
        """
        if not self.buffer:
            data = await self.loop.sock_recv(self.sock, min(most, READ_BYTES))
            if not data:
                raise ConnectionResetError("closed within a body")
            return data
        data = bytes(self.buffer[:most])
        del self.buffer[:most]
        return data

    async def sized(self, size: int) -> AsyncIterator[bytes]:
        """Yield the parts of a body of this size."""
        while size:
            data = await self.some(size)
            size -= len(data)
            yield data

    async def chunked(self) -> bytes:
        """Return a body that came in chunks."""
        body = bytearray()
        while True:
            line = await self._until(b"\r\n")
            if line is None:
                raise ConnectionResetError("closed between chunks")
            if not (size := int(line.partition(b";")[0], 16)):
                break
            async for part in self.sized(size):
                body += part
            await self._until(b"\r\n")
        while await self._until(b"\r\n"):  # trailers, up to an empty line
            pass
        return bytes(body)

    async def to_the_end(self) -> bytes:
        """Return all that comes until the other side closes."""
        while await self._more():
            pass
        return bytes(self.buffer)

    async def request(self) -> Request | None:
        """Return the next request with its whole body; None: the other side closed."""
        head = await self.head()
        if head is None:
            return None
        if (head.get("expect") or "").lower() == "100-continue":
            await self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if (head.get("transfer-encoding") or "").lower() == "chunked":
            return Request(head, await self.chunked())
        return Request(head, await whole(self.sized(int(head.get("content-length") or 0))))

    async def send_head(self, answer: Answer, size: int) -> None:
        reason = HTTPStatus(answer.status).phrase if answer.status in HTTPStatus._value2member_map_ else "Unknown"
        lines = [f"HTTP/1.1 {answer.status} {reason}", *(f"{key}: {value}" for key, value in answer.headers)]
        if answer.status not in (204, 304):
            lines.append(f"Content-Length: {size}")
        await self.send(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))


async def whole(parts: AsyncIterator[Any]) -> bytes:
    """Return the parts of a body joined."""
    return b"".join([part async for part in parts])


async def just(data: Any) -> AsyncGenerator[Any, None]:
    """Yield a body that is there."""
    if len(data):
        yield data
