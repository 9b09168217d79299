"""How fast a run goes: tokens and batches a second, and how long training waited for data."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from composer.core import Callback, State
from composer.loggers import Logger

from mixstream.callbacks.rows import over_ranks
from mixstream.loader import MixtureLoader
from mixstream.metrics import BATCHES_PER_SECOND, RUN_SECONDS, TOKENS_PER_SECOND, WAIT_SECONDS


class Waiting(Protocol):
    """What training waits for besides its batches: a reader of probes, or of held-out splits."""

    @property
    def waited_seconds(self) -> float:
        """Seconds that training waited for it."""


class Pace(Callback):
    """Logs, every `interval_batches` and at the end, how fast the run goes and how long it waited for data.

    Waiting is all the time from asking for a batch until every rank has its part, wherever shards are, and the time
    that probes and held-out splits waited for shards. It and the run's time are sums over ranks, and go on after a
    checkpoint; what is told a second is of the batches since the last line, all that a run does between them included.
    """

    def __init__(self, loader: MixtureLoader, others: Sequence[Waiting], interval_batches: int) -> None:
        """Watch training on `loader`, and `others` that it waits for; a run's last callback, so that it sees all."""
        self._loader = loader
        self._others = others
        self._interval_batches = interval_batches
        self._totals = torch.zeros(2, dtype=torch.float64)  # seconds waited and in all, of all ranks
        self._before = torch.zeros(2, dtype=torch.float64)  # of this process, when they were last added up
        self._waited = 0.0  # for batches
        self._line = (0.0, 0)  # seconds and batches since the last line
        self._asked = self._begun = self._batch_end = time.monotonic()

    def fit_start(self, state: State, logger: Logger) -> None:
        """Begin to count the run's time."""
        self._begun = self._batch_end = time.monotonic()

    def before_dataloader(self, state: State, logger: Logger) -> None:
        """Note when a batch is asked for."""
        self._asked = time.monotonic()

    def after_dataloader(self, state: State, logger: Logger) -> None:
        """Count the time until it was there."""
        self._waited += time.monotonic() - self._asked

    def batch_end(self, state: State, logger: Logger) -> None:
        """Add up over ranks; log, if it is time and the end does not come next."""
        self._add(state)
        batch, before = int(state.timestamp.batch), self._batch_end
        self._batch_end = time.monotonic()
        self._line = (self._line[0] + self._batch_end - before, self._line[1] + 1)
        if batch % self._interval_batches == 0 and batch < self._loader.ledger().end_batch:
            self._log(logger)

    def fit_end(self, state: State, logger: Logger) -> None:
        """Log what the whole run came to."""
        self._add(state)
        self._log(logger)

    def state_dict(self) -> dict[str, Any]:
        """Return the totals, and what was since the last line, as one JSON string."""
        return {"pace": json.dumps({"totals": self._totals.tolist(), "line": self._line})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on adding up."""
        content = json.loads(state["pace"])
        self._totals = torch.tensor(content["totals"], dtype=torch.float64)
        self._line = tuple(content["line"])

    def _add(self, state: State) -> None:
        waited = self._waited + sum(other.waited_seconds for other in self._others)
        now = torch.tensor([waited, time.monotonic() - self._begun], dtype=torch.float64)
        self._totals += over_ranks(now - self._before, state)
        self._before = now

    def _log(self, logger: Logger) -> None:
        waited, total = self._totals.tolist()
        metrics = {WAIT_SECONDS: waited, RUN_SECONDS: total}
        (seconds, batches), plan = self._line, self._loader.plan
        if batches:
            a_second = batches / max(seconds, 1e-9)
            tokens = a_second * plan.batch_size * plan.sequence_length
            metrics |= {TOKENS_PER_SECOND: tokens, BATCHES_PER_SECOND: a_second}
        logger.log_metrics(metrics)
        self._line = (0.0, 0)
