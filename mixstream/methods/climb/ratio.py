"""CLIMB's interaction-aware ratio: the law at a ratio, and the ratio at a loss.

    L = E + B (r~ d)^-beta          r~_obs = (1/d) (B / (L - E))^(1/beta)         d = D / D0

r~_i is the ratio at which reading language i alone, r~_i D tokens of it, would reach the loss that it has in the
mixture. The inversion needs no form of r~: with B, beta, E of a language, every run's loss gives one r~_obs.

Source: Guo et al. 2025, CLIMB (arXiv 2509.15556), definition of r~; D in units of D0 is ours (numbers near 1).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mixstream.errors import FitError
from mixstream.mixture.simplex import Float64


class Alone(NamedTuple):
    """L = E + B d^-beta of one language that is read alone.

    Attributes:
        scale: B, nats/token at D0 tokens.
        exponent: beta.
        floor: E, nats/token.
    """

    scale: float
    exponent: float
    floor: float


def loss_at(ratio: Float64 | float, scaled_tokens: Float64 | float, alone: Alone) -> Float64:
    """Return L at ratios r~ > 0 of d = D / D0 scaled tokens, of the shape of both."""
    loss: Float64 = alone.floor + alone.scale * np.asarray(ratio * scaled_tokens) ** -alone.exponent
    return loss


def observed_ratio(losses: Float64, scaled_tokens: Float64, alone: Alone, *, of: str) -> Float64:
    """Return r~_obs, of the shape of the losses.

    Args:
        losses: L, nats/token.
        scaled_tokens: d = D / D0.
        alone: the law of the language alone.
        of: the language, for the message.

    Raises:
        FitError: a loss that is not above the floor, which no ratio reaches.
    """
    below = np.ravel(losses <= alone.floor)
    if below.any():
        least = float(np.min(losses))
        raise FitError(
            f"{of!r}: {int(below.sum())} of {below.size} losses are at or below the fitted floor E={alone.floor:.6g} "
            f"(the least is {least:.6g}), so no ratio of it explains them; fit E to all runs (E below {least:.6g}), "
            f"or look for runs whose loss is measured on other text"
        )
    ratio: Float64 = (alone.scale / (losses - alone.floor)) ** (1 / alone.exponent) / scaled_tokens
    return ratio
