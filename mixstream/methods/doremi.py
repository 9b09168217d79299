"""DoReMi: sources on which a proxy is furthest behind a reference model get more weight.

Source: Xie et al. 2023 (arXiv 2305.10429) and its authors' code, github.com/sangmichaelxie/doremi. With
K sources, l the proxy's loss of a token and l_ref the reference model's:

    lambda_i = mean over tokens of i of max(0, l - l_ref)            excess loss, clipped by token
    a_i     <- a_i exp(eta lambda_i) / Z                             Group DRO's exponentiated gradient
    a       <- (1 - c) a + c / K                                     smoothing
    loss     = sum_t w_i(t) l_t / sum_t w_i(t),   w_i = a_i / p_i    p: the shares that batches are drawn with

The equations are the paper's, with eta = 1; c is 1e-3 in the paper as we recall it and 1e-4 in the code. The
weights to use are the mean over all updates (`mixstream.methods.learning.history` averages weights.jsonl).

Ours: the code updates after every step from the training batch, and keeps the last excess of a source that
is not in it. We update every `interval_batches` from a probe batch with rows of every source, so that there
is nothing stale, and an update is one step of the equation: eta = interval_batches moves at the code's speed.
Where the loader follows the weights (p = a), w is 1 and the loss the plain mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mixstream.errors import MixtureError, ScoreError, WeightsError
from mixstream.methods.learning.online import Observation, Signal
from mixstream.mixture.simplex import Float64, is_real


def excess_loss(losses: Float64, reference: Float64) -> float:
    """Return lambda of one source: the mean over its tokens of max(0, l - l_ref), in nats/token.

    Args:
        losses, reference: (tokens,) losses of the proxy and of the reference model.
    """
    return float(np.maximum(losses - reference, 0).mean())


def group_dro_step(weights: Float64, excess: Float64, eta: float, smoothing: float) -> Float64:
    """Return the weights after one update: a_i ~ a_i exp(eta lambda_i), then (1 - c) a + c / K.

    Computed in logarithms with the greatest subtracted, so that no excess overflows.

    Args:
        weights: (K,) a, sum 1.
        excess: (K,) lambda, in nats/token.
        eta: step, 1 in the paper.
        smoothing: c, the part that is spread evenly.
    """
    with np.errstate(divide="ignore"):
        logs = np.log(weights) + eta * excess
    raised = np.exp(logs - logs.max())
    smooth: Float64 = (1 - smoothing) * raised / raised.sum() + smoothing / len(weights)
    return smooth


def importance(weights: Float64, shares: Float64) -> Float64:
    """Return what a token's loss is multiplied by, (K,) w_i = a_i / p_i, where batches are drawn with shares p.

    The expected sum of w over a batch is its size, so that sum_t w l / sum_t w estimates sum_i a_i l_i
    whatever p is. A source of weight 0 has w = 0.

    Raises:
        WeightsError: a source with weight is never drawn.
    """
    lost = (weights > 0) & (shares <= 0)
    if lost.any():
        raise WeightsError(
            f"sources number {np.flatnonzero(lost)[:5].tolist()} have weight but no share of the draws; "
            f"give every one a share of the plan's weights"
        )
    return np.divide(weights, shares, out=np.zeros_like(weights), where=weights > 0)


class DoReMi:
    """Group DRO on excess losses; all that it knows is in the weights that an update starts from."""

    needs: Signal | None = "excess"

    def __init__(self, *, eta: float = 1.0, smoothing: float = 1e-3) -> None:
        """Learn with step `eta` and smoothing c.

        Raises:
            MixtureError: a step that is not positive, or a smoothing outside 0 to 1.
        """
        if not is_real(eta) or not 0 < eta < np.inf:
            raise MixtureError(f"eta={eta!r}; expected a finite number above 0, DoReMi's is 1")
        if not is_real(smoothing) or not 0 <= smoothing <= 1:
            raise MixtureError(f"smoothing={smoothing!r}; expected a share from 0 to 1, DoReMi's is 0.001")
        self._eta, self._smoothing = eta, smoothing

    def update(self, seen: Observation) -> Float64:
        """Return the weights after one step from the excess losses of `seen`.

        Raises:
            ScoreError: an excess that is not a finite number of at least 0.
        """
        excess = seen.signal
        if excess is None or excess.shape != seen.weights.shape:
            raise ScoreError(f"no excess loss for each of {len(seen.weights)} sources; measure it on a probe batch")
        if not (np.isfinite(excess) & (excess >= 0)).all():
            raise ScoreError(
                f"excess losses are {excess.tolist()}; expected finite numbers of at least 0, the weights stay as "
                f"they were"
            )
        return group_dro_step(seen.weights, excess, self._eta, self._smoothing)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the weights are the state, and whoever calls `update` keeps them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on; there is nothing to know."""
