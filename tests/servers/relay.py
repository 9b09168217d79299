"""The proxy's own process: `python -m servers.relay UPSTREAM`; commands come by standard input, as lines of JSON."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, closing
from dataclasses import asdict
from random import Random
from typing import Any

from .children import die_with_parent
from .faults import EARLY, LATE, Faults, Pace, Record, Settings, flipped
from .upstream import Cache, Upstream
from .wire import Answer, Request, Wire, just

CHUNK_BYTES = 1 << 20
PACED_CHUNK_BYTES = 1 << 16
_CODES = {
    "429": "TooManyRequests",
    "500": "InternalError",
    "502": "BadGateway",
    "503": "SlowDown",
    "403": "AccessDenied",
    "404": "NoSuchKey",
    "307": "TemporaryRedirect",
}
_RULED = {"deny": "403", "missing": "404", "redirect": "307"}


class Relay:
    """The proxy: what it was told to do, and what it did."""

    def __init__(self, upstream: Upstream, settings: Settings) -> None:
        self.settings = settings
        self.faults = Faults()
        self.link = Pace()
        self.log: list[Record] = []
        self.upstream = upstream
        self.cache = Cache(upstream)

    async def serve(self, sock: socket.socket, number: int) -> None:
        """Answer the requests of one connection."""
        wire, pace = Wire(sock), Pace()
        with closing(wire):
            try:
                while (request := await wire.request()) is not None:
                    record = self._recorded(request, number)
                    try:
                        await self._respond(wire, pace, request, record)
                    finally:
                        record.end = time.monotonic()
                    if record.fault in ("reset", "reset_early", "truncate", "stall") or not request.head.keeps_alive:
                        return
            except (ConnectionError, BrokenPipeError):
                pass  # the client gave up, or the upstream broke off: the client sees that too

    def _recorded(self, request: Request, number: int) -> Record:
        asked = request.head.get("range") or request.head.get("x-ms-range")
        now = time.monotonic()
        record = Record(request.method, request.path, request.query, asked, 0, 0, None, now, None, number)
        self.log.append(record)
        return record

    async def _respond(self, wire: Wire, pace: Pace, request: Request, record: Record) -> None:
        settings = self.settings
        fault = record.fault = self.faults.choose(settings, request.method, request.path, request.query)
        answer = await self._answer(settings, request, fault)
        async with aclosing(answer.parts):
            if fault in LATE and (answer.status not in (200, 206) or not answer.size or request.method == "HEAD"):
                self.faults.take_back(request.path, fault)
                fault = record.fault = None
            wait = settings.latency_seconds + settings.fault_latency_seconds * (fault == "latency")
            await asyncio.sleep(max(0.0, record.begin + wait - time.monotonic()))
            if fault == "reset_early":
                wire.reset()
                return
            stop = answer.size
            if fault in ("reset", "truncate", "short", "stall"):
                after = settings.fault_after_bytes
                stop = answer.size // 2 if after is None else min(after, answer.size - 1)
            record.status = answer.status
            await wire.send_head(answer, stop if fault == "short" else answer.size)
            if request.method != "HEAD":
                await self._send(wire, pace, _damaged(answer, fault, stop, request.path), record)
        if fault == "reset":
            wire.reset()
        elif fault == "stall":
            await wire.gone()

    async def _answer(self, settings: Settings, request: Request, fault: str | None) -> Answer:
        if fault in _RULED:
            location = settings.redirect[1].replace("{path}", request.target) if settings.redirect else ""
            return _told(_RULED[fault], request, [("Location", location)] if fault == "redirect" else [])
        if fault in EARLY:
            return _told("500" if fault == "reset_early" else fault, request, [])
        try:
            return await (self.cache if settings.cache else self.upstream).ask(request)
        except ConnectionError:
            return _told("502", request, [])

    async def _send(self, wire: Wire, pace: Pace, parts: AsyncGenerator[Any, None], record: Record) -> None:
        """Send a body at the speed of the connection, the link and the fault, whatever is the slowest."""
        pace.begin(time.monotonic())
        async with aclosing(parts):
            async for part in parts:
                left = memoryview(part)
                while left:
                    settings = self.settings
                    drip = record.fault == "drip"
                    own = settings.drip_bytes_per_second if drip else settings.connection_bytes_per_second
                    size = min(len(left), _chunk_bytes(own, settings.link_bytes_per_second))
                    if own or settings.link_bytes_per_second:
                        now = time.monotonic()
                        turn = pace.turn(size, own, now), self.link.turn(size, settings.link_bytes_per_second, now)
                        await asyncio.sleep(max(turn) - now)
                    await wire.send(left[:size])
                    record.sent += size
                    left = left[size:]

    async def obey(self, command: dict[str, Any]) -> Any:
        """Do what the test asks; return the answer."""
        for _ in range(3):  # what was sent just now is noted first
            await asyncio.sleep(0)
        if "set" in command:
            self.settings = _settings(command["set"])
            self.faults.storm = ("", 0)
        if "clear" in command:
            self.log, self.faults = [], Faults()
        return [list(asdict(record).values()) for record in self.log] if "log" in command else None


def _chunk_bytes(*rates: float | None) -> int:
    """Return how much is sent at once: at most a fiftieth of a second's bytes, so that the flow is smooth."""
    if not any(rates):
        return CHUNK_BYTES
    return max(1, min(PACED_CHUNK_BYTES, int(min(filter(None, rates)) / 50)))


def _settings(values: dict[str, Any]) -> Settings:
    return Settings(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _told(status: str, request: Request, headers: list[tuple[str, str]]) -> Answer:
    code = _CODES[status]
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{code}, from the proxy</Message>'
        f"<RequestId>0</RequestId></Error>"
    ).encode()
    shown = just(b"") if request.method == "HEAD" else just(body)
    return Answer(int(status), [*headers, ("Content-Type", "application/xml")], len(body), shown)


async def _damaged(answer: Answer, fault: str | None, stop: int, path: str) -> AsyncGenerator[Any, None]:
    """Yield the first `stop` bytes of a body, a few of them changed where the fault is `wrong`."""
    places = set(Random(path).choices(range(answer.size), k=3)) if fault == "wrong" else set()
    offset = 0
    async for part in answer.parts:
        if offset >= stop:
            return
        yield flipped(memoryview(part)[: stop - offset], offset, places)
        offset += len(part)


async def main(endpoint: str) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    relay = Relay(Upstream(endpoint), Settings())
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listening.setblocking(False)
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    print(json.dumps({"endpoint": f"http://127.0.0.1:{listening.getsockname()[1]}"}), flush=True)
    serving: set[asyncio.Task[None]] = set()

    async def accept() -> None:
        number = 0
        while True:
            sock, _ = await loop.sock_accept(listening)
            task = loop.create_task(relay.serve(sock, number))
            serving.add(task)
            task.add_done_callback(serving.discard)
            number += 1

    accepting = loop.create_task(accept())
    while line := await commands.readline():
        print(json.dumps(await relay.obey(json.loads(line))), flush=True)
    accepting.cancel()


if __name__ == "__main__":
    die_with_parent()
    asyncio.run(main(sys.argv[1]))
