"""What goes wrong outside: shards that are damaged on the way, processes that are killed, two jobs at once.

Each is a failure seen in other loaders: a run that ends without a word, hangs, reads the wrong samples, deletes data,
or leaves files behind.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from conftest import SIZES, compress
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import OTHER, plan_of, told

from mixstream import Catalog
from mixstream.errors import ShardError
from mixstream.loader import MixtureLoader

LIMIT = 30  # seconds in which a failure must be told; it takes tenths of one


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail, instead of waiting for ever."""

    def late(*arguments: object) -> None:
        raise TimeoutError(f"nothing was told in {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def copied(streams, tmp_path) -> Path:
    shutil.copytree(streams, tmp_path / "streams")
    return tmp_path / "streams"


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip(position: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda content: content[:-1],
    "empty": lambda content: b"",
    "another number of samples": flip(0),
    "another offset": flip(9),
    "another token": flip(-2),
}


@pytest.mark.parametrize("num_workers", [0, 1, 2])
@pytest.mark.parametrize("what", ["missing", *DAMAGE])
def test_a_shard_damaged_on_the_way_ends_the_run_with_its_name(copied, what, num_workers):
    """In the main process, in time, after all that could be read; and what is the only copy is left as it is."""
    plan = plan_of(Catalog.open(copied), batches=60)
    loader = MixtureLoader(plan, num_workers=num_workers, verify_hashes=True)
    shard = copied / "en.tales" / "shard.00030.mds"
    if what == "missing":
        shard.unlink()
    else:
        shard.write_bytes(DAMAGE[what](shard.read_bytes()))
    before = files_of(copied)
    began = time.monotonic()
    with within(LIMIT), pytest.raises(ShardError, match=r"en.tales/shard.00030.mds"):
        for _ in loader:
            pass
    assert time.monotonic() - began < 4
    assert loader.ledger().batch < 60
    assert files_of(copied) == before


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_compressed_shard_damaged_on_the_way_ends_the_run_with_its_name(copied, tmp_path, num_workers):
    compress(copied)
    plan = plan_of(Catalog.open(copied), batches=60)
    loader = MixtureLoader(plan, num_workers=num_workers, cache_dir=tmp_path / "cache")
    shard = copied / "en.tales" / "shard.00030.mds.zstd"
    content = shard.read_bytes()
    shard.write_bytes(b"\0" * len(content))
    with within(LIMIT), pytest.raises(ShardError, match=r"en.tales/shard.00030.mds.zstd"):
        for _ in loader:
            pass
    assert not list((tmp_path / "cache").glob("en.tales-*/*00030*"))
    shard.write_bytes(content)
    assert len([told(batch) for batch in MixtureLoader(plan, cache_dir=tmp_path / "cache")]) == 60


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_reading_thread_that_dies_ends_the_run_with_its_own_error(catalog, monkeypatch, num_workers):
    loader = MixtureLoader(plan_of(catalog), num_workers=num_workers)

    def broken(*arguments: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("mixstream.loader.reader.TokenReader._open_shard", broken)
    with within(LIMIT), pytest.raises(MemoryError, match="no room"):
        next(iter(loader))


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_weights_set_within_the_prefetched_batches_outlive_a_checkpoint_there(catalog, data):
    """M5 and M6: workers have read on when weights are set, when the state is taken, and when they act."""
    plan = plan_of(catalog, batches=24)
    lag = data.draw(st.integers(2, 8))
    set_at = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=4, unique=True))
    stop = data.draw(st.integers(1, 23))

    def read(loader: MixtureLoader, until: int) -> list[list]:
        out = []
        for batch in loader:
            out.append(told(batch))
            consumed = loader.ledger().batch
            if consumed in set_at:
                loader.set_weights(OTHER if consumed % 2 else dict(zip(OTHER, reversed(OTHER.values()), strict=True)))
            if consumed == until:
                break
        return out

    def make(num_workers: int) -> MixtureLoader:
        return MixtureLoader(plan, num_workers=num_workers, weight_lag=lag)

    whole = read(make(0), 24)
    first = make(2)
    assert read(first, stop) == whole[:stop]
    for num_workers in (0, 2):
        again = make(num_workers)
        again.load_state_dict(first.state_dict())
        assert read(again, 24) == whole[stop:]


READ = """
import json, os, sys, time
from mixstream import Plan
from mixstream.loader import MixtureLoader

plan, cache, out, seconds = sys.argv[1:]
loader = MixtureLoader(Plan.load(plan), num_workers=2, cache_dir=cache)
batches = []
for batch in loader:
    batches.append([batch[key].tolist() for key in ("stream", "sample", "repeat", "input_ids")])
    if len(batches) == 3:
        open(out + ".begun", "w").close()
    time.sleep(float(seconds) if len(batches) >= 3 else 0)
with open(out, "w") as file:
    json.dump(batches, file)
if "fail" in out:
    raise SystemExit("as asked")
"""


@pytest.fixture
def reading(copied, tmp_path):
    """Return a function that starts a process that reads compressed streams into a shared cache."""
    compress(copied)
    plan_of(Catalog.open(copied), batches=20).save(tmp_path / "plan.json")
    script = tmp_path / "read.py"
    script.write_text(READ)
    (tmp_path / "tmp").mkdir()
    started = []

    def start(out: str, seconds: float = 0) -> subprocess.Popen:
        arguments = [tmp_path / "plan.json", tmp_path / "cache", tmp_path / out, seconds]
        process = subprocess.Popen(
            [sys.executable, str(script), *map(str, arguments)],
            env={**os.environ, "TMPDIR": str(tmp_path / "tmp"), "OMP_NUM_THREADS": "1"},
            start_new_session=True,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + LIMIT
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} is not there"
        time.sleep(0.01)


def shared_memory_of(processes: list[int]) -> list[str]:
    """Return what these processes have left in shared memory: torch and Python put the process into the name."""
    return [path.name for path in Path("/dev/shm").iterdir() if set(path.name.split("_")) & set(map(str, processes))]


def test_killed_it_starts_again_at_once_in_the_same_folders(reading, tmp_path):
    """SIGKILL, which nothing can clean up after: no lock, no name, no half shard is in the way."""
    expected = json.loads(finished(reading("whole"), tmp_path / "whole"))
    shutil.rmtree(tmp_path / "cache")
    killed = reading("killed", 10)
    wait_for(tmp_path / "killed.begun")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert json.loads(finished(reading("again"), tmp_path / "again")) == expected
    assert shared_memory_of([killed.pid]) == []
    assert {path.name for path in (tmp_path / "cache").rglob(".*")} == {".cache", ".reserved"}
    assert not list((tmp_path / "cache" / ".reserved").iterdir())


def finished(process: subprocess.Popen, out: Path) -> str:
    assert process.wait(timeout=60) == 0
    return out.read_text()


def test_two_jobs_share_a_cache_and_leave_nothing_else(reading, tmp_path, copied):
    """Both read all; the streams are as they were; the cache has whole shards and no lock; TMPDIR is empty."""
    before = files_of(copied)
    jobs = {out: reading(out, 0.02) for out in ("one", "two", "fail")}
    codes = {out: process.wait(timeout=60) for out, process in jobs.items()}
    assert codes == {"one": 0, "two": 0, "fail": 1}
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text() == (tmp_path / "fail").read_text()
    assert files_of(copied) == before
    cached = [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != ".cache"]
    assert all(name.endswith(".mds") and not name.startswith(".") for name in cached)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert shared_memory_of([process.pid for process in jobs.values()]) == []


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_weights_that_push_against_a_repeat_budget_never_break_it(catalog, data):
    """M2 and M3, with all weight on a small stream again and again: its budget holds, to the draw."""
    budget = data.draw(st.sampled_from([1.0, 1.5, 3.0]))
    plan = plan_of(catalog, 40, 8, "uniform", max_repeats={"eu.tales": budget, "gl.tales": budget})
    pushed = data.draw(st.sampled_from(["eu.tales", "gl.tales"]))
    loader = MixtureLoader(plan, weight_lag=1)
    draws: dict[tuple[int, int], int] = {}
    for number, batch in enumerate(loader):
        for stream, sample, repeat in zip(*told(batch), strict=True):
            assert draws.get((stream, sample), 0) == repeat
            draws[stream, sample] = repeat + 1
            complete = min(draws.get((stream, row), 0) for row in range(int(plan.sizes[stream])))
            assert repeat <= complete
        if number % data.draw(st.integers(1, 5)) == 0:
            loader.set_weights(dict.fromkeys(SIZES, 0.025) | {pushed: 0.9})
    counts = np.bincount([stream for (stream, _), count in draws.items() for _ in range(count)], minlength=5)
    for name in ("eu.tales", "gl.tales"):
        assert counts[plan.streams.index(name)] <= budget * SIZES[name]
    assert counts[plan.streams.index(pushed)] >= int(budget * SIZES[pushed]) - 1 or loader.ledger().batch < 40
