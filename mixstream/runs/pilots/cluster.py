"""Pilots on a Dask cluster: a task trains one, in a process of its own, which a worker that dies takes with it.

A worker has as many pilots at a time as it has threads, so start one a machine, or one a GPU:
``CUDA_VISIBLE_DEVICES=0 dask worker tcp://host:8786 --nthreads 1``. Dask has what a worker starts compute on one core;
to train on more of them, start the worker with ``OMP_NUM_THREADS=16``. All see the same files under the same paths.

A training ends when nobody waits for it any longer: the command was stopped, or another pilot failed.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from mixstream.errors import MissingExtraError, StateError
from mixstream.runs.folder import Result
from mixstream.runs.pilots.outcome import check_failed, waiting
from mixstream.runs.pilots.written import PilotsFolder

POLL_SECONDS = 0.5  # between looks at whether a training is still wanted
CLUSTER_SECONDS = 30  # that a scheduler may take to answer
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class Ended(NamedTuple):
    """How a pilot's process ended: its exit code, and the last line of what it complained of."""

    code: int
    complaint: str


def run_on_cluster(
    folder: PilotsFolder, address: str, on_end: Callable[[str, Result], None], keep_going: bool = False
) -> None:
    """Train all pilots that have not ended on a Dask cluster; what each prints is in OUT/logs/NAME.log.

    Args:
        folder: of the pilots.
        address: of the scheduler.
        on_end: called as each ends.
        keep_going: whether one that fails does not stop the others.

    Raises:
        MissingExtraError: `distributed` is not installed.
        StateError: there is no scheduler, or it is gone; or a pilot failed.
    """
    pilots = folder.read().pilots
    recipes = waiting(folder, pilots)
    if not recipes:
        return
    failed: dict[str, str] = {}
    client, distributed = _client(address)
    with client:
        paths = {name: (str(folder.recipe(name)), str(folder.logs / f"{name}.log")) for name in recipes}
        tasks = {client.submit(train_alone, *own, pure=False): name for name, own in paths.items()}
        try:
            for task in distributed.as_completed(tasks, loop=client.loop):
                name = tasks[task]
                complaint = _complaint(task, distributed)
                if complaint is None:
                    result = folder.run(name).read_result()
                    complaint = None if result is not None else "its worker sees another folder: no result came here"
                if complaint is not None:
                    failed[name] = f"{complaint} (log: {paths[name][1]})"
                    if not keep_going:
                        break
                elif result is not None:
                    on_end(name, result)
        except (CancelledError, distributed.comm.core.CommClosedError) as problem:
            raise StateError(f"--cluster {address}: the scheduler is gone ({problem}); start it, and {AGAIN}") from None
        finally:
            client.cancel(list(tasks))
    check_failed(failed, len(pilots))


AGAIN = "run the same command again, it goes on with what is done"


def _complaint(task: Any, distributed: Any) -> str | None:
    """Return why a task's pilot failed, None where it did not."""
    try:
        ended: Ended = task.result()
    except distributed.KilledWorker as problem:
        return f"{problem.last_worker.address} and others died at it (killed, or out of memory)"
    except OSError as problem:  # a folder that the worker does not see
        return f"cannot be started: {problem}"
    return None if ended.code == 0 else (ended.complaint or f"exit code {ended.code}")


def train_alone(recipe: str, log: str) -> Ended:
    """Train one pilot in a process of its own; a task of the cluster."""
    command = [sys.executable, "-m", "mixstream.cli", "train", recipe]
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with (
        Path(log).open("w", encoding="utf-8") as file,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, preexec_fn=_end_with_parent
        ) as process,
    ):
        while process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
            if not _is_wanted():
                process.kill()  # its newest checkpoint is whole, as after any other kill
    if process.returncode == 0:
        return Ended(0, "")
    lines = Path(log).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return Ended(process.returncode, lines[-1].removeprefix("error: ").removeprefix("run 'base': ") if lines else "")


def _is_wanted() -> bool:
    """Return whether the cluster still waits for the task that this thread runs; Dask never stops one by itself."""
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:  # no task
        return True
    task = worker.state.tasks.get(worker.get_current_task())
    return task is not None and task.state in ("executing", "long-running")


def _end_with_parent() -> None:
    """Have the system end this process when the worker dies: another one may be given its pilot at once."""
    if _libc is not None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _client(address: str) -> tuple[Any, Any]:
    try:
        import distributed
    except ImportError:
        raise MissingExtraError(
            "--cluster needs dask.distributed; install it with: pip install 'mixstream-llm[cluster]'"
        ) from None
    try:
        client: Any = distributed.Client(address, timeout=CLUSTER_SECONDS, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError, ValueError) as problem:
        raise StateError(
            f"--cluster {address}: no Dask scheduler answers there ({problem}); start one with `dask scheduler`"
        ) from None
    return client, distributed
