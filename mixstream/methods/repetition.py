"""What repeated data are worth: one saturation function, which several papers share.

With r = draws / size of a source (its repeats) and R* the repeats after which a further one is worth 1/e:

    S(r; R*)  = r                                     if r <= 1
              = 1 + R* (1 - exp(-(r - 1) / R*))       if r > 1        effective repeats
    dS/dr     = min(1, exp(-(r - 1) / R*))                            worth of the next one

so that a source of U tokens read r times counts as U S(r; R*) fresh ones.

Sources: Muennighoff et al. 2023 (arXiv 2305.16264), who write it with R_D = r - 1 and fit ``R* = 15.387756``
to English; Sedova et al. 2026 (arXiv 2605.12715) and Longpre et al. 2025 (arXiv 2510.22037, with ``lambda = 1/R*``)
use the same function.
"""

from __future__ import annotations

import numpy as np

from mixstream.errors import MixtureError
from mixstream.mixture.simplex import Float64


def effective_repeats(repeats: Float64, saturation: Float64 | float) -> Float64:
    """Return S(r; R*), what `repeats` are worth in fresh repeats.

    Args:
        repeats: r >= 0, any shape.
        saturation: R* > 0, one number or one an entry; infinite: a repeat is worth as much as fresh data.

    Returns:
        S, of the shape of `repeats`; S <= r, and at most 1 + R*.

    Raises:
        MixtureError: R* is not above 0, or repeats are negative or not finite.
    """
    _check(repeats, saturation)
    beyond = np.maximum(repeats - 1, 0)
    finite = np.where(np.isinf(saturation), 1.0, saturation)
    worth = np.where(np.isinf(saturation), beyond, -finite * np.expm1(-beyond / finite))
    effective: Float64 = np.minimum(repeats, 1) + worth
    return effective


def worth_of_next(repeats: Float64, saturation: Float64 | float) -> Float64:
    """Return dS/dr, what one more repeat is worth after `repeats` of them: 1 up to the first, then less.

    Args:
        repeats: r >= 0, any shape.
        saturation: R* > 0, one number or one an entry.

    Returns:
        dS/dr, of the shape of `repeats`, from 0 to 1.

    Raises:
        MixtureError: R* is not above 0, or repeats are negative or not finite.
    """
    _check(repeats, saturation)
    worth: Float64 = np.exp(-np.maximum(repeats - 1, 0) / saturation)
    return worth


def _check(repeats: Float64, saturation: Float64 | float) -> None:
    if not np.all(np.asarray(saturation) > 0):
        raise MixtureError(
            f"saturation R*={saturation}; expected repeats above 0 (Muennighoff et al. fit 15.39; "
            f"infinite: repeats lose nothing)"
        )
    if not np.all(np.isfinite(repeats) & (np.asarray(repeats) >= 0)):
        raise MixtureError(f"repeats {np.asarray(repeats).tolist()}; expected finite numbers of at least 0")
