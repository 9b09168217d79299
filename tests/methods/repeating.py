"""Planted repetition laws, and the pilots that would be run of them."""

from __future__ import annotations

import math

import numpy as np

from mixstream.methods.mixture_law.law import LossLaw
from mixstream.methods.planning.table import table_of

BILLION = 1e9
SETS = [  # E, A, alpha, tau, R*, gamma; tokens in billions
    (2.0, 8.0, 0.30, 20.0, 12.0, 0.05),
    (2.0, 6.0, 0.35, 40.0, 8.0, 0.30),
    (1.8, 12.0, 0.40, 5.0, 20.0, 0.50),
    (2.2, 5.0, 0.20, 30.0, 5.0, 0.20),
]


def law_of_target(e, a, alpha, tau, saturation, gamma, reference=BILLION):
    return LossLaw(
        e, a, alpha, np.array([tau, 1.0]), np.full(2, saturation), np.array([gamma, 0.0]), reference_tokens=reference
    )


def pilots(law, noise=0.0, seed=0, scale=1.0, sizes=(math.nan,)):
    """Return 36 runs of (target, generic): 3 budgets x 3 pools x 4 shares, times the sizes of models."""
    rows = [
        (tokens * BILLION * scale, pool, share, size)
        for tokens in (1, 4, 16)
        for pool in (1 / 400, 1 / 100, 1 / 25)
        for share in (0.01, 0.08, 0.3, 0.9)
        for size in sizes
    ]
    tokens, pool, share, size = np.array(rows).T
    proportions = np.stack([share, 1 - share], axis=1)
    unique = np.stack([tokens * pool, np.full(len(rows), np.inf)], axis=1)
    losses = law.losses(proportions, tokens, size, unique)
    losses = losses * np.exp(noise * np.random.default_rng(seed).normal(size=len(rows)))
    told = None if math.isnan(sizes[0]) else size
    return table_of(("hi", "en"), proportions, tokens, losses[:, None], targets=["hi"], unique=unique, parameters=told)


def languages(count, seed):
    """Return laws of `count` sources that are targets too, and their unique tokens."""
    random = np.random.default_rng(seed)
    laws = []
    for target in range(count):
        transfer = np.exp(random.normal(-2.5, 0.7, count))
        transfer[target] = 1.0
        penalty = np.eye(count)[target] * random.uniform(0, 0.2)
        saturation = np.full(count, random.uniform(6, 20))
        numbers = (random.uniform(1.4, 2.2), random.uniform(1.5, 3), random.uniform(0.2, 0.4))
        laws.append(LossLaw(*numbers, transfer, saturation, penalty, reference_tokens=BILLION))
    return laws, np.exp(random.uniform(np.log(0.05), np.log(5), count)) * BILLION


def language_pilots(laws, unique, num_runs, noise, seed=0):
    random = np.random.default_rng(seed)
    proportions, tokens = random.dirichlet(np.ones(len(unique)), num_runs), random.choice([2e9, 8e9], num_runs)
    sizes = unique * (np.exp(random.uniform(np.log(0.02), 0, num_runs)) * tokens / 8e9)[:, None]
    nothing = np.full(num_runs, math.nan)
    losses = np.stack([law.losses(proportions, tokens, nothing, sizes) for law in laws], axis=1)
    noisy = losses * np.exp(noise * random.normal(size=losses.shape))
    names = [f"s{number}" for number in range(len(unique))]
    return table_of(names, proportions, tokens, noisy, targets=names[: len(laws)], unique=sizes)
