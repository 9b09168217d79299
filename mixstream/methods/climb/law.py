"""The whole law of CLIMB: every language's loss in a mixture, of so many tokens, at a model size.

    L_i(N, D, r) = E_i + A_i n^-a_i + B_i (r~_i(D, r) d)^-beta_i        d = D / D0, n = N / N0
    alpha_{j->i}(D) = b_ji + k_ji / d

With D0, N0 the pilots' geometric means, B and A are in nats/token and near 1 whatever the size of the runs.

Source: Guo et al. 2025, CLIMB (arXiv 2509.15556). The term of the model size is ours: CLIMB fits a law a size.
As it is added, the best proportions do not change with N; only the expected losses do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mixstream.errors import FitError
from mixstream.methods.climb.forms import BEND, form_named, ratio_slopes, ratios
from mixstream.mixture.simplex import BoolArray, Float64

SAME_SIZE = 1e-3  # model sizes that differ by less, relatively, are one


@dataclass(frozen=True, eq=False)
class Law:
    """The parameters of K languages.

    Attributes:
        form: of r~: F1, F2 or F3.
        reference_tokens: D0.
        scale, exponent, floor: (K,) B, beta, E.
        saturation: (K,) eta.
        transfer, fading: (K, K) b and k, from the first axis to the second; 0 from a language to itself.
        reference_size: N0, parameters; nan: the pilots do not tell their size.
        size_scale, size_exponent: (K,) A and a; A is 0 where the pilots are of one size (E holds its part).
        sizes: the sizes of the pilots, ascending; empty where they do not tell.
    """

    form: str
    reference_tokens: float
    scale: Float64
    exponent: Float64
    floor: Float64
    saturation: Float64
    transfer: Float64
    fading: Float64
    reference_size: float
    size_scale: Float64
    size_exponent: Float64
    sizes: tuple[float, ...]

    def strength(self, tokens: Float64 | float) -> Float64:
        """Return alpha (..., K, K) at D = tokens (...)."""
        scaled = np.asarray(tokens, dtype=np.float64)[..., None, None] / self.reference_tokens
        strength: Float64 = self.transfer + self.fading / scaled
        return strength

    def ratios(self, proportions: Float64, tokens: Float64) -> Float64:
        """Return r~ (R, K) of proportions (R, K) and tokens (R,)."""
        return ratios(form_named(self.form), proportions, self.strength(tokens), self.saturation)

    def tells(self, proportions: Float64, tokens: Float64) -> BoolArray:
        """Return (R, K) whether r~ is what the form says, and not the bend that keeps it above 0."""
        tells: BoolArray = self.ratios(proportions, tokens) >= BEND
        return tells

    def ratio_slopes(self, proportions: Float64, tokens: float) -> tuple[Float64, Float64]:
        """Return r~ (K,) of one mixture (K,) and its slopes d r~_i / d r_l, (K, K)."""
        return ratio_slopes(form_named(self.form), proportions, self.strength(tokens), self.saturation)

    def losses(self, proportions: Float64, tokens: Float64, parameters: Float64 | float = math.nan) -> Float64:
        """Return L (R, K), nats/token, of proportions (R, K), tokens (R,) and model sizes (R,) or one.

        Raises:
            FitError: sizes that the pilots cannot tell of.
        """
        scaled = tokens[:, None] / self.reference_tokens
        data = self.scale * (self.ratios(proportions, tokens) * scaled) ** -self.exponent
        return self.floor + self._of_size(parameters) + data

    def loss_slopes(self, proportions: Float64, tokens: float) -> tuple[Float64, Float64]:
        """Return E + B (r~ d)^-beta (K,) of one mixture (K,), and its slopes d L_i / d r_l, (K, K).

        The model's part, which no proportion changes, is left out.
        """
        ratio, slopes = self.ratio_slopes(proportions, tokens)
        data = self.scale * (ratio * tokens / self.reference_tokens) ** -self.exponent
        own: Float64 = self.floor + data
        return own, (-self.exponent * data / ratio)[:, None] * slopes

    def alone(self, tokens: float) -> Float64:
        """Return E + B d^-beta (K,) of each language if it alone were read: r~_i = 1. The model's part is left out."""
        alone: Float64 = self.floor + self.scale * (tokens / self.reference_tokens) ** -self.exponent
        return alone

    def _of_size(self, parameters: Float64 | float) -> Float64:
        """Return the part (R or 1, K) of the loss that is the model's."""
        asked = np.atleast_1d(np.asarray(parameters, dtype=np.float64))
        check_size(asked, self.sizes)
        if len(self.sizes) < 2:
            return np.zeros((1, len(self.floor)))
        part: Float64 = self.size_scale * (asked[:, None] / self.reference_size) ** -self.size_exponent
        return part


def check_size(asked: Float64, sizes: tuple[float, ...]) -> None:
    """Refuse model sizes that pilots of these sizes cannot tell of; nan: the size of the pilots, where it is one.

    Raises:
        FitError: with what was asked for, the sizes there are, and the ways out.
    """
    told = asked[~np.isnan(asked)]
    if (told <= 0).any():
        raise FitError(f"a model of {told.min():g} parameters; expected a number above 0")
    if len(sizes) >= 2 and len(told) < len(asked):
        raise FitError(
            f"the pilots are of {len(sizes)} model sizes ({_listed(sizes)} parameters); say of which size the model "
            f"is that you ask for"
        )
    if len(sizes) == 1:
        other = told[np.abs(told / sizes[0] - 1) > SAME_SIZE]
        if len(other):
            raise FitError(
                f"asked for a model of {other[0]:.4g} parameters, but all pilots have {sizes[0]:.4g}: they do not "
                f"tell how the loss falls with size; train pilots of another size, or ask for this one"
            )
    if not sizes and len(told):
        raise FitError(
            f"asked for a model of {told[0]:.4g} parameters, but the pilots do not tell their size; give the table "
            f"of runs its parameters, or leave the size out"
        )


def _listed(sizes: tuple[float, ...]) -> str:
    return ", ".join(f"{size:.4g}" for size in sizes)
