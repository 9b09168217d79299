"""Weights in the loss: rows of source i count alpha_i / p_i, whatever share p_i the batch has of it.

A source sampled with probability p and weighted by w trains on p x w. So either the loader samples by alpha and every
row counts the same, or it samples as it likes and rows count alpha / p, as here: never alpha on both sides.
"""

from __future__ import annotations

import numpy as np
import torch
from composer.core import Callback, State
from composer.loggers import Logger

from mixstream.callbacks.rows import check_rows, over_ranks, sum_by_source
from mixstream.mixture.simplex import Float64


def row_factors(weights: Float64, counts: Float64) -> Float64:
    """Return what a row of each source counts in the mean over a batch, (K,).

        w_i = alpha_i / p_i / sum_{j present} alpha_j,    p_i = n_i / sum_j n_j

    so that the batch's mean of w_i l_i is sum_i alpha_i mean_i(l) / sum alpha over the sources that are present, and
    the mean of w is 1. 0 for a source without a row; all 1 where no source that is present has weight.

    Args:
        weights: (K,) alpha.
        counts: (K,) rows n_i of each source in the global batch.

    Source: DoReMi (arXiv 2305.10429), the authors' code: its importance correction and normaliser.
    """
    present = counts > 0
    there = np.where(present, weights, 0.0)
    if not there.any():
        return present.astype(np.float64)
    relative = there / there.max()  # so that tiny weights do not overflow
    shares = counts / counts.sum()
    return np.divide(relative / relative.sum(), shares, out=np.zeros_like(weights), where=present)


class LossWeights(Callback):
    """Weighs each row's loss by its source, so that training is on the mixture `weights`, however rows are sampled.

    Costs one reduction of K numbers a batch. Must come after the callbacks that are to see the plain losses.

    Attributes:
        weights: (K,) alpha, from the next batch on.
    """

    def __init__(self, weights: Float64) -> None:
        """Weigh by `weights` (K,), sum 1."""
        self.weights = weights
        self._factors: torch.Tensor | None = None

    def before_train_batch(self, state: State, logger: Logger) -> None:
        """Count the global batch's rows by source."""
        stream = state.batch["stream"]
        counts = over_ranks(sum_by_source(torch.zeros(len(stream)), stream, len(self.weights))[1], state)
        self._factors = torch.from_numpy(row_factors(self.weights, counts.numpy()))

    def after_loss(self, state: State, logger: Logger) -> None:
        """Weigh a microbatch's row losses."""
        assert self._factors is not None, "a batch has begun"
        losses = check_rows(state.loss, state.batch)
        state.loss = losses * self._factors.to(losses)[state.batch["stream"]]
