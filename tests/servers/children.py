"""Child processes that cannot outlive their parent.

`python -m servers.children COMMAND...` becomes COMMAND, and the kernel kills it when its parent ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_SECONDS = 20
ANSWER_SECONDS = 60
TESTS = Path(__file__).parent.parent
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>


def die_with_parent() -> None:
    """Let the kernel kill this process when the thread that started it ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_DEATH_SIGNAL, signal.SIGKILL)


def die_with_stdin() -> None:
    """End this process when its standard input does: what is left where the kernel does not help."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


class Child:
    """A running child that answers lines of its standard output."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = command
        self.lock = threading.Lock()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=TESTS,
            start_new_session=True,
        )

    def line(self, seconds: float) -> str:
        """Return the next line of its output.

        Raises:
            RuntimeError: the child ended, or told nothing in so many seconds.
        """
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            raise RuntimeError(f"{self.command} told nothing in {seconds} s")
        if line := self.process.stdout.readline():
            return line
        raise RuntimeError(f"{self.command} ended with code {self.process.wait(5)}; its stderr says why")

    def ask(self, **command: Any) -> Any:
        """Write a command to its input and return what it answers; both are lines of JSON."""
        assert self.process.stdin is not None
        with self.lock:
            self.process.stdin.write(json.dumps(command) + "\n")
            self.process.stdin.flush()
            return json.loads(self.line(ANSWER_SECONDS))

    def kill(self) -> None:
        """Kill it and all that it started, and wait for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@contextmanager
def child(command: Sequence[str]) -> Iterator[Child]:
    """Run a command, and kill it and all that it started at the end of the block.

    Start it from a thread that lives as long as the block: the kernel watches the thread, not the process.
    """
    running = Child(command)
    try:
        yield running
    finally:
        running.kill()


def module(name: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this package."""
    return [sys.executable, "-m", f"servers.{name}", *arguments]


if __name__ == "__main__":
    die_with_parent()
    os.execvp(sys.argv[1], sys.argv[1:])
