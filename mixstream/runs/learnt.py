"""What runs have learnt: each one's weights averaged over its batches, and the mean and spread over several."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mixstream.methods.averaging import Aggregate, average_ema, average_last, average_weights
from mixstream.methods.history import read_history
from mixstream.mixture.plan import named
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
    if average == "all":
        mean = average_weights(history, 0, num_batches)
    elif average.last is not None:
        mean = average_weights(history, round(num_batches * (1 - average.last)), num_batches)
    elif average.last_batches is not None:
        mean = average_last(history, num_batches, average.last_batches)
    else:
        assert average.half_life_batches is not None, "one of the three is given"
        mean = average_ema(history, num_batches, average.half_life_batches)
    return dict(named(mean, names))


def save_aggregate(path: Path, learnt: Aggregate, origin: str) -> None:
    """Write a weights.json of what runs learnt together, with its spread where there are several."""
    save_weights(path, learnt.weights, origin, learnt.std)
