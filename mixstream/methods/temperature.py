"""Temperature annealing: from one temperature of the sizes to another over a run, told nothing.

    p_i ~ q_i^(1 / tau)          tau = 1 is natural; the greater tau, the nearer to uniform

Source: temperature sampling is that of mBERT, XLM-R and mT5 (arXiv 1911.02116, 2010.11934), at one
temperature a run; letting it move over the run, linearly or by half a cosine, is our reading of the common
practice of beginning near uniform and ending near natural, or the other way round.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from mixstream.errors import WeightsError
from mixstream.methods.learning.online import Observation, Signal
from mixstream.mixture.simplex import Float64, is_real
from mixstream.mixture.weights import MAX_EXPONENT, temperature

Path = Literal["linear", "cosine"]


def temperature_at(progress: float, start: float, end: float, path: Path = "linear") -> float:
    """Return tau after a share of the run.

        linear   tau = start + (end - start) s
        cosine   tau = start + (end - start) (1 - cos(pi s)) / 2

    Args:
        progress: s, from 0 to 1.
        start, end: tau at s = 0 and at s = 1.
        path: how it goes from one to the other.
    """
    way = progress if path == "linear" else (1 - math.cos(math.pi * progress)) / 2
    return start + (end - start) * way


class TemperatureAnneal:
    """Wants the sizes at the temperature of the moment; keeps nothing between updates."""

    needs: Signal | None = None

    def __init__(self, *, start: float, end: float, path: Path = "linear") -> None:
        """Go from one temperature to another.

        Args:
            start, end: tau at the run's begin and end, at least 0.01.
            path: ``linear`` or ``cosine``.

        Raises:
            WeightsError: a temperature out of range.
        """
        for name, tau in (("start", start), ("end", end)):
            if not is_real(tau) or not 1 / MAX_EXPONENT <= tau < math.inf:
                raise WeightsError(
                    f"temperature {name}={tau!r}; expected a finite number of at least {1 / MAX_EXPONENT:g}, "
                    f"1 for natural shares, more for evener ones"
                )
        self._start, self._end, self._path = start, end, path

    def update(self, seen: Observation) -> Float64:
        """Return p_i ~ q_i^(1 / tau), (K,), with q the sizes in samples and tau that of the batches trained."""
        progress = min(1.0, seen.batch / seen.num_batches)
        tau = temperature_at(progress, self._start, self._end, self._path)
        return temperature(seen.sizes.astype(float), 1 / tau)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: the batch says all."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on; there is nothing to know."""
