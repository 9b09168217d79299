"""Scores by central differences: two forward passes give all K at once. The default.

    W_i = < grad l_i , G > = ( l_i(theta + h G) - l_i(theta - h G) ) / 2h + O(h^2)

since W = J G is one product of the Jacobian J = dl/dtheta (K, P) with G. It needs no derivative of any kernel, so
it goes with every attention, with FSDP2 and with bf16; ranks tell one another 2K sums of losses and K counts.

The step comes from the change of the losses that is wanted: along G each of K targets' losses changes by
h |G|^2 / K in the mean, so h = delta K / |G|^2. Where the loss is curved so sharply that this is too far, scores
at h and h / 2 differ: both are measured now and then, and the step is halved until they agree.

The identity is the chain rule; steps, tolerances and the schedule of checks are ours, none of a paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from composer.core import State

from mixstream.callbacks.rows import Batch, at_rest
from mixstream.callbacks.scores.differences import losses_along, wanted_change
from mixstream.callbacks.scores.gradients import AggregateGradient
from mixstream.callbacks.scores.probes import Scores, probe_of
from mixstream.mixture.simplex import Float64

AGREEMENT = 0.05  # of the greatest score, that scores at a step and at half of it may be apart
NEAR = 0.5  # apart by less, they are of the same thing
CHECK_INTERVAL = 50  # measurements from one check of the step to the next
MAX_HALVINGS = 12


class CentralDifferences:
    """Measures scores by central differences; its state is the factor on the step.

    Attributes:
        factor: what the step that the wanted change asks for is multiplied with, 1 or a power of 1/2.
    """

    def __init__(self) -> None:
        """Begin with the step as it is; the first measurement checks it."""
        self.factor = 1.0
        self._until_check = 0
        self._gradient = AggregateGradient()

    def measure(self, state: State, scored: Batch, aggregate: Batch | None, targets: Float64) -> Scores:
        """Return the scores of all sources: see `ScoreProvider`; losses are the means of those at both sides."""
        with at_rest(state) as model:
            direction = self._gradient.measure(state, model, scored if aggregate is None else aggregate, targets)
            probe = probe_of(state, model, scored, len(targets))
            if not math.isfinite(direction.squared_norm) or direction.squared_norm == 0:
                losses = losses_along(state, model, probe, direction, (0.0,))[0]
                scores = losses * 0 + direction.norm * 0  # 0, or nan where something is not finite
                return Scores(scores, losses, direction.norm)
            whole = wanted_change(state, model) * float(np.abs(targets).sum()) / direction.squared_norm

            def at(factor: float) -> tuple[Float64, Float64]:
                step = whole * factor
                above, below = losses_along(state, model, probe, direction, (step, -step))
                return (above - below) / (2 * step), (above + below) / 2

            scores, losses = self._measured(at)
            return Scores(scores, losses, direction.norm)

    def state_dict(self) -> dict[str, Any]:
        """Return the factor on the step, and how many measurements there are until it is checked again."""
        return {"factor": self.factor, "until_check": self._until_check}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with that step."""
        self.factor, self._until_check = float(state["factor"]), int(state["until_check"])

    def _measured(self, at: Callable[[float], tuple[Float64, Float64]]) -> tuple[Float64, Float64]:
        if self._until_check > 0:
            scores, losses = at(self.factor)
        else:
            # From twice the factor on: where the loss has become smoother, the step grows again.
            self.factor, (scores, losses) = settle(at, min(1.0, 2 * self.factor))
            self._until_check = CHECK_INTERVAL
        # Where a step leads to no number at all, the next measurement looks for another one.
        self._until_check = self._until_check - 1 if np.isfinite(scores).all() else 0
        return scores, losses


def settle(at: Callable[[float], tuple[Float64, Float64]], start: float) -> tuple[float, tuple[Float64, Float64]]:
    """Return the greatest factor on the step, `start` halved some times, that half of it agrees with.

    A curved loss makes the scores of h and h / 2 differ by a term in h^2, a fourth with each halving; rounding by one
    in 1 / h, twice as much. So a smaller step is better only where it brings them closer by half at least; and where
    they have been near one another and come apart again, it is rounding that grows.

    Args:
        at: measures (scores, losses), (K,) each, with a factor.
        start: the first factor.

    Returns:
        The factor and what was measured with it; where none agrees, the best of those tried.
    """
    factor, measured = start, at(start)
    nearest, best = math.inf, (factor, measured)
    for _ in range(MAX_HALVINGS):
        halved = at(factor / 2)
        apart = disagreement(measured[0], halved[0])
        if apart < nearest / 2:
            nearest, best = apart, (factor, measured)
        if apart <= AGREEMENT or (nearest < NEAR and apart > 4 * nearest):
            break
        factor, measured = factor / 2, halved
    return best


def disagreement(scores: Float64, others: Float64) -> float:
    """Return max |W - W'| / max |W'|, infinite where a score is not finite."""
    if not (np.isfinite(scores).all() and np.isfinite(others).all()):
        return math.inf
    apart, scale = float(np.abs(scores - others).max()), float(np.abs(others).max())
    return apart / scale if scale else (math.inf if apart else 0.0)
