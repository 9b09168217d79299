"""DoReMi from records: the weights that its update would have given on losses that were written down.

With l_t (K,) the proxy's losses by source at step t of T, and l_ref the reference model's:

    lambda_t = max(0, l_t - l_ref),   a_t = update of DoReMi (`mixstream.methods.doremi`),   answer = mean_t a_t

A source that a step has no loss of (nan) keeps its last excess, 0 before the first. The answer is what the proxy's
weights would have averaged to had they not acted on the proxy: it trained on other weights while the losses were
written, so this is a first look, not DoReMi's own answer.

Source: Xie et al. 2023 (arXiv 2305.10429) and its code: update, stale excess, mean over all updates. Ours: records
are means over a source's tokens, so that the excess is clipped by source, where the paper clips by token; excesses
that were clipped by token can be given as `losses`, with a reference of 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixstream.errors import MixtureError, ScoreError
from mixstream.methods.doremi import DoReMi, group_dro_step
from mixstream.mixture.simplex import SUM_TOLERANCE, Float64


@dataclass(frozen=True, eq=False)
class OfflineDoReMi:
    """What DoReMi's update gives on records.

    Attributes:
        trajectory: (T, K) weights after each step.
        weights: (K,) their mean, sum 1: the answer.
    """

    trajectory: Float64
    weights: Float64


def offline_doremi(
    losses: Float64,
    reference: Float64 | float,
    *,
    eta: float = 1.0,
    smoothing: float = 1e-3,
    start: Float64 | None = None,
) -> OfflineDoReMi:
    """Return the weights that DoReMi's updates give on records.

    Args:
        losses: (T, K) the proxy's mean loss of each source at each step, in nats/token; nan where it has none.
        reference: (K,) or (T, K) the reference model's, or 0 where `losses` are excesses already.
        eta: step, 1 in the paper; to make up for records of every n-th step only, n.
        smoothing: c, the part that is spread evenly.
        start: (K,) weights before the first step, sum 1; None: even, as in the paper.

    Raises:
        MixtureError: no step, shapes that do not fit, eta or smoothing out of range, or a start that is no weights.
        ScoreError: a loss that is infinite, or a reference that is not finite.
    """
    DoReMi(eta=eta, smoothing=smoothing)  # refuses what it would refuse online
    if losses.ndim != 2 or not losses.size:
        raise MixtureError(f"losses are of shape {losses.shape}; expected (steps, sources), one or more of each")
    if np.shape(reference) not in ((), losses.shape[1:], losses.shape):
        raise MixtureError(f"the reference is of shape {np.shape(reference)}, the losses of {losses.shape}")
    if np.isinf(losses).any() or not np.isfinite(reference).all():
        raise ScoreError("losses or the reference's are not finite; leave out the steps at which the run diverged")
    weights = np.full(losses.shape[1], 1 / losses.shape[1]) if start is None else start
    if weights.shape != losses.shape[1:] or not (weights.min() >= 0 and abs(weights.sum() - 1) <= SUM_TOLERANCE):
        raise MixtureError(f"start is {np.asarray(start).tolist()}; expected {losses.shape[1]} weights with sum 1")
    excesses = np.maximum(losses - reference, 0)
    excess = np.zeros(losses.shape[1])
    trajectory = np.empty(losses.shape)
    for step, now in enumerate(excesses):
        excess = np.where(np.isnan(now), excess, now)
        weights = group_dro_step(weights, excess, eta, smoothing)
        trajectory[step] = weights
    return OfflineDoReMi(trajectory, trajectory.mean(axis=0))
