"""A bucket behind a simulated link: moto's S3 server on loopback, the tests' proxy before it, and the account of both.

The proxy answers from memory, so that it is the link that is measured and not moto.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from servers.proxy import KINDS as KINDS
from servers.proxy import FaultProxy, Record, fault_proxy
from servers.s3 import S3Server, s3_server

NAME = "bench"
SCAN_SECONDS = 0.01
NO_LINK: dict[str, Any] = {
    "latency_seconds": 0.0,
    "connection_bytes_per_second": None,
    "link_bytes_per_second": None,
    "fault_share": 0.0,
    "deny": None,
}


@dataclass(frozen=True)
class Link:
    """What a request takes, and what bodies are limited to."""

    latency_seconds: float = 0.05
    connection_bytes_per_second: float = 40e6
    link_bytes_per_second: float = 160e6


class Bucket:
    """A bucket of a server behind a proxy; clients of this process' environment, and of its children's, go there."""

    def __init__(self, server: S3Server, proxy: FaultProxy) -> None:
        self.server = server
        self.proxy = proxy

    def upload(self, root: Path, prefix: str, streams: int | None = None) -> str:
        """Upload the first folders of streams below `root`, have the proxy hold them, and return their URL."""
        for folder in sorted(path for path in root.iterdir() if path.is_dir())[:streams]:
            self.server.upload(folder, NAME, f"{prefix}/{folder.name}")
        self.proxy.set(**NO_LINK)
        keys = [key for key in self.server.keys(NAME) if key.startswith(f"{prefix}/")]
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(self._ask, keys))
        return f"s3://{NAME}/{prefix}"

    def _ask(self, key: str) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"{self.proxy.endpoint}/{NAME}/{key}") as answer:
            while answer.read(1 << 20):
                pass

    def begin(self, link: Link | None = None, **settings: Any) -> None:
        """Have the proxy behave so from now on, and forget what was asked before."""
        self.proxy.set(**{**NO_LINK, **(vars(link) if link else {}), **settings})
        self.proxy.clear()

    def shards_asked(self) -> list[Record]:
        """Return the requests for shards since `begin`."""
        return [record for record in self.proxy.log() if record.method == "GET" and record.path.endswith(".mds")]


@dataclass(frozen=True)
class Moved:
    """What went over the link since `begin`.

    Attributes:
        bytes: of bodies of shards.
        requests: of all kinds.
        shards: that were asked for.
        again: bytes of shards beyond each shard's own once.
    """

    bytes: int
    requests: int
    shards: int
    again: int


def moved(bucket: Bucket, sizes: dict[str, int]) -> Moved:
    """Return what went over the link; `sizes` are those of the shards by the end of their path (stream/file)."""
    sent: Counter[str] = Counter()
    for record in bucket.shards_asked():
        sent["/".join(record.path.split("/")[-2:])] += record.sent
    again = sum(max(0, count - sizes[path]) for path, count in sent.items())
    return Moved(sum(sent.values()), len(bucket.proxy.log()), len(sent), again)


def shard_sizes(root: Path) -> dict[str, int]:
    """Return {stream/file: bytes} of all shards below a folder of streams."""
    return {path.relative_to(root).as_posix(): path.stat().st_size for path in sorted(root.glob("*/*.mds"))}


@contextmanager
def bucket() -> Iterator[Bucket]:
    """Run the server and the proxy until the end of the block; the environment leads to them."""
    with s3_server() as server, fault_proxy(server.endpoint, cache=True) as proxy:
        server.create_bucket(NAME)
        os.environ.update(server.environment, AWS_ENDPOINT_URL=proxy.endpoint, S3_ENDPOINT_URL=proxy.endpoint)
        yield Bucket(server, proxy)


class Watch(threading.Thread):
    """Looks at the bytes that lie in a cache folder, every 10 ms, while the block lasts.

    Attributes:
        most: bytes of files that were there at a time.
        most_noted: bytes that the cache's own account told at a time.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.most = self.most_noted = 0
        self._ended = threading.Event()

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()

    def run(self) -> None:
        while not self._ended.wait(SCAN_SECONDS):
            self.most = max(self.most, bytes_below(self.folder))
            with suppress(FileNotFoundError):
                self.most_noted = max(self.most_noted, int.from_bytes((self.folder / ".cache").read_bytes(), "little"))


def bytes_below(folder: Path) -> int:
    """Return the bytes of all shards below a folder, those that are being made included."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            if ".mds" in name:
                with suppress(FileNotFoundError):
                    total += (Path(place) / name).stat().st_size
    return total


def wait_until(ready: Any, seconds: float) -> bool:
    """Return whether something became true within some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if ready():
            return True
        time.sleep(0.005)
    return False
