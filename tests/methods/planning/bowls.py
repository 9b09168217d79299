"""What tests of planning share: tables of runs, and a planner whose law is exact."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import strategies as st

from mixstream.errors import FitError
from mixstream.methods.planning.allocating import minimise, region_of
from mixstream.methods.planning.table import RunTable, table_of

NAMES = ("ca", "eu", "gl")


def random_table(
    num_runs=12, names=NAMES, targets=None, seed=0, tokens=1e9, parameters=None, unique=None, **options
) -> RunTable:
    rng = np.random.default_rng(seed)
    return table_of(
        names,
        rng.dirichlet(np.ones(len(names)), num_runs),
        tokens,
        rng.uniform(1, 4, (num_runs, len(targets or names))),
        targets=targets,
        parameters=parameters,
        unique=unique,
        **options,
    )


@st.composite
def tables(draw):
    """Tables of all sorts, with odd names and with what may be missing missing."""
    names = draw(
        st.lists(
            st.text('ab.,"# é\n', min_size=1, max_size=5).map(lambda n: f"x{n}x"), min_size=1, max_size=4, unique=True
        )
    )
    targets = draw(st.sampled_from([None, ("one", "two words")]))
    num_runs = draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    losses = rng.uniform(0.1, 9, (num_runs, len(targets or names)))
    losses[rng.random(losses.shape) < 0.2] = math.nan
    unique = rng.uniform(1, 1e13, (num_runs, len(names)))
    unique[rng.random(unique.shape) < 0.3] = math.inf
    return table_of(
        names,
        rng.dirichlet(np.ones(len(names)), num_runs),
        10 ** rng.uniform(3, 14, num_runs),
        losses,
        targets=targets,
        parameters=draw(st.sampled_from([None, 1e6, 7.1e9])),
        unique=draw(st.sampled_from([None, unique])),
    )


@dataclass(frozen=True, eq=False)
class Bowl:
    """L_i = floor_i + steep (p_i - best_i)^2 + 1 / log10 D: `best` is learnt from runs, exactly where they are exact.

    With c_i = floor_i + steep best_i^2: linear in (c_i, best_i), so that least squares find them.
    """

    steep: float = 4.0
    fewest: int = 2
    best: np.ndarray | None = None
    floors: np.ndarray | None = None
    name: str = "bowl"
    targets: dict[str, float] | None = None

    def fit(self, runs):
        if len({tuple(row) for row in runs.proportions.tolist()}) < self.fewest:
            raise FitError(f"bowl: fewer than {self.fewest} different mixtures; give more")
        seen = runs.losses - 1 / np.log10(runs.tokens)[:, None] - self.steep * runs.proportions**2
        best, floors = np.empty(len(runs.sources)), np.empty(len(runs.sources))
        for i in range(len(runs.sources)):
            design = np.stack([np.ones(len(runs)), -2 * self.steep * runs.proportions[:, i]], axis=1)
            constant, best[i] = np.linalg.lstsq(design, seen[:, i], rcond=None)[0]
            floors[i] = constant - self.steep * best[i] ** 2
        return replace(self, best=best, floors=floors)

    def predict(self, proportions, tokens, *, parameters=math.nan, unique=None):
        if self.best is None:
            raise FitError("bowl: has not been fitted")
        tokens = np.broadcast_to(np.asarray(tokens, dtype=float), (len(proportions),))
        return self.floors + self.steep * (proportions - self.best) ** 2 + 1 / np.log10(tokens)[:, None]

    def allocate(self, tokens, sizes, budgets, *, floor=0.0, parameters=math.nan):
        if self.best is None:
            raise FitError("bowl: has not been fitted")
        region = region_of(tokens, sizes, budgets, floor)
        objective = lambda p: (float(((p - self.best) ** 2).sum()), 2 * (p - self.best))  # noqa: E731
        return minimise(region, objective, of="bowl").proportions


def bowl_table(best=(0.2, 0.3, 0.5), noise=0.0, num_runs=12, seed=0, names=NAMES, **options) -> RunTable:
    """Runs that a bowl is the truth of."""
    table = random_table(num_runs, names, seed=seed, **options)
    truth = Bowl(best=np.array(best), floors=np.linspace(1, 2, len(names)))
    losses = truth.predict(table.proportions, table.tokens)
    noisy = losses * np.exp(noise * np.random.default_rng(seed + 1).standard_normal(losses.shape))
    return replace(table, losses=noisy)
