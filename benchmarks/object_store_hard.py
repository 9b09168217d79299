"""The hard parts of `object_store.py`: a small cache, faults, processes that share a cache and die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
from belady import least_fetches
from bucket import KINDS, Link, Watch, moved, shard_sizes, wait_until
from bucket_reads import Reading
from measure import FIRST, Figures, Row
from object_store import LENGTH, READER, SAMPLES, WINDOW, World, names_of

REPEATS = (7.0, 5.0, 4.0, 3.0, 2.0, 1.0)  # of the streams, while the cache holds a tenth of them


def cache(world: World) -> list[Row]:
    """Return what a cache of a tenth of the data fetches, over the least that any cache could."""
    per, shards = 64, 60
    root = world.streams(len(REPEATS), per * shards, LENGTH, per)
    sizes, names = shard_sizes(root), names_of(root)
    url = world.url(root)
    size, total = max(sizes.values()), sum(sizes.values())
    limit = total // 10
    weights = tuple(repeats / sum(REPEATS) for repeats in REPEATS)
    drawn = world.folder / "drawn.npy"
    base = Reading(
        FIRST, url, names, "", int(sum(REPEATS)) * per * shards, LENGTH, 64, weights, cache_limit=limit,
        window=per, drawn=str(drawn),
    )  # fmt: skip
    fetched: Figures = {}
    peaks: Figures = {"limit": [limit / 1e6], "limit and one shard": [(limit + size) / 1e6]}
    seconds: Figures = {}
    notes = []
    asked = {
        FIRST: base,
        "streaming": replace(base, contender="streaming", drawn="", seconds=10.0 if world.quick else 25.0),
    }
    for name, own in asked.items():
        world.bucket.begin()
        folder = Path(world.cache())
        with Watch(folder) as watch:
            try:
                taken = world.read(replace(own, cache=str(folder)), timeout=90.0)
            except (RuntimeError, subprocess.TimeoutExpired) as problem:
                notes.append(f"{name}: {type(problem).__name__}: {str(problem)[-300:]}")
                continue
        over = moved(world.bucket, sizes)
        fetched[name] = [over.bytes / 1e6]
        peaks[f"{name}, of files"] = [watch.most / 1e6]
        if name == FIRST:
            peaks[f"{name}, of the account"] = [watch.most_noted / 1e6]
        seconds[name] = [taken.all]
        notes.append(
            f"{name}: {taken.samples:,} of {base.samples:,} samples in {taken.all:.1f} s, {over.requests} requests"
        )
    if FIRST not in fetched:
        raise RuntimeError(str(notes))
    stream, sample = np.load(drawn)
    least = least_fetches(stream * shards + sample // per, limit // size)
    fetched["Belady's optimum"] = [least * size / 1e6]
    row = Row(
        f"bucket, cache of 10 %, {len(sizes)} shards, fetched", "MB", fetched,
        reach="mixstream / optimum at most 1.1",
        notes=[f"{total / 1e6:.0f} MB, repeats {REPEATS}, room for {limit // size} shards", *notes],
    )  # fmt: skip
    row.ratio(f"{FIRST} / optimum", FIRST, "Belady's optimum")
    return [row, Row("bucket, cache of 10 %, most bytes at a time", "MB", peaks, reach="one shard over the limit"),
            Row("bucket, cache of 10 %, time", "s", seconds)]  # fmt: skip


def faults(world: World) -> list[Row]:
    """Return how long 2,000 shards take while 5 % of requests fail, and whether all was right."""
    length, per, streams = 256, 16, 10
    shards = 40 if world.quick else 200
    root = world.streams(streams, per * shards, length, per)
    url = world.url(root)
    sizes = shard_sizes(root)
    base = Reading(FIRST, url, names_of(root), "", streams * per * shards, length, 64, window=per, digest=True)
    right = world.read(replace(base, root=str(root)))
    seconds: Figures = {}
    notes = []
    for kinds in [(), *((kind,) for kind in KINDS), KINDS]:
        name = "all kinds" if len(kinds) > 1 else "".join(kinds) or "no faults"
        most = 16 if kinds == ("stall",) else None  # each takes 15 s, 16 at a time
        world.bucket.begin(
            latency_seconds=0.01, fault_share=0.05 if kinds else 0.0, fault_kinds=kinds, match=r"\.mds$",
            max_faults=most, storm=2, drip_bytes_per_second=16000.0,
            fault_latency_seconds=0.5,
        )  # fmt: skip
        taken = world.read(base)
        over = moved(world.bucket, sizes)
        given = Counter(record.fault for record in world.bucket.shards_asked() if record.fault)
        seconds[name] = [taken.all]
        is_right = "every sample right" if taken.digest == right.digest else "WRONG"
        notes.append(
            f"{name}: {is_right}, {over.requests} requests, {sum(given.values())} failed "
            f"({', '.join(f'{kind} {count}' for kind, count in sorted(given.items()))})"
        )
    row = Row(f"bucket, 5 % faults, {len(sizes):,} shards of {max(sizes.values()):,} bytes, time", "s", seconds,
              reach="every sample right", notes=notes)  # fmt: skip
    return [row, denied(world, base)]


def denied(world: World, base: Reading) -> Row:
    """Return how long a run takes to end where a shard is refused for ever, and what it says."""
    world.bucket.begin(deny=r"l0003.*shard\.00005\.mds$", latency_seconds=0.05)
    command = [sys.executable, str(READER), replace(base, cache=world.cache()).told()]
    begun = time.perf_counter()
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60.0)
    seconds = time.perf_counter() - begun
    told = [line for line in ended.stderr.splitlines() if line.startswith("mixstream.errors")]
    said = told[0] if ended.returncode and told else "NO ERROR"
    return Row("bucket, a permanent 403 ends the run, from its process' start", "s",
               {FIRST: [seconds]}, reach="under 10 s", notes=[said])  # fmt: skip


def node(world: World) -> list[Row]:
    """Return how often shards are fetched by 4 processes that share a cache folder, one of them killed or none."""
    count, link = 4, Link()
    root = world.large(count)
    url = world.url(root)
    sizes = shard_sizes(root)
    hashes = {path.relative_to(root).as_posix(): sha256(path.read_bytes()).hexdigest() for path in root.glob("*/*.mds")}
    base = Reading(FIRST, url, names_of(root), "", count * SAMPLES, LENGTH, window=WINDOW)
    seconds: Figures = {}
    fetches: Figures = {}
    notes = []
    for name, kill in (("4 processes", False), ("4 processes, one killed", True)):
        folder = Path(world.cache())
        world.bucket.begin(link)
        begun = time.perf_counter()
        processes = [_process(replace(base, cache=str(folder)), rank) for rank in range(4)]
        told = ""
        if kill:
            wait_until(lambda folder=folder: len(list(folder.glob("*/shard.*"))) >= len(sizes) // 4, 60.0)
            processes[2].send_signal(signal.SIGKILL)
            told = f"; killed with {len(list(folder.glob('*/.shard.*')))} shards half made"
        ends = [_end(process) for process in processes]
        seconds[name] = [time.perf_counter() - begun]
        asked = Counter(record.path for record in world.bucket.shards_asked())
        fetches[f"{name}, shards"] = [float(len(asked))]
        fetches[f"{name}, requests for them"] = [float(sum(asked.values()))]
        over = moved(world.bucket, sizes)
        notes.append(f"{name}: ends {ends}; {over.again / 1e6:.1f} MB fetched again; {_whole(folder, hashes)}{told}")
    about = "started as a launcher does; processes' start of some seconds included"
    return [
        Row("bucket, 4 processes on a node, requests for shards", "", fetches, reach="each shard once", notes=notes),
        Row("bucket, 4 processes on a node, time", "s", seconds, notes=[about]),
    ]


def _process(asked: Reading, rank: int) -> subprocess.Popen:
    env = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "4", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "4"}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517"}
    command = [sys.executable, str(READER), asked.told()]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _end(process: subprocess.Popen) -> str:
    try:
        out, errors = process.communicate(timeout=90.0)
    except subprocess.TimeoutExpired:
        process.kill()
        return "TIMEOUT"
    if process.returncode == -signal.SIGKILL:
        return "killed"
    if process.returncode:
        return (errors.strip().splitlines() or ["no message"])[-1][:200]
    return f"{json.loads(out.splitlines()[-1])['samples']:,} samples"


def _whole(folder: Path, hashes: dict[str, str]) -> str:
    """Return, in words, whether every shard of a cache folder is there and right."""
    found = {path: sha256(path.read_bytes()).hexdigest() for path in folder.glob("*/shard.*")}
    right = sum(
        hashes[f"{path.parent.name.rpartition('-')[0]}/{path.name}"] == digest for path, digest in found.items()
    )
    left = len(list(folder.glob("*/.shard.*")))
    return f"cache: {right} of {len(hashes)} shards right, {len(found) - right} wrong, {left} half made left"
