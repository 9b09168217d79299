"""Planted repetition laws: does a fit to noisy pilots find how much of a scarce source is best, and what it is worth?

Isolates the statistics of `mixstream.methods.mixture_law`: losses come from the law itself, with relative noise.

(a) One target and a generic pool. Pilots vary tokens, the pool and the share; the best share h* that the fitted law
gives is compared with the planted law's, at the largest pilot's tokens and at 4 times them, for pools of 1/400,
1/100 and 1/25 of the tokens. Told: |log10 h*_fitted - log10 h*_planted|, median and worst, for few and many pilots,
with rows weighted evenly and, as the paper does, by repeats; and what the fitted share costs: its planted loss over
the least one. Where the planted h* is 1 there is no minimum in between and the loss is flat in h: told apart.

(b) The same from models of three sizes, h* asked for twice the largest.

(c) K sources that are targets too, each with its own law: the error of log tau where tau is above 0.02, of R*, and
what the fitted allocation costs at 4 times the pilots' tokens.

    python benchmarks/planted_repetition.py [--seeds 20] [--noise 0.01]
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from dataclasses import replace

import numpy as np

from mixstream.methods.mixture_law import MixtureLaw
from mixstream.methods.mixture_law.law import LossLaw, best_share
from mixstream.methods.planning.table import RunTable, table_of

BILLION = 1e9
# E, A, alpha, tau, R*, gamma, with tokens in billions
COEFFICIENTS = (
    (2.0, 8.0, 0.30, 20.0, 12.0, 0.05),
    (1.5, 10.0, 0.25, 10.0, 15.0, 0.10),
    (2.0, 6.0, 0.35, 40.0, 8.0, 0.30),
    (1.8, 12.0, 0.40, 5.0, 20.0, 0.50),
    (2.2, 5.0, 0.20, 30.0, 5.0, 0.20),
    (1.6, 3.0, 0.28, 60.0, 25.0, 0.00),
)
POOLS = (1 / 400, 1 / 100, 1 / 25)  # of the tokens
DESIGNS = {  # tokens in billions, shares
    "27 pilots": ((1, 4, 16), (0.01, 0.1, 0.6)),
    "54 pilots": ((1, 4, 16), (0.01, 0.03, 0.09, 0.2, 0.45, 0.9)),
    "120 pilots": ((1, 2, 4, 8, 16), (0.01, 0.02, 0.04, 0.09, 0.16, 0.3, 0.5, 0.9)),
}
SIZES = (1e8, 3e8, 9e8)
TARGET = ("target", "generic")


def planted(e: float, a: float, alpha: float, tau: float, saturation: float, gamma: float) -> LossLaw:
    """Return the law of one target and a generic pool."""
    return LossLaw(
        e, a, alpha, np.array([tau, 1.0]), np.full(2, saturation), np.array([gamma, 0.0]), reference_tokens=BILLION
    )


def pilots(law: LossLaw, design: str, noise: float, seed: int, sizes: tuple[float, ...] = (math.nan,)) -> RunTable:
    """Return the noisy losses of every run of a design."""
    budgets, shares = DESIGNS[design]
    rows = np.array(list(itertools.product(np.array(budgets) * BILLION, POOLS, shares, sizes)))
    tokens, pools, share, parameters = rows.T
    unique = np.stack([tokens * pools, np.full(len(rows), np.inf)], axis=1)
    proportions = np.stack([share, 1 - share], axis=1)
    losses = law.losses(proportions, tokens, parameters, unique)
    noisy = losses * np.exp(noise * np.random.default_rng(seed).normal(size=len(rows)))
    known = None if math.isnan(sizes[0]) else parameters
    return table_of(TARGET, proportions, tokens, noisy[:, None], targets=["target"], unique=unique, parameters=known)


def compared(truth: LossLaw, fitted: LossLaw, parameters: float = math.nan) -> list[tuple[bool, float, float]]:
    """Return, at 1 and 4 times 16 B tokens and three pools: h* < 1, |log10 h*| apart, excess of loss."""
    rows = []
    for times, pool in itertools.product((1, 4), POOLS):
        tokens = 16 * BILLION * times
        found = best_share(fitted, tokens, pool * tokens, parameters=parameters)
        best = best_share(truth, tokens, pool * tokens, parameters=parameters)
        run = (np.array([tokens]), np.array([parameters]), np.array([[pool * tokens, np.inf]]))
        cost = truth.losses(np.array([[found.share, 1 - found.share]]), *run)[0]
        rows.append((best.share < 0.95, abs(math.log10(found.share / best.share)), cost / best.loss - 1))
    return rows


def one_target(seeds: int, noise: float) -> list[dict]:
    """Print and return (a)."""
    rows = []
    print("(a) one target: |log10 h*| apart, median and worst; planted loss over the least, worst")
    for by_repeats, design, coefficients in itertools.product((False, True), DESIGNS, COEFFICIENTS):
        truth = planted(*coefficients)
        cases = []
        for seed in range(seeds):
            fitted = MixtureLaw(by_repeats=by_repeats).fit(pilots(truth, design, noise, seed)).fitted
            cases += compared(truth, fitted.laws[0])
        rows.append(told("weighted by repeats" if by_repeats else "even", design, coefficients, cases))
    return rows


def any_size(seeds: int, noise: float) -> list[dict]:
    """Print and return (b)."""
    rows = []
    print(f"(b) models of {SIZES} parameters, asked for {2 * SIZES[-1]:g}")
    for coefficients in COEFFICIENTS:
        truth = replace(
            planted(*coefficients),
            capacity=0.8,
            capacity_exponent=0.35,
            size_exponent=0.1,
            reference_parameters=3e8,
        )
        cases = []
        for seed in range(seeds):
            fitted = MixtureLaw().fit(pilots(truth, "54 pilots", noise, seed, SIZES)).fitted
            cases += compared(truth, fitted.laws[0], 2 * SIZES[-1])
        rows.append(told("any size", "54 pilots of each size", coefficients, cases))
    return rows


def told(what: str, design: str, coefficients: tuple, cases: list[tuple[bool, float, float]]) -> dict:
    inside, apart, excess = (np.array(column) for column in zip(*cases, strict=True))
    within = apart[inside]
    row = {
        "rows": what,
        "design": design,
        "coefficients": coefficients,
        "median": float(np.median(within)),
        "p95": float(np.quantile(within, 0.95)),
        "worst": float(within.max()),
        "worst_at_1": float(apart[~inside].max(initial=0)),
        "worst_excess": float(excess.max()),
    }
    print(
        f"  {what:20} {design:22} {coefficients!s:38} median {row['median']:.4f}  95% {row['p95']:.4f}  worst "
        f"{row['worst']:.4f}  (h*=1: {row['worst_at_1']:.4f})  loss {row['worst_excess']:+.3%}",
        flush=True,
    )
    return row


def languages(count: int, seed: int) -> tuple[list[LossLaw], np.ndarray]:
    """Return laws of `count` sources that are targets too, and their unique tokens: from 50 M to 5 B."""
    random = np.random.default_rng(seed)
    unique = np.exp(random.uniform(np.log(0.05), np.log(5), count)) * BILLION
    laws = []
    for target in range(count):
        transfer = np.exp(random.normal(-2.5, 0.7, count))
        transfer[target] = 1.0
        laws.append(
            LossLaw(
                floor=random.uniform(1.4, 2.2),
                scale=random.uniform(1.5, 3.0),
                exponent=random.uniform(0.2, 0.4),
                transfer=transfer,
                saturation=np.full(count, random.uniform(6, 20)),
                penalty=np.eye(count)[target] * random.uniform(0, 0.2),
                reference_tokens=BILLION,
            )
        )
    return laws, unique


def language_pilots(laws: list[LossLaw], unique: np.ndarray, num_runs: int, noise: float, seed: int) -> RunTable:
    """Return runs of random mixtures at 2 and 8 B tokens, with 1/50 to all of each pool at the same scale."""
    random = np.random.default_rng(1000 + seed)
    proportions = random.dirichlet(np.ones(len(laws)), num_runs)
    tokens = random.choice([2 * BILLION, 8 * BILLION], num_runs)
    parts = np.exp(random.uniform(np.log(0.02), 0, num_runs)) * tokens / (8 * BILLION)
    sizes = unique * parts[:, None]
    nothing = np.full(num_runs, math.nan)
    losses = np.stack([law.losses(proportions, tokens, nothing, sizes) for law in laws], axis=1)
    noisy = losses * np.exp(noise * random.normal(size=losses.shape))
    return table_of([f"s{number}" for number in range(len(laws))], proportions, tokens, noisy, unique=sizes)


def many_sources(seeds: int, noise: float) -> list[dict]:
    """Print and return (c)."""
    rows = []
    print("(c) K sources, 12 K runs: |log tau| and |log R*| apart, medians; planted loss over the least; seconds a fit")
    for count in (2, 4, 8, 16):
        tau, saturation, excess, seconds = [], [], [], []
        for seed in range(seeds):
            laws, unique = languages(count, seed)
            runs = language_pilots(laws, unique, 12 * count, noise, seed)
            begun = time.perf_counter()
            found = MixtureLaw().fit(runs)
            seconds.append(time.perf_counter() - begun)
            truth = replace(found, fitted=replace(found.fitted, laws=tuple(laws)))
            tokens, free = 32 * BILLION, np.full(count, np.inf)
            both = [one.allocate(tokens, unique, free) for one in (found, truth)]
            cost, best = truth.predict(np.array(both), tokens, unique=unique).mean(axis=1)
            excess.append(cost / best - 1)
            known = np.array([law.transfer for law in laws])
            tau.append(np.median(np.abs(np.log(found.fitted.transfer / known))[known > 0.02]))
            pairs = zip(found.fitted.laws, laws, strict=True)
            saturation.append(np.median([abs(np.log(a.saturation[0] / b.saturation[0])) for a, b in pairs]))
        row = {
            "sources": count,
            "tau": float(np.median(tau)),
            "saturation": float(np.median(saturation)),
            "excess": float(np.median(excess)),
            "worst_excess": float(max(excess)),
            "seconds": float(np.median(seconds)),
        }
        print(
            f"  K={count:<3} tau {row['tau']:.3f}  R* {row['saturation']:.3f}  loss {row['excess']:+.4%}, worst "
            f"{row['worst_excess']:+.4%}   {row['seconds']:.2f} s",
            flush=True,
        )
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--noise", type=float, default=0.01)
    asked = parser.parse_args()
    begun = time.perf_counter()
    rows = {
        "one_target": one_target(asked.seeds, asked.noise),
        "any_size": any_size(asked.seeds, asked.noise),
        "many_sources": many_sources(asked.seeds, asked.noise),
    }
    print(f"\n{time.perf_counter() - begun:.0f} s")
    print(json.dumps({"benchmark": "planted_repetition", "settings": vars(asked), **rows}))


if __name__ == "__main__":
    main()
