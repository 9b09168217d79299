"""Weights learnt online under Composer: a signal, a method, bounds, and the running loader follows.

The loader samples by the weights and the loss is the plain mean; or the loader keeps its plan's weights and the loss
carries the new ones (`mixstream.callbacks.weighting`). Only one of the two may.
"""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from composer.core import Callback, State
from composer.loggers import Logger
from composer.utils import dist

from mixstream.callbacks.logs import JsonLines
from mixstream.callbacks.signals import Measured, SignalSource
from mixstream.callbacks.weighting import LossWeights
from mixstream.errors import ScoreError, StateError, WeightsError
from mixstream.loader import MixtureLoader
from mixstream.methods.learning.history import WeightsUpdate
from mixstream.methods.learning.learner import Learner
from mixstream.metrics import ETA, PROBE_LOSS, REFUSED, SCORE, SECONDS, WEIGHT, of_stream
from mixstream.mixture.plan import named
from mixstream.mixture.position import Position
from mixstream.mixture.simplex import Float64


@dataclass(frozen=True)
class Timing:
    """When weights are learnt.

    Attributes:
        interval_batches: batches between updates.
        warmup_batches: no update before this many batches.
        eta: learning rate of the updates; None: the model's.
        max_refused: updates in a row that may be refused, since what was measured is not finite; one more ends the run.
    """

    interval_batches: int
    warmup_batches: int = 0
    eta: float | None = None
    max_refused: int = 5


class OnlineWeights(Callback):
    """Learns the streams' weights while a model trains, and gives them to its loader, or to its loss.

    Every `interval_batches` it measures the method's signal, lets the method update the weights
    (`mixstream.methods`), lays floors and caps on them, and hands them to the loader, which says at which batch they
    act. Every update goes to Composer's loggers and, as one line, to weights.jsonl. The weights, the method's state
    and the probes' position are in Composer's checkpoint.
    """

    def __init__(
        self,
        loader: MixtureLoader,
        name: str,
        learner: Learner,
        signal: SignalSource,
        targets: Float64,
        timing: Timing,
        log: Path,
        loss_weights: LossWeights | None = None,
    ) -> None:
        """Learn weights for `loader`.

        Args:
            loader: the training loader.
            name: of the method, for the logs: what it measured is logged as ``NAME/...``.
            learner: decides.
            signal: measures what the method needs.
            targets: (K,) coefficient of each stream's loss in what is to fall; 1 each in the papers.
            timing: when.
            log: path of weights.jsonl.
            loss_weights: carries the weights, if the loader is not to: then it keeps those of its plan.

        Raises:
            WeightsError: the signal is not what the method needs.
        """
        if learner.needs != signal.signal:
            raise WeightsError(f"{name} needs the signal {learner.needs!r}, but {signal.signal!r} is measured")
        self._loader = loader
        self._name = name
        self._learner = learner
        self._signal = signal
        self._targets = targets
        self._timing = timing
        self._lines = JsonLines(log)
        self._loss_weights = loss_weights
        self._acts_from = 0  # the global batch, of the weights that were given last
        self._num_lines = 1
        self._num_refused = 0  # in a row
        if loss_weights is not None:
            loss_weights.weights = learner.acting
        else:  # until the first update what was planned is read, whatever floors and stages make of it then
            learner.acting = loader.plan.weights

    def fit_start(self, state: State, logger: Logger) -> None:
        """Cut the log back to where the run goes on; a new run starts it with its first weights.

        Raises:
            StateError: it has lost updates that the checkpoint knows of.
            WeightsError: another callback weighs the loss, or its own is not there to do it.
        """
        others = [one for one in state.callbacks if isinstance(one, LossWeights) and one is not self._loss_weights]
        if others:
            raise WeightsError(
                "LossWeights weighs the loss of a run whose sampling follows learnt weights: a source would count "
                "twice; leave it out, or give it to OnlineWeights as its loss_weights"
            )
        later = state.callbacks[state.callbacks.index(self) + 1 :]
        if self._loss_weights is not None and self._loss_weights not in later:
            raise WeightsError(
                "the loss_weights of OnlineWeights are not among the Trainer's callbacks after it, so the loss would "
                "be the plain mean, or what is measured the weighted one; give callbacks=[learner, loss_weights]"
            )
        if state.timestamp.batch == 0:
            self._lines.cut_to(0)
            self._log(0)
            return
        kept = int(_of_rank_0(np.array([self._lines.cut_to(self._num_lines)]))[0])  # no rank goes on alone
        if kept < self._num_lines:
            raise StateError(
                f"weights.jsonl has {kept} whole lines, but the checkpoint is of update {self._num_lines - 1}, the "
                f"{self._num_lines}th line; bring the file back, or begin the run anew in another folder"
            )

    def after_loss(self, state: State, logger: Logger) -> None:
        """Let the signal see a training microbatch."""
        self._signal.after_loss(state)

    def batch_end(self, state: State, logger: Logger) -> None:
        """Update the weights, if it is time and the run still has batches for them to act on.

        Raises:
            ScoreError: what was measured has not been finite too often in a row.
        """
        self._signal.batch_end(state)
        batch, timing, plan = int(state.timestamp.batch), self._timing, self._loader.plan
        if batch % timing.interval_batches or batch >= plan.num_batches:
            return
        if batch < timing.warmup_batches:
            if self._learner.let_join(batch):  # nothing is learnt yet, but stages are kept
                self._give(batch)
                self._log(batch, Measured(None))
            return
        started = time.perf_counter()
        measured = self._measure(state, batch)
        eta = float(state.optimizers[0].param_groups[0]["lr"]) if timing.eta is None else timing.eta
        drawn = self._loader.ledger().drawn
        try:
            wish = self._learner.wish(batch, plan.num_batches, eta, drawn, plan.sizes, measured.signal)
        except ScoreError as problem:
            if self._learner.let_join(batch):
                self._give(batch)
            self._refuse(batch, measured, str(problem))
        else:
            self._num_refused = 0
            self._learner.follow(batch, _of_rank_0(wish))
            self._give(batch)
            self._log(batch, measured, eta)
        seconds = time.perf_counter() - started
        told = {SECONDS: seconds, ETA: eta, REFUSED: float(self._num_refused)} | measured.metrics
        logger.log_metrics({f"{self._name}/{key}": value for key, value in told.items()} | self._by_stream(measured))

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next updates depend on, as one JSON string."""
        content = {
            "streams": self._loader.plan.streams,
            "method": self._name,
            "learner": self._learner.state_dict(),
            "signal": self._signal.state_dict(),
            "acts_from": self._acts_from,
            "num_lines": self._num_lines,
            "num_refused": self._num_refused,
        }
        return {"online": json.dumps(content)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint.

        Raises:
            StateError: it was made over other streams, by another method, or over other probes.
        """
        content = json.loads(state["online"])
        if tuple(content["streams"]) != self._loader.plan.streams:
            raise StateError(
                f"the checkpoint's weights are of {content['streams']}, the plan's streams are "
                f"{list(self._loader.plan.streams)}; resume with the plan it was saved under"
            )
        if content["method"] != self._name:
            raise StateError(
                f"the checkpoint's weights were learnt by {content['method']}, not by {self._name}; resume with that "
                f"method, or begin a run anew with these weights as its first ones"
            )
        self._learner.load_state_dict(content["learner"])
        self._signal.load_state_dict(content["signal"])
        self._acts_from = content["acts_from"]
        self._num_lines = content["num_lines"]
        self._num_refused = content["num_refused"]
        if self._loss_weights is not None:
            self._loss_weights.weights = self._learner.acting

    def _measure(self, state: State, batch: int) -> Measured:
        """Return what is measured now, the same on every rank; of streams that are not there it says nothing."""
        measured = self._signal.measure(state, self._targets * (self._learner.presence(batch) > 0))
        if measured.signal is None:
            return measured
        # The ranks' sums may differ in their last bits.
        signal = self._learner.neutral(batch, _of_rank_0(measured.signal))
        return Measured(signal, measured.losses, measured.metrics)

    def _give(self, batch: int) -> None:
        """Hand the weights on, and note from which global batch they act."""
        if self._loss_weights is None:
            self._acts_from = self._loader.set_weights(named(self._learner.acting, self._loader.plan.streams))
        else:
            self._loss_weights.weights, self._acts_from = self._learner.acting, batch

    def _refuse(self, batch: int, measured: Measured, problem: str) -> None:
        """Report what is not finite; the old weights stay.

        Raises:
            ScoreError: it is too often in a row.
        """
        self._num_refused += 1
        self._log(batch, measured, refused=problem)
        if self._num_refused > self._timing.max_refused:
            raise ScoreError(
                f"batch {batch}: {self._num_refused} updates in a row were refused ({problem}); lower the learning "
                f"rate, or look for the stream that it comes from in weights.jsonl"
            )
        if dist.get_global_rank() == 0:
            warnings.warn(f"batch {batch}: no new weights: {problem}", RuntimeWarning, stacklevel=2)

    def _log(
        self,
        batch: int,
        measured: Measured | None = None,
        eta: float | None = None,
        refused: str | None = None,
    ) -> None:
        line = WeightsUpdate(
            method=self._name,
            update=0 if measured is None else self._num_lines,
            batch=batch,
            at_batch=self._acts_from,
            weights=dict(named(self._learner.acting, self._loader.plan.streams)),
            scores=self._told(None if measured is None else measured.signal),
            probe_losses=self._told(None if measured is None else measured.losses),
            eta=eta,
            refused=refused,
            apply="sampling" if self._loss_weights is None else "loss",
            position=Position.of(self._loader.ledger()),
        )
        self._lines.append(line.model_dump())
        if measured is not None:
            self._num_lines += 1

    def _told(self, values: Float64 | None) -> dict[str, float | None] | None:
        """Return values by stream; None for what is not finite, which JSON cannot say."""
        if values is None:
            return None
        told = zip(self._loader.plan.streams, values.tolist(), strict=True)
        return {name: value if np.isfinite(value) else None for name, value in told}

    def _by_stream(self, measured: Measured) -> dict[str, float]:
        columns = {
            WEIGHT: self._learner.acting,
            f"{self._name}/{SCORE}": measured.signal,
            f"{self._name}/{PROBE_LOSS}": measured.losses,
        }
        return {
            of_stream(what, name): float(value)
            for what, values in columns.items()
            if values is not None
            for name, value in zip(self._loader.plan.streams, values, strict=True)
        }


def _of_rank_0(values: Float64) -> Float64:
    """Return rank 0's values on every rank."""
    told = [values.tolist()]
    dist.broadcast_object_list(told, src=0)
    return np.array(told[0])
