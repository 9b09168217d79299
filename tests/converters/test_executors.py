"""Where tasks run: results in order, the first error ends it, workers that are as many, quiet, and never left behind."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from processes import children_of, wait_until

from converters.tasks.executors import SMALL_BYTES, Here, executor_of, num_processors, processes_for, run_all
from mixstream.errors import CorpusError


def double(number: int) -> int:
    return 2 * number


def sleep_less(number: int) -> int:
    """End the later the smaller the number."""
    time.sleep(0.02 * (10 - number))
    return number


def refuse(number: int) -> int:
    if number % 10 == 3:
        raise CorpusError(f"task {number}")
    return number


def die(number: int) -> int:
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def process_of(number: int) -> tuple[int, str | None, str | None]:
    time.sleep(0.1)
    return os.getpid(), os.environ.get("TOKENIZERS_PARALLELISM"), os.environ.get("RAYON_NUM_THREADS")


def wait_for(path: str) -> None:
    """Say that it has begun, and stay."""
    Path(path).touch()
    time.sleep(60)


@pytest.fixture(scope="module")
def two():
    with executor_of(2) as executor:
        yield executor


def test_results_are_in_the_order_of_tasks(two):
    done: list[int] = []
    tasks = list(range(10))
    with executor_of(0) as here, ThreadPoolExecutor(10) as threads:
        assert isinstance(here, Here)
        for executor in (here, two, threads):
            done.clear()
            assert run_all(executor, sleep_less, iter(tasks), lambda task, result: done.append(result)) == tasks
            assert sorted(done) == tasks
    assert done != tasks  # told as they end
    assert run_all(two, double, []) == []


def test_few_tasks_are_handed_out_at_a_time(monkeypatch):
    """As many as 512, however many there are: a corpus may have a million."""
    monkeypatch.setattr("converters.tasks.executors.TASKS_AHEAD", 3)
    taken: list[int] = []
    held: list[int] = []

    def tasks():
        for number in range(50):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(2) as executor:
        run_all(executor, double, tasks(), lambda task, result: held.append(len(taken) - len(held)))
    assert len(held) == 50
    assert max(held) <= 3


def test_the_first_error_ends_it(two):
    """In this process before the next task is begun; elsewhere tasks that were not begun are never run."""
    begun: list[int] = []

    def note(number: int) -> int:
        begun.append(number)
        return refuse(number)

    with pytest.raises(CorpusError, match="task 3"):
        run_all(Here(), note, range(1000))
    assert begun == [0, 1, 2, 3]
    begun.clear()
    with ThreadPoolExecutor(1) as executor, pytest.raises(CorpusError, match="task 3"):
        run_all(executor, lambda number: (time.sleep(0.01), note(number)), range(1000))
    assert len(begun) < 100
    with pytest.raises(CorpusError, match="task"):
        run_all(two, refuse, range(1000))
    assert run_all(two, double, [1]) == [2]  # the executor is none the worse


def test_workers_use_one_thread_each(two):
    told = set(run_all(two, process_of, range(8)))
    assert {own[1:] for own in told} == {("false", "1")}
    assert len(told) == 2
    assert os.getpid() not in {process for process, *_ in told}


def test_a_worker_that_dies_is_told():
    with (
        pytest.raises(CorpusError, match=r"a worker process died .* run the same command again, .* fewer --workers"),
        executor_of(1) as executor,
    ):
        run_all(executor, die, range(3))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_still_runs_is_ended_when_the_block_is_left_by_an_error(tmp_path, error):
    before = children_of(os.getpid())
    started = time.monotonic()
    with pytest.raises(error), executor_of(2) as executor:
        executor.submit(wait_for, str(tmp_path / "begun"))
        wait_until((tmp_path / "begun").exists)
        raise error
    wait_until(lambda: children_of(os.getpid()) <= before, 5)
    assert time.monotonic() - started < 30


def test_ctrl_c_is_for_the_parent_even_while_workers_start():
    """A signal that comes as they are made is not lost, and not theirs."""
    caught = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: caught.set())
    try:
        with executor_of(1) as executor:
            (worker,) = {executor.submit(os.getpid).result()}
            os.kill(worker, signal.SIGINT)
            assert executor.submit(os.getpid).result() == worker
            os.kill(os.getpid(), signal.SIGINT)
            assert caught.wait(5)
    finally:
        signal.signal(signal.SIGINT, before)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_small_corpora_are_not_worth_a_process():
    assert processes_for(SMALL_BYTES - 1) == 0
    assert processes_for(SMALL_BYTES) == num_processors() == len(os.sched_getaffinity(0))
