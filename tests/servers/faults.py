"""What the proxy is asked to do wrong, what it does to each request, and what it tells of it. No sockets here."""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

EARLY = ("reset_early", "429", "500", "503")
"""Faults that need nothing of the real answer."""
LATE = ("reset", "truncate", "short", "wrong", "drip", "stall")
"""Faults of the body: nothing happens where there is none."""
KINDS = (*EARLY, *LATE, "latency")


@dataclass(frozen=True)
class Settings:
    """What the proxy does; every regular expression is searched in the decoded path, as in `/bucket/some/key`.

    Attributes:
        latency_seconds: no answer begins sooner than this after its request.
        connection_bytes_per_second: limit of each connection's bodies.
        link_bytes_per_second: limit of the bodies of all connections together, shared fairly.
        cache: keep whole objects in memory, and answer from there: then the upstream is asked once for each.
        deny: these paths are answered with 403.
        missing: these paths are answered with 404.
        redirect: (regular expression, location): 307 to there; `{path}` stands for the path that was asked for.
        fault_share: the share of requests that fail.
        fault_kinds: how, one of them chosen for each request that fails.
        match: only these paths fail.
        methods: only these requests fail.
        listings: requests with a query, such as listings, fail too.
        seed: of the choice, which depends on it, the path, and how often the path was asked for; on nothing else.
        max_faults: no more faults than this.
        faults_by_key_once: a path sees each kind at most once.
        storm: a 429, 500 or 503 is given to so many requests in a row.
        fault_after_bytes: body bytes before a reset, the end of a truncated or short body, or a stall; None: half.
        drip_bytes_per_second: speed of a drip.
        fault_latency_seconds: what the fault `latency` adds.
    """

    latency_seconds: float = 0.0
    connection_bytes_per_second: float | None = None
    link_bytes_per_second: float | None = None
    cache: bool = False
    deny: str | None = None
    missing: str | None = None
    redirect: tuple[str, str] | None = None
    fault_share: float = 0.0
    fault_kinds: tuple[str, ...] = ()
    match: str = ""
    methods: tuple[str, ...] = ("GET",)
    listings: bool = False
    seed: int = 0
    max_faults: int | None = None
    faults_by_key_once: bool = False
    storm: int = 1
    fault_after_bytes: int | None = None
    drip_bytes_per_second: float = 4.0
    fault_latency_seconds: float = 1.0

    def __post_init__(self) -> None:
        if unknown := set(self.fault_kinds) - set(KINDS):
            raise ValueError(f"no such faults: {sorted(unknown)}; there are {', '.join(KINDS)}")
        if self.fault_share and not self.fault_kinds:
            raise ValueError(f"fault_share={self.fault_share} needs fault_kinds; there are {', '.join(KINDS)}")
        for rule in (self.deny, self.missing, self.match, self.redirect and self.redirect[0]):
            re.compile(rule or "")


@dataclass
class Record:
    """One request, in the order in which they came.

    Attributes:
        method, path, query: of the request; the path is decoded.
        range: its Range header.
        status: what was answered; 0: nothing was.
        sent: bytes of the body that were sent.
        fault: what was done to it: one of KINDS, or deny, missing, redirect; None: nothing was.
        begin, end: seconds of `time.monotonic`; no end while it goes on.
        connection: the number of the connection it came by.
    """

    method: str
    path: str
    query: str
    range: str | None
    status: int
    sent: int
    fault: str | None
    begin: float
    end: float | None
    connection: int


@dataclass
class Faults:
    """The choice of a fault for each request, and what of the past it depends on."""

    visits: Counter[str] = field(default_factory=Counter)
    given: set[tuple[str, str]] = field(default_factory=set)
    count: int = 0
    storm: tuple[str, int] = ("", 0)

    def choose(self, settings: Settings, method: str, path: str, query: str) -> str | None:
        """Return what is done to this request; None: nothing."""
        if ruled := _ruled(settings, path):
            return ruled
        listing = query not in ("", "x-id=GetObject")
        if method not in settings.methods or listing > settings.listings or not re.search(settings.match, path):
            return None
        self.visits[path] += 1
        if settings.max_faults is not None and self.count >= settings.max_faults:
            return None
        kind, left = self.storm
        if left == 0:
            kinds = [k for k in settings.fault_kinds if not (settings.faults_by_key_once and (path, k) in self.given)]
            kind = _drawn(f"{settings.seed}/{path}/{self.visits[path]}", settings.fault_share, kinds)
            left = settings.storm if kind in ("429", "500", "503") else 1
        if not kind:
            return None
        self.storm = (kind, left - 1)
        self.given.add((path, kind))
        self.count += 1
        return kind

    def take_back(self, path: str, kind: str) -> None:
        """Forget a fault that could not be done: there was no body."""
        self.given.discard((path, kind))
        self.count -= 1


def _ruled(settings: Settings, path: str) -> str | None:
    rules = {"redirect": settings.redirect and settings.redirect[0], "deny": settings.deny, "missing": settings.missing}
    return next((name for name, rule in rules.items() if rule is not None and re.search(rule, path)), None)


def _drawn(seed: str, share: float, kinds: list[str]) -> str:
    rng = random.Random(seed)
    return rng.choice(kinds) if kinds and rng.random() < share else ""


@dataclass
class Pace:
    """Turns on a way that carries so many bytes a second; each user waits for one turn at a time, so all are equal."""

    free: float = 0.0
    SLACK = 0.02  # seconds that a late wake-up makes up for; a way that was free for longer has saved nothing

    def begin(self, now: float) -> None:
        """Let what was saved up to now be lost."""
        self.free = max(self.free, now)

    def turn(self, size: int, rate: float | None, now: float) -> float:
        """Return when these bytes have passed, in the seconds of `now`."""
        if not rate:
            return now
        self.free = (now if now - self.free > self.SLACK else self.free) + size / rate
        return self.free


def flipped(data: Any, offset: int, places: set[int]) -> Any:
    """Return a part of a body, which begins at `offset` in it, with the bytes at these places of the body changed."""
    here = [place - offset for place in places if offset <= place < offset + len(data)]
    if not here:
        return data
    changed = bytearray(data)
    for place in here:
        changed[place] ^= 0x5A
    return changed
