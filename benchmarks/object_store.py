"""Streams in an object store: MixtureLoader against StreamingDataset, against the link, and under faults.

moto's S3 server on loopback, behind a proxy that is the link: 50 ms to the first byte of an answer, 40 MB/s a
connection, and for all connections together what this machine carries (160 MB/s). The proxy answers from memory and
counts every request. Streams are of 2048 uint16 tokens a sample in shards of 4.2 MB; every reading is a fresh process
with an empty cache folder, imports done before the clock runs. Parts, each of which can be run alone:

start   time to the first batch, and to read one repeat; 0 and 2 workers; bytes and requests on the link
waits   a consumer at half of the link's speed, weights turned around half way: what it waits after the first batch
warm    samples per second where everything is in the cache, against the same streams read in their place
cache   a cache of a tenth of the data over several repeats: bytes fetched against Belady's optimum, peak of the folder
faults  5 % of requests fail over 2,000 shards, in every way there is; a permanent 403
node    4 processes that share a cache folder; one of them killed while it downloads

    python benchmarks/object_store.py [--quick] [--only start,waits,warm,cache,faults,node]

Needs `pip install -e '.[dev,bench]'`: moto is in [dev].
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from bucket import Bucket, Link, bucket, moved, shard_sizes
from bucket_reads import Reading, Taken
from measure import FIRST, Figures, Row, fresh, in_turns, report
from streams_on_disk import make_streams, scratch

READER = Path(__file__).parent / "bucket_reads.py"
LENGTH = 2048
SHARD_SAMPLES = 1024
SAMPLES = 16 * SHARD_SAMPLES  # of a stream: 16 shards, 67 MB
WINDOW = 2 * SHARD_SAMPLES
ANSWERS = 3  # that wait for one another before the first batch: names of streams, index.json, shards
TIMEOUT = 150.0


@dataclass(frozen=True)
class World:
    """What the parts have in common.

    Attributes:
        bucket: and the link to it.
        folder: that is gone afterwards.
        quick: whether to measure less.
        urls: of what was uploaded.
    """

    bucket: Bucket
    folder: Path
    quick: bool
    urls: dict[str, str] = field(default_factory=dict)

    def large(self, count: int) -> Path:
        """Return a folder of large streams, which are one and the same under many names, made if it is not there."""
        one, root = self.streams(1, SAMPLES, LENGTH, SHARD_SAMPLES), self.folder / f"large-{count}"
        if not root.exists():
            for number in range(count):
                shutil.copytree(one / names_of(one)[0], root / f"l{number:04}.web", copy_function=os.link)
        return root

    def streams(self, count: int, samples: int, length: int, per: int) -> Path:
        """Return a folder of streams of `samples` samples each, `per` to a shard, made if it is not there."""
        root = self.folder / f"{count}x{samples}x{length}"
        if not root.exists():
            size = per * (2 * length + 4) + 400  # room for the header, not for one sample more of 200 tokens
            make_streams(root, [samples] * count, length, shard_bytes=size, hashes=["xxh3_64"])
        return root

    def url(self, root: Path) -> str:
        """Return the URL of a folder of streams, uploaded if it is not there."""
        if root.name not in self.urls:
            self.urls[root.name] = self.bucket.upload(root, root.name)
        return self.urls[root.name]

    def cache(self) -> str:
        """Return an empty folder."""
        return tempfile.mkdtemp(dir=self.folder, prefix="cache-")

    def read(self, asked: Reading, timeout: float = TIMEOUT) -> Taken:
        """Read in a process of its own; the folder of its cache is gone afterwards, if it was not given."""
        cache = asked.cache or self.cache()
        try:
            return Taken(**fresh(READER, replace(asked, cache=cache).told(), timeout=timeout))
        finally:
            if not asked.cache:
                shutil.rmtree(cache, ignore_errors=True)


def names_of(root: Path) -> tuple[str, ...]:
    """Return the names of the streams below a folder."""
    return tuple(sorted(path.name for path in root.iterdir() if path.is_dir()))


def start(world: World) -> list[Row]:
    """Time to the first batch and to one repeat."""
    count, shards, link = 8, 4, Link()
    samples = count * shards * SHARD_SAMPLES
    root = world.streams(count, shards * SHARD_SAMPLES, LENGTH, SHARD_SAMPLES)
    sizes, names = shard_sizes(root), names_of(root)
    url = world.url(root)
    size, rows = max(sizes.values()), []
    for workers in (0, 2):
        base = Reading(FIRST, url, names, "", samples, LENGTH, window=SHARD_SAMPLES, workers=workers)
        asked = {FIRST: base, "streaming": replace(base, contender="streaming")}
        if not workers:
            asked["streaming, predownload all"] = replace(asked["streaming"], predownload=samples)
        first: Figures = {name: [] for name in asked}
        first["the link's limit"] = least = []
        notes: dict[str, str] = {}

        def measured(
            name: str, asked: dict = asked, first: Figures = first, notes: dict = notes, least: list = least
        ) -> float:
            world.bucket.begin(link)
            taken = world.read(asked[name])
            first[name].append(taken.first)
            if name == FIRST:
                opened = len({(stream, sample // SHARD_SAMPLES) for stream, sample in taken.first_rows})
                least.append(ANSWERS * link.latency_seconds + opened * size / link.link_bytes_per_second)
            over = moved(world.bucket, sizes)
            notes[name] = (
                f"{name}: {over.shards} shards, {over.bytes / 1e6:.1f} MB, of them {over.again / 1e6:.1f} MB beyond "
                f"each shard once; {over.requests} requests; {taken.cpu:.1f} s of processor"
            )
            if taken.samples != samples:
                raise RuntimeError(f"{taken.samples} samples instead of {samples}")
            return taken.all

        repeats = 1 if world.quick else 3 if workers == 0 else 2
        repeat, missing = in_turns({name: lambda name=name: measured(name) for name in asked}, repeats)
        total = sum(sizes.values())
        limit = total / link.link_bytes_per_second
        repeat["the link's limit"] = [limit] * repeats
        told = [f"{total / 1e6:.0f} MB in {len(sizes)} shards of {count} streams", *notes.values(), *missing]
        reach = "at most 0.5 of streaming's"
        rows += [
            Row(f"bucket, time to first batch, {workers} workers", "s", first, reach=reach),
            Row(f"bucket, one repeat, {workers} workers", "s", repeat, reach=f"{reach}, or the link's limit",
                notes=told),
        ]  # fmt: skip
        for row in rows[-2:]:
            for other in [*list(asked)[1:], "the link's limit"]:
                row.ratio(f"{FIRST} / {other}", FIRST, other)
    return rows


def waits(world: World) -> list[Row]:
    """Return what a consumer at half of the link's speed waits."""
    count, seconds = (4, 8.0) if world.quick else (10, 20.0)
    root = world.large(count)
    sizes, names = shard_sizes(root), names_of(root)
    url = world.url(root)
    total = sum(sizes.values())
    link = Link(link_bytes_per_second=2 * total / seconds)
    weights = tuple(2 * (0.1 + 0.8 * place / (count - 1)) / count for place in range(count))
    samples = count * SAMPLES
    base = Reading(
        FIRST, url, names, "", samples, LENGTH, 256, weights, turned=True, window=WINDOW, pace=samples / seconds
    )  # fmt: skip
    working_set = 2 * 3 * count * next(iter(sizes.values()))
    asked = {
        "no cache limit": base,
        "least cache": replace(base, cache_limit=working_set),
        "local, in place": replace(base, root=str(root)),
    }
    shares: Figures = {}
    notes = []
    for name, own in asked.items():
        world.bucket.begin(link)
        taken = world.read(own)
        over = moved(world.bucket, sizes)
        after = taken.all - taken.first
        shares[f"{name}: waited for shards"] = [100 * taken.waited / after]
        shares[f"{name}: in the calls for batches"] = [100 * taken.next_seconds / after]
        notes.append(
            f"{name}: {taken.samples} samples in {taken.all:.1f} s, first batch after {taken.first:.2f} s, longest "
            f"call {taken.longest:.3f} s; {over.bytes / 1e6:.0f} MB fetched, {over.again / 1e6:.0f} MB of it again"
        )
    told = (
        f"{total / 1e6:.0f} MB of {count} streams, each read once, at {total / seconds / 1e6:.0f} MB/s, link of "
        f"{link.link_bytes_per_second / 1e6:.0f} MB/s; weights 1 to 9, and 9 to 1 from half way on; "
        f"least cache: {working_set / 1e6:.0f} MB"
    )
    return [Row("bucket, consumer at half of the link's speed, waits", "% of time", shares, reach="under 2 %",
                notes=[told, *notes])]  # fmt: skip


def warm(world: World) -> list[Row]:
    """Return the speed of reading what is in the cache already, over that of streams in their place."""
    count = 2
    root = world.large(count)
    url = world.url(root)
    names, cache = names_of(root), world.cache()
    base = Reading(FIRST, url, names, cache, count * SAMPLES, LENGTH, window=WINDOW)
    world.bucket.begin()
    world.read(base)
    rows = []
    for batch_size in (8, 64):
        endless = replace(base, samples=10**9, batch_size=batch_size, steady=1.0 if world.quick else 1.5)
        asked = {"in place": replace(endless, root=str(root)), "cached": endless}
        if batch_size == 64:
            asked["cached, with a limit"] = replace(endless, cache_limit=10**9)
        figures, notes = in_turns(
            {name: lambda own=own: world.read(own).rate for name, own in asked.items()}, 2 if world.quick else 3
        )
        row = Row(
            f"bucket, all in the cache, batch {batch_size}", "samples/s", figures, reach="as in place", notes=notes
        )
        for name in list(asked)[1:]:
            row.ratio(f"{name} / in place", name, "in place")
        rows.append(row)
    return rows


def parts() -> dict[str, Callable[[World], list[Row]]]:
    """Return all parts."""
    from object_store_hard import cache, faults, node

    return {"start": start, "waits": waits, "warm": warm, "cache": cache, "faults": faults, "node": node}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer repeats")
    parser.add_argument("--only", default=",".join(parts()), help="parts to run")
    asked = parser.parse_args()
    rows = []
    with scratch() as folder, bucket() as behind:
        world = World(behind, folder, asked.quick)
        for name in asked.only.split(","):
            rows += parts()[name](world)
    report("object_store", rows, quick=asked.quick, **vars(Link()))


if __name__ == "__main__":
    main()
