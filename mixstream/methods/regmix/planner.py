"""RegMix: gradient-boosted trees learn losses from mixtures, and the best of many simulated mixtures are averaged.

    runs      n small runs, mixtures drawn around the prior q with softened odds, q~_j ~ q_j^0.5:
                  s log-uniform in [0.1, 5],  r ~ Dirichlet(s q~),  drawn again if any r_j > 15 q_j,
                  r_j < 2e-4 set to 0, r divided by its sum                                        (`mixtures`)
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

from mixstream.errors import FitError, MissingExtraError
from mixstream.methods.planning.allocating import region_of
from mixstream.methods.planning.checks import check_mixtures, check_option, check_prior, of_one_setting, prior_shares
from mixstream.methods.planning.planner import target_weights
from mixstream.methods.planning.table import RunTable
from mixstream.methods.regmix.mixtures import CHUNK, dirichlet, hold_within
from mixstream.mixture.simplex import Float64

LEAF = 20  # least runs of a leaf: LightGBM's default
LEARNING = 3 * LEAF  # least runs that trees grow on: 2 * LEAF leave one place to split at, which bins may miss


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
            mixtures = hold_within(dirichlet(random, np.tile(self.strength * prior, (count, 1))), region)
            expected = sum(weight * trees.predict(mixtures, num_threads=self.threads) for weight, trees in counted)
            best, scores = np.concatenate([best, mixtures]), np.append(scores, expected)
            kept = np.argsort(scores, kind="stable")[: self.averaged]
            best, scores = best[kept], scores[kept]
        return region.project(best.mean(axis=0))

    def _grown(self, runs: RunTable, number: int) -> Any:
        """Return the trees of one target."""
        lightgbm = _lightgbm()
        place = f"regmix, target {runs.targets[number]!r}"
        has = np.flatnonzero(~np.isnan(runs.losses[:, number]))
        shuffled = np.random.default_rng([self.seed, number]).permutation(has)
        judging = math.ceil(self.held_out * len(has))
        if len(has) - judging < LEARNING:
            missing = max(1, math.ceil(LEARNING / (1 - self.held_out)) - len(has))
            raise FitError(
                f"{place}: {len(has)} runs have its loss, of which {judging} only judge; trees with leaves of {LEAF} "
                f"runs need {LEARNING} to grow on, so {missing} more runs are missing (the paper has 512)"
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
                f"{place}: no tree found a source to split {len(has)} runs by; its losses may not depend on the "
                f"mixtures, or more runs are needed"
            )
        return trees

    def _check_fitted(self) -> None:
        if not self.trees:
            raise FitError("regmix has not been fitted; call fit with a table of runs")


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ModuleNotFoundError:
        raise MissingExtraError(
            "regmix needs the package 'lightgbm'; install it with pip install 'mixstream-llm[regmix]'"
        ) from None
    return lightgbm
