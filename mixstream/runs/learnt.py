"""What runs have learnt: each one's weights averaged over its batches, and the mean and spread over several."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mixstream.methods.learning.averaging import Aggregate, History, average_ema, average_last, average_weights
from mixstream.methods.learning.history import read_history
from mixstream.mixture.plan import named
from mixstream.mixture.simplex import Float64
from mixstream.mixture.weights import save_weights
from mixstream.runs.sections import Average


def learnt_by(run: Path, average: Average, num_batches: int) -> dict[str, float]:
    """Return the weights that a run learnt, averaged over its batches.

    Args:
        run: its folder, with weights.jsonl.
        average: over which batches.
        num_batches: batches that it read.

    Raises:
        FormatError: weights.jsonl is missing or is not one.
        WeightsError: the run has not so many batches.
    """
    updates = read_history(run / "weights.jsonl")
    names = tuple(updates[0].weights)
    history = [(update.at_batch, np.array([update.weights[name] for name in names])) for update in updates]
    return dict(named(_mean(history, average, num_batches), names))


def check_average(average: Average, num_batches: int) -> None:
    """Refuse to average over batches that a run of so many will not have.

    Raises:
        WeightsError: with the numbers.
    """
    _mean([(0, np.ones(1))], average, num_batches)


def _mean(history: History, average: Average, num_batches: int) -> Float64:
    if average == "all":
        return average_weights(history, 0, num_batches)
    if average.last is not None:
        return average_weights(history, round(num_batches * (1 - average.last)), num_batches)
    if average.last_batches is not None:
        return average_last(history, num_batches, average.last_batches)
    assert average.half_life_batches is not None, "one of the three is given"
    return average_ema(history, num_batches, average.half_life_batches)


def save_aggregate(path: Path, learnt: Aggregate, origin: str) -> None:
    """Write a weights.json of what runs learnt together, with its spread where there are several."""
    save_weights(path, learnt.weights, origin, learnt.std)
