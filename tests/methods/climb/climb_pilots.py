"""Planted laws of CLIMB, and pilots that are simulated from them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from mixstream.methods.climb.law import Law
from mixstream.methods.planning.allocating import Region
from mixstream.methods.planning.table import RunTable, table_of

BUDGETS = (1e9, 4e9)
ALONE_BUDGETS = (0.5e9, 2e9, 8e9)

# The parameters of PAPERS.md 3.5; tokens in units of a billion.
REFERENCE = Law(
    form="F1",
    reference_tokens=1.0,
    scale=np.array([30, 25, 40, 35.0]),
    exponent=np.array([0.28, 0.30, 0.27, 0.29]),
    floor=np.array([1.6, 1.8, 1.7, 1.9]),
    saturation=np.array([6, 6, 8, 8.0]),
    transfer=np.array([[0, 0.10, 0.05, 0.02], [0.15, 0, 0.04, 0.03], [0.06, 0.05, 0, 0.08], [0.04, 0.05, 0.10, 0]]),
    fading=np.array([[0, 2, 1, 0.5], [3, 0, 1, 0.5], [1, 1, 0, 2], [1, 1, 2, 0.0]]),
    reference_size=math.nan,
    size_scale=np.zeros(4),
    size_exponent=np.zeros(4),
    sizes=(),
)


def anywhere(count: int, least: float = 1e-4) -> Region:
    return Region(least=np.full(count, least), most=np.ones(count))


def planted(form: str, count: int, seed: int, sizes: tuple[float, ...] = ()) -> Law:
    random = np.random.default_rng([seed, count])
    beside = 1 - np.eye(count)
    return Law(
        form=form,
        reference_tokens=2e9,
        scale=random.uniform(1.0, 2.0, count),
        exponent=random.uniform(0.25, 0.4, count),
        floor=random.uniform(1.5, 2.2, count),
        saturation=random.uniform(3, 10, count),
        transfer=beside * random.uniform(-0.1, 1.0, (count, count)) / count,
        fading=beside * random.uniform(0, 0.4, (count, count)) / count,
        reference_size=float(np.exp(np.log(sizes).mean())) if sizes else math.nan,
        size_scale=random.uniform(0.2, 0.4, count) if len(sizes) > 1 else np.zeros(count),
        size_exponent=random.uniform(0.3, 0.4, count) if len(sizes) > 1 else np.zeros(count),
        sizes=sizes,
    )


def mixtures(count: int, seed: int, leading: tuple[float, ...] = (0.15, 0.4, 0.7)) -> np.ndarray:
    """Return proportions (len(leading) K, K): each language leads at each share, the others share the rest."""
    random = np.random.default_rng([seed, count, 1])
    rows = []
    for leader in range(count):
        for share in leading:
            rows.append(np.insert((1 - share) * random.dirichlet(np.full(count - 1, 1.5)), leader, share))
    return np.array(rows)


def pilots(
    law: Law,
    seed: int,
    noise: float = 0.01,
    budgets: tuple[float, ...] = BUDGETS,
    alone: tuple[float, ...] = ALONE_BUDGETS,
) -> RunTable:
    """Return a table of simulated runs, mixtures first; at every model size that the law has."""
    count = len(law.floor)
    shares = np.concatenate([mixtures(count, seed + at) for at in range(len(budgets))] + [np.eye(count)] * len(alone))
    per_budget = (len(shares) - count * len(alone)) // len(budgets)
    tokens = np.concatenate([np.repeat(budgets, per_budget), np.repeat(alone, count)])
    models = law.sizes or (math.nan,)
    shares, tokens = np.tile(shares, (len(models), 1)), np.tile(tokens, len(models))
    parameters = np.repeat(models, len(tokens) // len(models))
    random = np.random.default_rng([seed, count, 2])
    losses = law.losses(shares, tokens, parameters) * np.exp(noise * random.standard_normal(shares.shape))
    losses = np.where(shares > 0, losses, math.nan)
    return table_of(
        [f"l{number}" for number in range(count)], shares, tokens, losses, parameters=parameters if law.sizes else None
    )


def slow_ratio(law: Law, shares: np.ndarray, tokens: float) -> np.ndarray:
    """Return r~ (K,) as the equations say it, language by language."""
    scaled = tokens / law.reference_tokens
    ratios = []
    for i, eta in enumerate(law.saturation):
        gains = []
        for j in range(len(shares)):
            if j == i:
                continue
            alpha = law.transfer[j, i] + law.fading[j, i] / scaled
            donor = 1 - math.exp(-eta * shares[j])
            gains.append(
                {
                    "F1": alpha * donor,
                    "F2": alpha * (1 - math.exp(-eta * shares[i])) * shares[j],
                    "F3": alpha * shares[i] * donor,
                }[law.form]
            )
        ratios.append(shares[i] + math.fsum(gains))
    return np.array(ratios)


def of_form(form: str) -> Law:
    return replace(REFERENCE, form=form)
