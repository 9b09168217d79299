"""XDoGE: weights of languages and domains learnt online from the alignment of their gradients.

Sources: Lacunza et al. 2025, XDoGE (arXiv 2512.10545), which extends DoGE, Fan et al. 2024
(arXiv 2310.15393). With K sources, l_i the mean token loss of source i and g_i its gradient:

    W_i     = < g_i , sum_j g_j >                                    score: what learning from i does for all
    alpha_i <- alpha_i exp(eta W_i / mu) / Z                          mirror descent with step mu
    alpha   <- the nearest point with alpha_i >= gamma, sum 1        XDoGE's weight clipping
    alpha*  =  mean of alpha over the last part of the run           what the base model uses

The first, second and last lines are the papers'. Of the third, XDoGE's paper was readable to us in its
abstract and in summaries only: the exact projection in relative entropy is our reading, chosen since it is
multiplicative as the update is. The papers take both gradients of W_i from one batch, which adds the
gradient's noise energy tr Cov(g_i) / n to W_i and favours the sources with the fewest sequences n; our
default takes them from two independent batches (cross-fitting), which is unbiased.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mixstream.errors import ScoreError, WeightsError
from mixstream.mixture.simplex import Float64, check_floor, project


def alignment_scores(gradients: Float64, total: Float64) -> Float64:
    """Return W_i = <g_i, G>, the first-order gain of all sources from a step along source i.

    Args:
        gradients: (K, P), one source's gradient g_i a row.
        total: (P,), G = sum_j g_j: of the same batch in the papers' form, of an independent one when
            cross-fitted.

    Returns:
        (K,) scores, in squared units of the gradient.

    Source: DoGE, equation of the "universal generalisation" target.
    """
    return gradients @ total


def update_weights(weights: Float64, scores: Float64, eta: float, mu: float, floor: float = 0.0) -> Float64:
    """Return the weights after one update: exponentiated gradient, then the floor.

        alpha_i <- alpha_i exp(eta W_i / mu) / sum_j alpha_j exp(eta W_j / mu)

    Computed in logarithms with the greatest subtracted, so that no score overflows; a constant added to
    all scores changes nothing.

    Args:
        weights: (K,) alpha, sum 1. A weight of 0 stays 0 unless there is a floor.
        scores: (K,) W.
        eta: learning rate of the model at this step (the papers couple the two).
        mu: step of the mirror descent; smaller moves further. DoGE uses 0.001 to 0.05.
        floor: gamma, the least weight; XDoGE uses 0.02.

    Raises:
        ScoreError: a score that is not finite.
        FloorError: K floors exceed 1.
    """
    if not np.isfinite(scores).all():
        raise ScoreError(f"scores are not finite: {scores.tolist()}; the weights stay as they were")
    check_floor(floor, len(weights))
    with np.errstate(divide="ignore"):
        logs = np.log(weights) + eta * scores / mu
    raised = np.exp(logs - logs.max())
    return floored(raised / raised.sum(), floor)


def floored(weights: Float64, floor: float) -> Float64:
    """Return the point nearest to `weights` (K,) in relative entropy with every weight at `floor` or above."""
    count = len(weights)
    return project(weights, np.full(count, floor), np.ones(count)) if floor else weights


def average_weights(history: Sequence[tuple[int, Float64]], start: int, end: int) -> Float64:
    """Return the mean of weights over the batches `start` .. `end` - 1.

    Args:
        history: (batch, weights) of every change, in order: the (K,) weights act from that batch to the
            next change.
        start, end: the batches to average over.

    Source: XDoGE averages over the last 10 000 steps, DoGE over all.

    Raises:
        WeightsError: no weights act in these batches.
    """
    ends = [batch for batch, _ in history[1:]] + [end]
    spans = [max(0, min(stop, end) - max(batch, start)) for (batch, _), stop in zip(history, ends, strict=True)]
    if sum(spans) == 0:
        raise WeightsError(f"no weights act in batches {start} to {end}; average over more of the run")
    total = sum(span * weights for span, (_, weights) in zip(spans, history, strict=True))
    mean = np.asarray(total, dtype=np.float64) / sum(spans)
    return mean / math.fsum(mean)
