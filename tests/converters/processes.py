"""Conversions as processes of their own: started, killed, looked after."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited for too long"
        time.sleep(0.01)


def children_of(process: int) -> set[int]:
    """Return the processes below another one that are alive, but for what only tracks resources."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if state not in "ZX" and b"resource_tracker" not in (path.parent / "cmdline").read_bytes():
                parents[int(path.parent.name)] = int(parent)
    found: set[int] = set()
    while more := {own for own, parent in parents.items() if (parent == process or parent in found)} - found:
        found |= more
    return found


def is_alive(process: int) -> bool:
    """Return whether a process is there, and no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def command(*arguments: object) -> list[str]:
    """Return the command line of a conversion."""
    return [sys.executable, "-m", "mixstream.cli", "convert", *map(str, arguments)]


def _heed_ctrl_c() -> None:
    """Undo that a shell has what runs in the background ignore it, and all that is started from there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def started(*arguments: object, **named) -> Iterator[subprocess.Popen[str]]:
    """Start a conversion, in a process group of its own; with its workers it is gone when the block ends."""
    process = subprocess.Popen(
        command(*arguments),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_heed_ctrl_c,
        **named,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=10)


def run(*arguments: object, **named) -> subprocess.CompletedProcess[str]:
    """Run a conversion to its end."""
    return subprocess.run(command(*arguments), text=True, capture_output=True, timeout=60, check=False, **named)
