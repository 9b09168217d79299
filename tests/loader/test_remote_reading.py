"""The loader on an object store: the batches of local files, with caches of any size, beside others, whoever dies."""

from __future__ import annotations

import gc
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from reading import OTHER, plan_of
from servers.fixtures import Bucket
from servers.proxy import FaultProxy

from mixstream import Catalog, Plan
from mixstream.errors import CacheError, RemoteError
from mixstream.loader import MixtureLoader
from mixstream.streams.cache.locks import NamedLocks
from mixstream.streams.reader import MdsReader
from mixstream.streams.store import ShardStore

SECONDS = 60


@pytest.fixture
def plans(streams, bucket, catalog) -> tuple[Plan, Plan]:
    """The same plan of local files, and of a bucket."""
    url = bucket.upload(streams, "run/streams")
    return plan_of(catalog), plan_of(Catalog.open(url))


def same(found, expected) -> bool:
    found, expected = list(found), list(expected)
    columns = ("input_ids", "labels", "stream", "sample", "repeat")
    return len(found) == len(expected) and all(
        torch.equal(own[name], other[name])
        for own, other in zip(found, expected, strict=True)
        for name in columns
        if name in other
    )


def shards_asked(proxy: FaultProxy) -> list:
    return [record for record in proxy.log() if ".mds" in record.path and record.method == "GET"]


def held(cache: Path) -> int:
    """Return the bytes in the cache at a moment: while its account is held nothing comes or goes."""
    locks = NamedLocks(cache / ".cache")
    locks.seize_all()
    try:
        return sum(path.stat().st_size for path in cache.glob("*.tales-*/*mds*"))
    finally:
        locks.close()


def smallest_limit(plan: Plan, cache: Path) -> int:
    with pytest.raises(CacheError) as refused:
        MixtureLoader(plan, cache_dir=cache, cache_limit=1)
    return int(re.search(r"give a cache_limit of ([\d,]+) bytes", str(refused.value))[1].replace(",", ""))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_same_batches_as_from_disk_each_shard_once(plans, proxy, tmp_path, num_workers):
    local, remote = plans
    expected = list(MixtureLoader(local))
    proxy.clear()
    loader = MixtureLoader(remote, num_workers=num_workers, cache_dir=tmp_path / "cache", verify_hashes=True)
    assert same(loader, expected)
    asked = shards_asked(proxy)
    assert max(Counter(record.path for record in asked).values()) == 1
    traffic = loader.traffic().values()
    assert sum(own.bytes for own in traffic) == sum(record.sent for record in asked) == held(tmp_path / "cache")
    assert sum(own.requests for own in traffic) == len(asked)
    again = MixtureLoader(remote, num_workers=num_workers, cache_dir=tmp_path / "cache")
    proxy.clear()
    assert same(again, expected)
    assert not shards_asked(proxy)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_smallest_cache_that_is_told_works(plans, tmp_path, num_workers):
    local, remote = plans
    limit = smallest_limit(remote, tmp_path / "cache")
    gc.collect()
    with pytest.raises(CacheError, match=rf"give a cache_limit of {limit:,} bytes or more"):
        MixtureLoader(remote, cache_dir=tmp_path / "cache", cache_limit=limit - 1)
    gc.collect()
    most = 0
    found = []
    for batch in MixtureLoader(remote, num_workers=num_workers, cache_dir=tmp_path / "cache", cache_limit=limit):
        found.append(batch)
        most = max(most, held(tmp_path / "cache"))
    assert same(found, MixtureLoader(local))
    assert most <= limit


def test_resume_cold_and_warm_new_weights_and_breaks(plans, tmp_path):
    local, remote = plans

    def run(plan, cache, **options):
        loader = MixtureLoader(plan, **({"cache_dir": cache} if cache else {}), **options)
        found = []
        for batch in loader:
            found.append(batch)
            if len(found) == 7:
                break
        state = loader.state_dict()
        for batch in loader:
            found.append(batch)
            if len(found) == 10:
                loader.set_weights(OTHER)
        return found, state

    expected, state = run(local, None)
    limit = smallest_limit(remote, tmp_path / "cache")
    gc.collect()
    found, own = run(remote, tmp_path / "cache", cache_limit=limit + 2000)
    assert same(found, expected)
    reference = MixtureLoader(local)
    reference.load_state_dict(state)
    rest = list(reference)
    for cache in ("cache", "cold"):
        loader = MixtureLoader(remote, cache_dir=tmp_path / cache, num_workers=1)
        loader.load_state_dict(own)
        assert same(loader, rest)


def test_two_plans_share_a_cache_with_a_limit(streams, bucket, catalog, tmp_path):
    remote = Catalog.open(bucket.upload(streams, "run/streams"))
    plans = [plan_of(remote), plan_of(remote, weights=OTHER, seed=5)]
    local = [plan_of(catalog), plan_of(catalog, weights=OTHER, seed=5)]
    limits = []
    for plan in plans:
        limits.append(smallest_limit(plan, tmp_path / "cache"))
        gc.collect()
    limit = sum(limits)
    loaders = [MixtureLoader(plan, cache_dir=tmp_path / "cache", cache_limit=limit) for plan in plans]
    with pytest.raises(CacheError, match=r"bytes are reserved by others that use .*; give a cache_limit of"):
        MixtureLoader(plan_of(remote, seed=9), cache_dir=tmp_path / "cache", cache_limit=limit)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(list, loaders))
    assert same(found[0], MixtureLoader(local[0])) and same(found[1], MixtureLoader(local[1]))
    assert held(tmp_path / "cache") <= limit


READS = """
import sys
import torch
from mixstream import Plan
from mixstream.loader import MixtureLoader

plan, cache, out, rank, world, limit = sys.argv[1:]
loader = MixtureLoader(Plan.load(plan), int(rank), int(world), cache_dir=cache, cache_limit=int(limit) or None)
print("ready", flush=True)
torch.save(list(loader), out)
"""


class Readers:
    """Processes that read a plan each into a file; killed at the end."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.folder = folder
        plan.save(folder / "plan.json")
        self.processes: list[subprocess.Popen] = []

    def start(self, rank: int = 0, world: int = 1, limit: int = 0) -> subprocess.Popen:
        command = [sys.executable, "-c", READS, "plan.json", "cache", f"{len(self.processes)}.pt", rank, world, limit]
        started = subprocess.Popen(
            list(map(str, command)),
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "MASTER_PORT": "1"},
            stdout=subprocess.PIPE,
        )
        self.processes.append(started)
        return started

    def batches(self, number: int) -> list:
        assert self.processes[number].wait(SECONDS) == 0
        return torch.load(self.folder / f"{number}.pt")

    def stop(self) -> None:
        for process in self.processes:
            with process:
                process.kill()


@pytest.fixture
def readers(plans, tmp_path):
    made = Readers(plans[1], tmp_path)
    yield made
    made.stop()


def test_four_processes_on_one_cache_bring_each_shard_once(plans, proxy, readers, tmp_path):
    proxy.clear()
    proxy.set(latency_seconds=0.01)
    for _ in range(4):
        readers.start()
    expected = list(MixtureLoader(plans[0]))
    assert all(same(readers.batches(number), expected) for number in range(4))
    assert max(Counter(record.path for record in shards_asked(proxy)).values()) == 1
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_one_of_four_is_killed_while_it_downloads(plans, proxy, readers, tmp_path):
    proxy.clear()
    proxy.set(latency_seconds=0.5)
    victim = readers.start()
    for _ in range(3):  # later, or they might have all before it comes to its first shard
        readers.start()
    victim.stdout.readline()
    until = time.monotonic() + SECONDS
    while not list((tmp_path / "cache").glob("*/.*.part")):
        assert time.monotonic() < until
        time.sleep(0.005)
    victim.send_signal(signal.SIGKILL)
    proxy.set(latency_seconds=0.0)
    expected = list(MixtureLoader(plans[0]))
    assert all(same(readers.batches(number), expected) for number in (1, 2, 3))
    victim.wait(SECONDS)
    proxy.clear()
    assert same(MixtureLoader(plans[1], cache_dir=tmp_path / "cache", verify_hashes=True), expected)
    assert not list((tmp_path / "cache").rglob("*.part"))
    for path in (tmp_path / "cache").glob("*.tales-*/*.mds"):
        stream = Catalog.open(plans[0].root)[path.parent.name.rpartition("-")[0]]
        assert path.read_bytes() == (stream.directory / path.name).read_bytes()


def test_two_ranks_of_two_lanes_in_two_processes(streams, bucket, catalog, tmp_path):
    local = plan_of(catalog, lanes=2)
    remote = plan_of(Catalog.open(bucket.upload(streams, "run/streams")), lanes=2)
    limit = 2 * smallest_limit(remote, tmp_path / "cache")
    gc.collect()
    readers = Readers(remote, tmp_path)
    try:
        for rank in range(2):
            readers.start(rank, 2, limit)
        for rank in range(2):
            assert same(readers.batches(rank), MixtureLoader(local, rank, 2))
    finally:
        readers.stop()
    assert held(tmp_path / "cache") <= limit


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_that_is_dropped_leaves_no_thread(plans, tmp_path, num_workers):
    before = {thread.ident for thread in threading.enumerate()}
    loader = MixtureLoader(plans[1], num_workers=num_workers, cache_dir=tmp_path / "cache")
    next(iter(loader))
    del loader
    until = time.monotonic() + 10
    while left := [own for own in threading.enumerate() if own.ident not in before]:
        assert time.monotonic() < until, left
        gc.collect()
        time.sleep(0.05)
    assert not list((tmp_path / "cache" / ".reserved").iterdir())


EXITS = """
import sys
from mixstream import Plan
from mixstream.loader import MixtureLoader

loader = MixtureLoader(Plan.load(sys.argv[1]), num_workers=int(sys.argv[2]), cache_dir=sys.argv[3])
batches = iter(loader)
next(batches)
print("read", flush=True)
"""


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_interpreter_ends_while_shards_come(plans, proxy, tmp_path, num_workers):
    plans[1].save(tmp_path / "plan.json")
    proxy.set(latency_seconds=0.3)
    command = [sys.executable, "-c", EXITS, tmp_path / "plan.json", str(num_workers), tmp_path / "cache"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY) as process:
        try:
            assert process.stdout.readline() == b"read\n"
            begun = time.monotonic()
            _, told = process.communicate(timeout=SECONDS)
        finally:
            process.kill()
    assert time.monotonic() - begun < 30
    assert process.returncode == 0, told
    assert b"Traceback" not in told and b"Fatal" not in told


def test_a_403_in_the_middle_of_a_run_ends_it_with_bucket_and_key(plans, bucket: Bucket, proxy, tmp_path):
    limit = smallest_limit(plans[1], tmp_path / "cache")
    gc.collect()
    loader = MixtureLoader(plans[1], cache_dir=tmp_path / "cache", cache_limit=limit)
    batches = iter(loader)
    next(batches)
    proxy.set(deny=r"\.mds")
    begun = time.monotonic()
    with pytest.raises(RemoteError, match=rf"s3://{bucket.name}/run/streams/..\.tales/shard.\d+.mds: .*403"):
        for _ in batches:
            pass
    assert time.monotonic() - begun < 10


TWINS = """
import sys
from mixstream import Plan
from mixstream.kernels import native
from mixstream.loader import MixtureLoader

assert native is None
local, remote = (Plan.load(path) for path in sys.argv[1:3])
loader = MixtureLoader(remote, cache_dir=sys.argv[3], cache_limit=int(sys.argv[4]))
for own, other in zip(loader, MixtureLoader(local), strict=True):
    assert all((own[name] == other[name]).all() for name in other)
print("same")
"""


def test_evicted_shards_are_read_right_without_kernels(plans, tmp_path):
    limit = smallest_limit(plans[1], tmp_path / "cache")
    gc.collect()
    for plan, name in zip(plans, ("local.json", "remote.json"), strict=True):
        plan.save(tmp_path / name)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            TWINS,
            *(tmp_path / name for name in ("local.json", "remote.json", "cache")),
            str(limit),
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=REPOSITORY,
        env={**os.environ, "MIXSTREAM_KERNELS": "0"},
    )
    assert done.stdout == "same\n", done.stderr
    assert held(tmp_path / "cache") <= limit


def test_all_columns_are_read_from_a_bucket(streams, bucket, tmp_path):
    url = bucket.upload(streams, "run/streams")
    store = ShardStore(tmp_path / "cache")
    found = MdsReader.open(f"{url}/gl.tales", store=store)
    local = MdsReader.open(streams / "gl.tales")
    assert [row["tokens"].tolist() for row in found] == [row["tokens"].tolist() for row in local]
    store.close()
