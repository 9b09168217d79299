"""Corpus rescaling: what a full run reads of each source, once weights are learnt.

With weights alpha, unique tokens U_i and a target size D, source i gives n_i = alpha_i D tokens:

    n_i > U_i    floor(n_i / U_i) whole copies and a random part of n_i - floor(n_i / U_i) U_i tokens
    n_i < U_i    a random part, without replacement

    budget        D is given
    keep_total    D = sum_i U_i                 the mixture is as large as the corpora are
    keep_largest  D = min_i U_i / alpha_i       the largest mixture that repeats nothing
    cap           D = min_i R_i U_i / alpha_i   the largest within the repeat budgets R_i

Source: Lacunza et al. 2025, XDoGE (arXiv 2512.10545), who rescale corpora to the learnt weights; how they choose
D was not readable to us, so the four choices, and sampling without replacement, are our reading.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from mixstream.errors import BudgetError, MixtureError, WeightsError
from mixstream.mixture.simplex import SUM_TOLERANCE, Float64
from mixstream.streams.index import Int64

RescalingMode = Literal["budget", "keep_total", "keep_largest", "cap"]


@dataclass(frozen=True, eq=False)
class Rescaled:
    """Tokens that a run of `target_tokens` reads of each of K sources.

    Attributes:
        target_tokens: D, the sum of `tokens`.
        tokens: (K,) n_i.
        copies: (K,) whole copies, floor(n_i / U_i).
        remainder: (K,) tokens beyond them, drawn at random without replacement.
        repeats: (K,) n_i / U_i.
    """

    target_tokens: int
    tokens: Int64
    copies: Int64
    remainder: Int64
    repeats: Float64


def target_size(
    weights: Float64,
    sizes_tokens: Int64,
    mode: RescalingMode,
    *,
    budget_tokens: int | None = None,
    max_repeats: Float64 | float | None = None,
    names: Sequence[str] | None = None,
) -> int:
    """Return D, the tokens of the rescaled mixture.

    Args:
        weights: (K,) alpha, sum 1.
        sizes_tokens: (K,) U.
        mode: how D is chosen; sources of weight 0 have no say.
        budget_tokens: D, for ``budget`` alone.
        max_repeats: R, for ``cap`` alone: one number, or (K,); infinite: unlimited.
        names: the K sources, for messages.

    Raises:
        MixtureError: an unknown mode, or an argument that it lacks or has no use for.
        WeightsError: weights that are none.
        BudgetError: a source has weight but no tokens, or nothing limits D, or D is 0.
    """
    shares = _exact_shares(weights, sizes_tokens, names)
    if mode not in ("budget", "keep_total", "keep_largest", "cap"):
        raise MixtureError(f"mode {mode!r}; expected budget, keep_total, keep_largest or cap")
    for name, value, user in (("budget_tokens", budget_tokens, "budget"), ("max_repeats", max_repeats, "cap")):
        if (value is not None) != (mode == user):
            raise MixtureError(f"mode {mode!r} with {name}={value}; {name} belongs to mode {user!r}, and to it alone")
    if mode == "budget":
        assert budget_tokens is not None
        target = budget_tokens
    elif mode == "keep_total":
        target = int(sizes_tokens.sum())
    else:
        target = _largest(shares, sizes_tokens, 1.0 if max_repeats is None else max_repeats)
    if target <= 0:
        raise BudgetError(f"the target is {target} tokens; expected 1 or more: add data or raise the budget")
    return target


def rescale(
    weights: Float64, sizes_tokens: Int64, target_tokens: int, *, names: Sequence[str] | None = None
) -> Rescaled:
    """Return how many tokens each source gives to a mixture of `target_tokens`.

    Whole numbers by largest remainder, in exact arithmetic: they sum to D, and each is within one token of alpha_i D.

    Args:
        weights: (K,) alpha, sum 1.
        sizes_tokens: (K,) U.
        target_tokens: D, such as `target_size` chooses it.
        names: the K sources, for messages.

    Raises:
        WeightsError: weights that are none.
        BudgetError: a source has weight but no tokens, or D is not above 0.
    """
    if target_tokens <= 0:
        raise BudgetError(f"the target is {target_tokens} tokens; expected 1 or more")
    exact = [share * target_tokens for share in _exact_shares(weights, sizes_tokens, names)]
    whole = [math.floor(number) for number in exact]
    order = sorted(range(len(exact)), key=lambda i: (whole[i] - exact[i], i))
    for i in order[: target_tokens - sum(whole)]:
        whole[i] += 1
    tokens = np.array(whole, dtype=np.int64)
    sizes = np.maximum(sizes_tokens, 1)  # a source without tokens has no weight, and gives none
    return Rescaled(target_tokens, tokens, tokens // sizes, tokens % sizes, tokens / sizes)


def _exact_shares(weights: Float64, sizes_tokens: Int64, names: Sequence[str] | None) -> list[Fraction]:
    """Return the weights as exact fractions of their sum: 0.2 is 1/5, not the double that stands for it."""
    if weights.shape != sizes_tokens.shape:
        raise WeightsError(f"{len(weights)} weights for {len(sizes_tokens)} sources; give every source one")
    if not (np.isfinite(weights) & (weights >= 0)).all() or abs(math.fsum(weights) - 1) > SUM_TOLERANCE:
        raise WeightsError(f"weights {weights.tolist()}; expected finite numbers of at least 0 with the sum 1")
    if (sizes_tokens < 0).any():
        raise BudgetError(f"sizes {sizes_tokens.tolist()}; expected tokens, 0 or more")
    empty = np.flatnonzero((sizes_tokens == 0) & (weights > 0))
    if len(empty):
        told = ", ".join(names[i] if names else f"source {i}" for i in empty[:5])
        raise BudgetError(f"{told} ({len(empty)} sources) has weight but no tokens; give it data, or weight 0")
    exact = [Fraction(repr(weight)) for weight in weights.tolist()]
    total = sum(exact)
    return [weight / total for weight in exact]


def _largest(shares: Sequence[Fraction], sizes_tokens: Int64, max_repeats: Float64 | float) -> int:
    """Return floor( min_i R_i U_i / alpha_i ) over the sources that have weight and a limit."""
    allowed = np.broadcast_to(np.asarray(max_repeats, dtype=np.float64), sizes_tokens.shape)
    if not (allowed > 0).all():
        raise BudgetError(f"max_repeats {allowed.tolist()}; expected numbers above 0")
    limits: list[Fraction] = [
        Fraction(repr(repeats)) * size / share
        for share, size, repeats in zip(shares, sizes_tokens.tolist(), allowed.tolist(), strict=True)
        if share and math.isfinite(repeats)
    ]
    if not limits:
        raise BudgetError("no source that has weight has a limit of repeats, so nothing limits the target; give one")
    most: Fraction = min(limits)
    return math.floor(most)
