"""RegMix: gradient-boosted trees learn losses from mixtures, and the best of many simulated mixtures are averaged.

    runs      n small runs, mixtures drawn around the prior q with softened odds, q~_j ~ q_j^0.5:
                  s log-uniform in [0.1, 5],  r ~ Dirichlet(s q~),  drawn again if any r_j > 15 q_j,
                  r_j < 2e-4 set to 0, r divided by its sum                                        `draw_mixtures`
    fit       one LightGBM regression a target: r (K,) -> L_i; learning rate 0.01, at most 1000 trees, no more
              once 3 in a row have not lowered the error of the runs held out
    allocate  100,000 mixtures r ~ Dirichlet(q), brought between floor and repeat budgets; the answer is the mean
              of the 128 of least sum_i w_i L_i(r)

Source: Liu et al. 2024 (arXiv 2407.01492) and its authors' code, for all numbers above. Ours: runs are held out
of the fitted ones by lot (the code stops on its test runs); one regression a target, weighted, where the paper
regresses one target; simulated mixtures that floors and budgets do not allow are replaced by the nearest in
relative entropy that they do.

Trees predict nothing beyond the losses that they saw, so what is allocated lies among the runs' own mixtures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from mixstream.errors import FitError, MissingExtraError, MixtureError
from mixstream.methods.planning.allocating import Region, region_of
from mixstream.methods.planning.checks import check_mixtures, check_option, check_prior, of_one_setting, prior_shares
from mixstream.methods.planning.planner import target_weights
from mixstream.methods.planning.table import RunTable
from mixstream.mixture.simplex import Float64

LEAF = 20  # least runs of a leaf: LightGBM's default
CHUNK = 10_000  # mixtures that are simulated, held within bounds and predicted at a time


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
        raise MixtureError(f"{num} mixtures around the prior {np.asarray(prior).tolist()}; expected 1 or more, and shares above 0")
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
        drawn = _dirichlet(random, strength[:, None] * softened)
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


@dataclass(frozen=True, eq=False)
class RegMix:
    """A planner: trees, and the mean of the best simulated mixtures; needs the package lightgbm (extra `regmix`).

    Attributes:
        targets: {target: weight} in what is minimised; None: all alike.
        prior: {source: share}, above 0, that mixtures are simulated around; None: the sizes' shares.
        budget: fit only the runs of this many tokens, within 5 %; None: all runs, which must be of one budget.
        simulated: how many mixtures.
        averaged: how many of them, the best, the answer is the mean of.
        strength: of the Dirichlet distribution that they come from; above 1 nearer to the prior.
        held_out: share of the runs that decides how many trees there are.
        threads: of LightGBM.
        seed: of what is held out, of the trees and of the simulation.
        sources, fitted_targets, trees: what was fitted.
    """

    targets: Mapping[str, float] | None = None
    prior: Mapping[str, float] | None = None
    budget: float | None = None
    simulated: int = 100_000
    averaged: int = 128
    strength: float = 1.0
    held_out: float = 0.2
    threads: int = 1
    seed: int = 0
    sources: tuple[str, ...] = ()
    fitted_targets: tuple[str, ...] = ()
    trees: tuple[Any, ...] = field(default=(), repr=False)
    name: ClassVar[str] = "regmix"

    def __post_init__(self) -> None:
        """Refuse options that cannot be.

        Raises:
            FitError: with what was found.
        """
        for name, least, most in (("averaged", 1, self.simulated), ("threads", 1, 4096), ("held_out", 0.01, 0.5)):
            check_option(name, getattr(self, name), least, most)
        check_option("strength", self.strength, 1e-3)
        check_prior(self.prior)

    def fit(self, runs: RunTable) -> RegMix:
        """Return the planner fitted to `runs` (`Planner.fit`); trees always grow anew.

        Raises:
            RunTableError: the runs are of several budgets or model sizes.
            FitError: too few runs for a tree to split, or nothing that it learnt from them.
            MissingExtraError: lightgbm is not installed.
        """
        used = of_one_setting(runs, self.name, self.budget)
        trees = tuple(self._grown(used, number) for number in range(len(used.targets)))
        return replace(self, sources=used.sources, fitted_targets=used.targets, trees=trees)

    def predict(
        self,
        proportions: Float64,
        tokens: Float64 | float,
        *,
        parameters: Float64 | float = math.nan,
        unique: Float64 | None = None,
    ) -> Float64:
        """Return the (R, M) losses that the trees expect; tokens, model size and repeats play no part.

        Raises:
            FitError: it has not been fitted.
            RunTableError: mixtures of other sources, or that do not sum to 1.
        """
        self._check_fitted()
        shares = check_mixtures(proportions, self.sources)
        return np.column_stack([trees.predict(shares, num_threads=self.threads) for trees in self.trees])

    def allocate(
        self,
        tokens: float,
        sizes: Float64,
        budgets: Float64,
        *,
        floor: float = 0.0,
        parameters: float = math.nan,
    ) -> Float64:
        """Return the (K,) mean of the best simulated mixtures within floor and budgets (`Allocator.allocate`).

        Raises:
            FloorError, BudgetError: floor and budgets leave no mixture.
            FitError: it has not been fitted.
            WeightsError: the prior is of other sources.
        """
        self._check_fitted()
        region = region_of(tokens, sizes, budgets, floor, self.sources)
        prior = prior_shares(self.prior, sizes, self.sources)
        weights = target_weights(self.targets, self.fitted_targets)
        counted = [(weight, trees) for weight, trees in zip(weights, self.trees, strict=True) if weight > 0]
        random = np.random.default_rng(self.seed)
        best, scores = np.empty((0, len(prior))), np.empty(0)
        for first in range(0, self.simulated, CHUNK):
            count = min(CHUNK, self.simulated - first)
            mixtures = hold_within(_dirichlet(random, np.tile(self.strength * prior, (count, 1))), region)
            expected = sum(weight * trees.predict(mixtures, num_threads=self.threads) for weight, trees in counted)
            best, scores = np.concatenate([best, mixtures]), np.append(scores, expected)
            kept = np.argsort(scores, kind="stable")[: self.averaged]
            best, scores = best[kept], scores[kept]
        return region.project(best.mean(axis=0))

    def _grown(self, runs: RunTable, number: int) -> Any:
        """Return the trees of one target."""
        lightgbm = _lightgbm()
        has = np.flatnonzero(~np.isnan(runs.losses[:, number]))
        shuffled = np.random.default_rng([self.seed, number]).permutation(has)
        judging = math.ceil(self.held_out * len(has))
        needed = math.ceil(2 * LEAF / (1 - self.held_out))
        if len(has) - judging < 2 * LEAF:
            raise FitError(
                f"regmix, target {runs.targets[number]!r}: {len(has)} runs have its loss, of which {judging} only judge; "
                f"a tree splits {2 * LEAF} or more, so {max(1, needed - len(has))} more runs are missing (the paper has 512)"
            )
        options = {
            "objective": "regression",
            "metric": "l2",
            "learning_rate": 0.01,
            "min_data_in_leaf": LEAF,
            "num_threads": self.threads,
            "seed": self.seed,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        learn, judge = (
            lightgbm.Dataset(runs.proportions[part], runs.losses[part, number])
            for part in (np.sort(shuffled[judging:]), np.sort(shuffled[:judging]))
        )
        stop = lightgbm.early_stopping(3, verbose=False)
        trees = lightgbm.train(options, learn, num_boost_round=1000, valid_sets=[judge], callbacks=[stop])
        if trees.feature_importance().sum() == 0:
            raise FitError(
                f"regmix, target {runs.targets[number]!r}: no tree found a source to split {len(has)} runs by; its losses "
                f"may not depend on the mixtures, or more runs are needed"
            )
        return trees

    def _check_fitted(self) -> None:
        if not self.trees:
            raise FitError("regmix has not been fitted; call fit with a table of runs")


def _dirichlet(random: np.random.Generator, concentrations: Float64) -> Float64:
    """Return (n, K) draws, each from its own concentrations (n, K); in logarithms, so that small ones do not all vanish.

    A gamma variable of shape a is one of shape a + 1 times u^(1/a), with u uniform.
    """
    logs = np.log(random.standard_gamma(concentrations + 1)) + np.log1p(-random.random(concentrations.shape)) / concentrations
    raised = np.exp(logs - logs.max(axis=1, keepdims=True))
    drawn: Float64 = raised / raised.sum(axis=1, keepdims=True)
    return drawn


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ModuleNotFoundError:
        raise MissingExtraError(
            "regmix needs the package 'lightgbm'; install it with pip install 'mixstream-llm[regmix]'"
        ) from None
    return lightgbm
