"""Where the loader is, from time to time, so that any batch can be traced from close by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from mixstream.callbacks.logs import JsonLines
from mixstream.loader import MixtureLoader
from mixstream.loader.positions import PositionLine, line_of, plan_digest
from mixstream.loader.trace.lines import SortedLines


class Positions(Callback):
    """Writes positions.jsonl: a line where a run begins or goes on otherwise (plan, processes), and at checkpoints."""

    def __init__(self, loader: MixtureLoader, interval_batches: int, path: Path) -> None:
        """Watch `loader`; note every `interval_batches`, where checkpoints are made."""
        self._loader = loader
        self._interval_batches = interval_batches
        self._path = path
        self._lines = JsonLines(path)
        self._digest = plan_digest(loader.plan)
        self._num_lines = 0
        self._leg = 0

    def fit_start(self, state: State, logger: Logger) -> None:
        """Cut the log back to where the run goes on; begin another leg where its plan is another one.

        Raises:
            FormatError: its last line is not one of such a log.
        """
        kept = self._lines.cut_to(self._num_lines)
        last = self._last() if dist.get_global_rank() == 0 else None
        found = [(kept, None if last is None else (last.leg, last.plan, last.ranks))]
        dist.broadcast_object_list(found)  # what every rank puts into the checkpoint
        self._num_lines, noted = found[0]
        if noted is not None:
            self._leg = noted[0] + (noted[1] != self._digest)
        if noted != (self._leg, self._digest, dist.get_world_size()):
            self._note()

    def batch_end(self, state: State, logger: Logger) -> None:
        """Note where the loader is, if a checkpoint is made after this batch."""
        if int(state.timestamp.batch) % self._interval_batches == 0:
            self._note()

    def state_dict(self) -> dict[str, Any]:
        """Return how many lines there are."""
        return {"num_lines": self._num_lines}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after so many lines."""
        self._num_lines = state["num_lines"]

    def _note(self) -> None:
        line = line_of(self._loader.state_dict(), self._digest, self._leg, dist.get_world_size())
        self._lines.append(json.loads(line.model_dump_json()))
        self._num_lines += 1

    def _last(self) -> PositionLine | None:
        log = SortedLines(self._path)
        return log.parse(log.before(log.end), PositionLine) if log.end else None
