"""ATLAS's law; the equations are in `mixstream.methods.atlas`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mixstream.methods.repetition import effective_repeats, worth_of_next
from mixstream.mixture.simplex import Float64

LEAST_SHARE = 1e-9  # of D: D_eff is never taken to be less, so that a loss is finite


@dataclass(frozen=True, eq=False)
class AtlasLaw:
    """L = E + A_0 (N / N_0)^-alpha + B_0 (D_eff / D_0)^-beta, fitted; A_0 = 0 without model sizes.

    Attributes:
        sources, targets: K and M names.
        floors: (M,) E.
        model: (M, 2) A_0 and alpha.
        data: (M, 2) B_0 and beta.
        transfer: (M, K) tau, 1 from a language to itself.
        saturation: R*; nan where it is not known.
        sized: whether the model size is in the law.
        parameters: N of the runs, where it is not; nan if it was not told.
        reference_parameters, reference_tokens: N_0 and D_0.
    """

    sources: tuple[str, ...]
    targets: tuple[str, ...]
    floors: Float64
    model: Float64
    data: Float64
    transfer: Float64
    saturation: float
    sized: bool
    parameters: float
    reference_parameters: float
    reference_tokens: float

    def losses(self, draws: Float64, unique: Float64, parameters: Float64) -> Float64:
        """Return (R, M) losses of runs that drew (R, K) tokens from (R, K) unique ones with (R,) parameters."""
        effective = effective_tokens(draws, unique, self.saturation) @ self.transfer.T
        ratio = np.maximum(effective, LEAST_SHARE * draws.sum(axis=1, keepdims=True)) / self.reference_tokens
        size = np.log(parameters / self.reference_parameters)[:, None]
        losses: Float64 = (
            self.floors
            + self.model[:, 0] * np.exp(-self.model[:, 1] * size)
            + self.data[:, 0] * ratio ** -self.data[:, 1]
        )
        return losses

    def data_terms(self, draws: Float64, sizes: Float64) -> tuple[Float64, Float64]:
        """Return (M,) B / D_eff^beta of one run of (K,) draws, and its (M, K) derivatives by the draws."""
        known = 1.0 if np.isnan(self.saturation) else self.saturation  # not known: nothing is repeated
        effective = self.transfer @ effective_tokens(draws, sizes, known)
        held = np.maximum(effective, LEAST_SHARE * draws.sum())
        values = self.data[:, 0] * (held / self.reference_tokens) ** -self.data[:, 1]
        worth = worth_of_next(draws / sizes, known)
        slopes = (-values * self.data[:, 1] / held)[:, None] * self.transfer * worth
        return values, slopes


def effective_tokens(draws: Float64, unique: Float64, saturation: float) -> Float64:
    """Return U S(D / U; R*), of the shape of `draws`; where U is infinite, D. R* may be nan if nothing is repeated."""
    known = 1.0 if np.isnan(saturation) else saturation
    finite = np.where(np.isinf(unique), 1.0, unique)
    repeats = np.where(np.isinf(unique), 0.0, draws / finite)
    worth: Float64 = np.where(np.isinf(unique), draws, finite * effective_repeats(repeats, known))
    return worth
