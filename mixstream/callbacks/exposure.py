"""What a run has been shown: training loss, share and repeats by stream."""

from __future__ import annotations

import torch
from composer.core import Callback, State
from composer.loggers import Logger

from mixstream.callbacks.rows import check_rows, over_ranks, sum_by_source
from mixstream.loader import MixtureLoader
from mixstream.mixture.apportion import UNIT
from mixstream.mixture.ledger import Ledger


class Exposure(Callback):
    """Logs, every `interval_batches`, for each stream: its mean training loss and its share of the draws
    since the last time (``read``), the share asked for now (``asked``), and its repeats so far.
    """

    def __init__(self, loader: MixtureLoader, interval_batches: int) -> None:
        """Watch `loader`."""
        self._loader = loader
        self._interval_batches = interval_batches
        self._names = loader.plan.streams
        self._sums = torch.zeros(2, len(self._names), dtype=torch.float64)
        self._last: Ledger | None = None

    def fit_start(self, state: State, logger: Logger) -> None:
        """Count from where the run starts or goes on."""
        self._last = self._loader.ledger()

    def after_loss(self, state: State, logger: Logger) -> None:
        """Add a microbatch's row losses to their streams'."""
        losses = check_rows(state.loss, state.batch)
        self._sums += sum_by_source(losses, state.batch["stream"], len(self._names))

    def batch_end(self, state: State, logger: Logger) -> None:
        """Log, if it is time."""
        if int(state.timestamp.batch) % self._interval_batches:
            return
        sums, counts = over_ranks(self._sums, state)
        self._sums.zero_()
        ledger, last = self._loader.ledger(), self._last
        assert last is not None, "fit_start comes first"
        self._last = ledger
        read = (ledger.drawn - last.drawn) / max(1, int((ledger.drawn - last.drawn).sum()))
        repeats = ledger.drawn / self._loader.plan.sizes
        metrics = {}
        for i, name in enumerate(self._names):
            metrics[f"exposure/asked/{name}"] = float(ledger.shares[i] / UNIT)
            metrics[f"exposure/read/{name}"] = float(read[i])
            metrics[f"exposure/repeats/{name}"] = float(repeats[i])
            if counts[i]:
                metrics[f"exposure/loss/{name}"] = float(sums[i] / counts[i])
        logger.log_metrics(metrics)
