"""Effective unique data: how many more unique tokens alone would do what mixing did.

    M(h) = U_eq / U      where  L_mono(U_eq) = L_mix(U, h)

L_mono interpolates the losses of monolingual runs over log U, monotone between them (PCHIP). The same with
accuracies, which rise. Beyond the range of the monolingual runs there is no M, only a bound: it is told.

Source: Jeha, Sedova, Bethune et al. 2026, Mix, Don't Tune (arXiv 2605.13225), who report multipliers of 2-3 on the
target's validation loss and of 2-13 on accuracy: the loss alone under-estimates mixing. Their definition was not
readable to us; this one is our reading. Monolingual and mixed runs should share model size, budget and care of tuning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq

from mixstream.errors import FitError
from mixstream.mixture.simplex import Float64
from mixstream.streams.index import Int64

Score = Literal["loss", "accuracy"]


@dataclass(frozen=True, eq=False)
class Multiplier:
    """Multipliers of T mixed runs.

    Attributes:
        unique: (T,) U_eq, tokens; nan outside the measured range.
        multiplier: (T,) M; nan outside it.
        outside: (T,) 1: better than all monolingual runs, M is above `bound`; -1: worse than all, M is below it;
            0: within their range.
        bound: (T,) M of the end of the range that is nearest, where outside; M itself within.
    """

    unique: Float64
    multiplier: Float64
    outside: Int64
    bound: Float64


def unique_data_multiplier(
    alone_unique: Float64, alone_scores: Float64, mixed_unique: Float64, mixed_scores: Float64, *, score: Score = "loss"
) -> Multiplier:
    """Return how much unique data mixing was worth.

    Args:
        alone_unique: (n,) U > 0 of the monolingual runs, all different, n >= 2, in any order.
        alone_scores: (n,) their losses or accuracies on the target; better with every step of U.
        mixed_unique: (T,) U > 0 of the target in each mixed run, or one number.
        mixed_scores: (T,) their scores.
        score: "loss", where less is better, or "accuracy".

    Raises:
        FitError: too few monolingual runs, sizes twice or not above 0, scores that are not finite, or scores that
            do not improve with U, with the pair.
    """
    if score not in ("loss", "accuracy"):
        raise FitError(f"score={score!r}; expected 'loss' or 'accuracy'")
    sign = -1.0 if score == "loss" else 1.0
    own = np.array(np.broadcast_to(mixed_unique, np.shape(mixed_scores)), dtype=np.float64)
    logs, good = _curve(alone_unique, sign * np.asarray(alone_scores, dtype=np.float64), score)
    wanted = sign * np.asarray(mixed_scores, dtype=np.float64)
    _check_positive(own, "unique tokens of the mixed runs")
    if not np.isfinite(wanted).all():
        raise FitError(f"{score} of mixed run {int(np.argmin(np.isfinite(wanted)))} is no finite number")
    outside = np.where(wanted > good[-1], 1, np.where(wanted < good[0], -1, 0)).astype(np.int64)
    curve = PchipInterpolator(logs, good)
    within = np.clip(wanted, good[0], good[-1])
    equal = np.exp([_where(curve, logs, value) for value in within])
    bound = equal / own
    inside = outside == 0
    return Multiplier(np.where(inside, equal, np.nan), np.where(inside, bound, np.nan), outside, bound)


def _curve(unique: Float64, good: Float64, score: Score) -> tuple[Float64, Float64]:
    """Return log U, rising, and what is better with every step (the loss with its sign turned)."""
    sizes = np.asarray(unique, dtype=np.float64)
    if sizes.shape != good.shape or len(sizes) < 2:
        raise FitError(f"{sizes.size} sizes and {good.size} scores of monolingual runs; expected one each of 2 or more")
    _check_positive(sizes, "unique tokens of the monolingual runs")
    if not np.isfinite(good).all():
        raise FitError(f"{score} of monolingual run {int(np.argmin(np.isfinite(good)))} is no finite number")
    order = np.argsort(sizes)
    sizes, good = sizes[order], good[order]
    if (np.diff(sizes) == 0).any():
        raise FitError(f"two monolingual runs of {sizes[np.argmin(np.diff(sizes))]:g} unique tokens; give their mean")
    if not (np.diff(good) > 0).all():
        first = int(np.argmax(np.diff(good) <= 0))
        raise FitError(
            f"the {score} of monolingual runs does not improve from {sizes[first]:g} to {sizes[first + 1]:g} unique "
            f"tokens ({abs(good[first]):g}, then {abs(good[first + 1]):g}), so it does not tell their number; average "
            f"more seeds, or leave out the runs where more data no longer helps"
        )
    return np.log(sizes), good


def _where(curve: PchipInterpolator, logs: Float64, value: float) -> float:
    """Return log U at which the curve has this value, which lies between its ends."""
    if value == curve(logs[0]):
        return float(logs[0])
    return float(
        logs[-1] if value == curve(logs[-1]) else brentq(lambda x: curve(x) - value, logs[0], logs[-1], xtol=1e-14)
    )


def _check_positive(sizes: Float64, what: str) -> None:
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        bad = sizes[~(np.isfinite(sizes) & (sizes > 0))][0]
        raise FitError(f"{what}: found {bad:g}, expected finite numbers above 0")
