"""RegMix's mixtures: for small runs, drawn around a prior, and for its search, held within floors and budgets.

Source: Liu et al. 2024 (arXiv 2407.01492) and its authors' code; the equations are in `mixstream.methods.regmix`.
"""

from __future__ import annotations

import math

import numpy as np

from mixstream.errors import MixtureError
from mixstream.methods.planning.allocating import Region
from mixstream.mixture.simplex import Float64

CHUNK = 10_000  # mixtures that are drawn, or simulated, at a time


def draw_mixtures(
    prior: Float64,
    num: int,
    seed: int,
    *,
    odds: float = 0.5,
    strengths: tuple[float, float] = (0.1, 5.0),
    most: float = 15.0,
    least: float = 2e-4,
) -> Float64:
    """Return (num, K) mixtures for runs, spread around a prior.

    Args:
        prior: (K,) q above 0, such as the sizes; divided by its sum.
        num: how many.
        seed: of the draws.
        odds: exponent of the prior, that of a temperature.
        strengths: between which s is drawn; small ones give mixtures of few sources.
        most: no share above this many times the prior's.
        least: shares below are 0.

    Raises:
        MixtureError: a prior that is not above 0, strengths or bounds that cannot be, or bounds that refuse
            nearly every mixture.
    """
    if not (np.isfinite(prior) & (prior > 0)).all() or num < 1:
        raise MixtureError(
            f"{num} mixtures around the prior {np.asarray(prior).tolist()}; expected 1 or more, and shares above 0"
        )
    low, high = strengths
    if not 0 < low <= high < math.inf or most < 1 or not 0 <= least < 1 / len(prior):
        raise MixtureError(
            f"strengths {low:g} to {high:g}, most {most:g} times the prior, least {least:g}; expected 0 < strengths, "
            f"most of at least 1, and least below 1/{len(prior)}"
        )
    shares = prior / prior.sum()
    softened = shares**odds / (shares**odds).sum()
    random = np.random.default_rng(seed)
    kept: list[Float64] = []
    count, tries = 0, 0
    while count < num:
        strength = np.exp(random.uniform(math.log(low), math.log(high), CHUNK))
        drawn = dirichlet(random, strength[:, None] * softened)
        good = drawn[(drawn <= most * shares).all(axis=1)]
        kept.append(good)
        count, tries = count + len(good), tries + CHUNK
        if tries >= 100 * CHUNK and count < tries * 1e-5:
            raise MixtureError(
                f"{count} of {tries:,} mixtures have no share above {most:g} times the prior's; raise that bound, or "
                f"the strengths (now {low:g} to {high:g})"
            )
    mixtures = np.concatenate(kept)[:num]
    mixtures[mixtures < least] = 0
    whole: Float64 = mixtures / mixtures.sum(axis=1, keepdims=True)
    return whole


def hold_within(mixtures: Float64, region: Region) -> Float64:
    """Return (n, K) mixtures, each replaced by the nearest in relative entropy of the region.

    What `Region.project` does, for many at once: clip(e^x r, least, most), x by bisection so that it sums to 1.
    """
    inside = ((mixtures >= region.least) & (mixtures <= region.most)).all(axis=1)
    held = mixtures.copy()
    outside = np.maximum(mixtures[~inside], 1e-12)
    low, high = np.full((len(outside), 1), -40.0), np.full((len(outside), 1), 40.0)
    for _ in range(60):
        middle = (low + high) / 2
        short = np.clip(np.exp(middle) * outside, region.least, region.most).sum(axis=1, keepdims=True) < 1
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    held[~inside] = np.clip(np.exp((low + high) / 2) * outside, region.least, region.most)
    return held


def dirichlet(random: np.random.Generator, concentrations: Float64) -> Float64:
    """Return (n, K) draws, each from its own concentrations (n, K).

    A gamma variable of shape a is one of shape a + 1 times u^(1/a), with u uniform; in logarithms, so that those of
    small concentrations do not all vanish.
    """
    logs = (
        np.log(random.standard_gamma(concentrations + 1))
        + np.log1p(-random.random(concentrations.shape)) / concentrations
    )
    raised = np.exp(logs - logs.max(axis=1, keepdims=True))
    drawn: Float64 = raised / raised.sum(axis=1, keepdims=True)
    return drawn
