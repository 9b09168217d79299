"""A source's loss as a power law of what was read, fitted online: the law of ADO.

    L(n) = exp(e) + exp(a) n^-alpha

    min over (a, e, alpha) in a box of   sum_t H( log L_t - log L(n_t) )
    H(r) = r^2 / 2 if |r| <= delta, else delta (|r| - delta / 2)            Huber's loss, delta = 1e-3

Source: Jiang et al. 2024, ADO (arXiv 2410.11820) and its authors' code, github.com/yidingjiang/ado: the law,
the loss, the 8 x 8 x 8 starting points, and the limits alpha in [0.001, 0.8], a <= 6.5, e >= 0.5.

Ours: the limits hold exactly instead of by penalties; e may go down to half of the least loss seen where
0.5 (1.65 nats/token) is above that, as it is with small vocabularies; and the minimum is sought from the best
few of the starting points by damped Gauss-Newton steps on the reweighted squares instead of by L-BFGS from
all of them: three unknowns need no more. One fit takes about 15 ms.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from mixstream.mixture.simplex import Float64

DELTA = 1e-3
MIN_POINTS = 8  # of three unknowns
STARTS = np.array(list(itertools.product(range(-2, 6), np.arange(-2, 2, 0.5), np.arange(0, 0.8, 0.1))))
KEPT_STARTS = 8
NUM_STEPS = 80
LEAST = (-10.0, 0.5, 0.001)  # (a, e, alpha)
MOST = (6.5, 20.0, 0.8)


def law_at(law: Float64, counts: Float64 | float) -> Float64:
    """Return L(n) = exp(e) + exp(a) n^-alpha, in nats/token.

    Args:
        law: (..., 3) a, e, alpha.
        counts: n > 0, of a shape that goes with (...).
    """
    a, e, alpha = np.moveaxis(law, -1, 0)
    return np.asarray(np.exp(e) + np.exp(a - alpha * np.log(counts)))


def fit_law(counts: Float64, losses: Float64) -> Float64 | None:
    """Return the law (a, e, alpha) that fits best, or None where these points give none.

    Args:
        counts: (T,) n, samples read.
        losses: (T,) nats/token; points that are not finite or not positive are left out.

    Returns:
        (3,), or None if fewer than 8 points are left or no finite fit was found.
    """
    good = np.isfinite(losses) & (losses > 0) & (counts > 0)
    if good.sum() < MIN_POINTS:
        return None
    x, y = np.log(counts[good]), np.log(losses[good])
    least, most = np.array(LEAST), np.array(MOST)
    least[1] = min(least[1], y.min() - math.log(2))
    starts = np.clip(STARTS, least, most)
    laws = starts[np.argsort(_objective(starts, x, y), kind="stable")[:KEPT_STARTS]]
    laws, objective = _descend(laws, x, y, least, most)
    best = laws[np.argmin(objective)]
    return best if np.isfinite(best).all() and np.isfinite(objective.min()) else None


def _log_law(laws: Float64, x: Float64) -> Float64:
    """Return log L (S, T) of laws (S, 3) at x = log n (T,)."""
    a, e, alpha = (column[:, None] for column in laws.T)
    logs: Float64 = np.logaddexp(e, a - alpha * x)
    return logs


def _objective(laws: Float64, x: Float64, y: Float64) -> Float64:
    """Return the sum of Huber's losses of laws (S, 3), (S,)."""
    error = np.abs(y - _log_law(laws, x))
    sums: Float64 = np.where(error <= DELTA, error**2 / 2, DELTA * (error - DELTA / 2)).sum(axis=1)
    return sums


def _descend(laws: Float64, x: Float64, y: Float64, least: Float64, most: Float64) -> tuple[Float64, Float64]:
    """Return laws (S, 3) and their objectives (S,) after damped Gauss-Newton steps within the box.

    The squares are weighted by min(1, delta / |r|), at which their gradient is that of Huber's loss. What
    lies on a limit and would leave the box is held. A step that does not descend is not made, and damps more.
    """
    objective = _objective(laws, x, y)
    damping = np.full(len(laws), 1e-3)
    for _ in range(NUM_STEPS):
        gradient, curvature = _normal_equations(laws, x, y)
        held = ((laws <= least) & (gradient < 0)) | ((laws >= most) & (gradient > 0))
        free = (~held).astype(float)
        diagonal = np.einsum("sii->si", curvature)
        added = np.where(held, 1.0, damping[:, None] * diagonal + 1e-12 * diagonal.max(axis=1, keepdims=True) + 1e-300)
        system = curvature * free[:, :, None] * free[:, None, :] + added[:, :, None] * np.eye(3)
        step = np.linalg.solve(system, (gradient * free)[:, :, None])[:, :, 0]
        tried = np.clip(laws + step, least, most)
        value = _objective(tried, x, y)
        better = value < objective
        laws = np.where(better[:, None], tried, laws)
        objective = np.where(better, value, objective)
        damping = np.clip(np.where(better, damping / 5, damping * 4), 1e-9, 1e9)
    return laws, objective


def _normal_equations(laws: Float64, x: Float64, y: Float64) -> tuple[Float64, Float64]:
    """Return the descent direction J^T w r (S, 3) and J^T w J (S, 3, 3) of the reweighted squares."""
    logs = _log_law(laws, x)
    error = y - logs
    weight = DELTA / np.maximum(np.abs(error), DELTA)
    reducible = np.exp(laws[:, :1] - laws[:, 2:] * x - logs)  # the part of L that is not exp(e)
    slopes = np.stack([reducible, 1 - reducible, -x * reducible], axis=1)  # (S, 3, T): d log L / d (a, e, alpha)
    weighted = slopes * weight[:, None]
    return np.einsum("sit,st->si", weighted, error), weighted @ slopes.transpose(0, 2, 1)
