"""What a run has been shown: training loss, share and repeats by stream."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import torch
from composer.core import Callback, State
from composer.loggers import Logger

from mixstream.callbacks.rows import check_rows, over_ranks, sum_by_source
from mixstream.errors import ScoreError
from mixstream.loader import MixtureLoader
from mixstream.metrics import LOSS, PROPORTION, READ, REPEAT, of_stream
from mixstream.mixture.apportion import UNIT

UNKNOWN = -1  # draws of a stream that a checkpoint does not know


class Exposure(Callback):
    """Logs, every `interval_batches`, what each stream gave since the last time and gives now.

    For each stream: its mean training loss and its share of the draws since the last time, the share asked for
    now, and its repeats so far (`mixstream.metrics` names them).
    """

    def __init__(self, loader: MixtureLoader, interval_batches: int) -> None:
        """Watch `loader`."""
        self._loader = loader
        self._interval_batches = interval_batches
        self._names = loader.plan.streams
        self._batch_sums = self._nothing()  # (2, K) losses and rows: of this batch and rank,
        self._sums = self._nothing()  # and of all ranks since the last line
        self._drawn = np.zeros(len(self._names), dtype=np.int64)  # when the last line was logged

    def fit_start(self, state: State, logger: Logger) -> None:
        """Begin with what the loader has given so far of streams that the checkpoint tells nothing of."""
        self._drawn = np.where(self._drawn < 0, self._loader.ledger().drawn, self._drawn)

    def after_loss(self, state: State, logger: Logger) -> None:
        """Add a microbatch's row losses to their streams'."""
        losses = check_rows(state.loss, state.batch)
        self._batch_sums += sum_by_source(losses, state.batch["stream"], len(self._names))

    def batch_end(self, state: State, logger: Logger) -> None:
        """Add up over ranks; log, if it is time.

        Raises:
            ScoreError: a stream's loss is not a finite number any more.
        """
        self._sums += over_ranks(self._batch_sums, state)
        self._batch_sums = self._nothing()
        lost = [name for name, loss in zip(self._names, self._sums[0].tolist(), strict=True) if not math.isfinite(loss)]
        if lost:
            raise ScoreError(
                f"batch {int(state.timestamp.batch)}: the training loss of {', '.join(lost[:5])} is not a finite "
                f"number; the run diverged, begin it anew in another folder with a lower learning_rate"
            )
        if int(state.timestamp.batch) % self._interval_batches == 0:
            self._log(logger)

    def fit_end(self, state: State, logger: Logger) -> None:
        """Log the batches since the last line, so that the last one tells of the whole run."""
        if self._sums[1].sum() > 0:
            self._log(logger)

    def state_dict(self) -> dict[str, Any]:
        """Return what was added up since the last line, by stream, as one JSON string."""
        columns = zip(*self._sums.tolist(), self._drawn.tolist(), strict=True)
        return {"exposure": json.dumps(dict(zip(self._names, columns, strict=True)))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on adding up; streams may have come and gone."""
        content = json.loads(state["exposure"])
        losses, rows, drawn = zip(*(content.get(name, (0.0, 0.0, UNKNOWN)) for name in self._names), strict=True)
        self._sums = torch.tensor([losses, rows], dtype=torch.float64)
        self._drawn = np.array(drawn, dtype=np.int64)

    def _log(self, logger: Logger) -> None:
        logger.log_metrics(self._metrics())
        self._sums = self._nothing()
        self._drawn = self._loader.ledger().drawn

    def _metrics(self) -> dict[str, float]:
        ledger = self._loader.ledger()
        drawn = ledger.drawn - self._drawn
        sums, rows = self._sums
        columns = {
            PROPORTION: ledger.shares / UNIT,
            READ: drawn / max(1, int(drawn.sum())),
            REPEAT: ledger.drawn / self._loader.plan.sizes,
        }
        metrics = {
            of_stream(what, name): float(value)
            for what, values in columns.items()
            for name, value in zip(self._names, values, strict=True)
        }
        losses = {of_stream(LOSS, name): float(sums[i] / rows[i]) for i, name in enumerate(self._names) if rows[i]}
        return metrics | losses

    def _nothing(self) -> torch.Tensor:
        return torch.zeros(2, len(self._names), dtype=torch.float64)
