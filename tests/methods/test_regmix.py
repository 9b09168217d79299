"""RegMix: its mixtures for runs, its trees, and the mean of the best that it simulates."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import BudgetError, FitError, FloorError, MissingExtraError, MixtureError, RunTableError
from mixstream.methods.planning.allocating import Region, region_of
from mixstream.methods.planning.table import table_of
from mixstream.methods.regmix import RegMix
from mixstream.methods.regmix.mixtures import dirichlet, draw_mixtures, hold_within

needs_lightgbm = pytest.mark.skipif(importlib.util.find_spec("lightgbm") is None, reason="lightgbm is not installed")
FREE = np.full(3, math.inf)


def true_losses(shares):
    return np.column_stack([2 + np.exp(-2 * shares[:, 0] + shares[:, 2]), 2 + np.exp(-2 * shares[:, 1])])


def runs_of(num=200, seed=0, sources=3):
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.ones(sources), num)
    losses = true_losses(shares) * np.exp(0.01 * random.normal(size=(num, 2)))
    return table_of("abcdef"[:sources], shares, 1e9, losses, targets=("x", "y"))


@given(st.lists(st.floats(1, 1e6), min_size=2, max_size=10), st.integers(0, 99), st.integers(1, 64))
def test_mixtures_for_runs_keep_their_bounds(prior, seed, num):
    shares = np.array(prior) / sum(prior)
    drawn = draw_mixtures(np.array(prior), num, seed)
    assert drawn.shape == (num, len(prior))
    assert drawn.sum(axis=1) == pytest.approx(np.ones(num), abs=1e-12)
    assert ((drawn == 0) | (drawn >= 2e-4)).all()
    assert (drawn <= 15 * shares * (1 + 10 * 2e-4)).all()  # what is set to 0 goes to the others
    assert (draw_mixtures(np.array(prior), num, seed) == drawn).all()


def test_mixtures_for_runs_spread_around_the_softened_prior():
    """Dirichlet's mean is the prior^0.5; high strengths keep near to it."""
    prior = np.array([1.0, 4.0, 16.0])
    drawn = draw_mixtures(prior, 20_000, 0, most=1e6)
    assert drawn.mean(axis=0) == pytest.approx(np.array([1, 2, 4]) / 7, abs=0.01)
    near = draw_mixtures(prior, 2000, 0, odds=1.0, strengths=(1e5, 1e5))
    assert near == pytest.approx(np.tile(prior / 21, (2000, 1)), abs=0.01)
    assert (draw_mixtures(prior, 100, 1) != draw_mixtures(prior, 100, 0)).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": [1.0, 0.0]}, r"prior \[1.0, 0.0\]; expected 1 or more"),
        ({"num": 0}, "0 mixtures around"),
        ({"strengths": (0.0, 5.0)}, "strengths 0 to 5.*; expected 0 < strengths"),
        ({"least": 0.5}, "least below 1/2"),
        ({"most": 0.5}, "most 0.5 times the prior"),
        (
            {"prior": [1.0] * 12, "most": 1.0 + 1e-9, "odds": 1.0},
            r"0 of 1,000,000 mixtures have no share above 1 times",
        ),
    ],
)
def test_mixtures_that_cannot_be_are_refused(options, message):
    prior = np.array(options.pop("prior", [1.0, 2.0]))
    with pytest.raises(MixtureError, match=message):
        draw_mixtures(prior, options.pop("num", 4), 0, **options)


@given(st.integers(2, 8), st.integers(0, 1000), st.floats(0, 0.99), st.floats(1.05, 5))
def test_mixtures_are_held_within_a_region_as_one_by_one(count, seed, part, room):
    random = np.random.default_rng(seed)
    most = np.minimum(room * random.dirichlet(np.ones(count)), 1)
    most = np.minimum(most * max(1, 1.01 / most.sum()), 1)
    if most.sum() < 1:
        most = np.ones(count)
    region = Region(np.full(count, part * min(most.min(), 1 / count)), most)
    mixtures = random.dirichlet(np.full(count, 0.3), 20)
    held = hold_within(mixtures, region)
    assert held == pytest.approx(np.array([region.project(one) for one in mixtures]), abs=1e-9)


@needs_lightgbm
def test_trees_learn_planted_losses_and_the_answer_is_good():
    """1 % noise on 400 runs; the answer's true loss is within 1 % of the best of a fine sample."""
    runs = runs_of(400)
    planner = RegMix(simulated=20_000).fit(runs)
    asked = np.random.default_rng(5).dirichlet(np.ones(3), 300)
    assert np.median(np.abs(planner.predict(asked, 1e9) / true_losses(asked) - 1)) < 0.01
    found = planner.allocate(1e9, np.full(3, 1e9), FREE)
    best = true_losses(np.random.default_rng(6).dirichlet(np.ones(3), 20_000)).mean(axis=1).min()
    assert true_losses(found[None]).mean() < best * 1.01
    only = replace(planner, targets={"y": 1.0}).allocate(1e9, np.full(3, 1e9), FREE)
    assert only[1] > found[1] + 0.1


@needs_lightgbm
def test_the_same_seed_gives_the_same_answer():
    runs = runs_of(80)
    sizes = np.array([1e8, 3e8, 2e9])
    one, again, other = (
        RegMix(simulated=500, seed=seed).fit(runs).allocate(1e9, sizes, np.full(3, 4.0)) for seed in (0, 0, 1)
    )
    assert (one == again).all()
    assert (one != other).any()


@needs_lightgbm
@pytest.mark.parametrize(("floor", "repeats"), [(0.0, 4.0), (0.05, 4.0), (0.3, 4.0), (0.0, 1.4), (0.1, math.inf)])
def test_the_answer_is_in_the_region(floor, repeats):
    planner = RegMix(simulated=2000).fit(runs_of(120))
    sizes, budgets = np.array([1e8, 3e8, 4e8]), np.full(3, repeats)
    tokens = 0.9e9 if repeats < 4 else 1e9
    found = planner.allocate(tokens, sizes, budgets, floor=floor)
    region = region_of(tokens, sizes, budgets, floor)
    assert found.sum() == pytest.approx(1, abs=1e-9)
    assert (found >= region.least - 1e-12).all()
    assert (found <= region.most + 1e-12).all()


@needs_lightgbm
def test_the_answer_is_the_mean_of_the_best_of_the_simulated():
    """The slow way: each mixture brought into the region by itself, all predicted, the 16 best of 500 averaged."""
    planner = RegMix(simulated=500, averaged=16, targets={"x": 2, "y": 1}).fit(runs_of(100))
    sizes, budgets = np.array([1e8, 3e8, 4e8]), np.full(3, 4.0)
    region = region_of(1e9, sizes, budgets, 0.05)
    drawn = dirichlet(np.random.default_rng(0), np.tile(sizes / sizes.sum(), (500, 1)))
    held = np.array([region.project(one) for one in drawn])
    best = held[np.argsort(planner.predict(held, 1e9) @ [2, 1])[:16]]
    assert planner.allocate(1e9, sizes, budgets, floor=0.05) == pytest.approx(best.mean(axis=0), abs=1e-6)


@needs_lightgbm
def test_a_strong_prior_is_where_it_looks():
    planner = RegMix(simulated=500, strength=1e6, prior={"a": 0.2, "b": 0.3, "c": 0.5}).fit(runs_of(120))
    assert planner.allocate(1e9, np.full(3, 1e9), FREE) == pytest.approx([0.2, 0.3, 0.5], abs=2e-3)


@needs_lightgbm
def test_too_few_runs_and_losses_without_a_cause_are_refused():
    with pytest.raises(FitError, match=r"target 'x': 30 runs have its loss, of which 6 only judge.*45 more runs"):
        RegMix().fit(runs_of(30))
    runs = runs_of(100)
    losses = runs.losses.copy()
    losses[10:, 1] = np.nan
    with pytest.raises(FitError, match=r"target 'y': 10 runs have its loss.*65 more runs"):
        RegMix().fit(replace(runs, losses=losses))
    with pytest.raises(FitError, match=r"target 'x': no tree found a source to split 100 runs by"):
        RegMix().fit(replace(runs, losses=np.full((100, 2), 2.5)))
    assert RegMix().fit(runs_of(75)).trees


@needs_lightgbm
def test_bad_questions_are_refused():
    with pytest.raises(FitError, match="regmix has not been fitted"):
        RegMix().allocate(1e9, np.full(3, 1e9), FREE)
    fitted = RegMix(simulated=200).fit(runs_of(80))
    with pytest.raises(RunTableError, match="sum 0.9"):
        fitted.predict(np.array([[0.3, 0.3, 0.3]]), 1e9)
    with pytest.raises(BudgetError, match="supply 3,000"):
        fitted.allocate(4000, np.full(3, 1e3), np.ones(3))
    with pytest.raises(FloorError, match=r"floor=0.4"):
        fitted.allocate(1e9, np.full(3, 1e9), FREE, floor=0.4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"averaged": 0}, "averaged=0; expected a finite number of at least 1 and at most 100000"),
        ({"held_out": 0.9}, "held_out=0.9"),
        ({"strength": 0}, "strength=0"),
        ({"threads": 0}, "threads=0"),
        ({"prior": {"a": 0.0}}, "prior of 'a' is 0.0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(FitError, match=message):
        RegMix(**options)


def test_a_missing_lightgbm_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mixstream-llm\[regmix\]'"):
        RegMix().fit(runs_of(80))
