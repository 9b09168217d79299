"""A conversion on a real Dask cluster of this machine."""

from __future__ import annotations

import os
import random
import signal
import warnings

import pytest
from converting import convert, files_of, write_lines
from processes import is_alive, run, started, wait_until

from converters.tasks.executors import executor_of
from mixstream.errors import CorpusError

SIZES = {"sequence_length": 64, "span_bytes": 4096, "shard_bytes": 4096, "holdout": 0.1, "deduplicate": True}
OPTIONS = ["--sequence-length", 64, "--span-bytes", 4096, "--shard-bytes", 4096, "--holdout", 0.1, "--deduplicate"]

# Dask's own: it leaves sockets and loops to the garbage collector when a worker is killed.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    write_lines(folder / "eu.a.jsonl", [{"text": f"{i % 2500} testua " * 12, "id": str(i)} for i in range(3000)])
    return folder


@pytest.fixture(scope="module")
def in_one_go(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("one-go")
    convert([corpus], out, **SIZES)
    return files_of(out)


@pytest.fixture(scope="module")
def cluster():
    """Two workers of a thread each, on loopback; restarted by their nannies when they are killed."""
    distributed = pytest.importorskip("distributed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
        ) as own:
            yield own


def workers_of(cluster) -> list[int]:
    return [worker.pid for worker in cluster.workers.values() if worker.pid is not None]


def test_the_bytes_are_those_of_this_machine_alone(cluster, corpus, in_one_go, tmp_path):
    done = run(corpus, "--out", tmp_path / "out", *OPTIONS, "--cluster", cluster.scheduler_address)
    assert done.returncode == 0, done.stderr
    assert files_of(tmp_path / "out") == in_one_go
    assert "duplicate" in done.stdout.splitlines()[-1]


def test_a_worker_that_is_killed_midway_is_replaced(cluster, corpus, in_one_go, tmp_path):
    """Once while spans are encoded, once while shards are written."""
    out = tmp_path / "out"
    killed = []
    with started(corpus, "--out", out, *OPTIONS, "--cluster", cluster.scheduler_address) as process:
        for pattern in ("parts/[!.]*.json", "*/shards/*/*.json"):
            wait_until(lambda: len(list(out.glob(f".mixstream-eu.a/{pattern}"))) > 5)  # noqa: B023
            victim = random.Random(1).choice(workers_of(cluster))
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)
            assert process.poll() is None
        _, complaints = process.communicate(timeout=40)
        assert process.returncode == 0, complaints
    assert len(killed) == 2
    assert not any(map(is_alive, killed))
    assert files_of(out) == in_one_go


def test_an_error_on_a_worker_is_told_here(cluster, corpus, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / "eu.a.jsonl"
    path.write_bytes((corpus / "eu.a.jsonl").read_bytes() + b"{broken\n")
    done = run(folder, "--out", tmp_path / "out", *OPTIONS, "--cluster", cluster.scheduler_address)
    assert done.returncode == 2
    assert "error: eu.a.jsonl, line 3001: " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_task_that_kills_every_worker_is_told(cluster):
    """Out of memory each time, say; more of the same would not help."""
    from converters.tasks.executors import run_all

    address = cluster.scheduler_address
    with (
        pytest.raises(CorpusError, match=r"--cluster .*: .* and others died at the same task .* it goes on with what"),
        executor_of(0, address) as executor,
    ):
        run_all(executor, os._exit, [1])
    wait_until(lambda: len(workers_of(cluster)) == 2, seconds=120)  # their nannies begin them anew, again and again


def test_a_result_that_came_before_its_worker_died_is_a_result(cluster, monkeypatch):
    """The worker dies between the result's arrival here and a look at the task's state."""
    import distributed

    gather = distributed.Client._gather
    lost = []

    async def lose_after(client, futures, *arguments, **named):
        results = await gather(client, futures, *arguments, **named)
        for future in futures:
            client.futures[future.key].lose()
            lost.append(future.key)
        return results

    monkeypatch.setattr(distributed.Client, "_gather", lose_after)
    with executor_of(0, cluster.scheduler_address) as executor:
        assert [executor.submit(pow, 2, i).result(timeout=30) for i in range(3)] == [1, 2, 4]
    assert len(lost) == 3


def test_there_is_no_scheduler(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("converters.tasks.executors.CLUSTER_SECONDS", 1)
    with (
        pytest.raises(CorpusError, match=r"--cluster tcp://127.0.0.1:9: no Dask scheduler answers .*`dask scheduler`"),
        executor_of(0, "tcp://127.0.0.1:9"),
    ):
        pass
    with (
        pytest.raises(CorpusError, match=r"--cluster nonsense://x: no Dask scheduler answers there"),
        executor_of(0, "nonsense://x"),
    ):
        pass
