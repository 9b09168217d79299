"""XDoGE under Composer: scores from probe batches, new weights into the running loader.

The loader samples by the weights and the loss is the plain mean: a source sampled with probability p and
weighted by w in the loss would train on p x w, so only one of the two may carry alpha.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from mixstream.callbacks.logs import JsonLines
from mixstream.callbacks.scores import Scores, backward_scores
from mixstream.errors import StateError
from mixstream.loader import MixtureLoader
from mixstream.methods.history import WeightsUpdate
from mixstream.methods.xdoge import update_weights
from mixstream.mixture.plan import named
from mixstream.mixture.simplex import Float64

ScoreForm = Literal["crossfit", "same_batch"]


class XDoGE(Callback):
    """Learns the streams' weights while a proxy model trains, and gives them to its loader.

    Every `interval_batches` it draws one or two balanced probe batches, scores every stream by gradient
    alignment, updates the weights (`mixstream.methods.xdoge`) with eta = the scheduler's learning rate, and
    hands them to the loader, which says at which batch they act. Every update goes to Composer's loggers
    and, as one line, to weights.jsonl. The weights and the probe's position are in Composer's checkpoint.
    """

    def __init__(
        self,
        loader: MixtureLoader,
        probe: MixtureLoader,
        log: Path,
        interval_batches: int,
        mu: float,
        warmup_batches: int = 0,
        score: ScoreForm = "crossfit",
    ) -> None:
        """Learn weights for `loader`.

        Args:
            loader: the training loader; its plan's weights are the first ones, its floor is XDoGE's gamma.
            probe: a loader of a uniform plan over the same streams, with some rows of each a batch.
            log: path of weights.jsonl.
            interval_batches: batches between updates.
            mu: step of the mirror descent.
            warmup_batches: no update before this many batches.
            score: ``crossfit``: gradients from two independent probes; ``same_batch``: the papers' form.

        Raises:
            StateError: the probe reads other streams than the loader.
        """
        if probe.plan.streams != loader.plan.streams:
            raise StateError(f"the probe reads {probe.plan.streams}, the loader {loader.plan.streams}")
        self._loader = loader
        self._probe = probe
        self._lines = JsonLines(log)
        self._interval_batches = interval_batches
        self._mu = mu
        self._warmup_batches = warmup_batches
        self._score: ScoreForm = score
        self._weights: Float64 = loader.plan.weights
        self._num_updates = 0

    def fit_start(self, state: State, logger: Logger) -> None:
        """Cut the log back to where the run goes on; a new run starts it with the plan's weights.

        Raises:
            StateError: it has lost updates that the checkpoint knows of.
        """
        if state.timestamp.batch == 0:
            self._lines.cut_to(0)
            self._log(batch=0, at_batch=0)
        else:
            kept = self._lines.cut_to(1 + self._num_updates)
            if kept <= self._num_updates:
                raise StateError(
                    f"weights.jsonl has {kept} whole lines, but the checkpoint is of update {self._num_updates}, the "
                    f"{1 + self._num_updates}th line; bring the file back, or begin the run anew in another folder"
                )

    def batch_end(self, state: State, logger: Logger) -> None:
        """Update the weights, if it is time and the run still has batches for them to act on."""
        batch = int(state.timestamp.batch)
        if batch % self._interval_batches or batch < self._warmup_batches:
            return
        if batch >= self._loader.plan.num_batches:
            return
        started = time.perf_counter()
        measured = self._measure(state)
        eta = float(state.schedulers[0].get_last_lr()[0])
        floor = self._loader.plan.floor
        self._weights = _same_on_all_ranks(
            update_weights(self._weights, measured.scores, eta=eta, mu=self._mu, floor=floor)
        )
        self._num_updates += 1
        at_batch = self._loader.set_weights(named(self._weights, self._loader.plan.streams))
        seconds = time.perf_counter() - started
        self._log(batch, at_batch, measured, eta)
        logger.log_metrics({"xdoge/seconds": seconds, "xdoge/eta": eta} | self._metrics(measured))

    def state_dict(self) -> dict[str, Any]:
        """Return the weights, the number of updates and the probe's position, as one JSON string."""
        content = {
            "streams": self._loader.plan.streams,
            "weights": self._weights.tolist(),
            "num_updates": self._num_updates,
            "probe": self._probe.state_dict(),
        }
        return {"xdoge": json.dumps(content)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint.

        Raises:
            StateError: it was made over other streams or another probe.
        """
        content = json.loads(state["xdoge"])
        if tuple(content["streams"]) != self._loader.plan.streams:
            raise StateError(
                f"the checkpoint's weights are of {content['streams']}, the plan's streams are "
                f"{list(self._loader.plan.streams)}; resume with the plan it was saved under"
            )
        self._weights = np.array(content["weights"])
        self._num_updates = content["num_updates"]
        self._probe.load_state_dict(content["probe"])

    def _measure(self, state: State) -> Scores:
        batches = iter(self._probe)
        aggregate = next(batches) if self._score == "crossfit" else None
        return backward_scores(state, next(batches), aggregate, len(self._weights))

    def _log(self, batch: int, at_batch: int, measured: Scores | None = None, eta: float | None = None) -> None:
        streams = self._loader.plan.streams
        line = WeightsUpdate(
            update=self._num_updates,
            batch=batch,
            at_batch=at_batch,
            weights=dict(named(self._weights, streams)),
            scores=dict(named(measured.scores, streams)) if measured else None,
            probe_losses=dict(named(measured.losses, streams)) if measured else None,
            eta=eta,
            mu=self._mu,
        )
        self._lines.append(line.model_dump())

    def _metrics(self, measured: Scores) -> dict[str, float]:
        columns = {"weight": self._weights, "score": measured.scores, "probe_loss": measured.losses}
        return {
            f"xdoge/{what}/{name}": float(value)
            for what, values in columns.items()
            for name, value in zip(self._loader.plan.streams, values, strict=True)
        }


def _same_on_all_ranks(weights: Float64) -> Float64:
    """Return rank 0's weights: the ranks' sums may differ in their last bits."""
    told = [weights.tolist()]
    dist.broadcast_object_list(told, src=0)
    return np.array(told[0])
