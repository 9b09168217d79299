"""exposure.parquet, kept by a run: what was read of every shard, up to its newest checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from mixstream.formats import write_whole
from mixstream.loader import ExposureLedger, MixtureLoader


class ExposureFile(Callback):
    """Writes exposure.parquet, whole, as training begins, at checkpoints and at the end.

    The checkpoint holds the ledger, so that a run that goes on from any of them goes on with its counts, and what was
    written after it is replaced.
    """

    def __init__(self, loader: MixtureLoader, path: Path, interval_batches: int) -> None:
        """Count what `loader` hands out; write to `path` every `interval_batches`."""
        self._loader = loader
        self._ledger = ExposureLedger(loader)
        self._path = path
        self._interval_batches = interval_batches
        self._trained = 0  # samples, of all ranks
        self._is_loaded = False

    def fit_start(self, state: State, logger: Logger) -> None:
        """Go on where the loader is; a run that an older version began is counted from here on.

        Raises:
            StateError: the checkpoint's ledger is not of the loader's batch.
        """
        self._trained = self._loader.samples
        if not self._is_loaded:
            self._ledger.skip()
        self._write()

    def batch_end(self, state: State, logger: Logger) -> None:
        """Note that the batch was trained; write, if there is to be a checkpoint."""
        self._trained = self._loader.samples
        if int(state.timestamp.batch) % self._interval_batches == 0:
            self._write()

    def fit_end(self, state: State, logger: Logger) -> None:
        """Write what the whole run has read."""
        self._write()

    def state_dict(self) -> dict[str, Any]:
        """Return the ledger of what was trained, as one string, the same on every rank."""
        return {"ledger": self._ledger.state_dict(self._trained)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting; the loader's state may be loaded before or after."""
        self._ledger.load_state_dict(state["ledger"])
        self._is_loaded = True

    def _write(self) -> None:
        content = self._ledger.content(self._trained)  # on every rank: the checkpoint's state is made of it
        if dist.get_global_rank() == 0:
            write_whole(self._path, content)
