"""Nonlinear least squares from several starts; what has not converged is an error, never an answer.

    min over x in a box   sum_n H( f_n(x) )        H(f) = f^2 / 2 if |f| <= delta, else delta (|f| - delta / 2)

Huber's loss, so that a run that went wrong does not decide the law; the last f may be a prior's, and always count
f^2 / 2. Solved by a trust region of Gauss-Newton
steps within the box (scipy's least_squares, "trf" or "dogbox").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from scipy.optimize import least_squares

from mixstream.errors import FitError
from mixstream.mixture.simplex import Float64

TOLERANCE = 1e-10
AGREE = 1e-3  # starts whose objectives differ by less, relatively, found the same minimum
EXACT = 1e-14  # of the sum of squares at the worst start: an objective of nothing
Residuals = Callable[[Float64], Float64]


@dataclass(frozen=True, eq=False)
class Fit:
    """The best of several fits.

    Attributes:
        parameters: (P,) x.
        objective: the sum of Huber's losses there.
        residuals: (n,) f there.
        converged, agreed: starts that converged, and those of them that found this minimum.
    """

    parameters: Float64
    objective: float
    residuals: Float64
    converged: int
    agreed: int


def fit_from(
    starts: Float64,
    residuals: Residuals,
    bounds: tuple[Float64, Float64],
    *,
    of: str,
    jacobian: Residuals | None = None,
    delta: float = math.inf,
    num_squared: int = 0,
    max_evaluations: int = 2000,
    steps: Literal["trf", "dogbox"] = "trf",
    tolerance: float = TOLERANCE,
) -> Fit:
    """Return the best fit of those from `starts`.

    Args:
        starts: (S, P); brought into the box where they lie outside.
        residuals: f, (P,) -> (n,).
        bounds: (P,) least and (P,) greatest x.
        of: what is fitted, for the message.
        jacobian: (P,) -> (n, P); None: by differences.
        delta: of Huber's loss, in the unit of the residuals; infinite: plain squares.
        num_squared: of the last residuals, those of a prior, which count squared however large they are.
        max_evaluations: of each start.
        steps: trf keeps off the bounds, which may make long valleys slow; dogbox goes straight, and needs a Jacobian of
            full rank (a ridge gives one).
        tolerance: a start has converged when a step changes objective or x relatively by less.

    Raises:
        FitError: the residuals are not finite at any start, or no start converged.
    """
    least, most = bounds
    solve = partial(
        least_squares,
        residuals,
        jac="2-point" if jacobian is None else jacobian,
        bounds=(least, most),
        loss="linear" if math.isinf(delta) else partial(_huber, num_squared=num_squared),
        f_scale=1.0 if math.isinf(delta) else delta,
        method=steps,
        x_scale="jac",
        ftol=tolerance,
        xtol=tolerance,
        gtol=tolerance,
        max_nfev=max_evaluations,
    )
    with np.errstate(all="ignore"):  # what is not finite is looked at, here and by the solver
        inside = np.clip(starts, least, most)
        finite = [
            (start, own)
            for start, own in ((start, residuals(start)) for start in inside)
            if np.isfinite(own).all() and (jacobian is None or np.isfinite(jacobian(start)).all())
        ]
        if not finite:
            raise FitError(f"{of}: the law is not finite at any of {len(inside)} starts; look for runs that went wrong")
        return _best_of(solve, finite, of, max_evaluations)


def _huber(z: Float64, num_squared: int) -> Float64:
    """Return 2 H / delta^2 and its two derivatives, (3, n), at z = (f / delta)^2; of the last ones, of f^2 / 2."""
    far = (z > 1) & (np.arange(len(z)) < len(z) - num_squared)
    root = np.sqrt(np.where(far, z, 1.0))
    loss: Float64 = np.stack([np.where(far, 2 * root - 1, z), 1 / root, np.where(far, -0.5 / root**3, 0.0)])
    return loss


def _best_of(
    solve: Callable[[Float64], Any], finite: Sequence[tuple[Float64, Float64]], of: str, max_evaluations: int
) -> Fit:
    """Return the best of the fits from starts, each with its residuals."""
    found = [solve(start) for start, _ in finite]
    done = [one for one in found if one.status > 0 and np.isfinite(one.cost)]
    if not done:
        best = min(one.cost for one in found)
        raise FitError(
            f"{of}: no fit converged, from {len(finite)} starts of {max_evaluations} evaluations each (the least "
            f"objective was {best:.4g}); look for runs that went wrong, or give more of them"
        )
    best = min(done, key=lambda one: float(one.cost))
    exact = EXACT * max(float(own @ own) for _, own in finite)  # costs below are rounding, be they ever so different
    near = best.cost * (1 + AGREE) + exact
    return Fit(
        parameters=best.x,
        objective=float(best.cost),
        residuals=best.fun,
        converged=len(done),
        agreed=sum(one.cost <= near for one in done),
    )
