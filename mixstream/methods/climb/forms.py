"""How languages help each other in a mixture: three forms of CLIMB's interaction-aware ratio.

    r~_i = r_i + sum_{j != i} alpha_{j->i}(D) g(r_i, r_j; eta_i)        alpha_{j->i}(D) = b_ji + k_ji / d,  d = D / D0

    F1  donor-saturated   g = 1 - exp(-eta r_j)
    F2  receiver-gated    g = (1 - exp(-eta r_i)) r_j
    F3  multiplicative    g = r_i (1 - exp(-eta r_j))

A form is its g, with the derivatives that fits and solutions need; one more is one more entry of `FORMS`. All
give r~_i = r_i = 1 to a language that is read alone, and alpha may have either sign. Under F2 and F3 a language
that is not read has r~_i = 0: they say nothing of it.

Source: Guo et al. 2025, CLIMB (arXiv 2509.15556): transfer that falls as 1/D, saturation by eta, r~ = r alone.
The exact formula of r~ could not be seen: F1 to F3 are our readings, and held-out error chooses among them.
Ours too: r~ is kept above 0 by a smooth bend below 1e-4, so that slopes never vanish. That is for fits and solutions:
what is predicted there is nothing (nan).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mixstream.errors import FitError, nearest
from mixstream.mixture.simplex import Float64

BEND = 1e-4  # ratios below are bent so that they stay above 0


@dataclass(frozen=True, eq=False)
class Basis:
    """g and its derivatives, all of one shape.

    Attributes:
        value: g(r_i, r_j; eta_i).
        by_eta, by_own, by_other: derivatives by eta_i, r_i and r_j.
    """

    value: Float64
    by_eta: Float64
    by_own: Float64
    by_other: Float64


Form = Callable[[Float64, Float64, Float64], Basis]  # r_i, r_j, eta_i, of shapes that go together


def donor_saturated(own: Float64, other: Float64, eta: Float64) -> Basis:
    """F1: what a donor gives saturates with its own share."""
    left = np.exp(-eta * other)
    zero = np.zeros(np.broadcast_shapes(own.shape, left.shape))
    return Basis(value=1 - left + zero, by_eta=other * left + zero, by_own=zero, by_other=eta * left + zero)


def receiver_gated(own: Float64, other: Float64, eta: Float64) -> Basis:
    """F2: a language takes from others only as far as it is read itself."""
    left = np.exp(-eta * own)
    zero = np.zeros(np.broadcast_shapes(left.shape, other.shape))
    gate = 1 - left
    return Basis(value=gate * other, by_eta=own * left * other, by_own=eta * left * other, by_other=gate + zero)


def multiplicative(own: Float64, other: Float64, eta: Float64) -> Basis:
    """F3: others make each token of a language count more or less."""
    left = np.exp(-eta * other)
    zero = np.zeros(np.broadcast_shapes(own.shape, left.shape))
    return Basis(value=own * (1 - left), by_eta=own * other * left, by_own=1 - left + zero, by_other=own * eta * left)


FORMS: dict[str, Form] = {"F1": donor_saturated, "F2": receiver_gated, "F3": multiplicative}


def form_named(name: str) -> Form:
    """Return a form.

    Raises:
        FitError: there is none of this name.
    """
    if name not in FORMS:
        raise FitError(f"no form {name!r} of CLIMB's ratio; expected {', '.join(FORMS)}{nearest(name, FORMS)}")
    return FORMS[name]


def bent(raw: Float64) -> tuple[Float64, Float64]:
    """Return ratios above 0, and their derivatives by the raw ones: x from 1e-4 on, c^2 / (2 c - x) below c = 1e-4."""
    below = BEND / (2 * BEND - np.minimum(raw, BEND))
    return np.where(raw >= BEND, raw, BEND * below), np.where(raw >= BEND, 1.0, below**2)


def ratios(form: Form, shares: Float64, strength: Float64, eta: Float64) -> Float64:
    """Return r~, (R, K).

    Args:
        form: g.
        shares: (R, K) r.
        strength: (R, K, K) alpha, from the second axis to the third, with 0 from a language to itself.
        eta: (K,).
    """
    basis = form(shares[:, None, :], shares[:, :, None], eta)
    return bent(shares + (strength * basis.value).sum(axis=1))[0]


def ratio_slopes(form: Form, shares: Float64, strength: Float64, eta: Float64) -> tuple[Float64, Float64]:
    """Return r~ (K,) of one mixture, and its derivatives d r~_i / d r_l, (K, K).

    Args:
        form: g.
        shares: (K,) r.
        strength: (K, K) alpha from the first axis to the second.
        eta: (K,).
    """
    basis = form(shares[None, :], shares[:, None], eta)
    ratio, bend = bent(shares + (strength * basis.value).sum(axis=0))
    slopes = (strength * basis.by_other).T
    slopes[np.diag_indices(len(shares))] = 1 + (strength * basis.by_own).sum(axis=0)
    return ratio, bend[:, None] * slopes
