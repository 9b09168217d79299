"""Where tasks run: in this process, in processes of this machine, or on a Dask cluster."""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import multiprocessing.resource_tracker
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing.context import SpawnContext, SpawnProcess
from queue import SimpleQueue
from typing import Any, TypeVar

from converters.tokens.tokenise import use_one_thread
from mixstream.errors import CorpusError, MissingExtraError

SMALL_BYTES = 4 << 20
CLUSTER_SECONDS = 30  # that a scheduler may take to answer
TASKS_AHEAD = 512  # bundles of them handed out at a time: enough for a large cluster, little to hold
BUNDLE_BYTES, BUNDLE_TASKS = 1 << 20, 32  # of small files: each alone would take less time than its way to a worker

TaskT = TypeVar("TaskT")
DoneT = TypeVar("DoneT")


class Here(Executor):
    """Runs each task at once, in this process."""

    def submit(self, function: Callable[..., DoneT], /, *arguments: Any, **named: Any) -> Future[DoneT]:
        """Return the future of a task that has ended."""
        future: Future[DoneT] = Future()
        try:
            future.set_result(function(*arguments, **named))
        except Exception as problem:  # noqa: BLE001  the future tells it, as any executor's does
            future.set_exception(problem)
        return future


class _OnCluster(Executor):
    """Tasks on a Dask cluster.

    The client's own executor looks at a task's state when its result is here already: of a worker that died in
    between it takes the result for an error.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def submit(self, function: Callable[..., DoneT], /, *arguments: Any, **named: Any) -> Future[DoneT]:
        """Return the future of a task of the cluster; to cancel the one cancels the other."""
        theirs = self._client.submit(function, *arguments, **named, pure=False)
        ours: Future[DoneT] = Future()

        def pass_on(_: Any) -> None:
            if not ours.set_running_or_notify_cancel():
                return
            try:
                ours.set_result(theirs.result())  # waits, where it has to be made again
            except BaseException as problem:  # noqa: BLE001  a cancelled one's too: the future tells it
                ours.set_exception(problem)

        theirs.add_done_callback(pass_on)
        ours.add_done_callback(lambda one: theirs.cancel() if one.cancelled() else None)
        return ours


def num_processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def processes_for(size_bytes: int) -> int:
    """Return how many processes are worth their start, of about a second, for so many bytes of sources; 0: none."""
    return 0 if size_bytes < SMALL_BYTES else num_processors()


@contextmanager
def executor_of(workers: int, cluster: str | None = None) -> Iterator[Executor]:
    """Give an executor; what it still runs when the block is left by an exception is ended.

    Args:
        workers: processes of this machine; 0: this one.
        cluster: address of a Dask scheduler; its workers see the same files under the same paths as this process.

    Raises:
        MissingExtraError: `distributed` is not installed.
        CorpusError: there is no scheduler at that address.
    """
    if cluster is not None:
        with _cluster(cluster) as executor:
            yield executor
    elif workers == 0:
        yield Here()
    else:
        with _processes(workers) as executor:
            yield executor


@contextmanager
def _processes(workers: int) -> Iterator[Executor]:
    """Give processes that are spawned: forked ones would have the locks of threads that they have not."""
    executor = ProcessPoolExecutor(workers, _Workers(), initializer=_begin_worker)
    others = set(multiprocessing.active_children())
    try:
        yield executor
    except BaseException:
        _end(executor, others)
        raise
    executor.shutdown()


def _end(executor: ProcessPoolExecutor, others: set[multiprocessing.process.BaseProcess]) -> None:
    """End all processes but `others` at once; what they were at is not whole, and will be done again.

    Tasks are cancelled before, or else the executor's own thread would fail at those of dead processes; and that
    thread is waited for, or else the interpreter might wake it up when it has just ended.
    """
    knows = threading.Event()
    closing = threading.Thread(target=executor.shutdown, kwargs={"cancel_futures": True}, daemon=True)
    try:
        executor.submit(os.getpid).add_done_callback(lambda _: knows.set())  # the last one to be cancelled
    except BrokenProcessPool:
        knows.set()
    closing.start()
    knows.wait(0.5)  # in vain where it waits for a process that is busy: all others are cancelled by then
    deadline = time.monotonic() + 10
    while closing.is_alive() and time.monotonic() < deadline:
        for worker in set(multiprocessing.active_children()) - others:  # it may just have started one more
            worker.kill()
        closing.join(0.05)


class _Worker(SpawnProcess):
    """A process that never sees Ctrl-C, not even while it starts: that is for the parent, who ends it."""

    def start(self) -> None:
        """Start it, with the signal blocked, which it inherits."""
        multiprocessing.resource_tracker.ensure_running()  # now: it would unblock what is blocked
        with _ctrl_c_later():
            super().start()


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Have Ctrl-C wait until the block has ended, whichever thread it comes to."""
    seen = threading.Event()
    is_main = threading.current_thread() is threading.main_thread()  # only it has handlers, and is interrupted
    handler = signal.getsignal(signal.SIGINT)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    if is_main:
        signal.signal(signal.SIGINT, lambda *_: seen.set())
    try:
        yield
    finally:
        if is_main:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    if seen.is_set():
        signal.raise_signal(signal.SIGINT)


class _Workers(SpawnContext):
    Process = _Worker


def _begin_worker() -> None:
    """Use one thread, and end with the parent."""
    use_one_thread()
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has one"

    def end_with_parent() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


@contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    try:
        import distributed
    except ImportError:
        raise MissingExtraError(
            "--cluster needs dask.distributed; install it with: pip install 'mixstream-llm[cluster]'"
        ) from None
    try:
        client: Any = distributed.Client(address, timeout=CLUSTER_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError, ValueError) as problem:
        raise CorpusError(
            f"--cluster {address}: no Dask scheduler answers there ({problem}); start one with `dask scheduler`"
        ) from None
    with client:
        try:
            client.register_worker_callbacks(use_one_thread)  # of those that come later, too
            yield _OnCluster(client)
        except distributed.KilledWorker as problem:
            raise CorpusError(
                f"--cluster {address}: {problem.last_worker.address} and others died at the same task (killed, or out "
                f"of memory); run the same command again, it goes on with what is done"
            ) from None
        except (CancelledError, distributed.comm.core.CommClosedError) as problem:
            raise CorpusError(
                f"--cluster {address}: the scheduler is gone ({type(problem).__name__}); start it, and run the same "
                f"command again, it goes on with what is done"
            ) from None


def run_all(
    executor: Executor,
    work: Callable[[TaskT], DoneT],
    tasks: Iterable[TaskT],
    on_done: Callable[[TaskT, DoneT], None] = lambda task, done: None,
    size_of: Callable[[TaskT], int] = lambda task: BUNDLE_BYTES,
) -> list[DoneT]:
    """Return ``work(task)`` of every task, in their order; some of them are handed out at a time.

    Small ones go to a worker together. What each leaves behind is its own, so that this changes no result.

    Args:
        executor: runs them.
        work: a function of a module.
        tasks: its arguments.
        on_done: called in this process as each ends, in any order.
        size_of: the bytes that a task reads.

    Raises:
        CorpusError: a worker process died; and what `work` raises, as soon as the first does.
    """
    results: dict[int, list[DoneT]] = {}
    running: dict[Future[list[DoneT]], tuple[int, list[TaskT]]] = {}
    ended: SimpleQueue[Future[list[DoneT]]] = SimpleQueue()  # `wait` would look at all that run, each time
    coming = enumerate(bundles(tasks, size_of))
    try:
        while True:
            for number, bundle in islice(coming, TASKS_AHEAD - len(running)):
                future = executor.submit(_work_on, work, bundle)
                running[future] = (number, bundle)
                future.add_done_callback(ended.put)
                if future.done():  # it may be the first of all to fail
                    break
            if not running:
                return [done for number in range(len(results)) for done in results[number]]
            now = [ended.get(), *(ended.get() for _ in range(ended.qsize()))]
            for future in sorted(now, key=lambda one: running[one][0]):  # of two problems the first one
                number, bundle = running.pop(future)
                results[number] = future.result()
                for task, done in zip(bundle, results[number], strict=True):
                    on_done(task, done)
    except BrokenProcessPool:
        raise CorpusError(
            f"a worker process died (killed, or out of memory) after {sum(map(len, results.values())):,} tasks; run "
            f"the same command again, it goes on with what is done, or give fewer --workers"
        ) from None
    finally:
        for future in running:
            future.cancel()


def bundles(tasks: Iterable[TaskT], size_of: Callable[[TaskT], int]) -> Iterator[list[TaskT]]:
    """Yield tasks in order, in lists that end with `BUNDLE_TASKS` or where they reach `BUNDLE_BYTES`."""
    bundle: list[TaskT] = []
    held = 0
    for task in tasks:
        bundle.append(task)
        held += size_of(task)
        if held >= BUNDLE_BYTES or len(bundle) == BUNDLE_TASKS:
            yield bundle
            bundle, held = [], 0
    if bundle:
        yield bundle


def _work_on(work: Callable[[TaskT], DoneT], bundle: list[TaskT]) -> list[DoneT]:
    return [work(task) for task in bundle]
