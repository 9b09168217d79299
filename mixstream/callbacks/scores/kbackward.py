"""Scores by K backward passes: the reference that the faster ways are compared with.

    g_i = grad l_i (B) ,   W_i = < g_i , G >

Each source's rows go forward and backward by themselves, and each g_i is summed over ranks by one reduction: K
reductions of P numbers, and 3 P of memory (G, g_i, and what backward gives) since no g_i is kept. As DoGE's code
does it (arXiv 2310.15393), but for its clipping of each g_i, and on any number of ranks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from composer.core import State
from composer.models import ComposerModel

from mixstream.callbacks.rows import Batch, at_rest, over_ranks
from mixstream.callbacks.scores.gradients import AggregateGradient, add_gradient, weighted_loss
from mixstream.callbacks.scores.parameters import Direction, empty_direction, refuse_sharded, trainable
from mixstream.callbacks.scores.probes import Scores, check_counts, probe_of
from mixstream.mixture.simplex import Float64


class KBackward:
    """Measures scores by one backward pass a source; keeps nothing."""

    def __init__(self) -> None:
        """Nothing is kept between measurements."""
        self._gradient = AggregateGradient()

    def measure(self, state: State, scored: Batch, aggregate: Batch | None, targets: Float64) -> Scores:
        """Return the scores of all sources: see `ScoreProvider`.

        Raises:
            ScoreError: parameters are sharded.
        """
        with at_rest(state) as model:
            refuse_sharded(model, "kbackward", "takes a gradient of whole ones for each source")
            direction = self._gradient.measure(state, model, scored if aggregate is None else aggregate, targets)
            counts = over_ranks(probe_of(state, model, scored, len(targets)).counts, state)
            check_counts(counts)
            measured = [
                _score_and_loss(state, model, scored, i, 1 / float(count), direction)
                for i, count in enumerate(counts.tolist())
            ]
            losses = over_ranks(torch.tensor([loss for _, loss in measured], dtype=torch.float64), state)
            return Scores(np.array([score for score, _ in measured]), losses.numpy(), direction.norm)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is kept."""


def _score_and_loss(
    state: State, model: ComposerModel, scored: Batch, source: int, weight: float, direction: Direction
) -> tuple[float, float]:
    """Return W_i over all ranks, and this rank's part of l_i; `weight` is 1 / the source's rows on all ranks."""
    is_own = scored["stream"] == source
    probe = probe_of(state, model, {key: column[is_own] for key, column in scored.items()}, source + 1)
    parameters = trainable(model)
    flat, parts = empty_direction(parameters)
    total = 0.0
    for part in probe.parts:
        loss = weighted_loss(state, model, part, torch.full((source + 1,), weight, dtype=torch.float64))
        add_gradient(parts, loss, parameters)
        total += float(loss.detach())
    flat.copy_(over_ranks(flat, state))
    return sum(float((g.double() * v).sum()) for g, v in zip(parts, direction.parts, strict=True)), total
