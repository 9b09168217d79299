"""Logs of a run, one JSON object a line, that hold just what happened: cut back at a resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from composer.core import State
from composer.loggers import Logger, LoggerDestination
from composer.utils import dist

from mixstream.formats import write_whole


class JsonLines:
    """A file of JSON objects, one a line; only rank 0 writes."""

    def __init__(self, path: Path) -> None:
        """Append to `path`."""
        self._path = path
        self._writes = dist.get_global_rank() == 0

    def append(self, line: dict[str, Any]) -> None:
        """Write one line and hand it to the operating system."""
        if self._writes:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def cut_to(self, num_lines: int) -> int:
        """Drop all but the first `num_lines` (what was logged after the checkpoint comes again), and damaged ones.

        Returns:
            How many are left; on other ranks than 0, `num_lines`.
        """
        if not self._writes:
            return num_lines
        old = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
        kept = [line for line in old[:num_lines] if _is_whole(line)]
        write_whole(self._path, b"".join(kept).decode())
        return len(kept)


def _is_whole(line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


class RunLog(LoggerDestination):
    """metrics.jsonl: everything that Composer's loggers are given, but for the clock.

    A line's batch is the number of batches trained, the one that it tells of included: Composer itself
    numbers the loss of a batch one less than what callbacks log at its end.
    """

    def __init__(self, path: Path) -> None:
        """Write to `path`."""
        self._lines = JsonLines(path)
        self._num_lines = 0
        self._batch = 0

    def fit_start(self, state: State, logger: Logger) -> None:
        """Cut the log back to what it was at the checkpoint; a new run begins it."""
        self._batch = int(state.timestamp.batch)
        self._num_lines = self._lines.cut_to(self._num_lines)

    def batch_start(self, state: State, logger: Logger) -> None:
        """Note the batch that what follows tells of."""
        self._batch = int(state.timestamp.batch) + 1

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Append one line: the batch and the numbers."""
        numbers = {
            key: value.item() if isinstance(value, torch.Tensor) else value
            for key, value in metrics.items()
            if not key.startswith("time/")
        }
        if numbers:
            self._lines.append({"batch": self._batch, "metrics": numbers})
            self._num_lines += 1

    def state_dict(self) -> dict[str, Any]:
        """Return how many lines there are."""
        return {"num_lines": self._num_lines}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after so many lines."""
        self._num_lines = state["num_lines"]
