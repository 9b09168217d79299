"""ADO: more weight where a scaling law, fitted while training, says that the loss falls fastest.

Source: Jiang et al. 2024, Adaptive Data Optimization (arXiv 2410.11820) and its authors' code,
github.com/yidingjiang/ado. With K sources, prior mu, and L_k(n) = E_k + B_k n^-alpha_k refitted from time to
time (`mixstream.methods.power_law`), n the samples read of all sources together:

    slope_k  = max(alpha_k, 0.05) (L_k(n) - E_k) / n                 how fast the loss of k falls
    h_k     <- 0.9 h_k + 0.1 (realised share of k)                   credit: what was read lately
    rho_k    ~ mu_k h_k^0.5 slope_k,  at least 0.01                  preference
    pi       = 0.9 average + 0.1 rho                                 what is sampled
    average <- average + (rho - average) / (t + 1)                   over all steps t

These are the paper's, at its code's constants; the code that we read has (h (1 - h))^0.5 where the paper has
h^0.5, and we follow the paper. Before the first fit the weights stay what they are.

Ours: a step of the equations is a batch, and an update stands for all batches since the last one, at the
preference and shares of now (h by 0.9^n; the average in one step of n / (t + 1)). The prior is what the run
began with, the plan's weights. The least preference holds exactly, by the projection in relative entropy,
where the code clips and divides once. The curve to be fitted is thinned by means of neighbours, which smooths
as the code's Savitzky-Golay filter does. A source without a law (too few points) is given the mean slope.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mixstream.errors import MixtureError, StateError
from mixstream.methods.learning.curve import LossCurve
from mixstream.methods.learning.losses import told_losses
from mixstream.methods.learning.online import Observation, Signal
from mixstream.methods.power_law import fit_law, law_at
from mixstream.mixture.simplex import Float64, check_floor, is_real, project

LEAST_EXPONENT = 0.05
CREDIT_DECAY = 0.9
CREDIT_POWER = 0.5
NEWEST = 0.1  # part of pi that is the preference of now


def slopes(laws: Float64, count: float) -> Float64:
    """Return slope_k = max(alpha_k, 0.05) (L_k(n) - E_k) / n, (K,), in nats/token a sample.

    A source without a law, a row of nan, is given the mean of the others.

    Args:
        laws: (K, 3) a, e, alpha of each source; at least one is known.
        count: n, samples read.
    """
    falls = np.maximum(laws[:, 2], LEAST_EXPONENT) * (law_at(laws, count) - np.exp(laws[:, 1])) / count
    return np.where(np.isnan(falls), np.nanmean(falls), falls)


def preference(slope: Float64, prior: Float64, credit: Float64, least: float) -> Float64:
    """Return rho ~ mu h^0.5 slope with every part at `least` or above, (K,), sum 1; the prior where all are 0."""
    wanted = prior * credit**CREDIT_POWER * slope
    rho = wanted / wanted.max() if wanted.max() > 0 else prior
    return project(rho / rho.sum(), np.full(len(rho), least), np.ones(len(rho)))


class ADO:
    """Laws of the training losses; keeps them, their curve, the credit and the average preference.

    Its state is 6 K numbers and the curve: at most 128 x (K + 1) numbers, some 35 KB of JSON at 12 sources.
    """

    needs: Signal | None = "losses"

    def __init__(
        self, *, ignore_batches: int = 500, start_batches: int = 1000, refit_batches: int = 1000, least: float = 0.01
    ) -> None:
        """Learn from laws of the training losses.

        Args:
            ignore_batches: batches at the run's begin that no law is fitted to.
            start_batches: batches before the first fit.
            refit_batches: batches between fits, or as many more as there are to the next update.
            least: least preference of a source; K of them are at most 1.

        Raises:
            MixtureError: batches that are no such numbers.
        """
        if not 0 <= ignore_batches < start_batches or refit_batches < 1:
            raise MixtureError(
                f"ignore_batches={ignore_batches}, start_batches={start_batches}, refit_batches={refit_batches}; "
                f"expected 0 <= ignore < start, and refit of at least 1"
            )
        if not is_real(least) or not 0 <= least <= 1:
            raise MixtureError(f"least={least!r}; expected a share from 0 to 1, ADO's is 0.01")
        self._ignore, self._start, self._refit, self._least = ignore_batches, start_batches, refit_batches, least
        self._batch = 0
        self._fitted: int | None = None  # the batch of the last fit
        self._prior = self._credit = self._average = np.empty(0)
        self._laws = np.empty((0, 3))
        self._curve = LossCurve()

    def update(self, seen: Observation) -> Float64:
        """Return pi, or the weights as they are before the first fit.

        Raises:
            ScoreError: a loss that is not a number though its source was read.
            MixtureError: the run ends before the first fit.
            FloorError: K times the least preference exceeds 1.
            StateError: the state is of another number of sources.
        """
        losses = told_losses(seen)
        self._check(seen)
        if not len(self._prior):
            self._prior = self._credit = self._average = seen.weights
            self._laws = np.full((len(losses), 3), np.nan)
        passed = seen.batch - self._batch
        self._batch = seen.batch
        kept = CREDIT_DECAY**passed
        self._credit = kept * self._credit + (1 - kept) * seen.shares
        count = float(seen.drawn.sum())
        if seen.batch > self._ignore:
            self._curve.add(count, losses)
        if seen.batch >= self._start and (self._fitted is None or seen.batch - self._fitted >= self._refit):
            self._fit(seen.batch)
        if np.isnan(self._laws).all():
            return seen.weights
        rho = preference(slopes(self._laws, count), self._prior, self._credit, self._least)
        wanted: Float64 = (1 - NEWEST) * self._average + NEWEST * rho
        self._average = self._average + (rho - self._average) * passed / (seen.batch + 1)
        return wanted

    def state_dict(self) -> dict[str, Any]:
        """Return all that it keeps."""
        return {
            "batch": self._batch,
            "fitted": self._fitted,
            "prior": self._prior.tolist(),
            "credit": self._credit.tolist(),
            "average": self._average.tolist(),
            "laws": [None if np.isnan(law).any() else law.tolist() for law in self._laws],
            "curve": self._curve.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._batch, self._fitted = state["batch"], state["fitted"]
        self._prior, self._credit, self._average = (np.array(state[key]) for key in ("prior", "credit", "average"))
        self._laws = np.array([law or [np.nan] * 3 for law in state["laws"]], dtype=np.float64).reshape(-1, 3)
        self._curve.load_state_dict(state["curve"])

    def _check(self, seen: Observation) -> None:
        check_floor(self._least, len(seen.weights))
        if len(self._prior) not in (0, len(seen.weights)):
            raise StateError(
                f"ADO's state is of {len(self._prior)} sources, the run has {len(seen.weights)}; resume with the plan "
                f"it was saved under"
            )
        if seen.num_batches <= self._start:
            raise MixtureError(
                f"ADO fits its first laws after {self._start} batches, the run has {seen.num_batches}; lower "
                f"start_batches, with ignore_batches below it"
            )

    def _fit(self, batch: int) -> None:
        """Fit every source's law anew; one that cannot be fitted stays what it was."""
        counts, losses = self._curve.points()
        for source in range(len(self._laws)):
            law = fit_law(counts, losses[:, source])
            if law is not None:
                self._laws[source] = law
        self._fitted = batch
