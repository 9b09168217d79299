"""The law of a language that is read alone, fitted to its monolingual runs.

    L(d) = B d^-beta + E,  d = D / D0          min  sum_n H( log L(d_n) - log L_n ),   0 <= E <= min L - 1e-3

Three unknowns: runs at three token budgets determine them. At two, every E gives B and beta that fit exactly, so
what these runs say is a line of starting points, and only the fit together with the mixtures tells E.

Source: Guo et al. 2025, CLIMB (arXiv 2509.15556), monolingual law. The bound on E, below every loss that was seen
in any run, keeps the inversion of r~ finite.
"""

from __future__ import annotations

import math

import numpy as np

from mixstream.methods.climb.ratio import Alone
from mixstream.methods.planning.fitting import fit_from
from mixstream.mixture.simplex import Float64

MARGIN = 1e-3  # nats/token: E is below the least loss by so much at least
DELTA = 0.02  # of Huber's loss: residuals of log L above 2 % count less than squared
LEAST = (math.log(1e-4), 0.01)  # log B, beta
MOST = (math.log(1e2), 3.0)
FLOORS = (0.2, 0.5, 0.7, 0.85, 0.95)  # shares of the least loss, from which E starts


def greatest_floor(losses: Float64) -> float:
    """Return the greatest E that a language may have: its least loss in any run, less 1e-3."""
    return max(float(losses.min()) - MARGIN, 1e-6)


def fit_alone(scaled_tokens: Float64, losses: Float64, most_floor: float, *, of: str) -> Alone:
    """Return the law of a language alone.

    Args:
        scaled_tokens: (n,) d of its monolingual runs, at three budgets or more.
        losses: (n,) nats/token.
        most_floor: the greatest E.
        of: the language, for messages.

    Raises:
        FitError: no convergence.
    """
    logs, told = np.log(scaled_tokens), np.log(losses)

    def parts(x: Float64) -> tuple[Float64, Float64]:
        excess = np.exp(x[0] - x[1] * logs)
        return excess, x[2] + excess

    def residuals(x: Float64) -> Float64:
        error: Float64 = np.log(parts(x)[1]) - told
        return error

    def jacobian(x: Float64) -> Float64:
        excess, loss = parts(x)
        slopes: Float64 = np.stack([excess, -excess * logs, np.ones_like(logs)], axis=1) / loss[:, None]
        return slopes

    starts = np.array(
        [[math.log(one.scale), one.exponent, one.floor] for one in lines(scaled_tokens, losses, most_floor)]
    )
    bounds = (np.array([*LEAST, 0.0]), np.array([*MOST, most_floor]))
    found = fit_from(starts, residuals, bounds, of=f"the monolingual law of {of!r}", jacobian=jacobian, delta=DELTA)
    scale, exponent, floor = found.parameters
    return Alone(scale=math.exp(scale), exponent=float(exponent), floor=float(floor))


def lines(scaled_tokens: Float64, losses: Float64, most_floor: float) -> list[Alone]:
    """Return for several E the B and beta that fit best: log(L - E) is a line in log d."""
    found = []
    for share in FLOORS:
        floor = share * most_floor
        slope, at_one = np.polyfit(np.log(scaled_tokens), np.log(losses - floor), 1)
        exponent = float(np.clip(-slope, 2 * LEAST[1], MOST[1] / 2))
        scale = float(np.exp(np.clip(at_one, LEAST[0] + 1, MOST[0] - 1)))
        found.append(Alone(scale=scale, exponent=exponent, floor=floor))
    return found
