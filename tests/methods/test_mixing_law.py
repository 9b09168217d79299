"""Data Mixing Laws and the log-linear law: planted truth, what cannot be told apart, convex allocation."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixstream.errors import BudgetError, FitError, FloorError, RunTableError, WeightsError
from mixstream.methods.mixing_law import ExponentialLaw, LogLinear, MixingLaw, relative_entropy
from mixstream.methods.planning.allocating import region_of
from mixstream.methods.planning.table import table_of
from mixstream.mixture.weights import natural

LAWS = [MixingLaw(), LogLinear()]
NAMES = tuple("abcdefghijklmnop")


def planted(num_sources, num_targets, seed=0, floors=True):
    """Return a law in which a target's own source lowers its loss most."""
    random = np.random.default_rng(seed)
    own = random.uniform(1.0, 2.5, (num_targets, 1)) * (np.arange(num_sources) == np.arange(num_targets)[:, None])
    transfer = random.normal(0, 0.3, (num_targets, num_sources)) - own
    return ExponentialLaw(
        NAMES[:num_sources],
        tuple(f"t{number}" for number in range(num_targets)),
        random.uniform(1.5, 2.5, num_targets) if floors else np.zeros(num_targets),
        np.log(random.uniform(0.7, 1.5, (num_targets, 1))) + transfer,
    )


def runs_of(law, num_runs, noise=0.01, seed=1):
    random = np.random.default_rng(seed)
    shares = random.dirichlet(np.ones(len(law.sources)), num_runs)
    losses = law.losses(shares) * np.exp(noise * random.normal(size=(num_runs, len(law.targets))))
    return table_of(law.sources, shares, 1e9, losses, targets=law.targets, parameters=1e8)


def expected_of(law):
    return lambda shares: law.losses(np.atleast_2d(shares)).mean(axis=1)


@st.composite
def problems(draw):
    """Return a planner with a law, tokens, sizes, budgets and a floor that leave room."""
    sources, targets = draw(st.integers(2, 6)), draw(st.integers(1, 4))
    law = planted(sources, targets, draw(st.integers(0, 10_000)))
    sizes = np.array(draw(st.lists(st.floats(1e5, 1e9), min_size=sources, max_size=sources)))
    budgets = np.full(sources, 4.0)
    tokens = draw(st.floats(0.1, 3.9)) * sizes.sum()
    floor = draw(st.floats(0, 0.99)) * min(1 / sources, float((4 * sizes / tokens).min()))
    kind = draw(st.sampled_from([MixingLaw, LogLinear]))
    kl = draw(st.sampled_from([0.0, 0.05, 1.0]))
    return kind(kl=kl, law=law), tokens, sizes, budgets, floor


@pytest.mark.parametrize(("num_sources", "num_targets"), [(3, 3), (4, 2), (5, 7)])
@pytest.mark.parametrize("kind", [MixingLaw, LogLinear])
def test_planted_laws_are_found_again_and_their_optimum(kind, num_sources, num_targets):
    """1 % noise: predictions within 1 %, the answer's true loss within 0.5 % of the best."""
    law = planted(num_sources, num_targets, floors=kind is MixingLaw)
    planner = kind(kl=0.0).fit(runs_of(law, 64))
    asked = np.random.default_rng(2).dirichlet(np.ones(num_sources), 500)
    error = np.abs(planner.predict(asked, 1e9) / law.losses(asked) - 1)
    assert np.median(error) < 0.01
    sizes, budgets = np.full(num_sources, 1e9), np.full(num_sources, math.inf)
    true = expected_of(law)
    found = planner.allocate(1e9, sizes, budgets)
    best = kind(kl=0.0, law=law).allocate(1e9, sizes, budgets)
    assert true(found)[0] <= true(best)[0] * 1.005


@pytest.mark.parametrize("kind", [MixingLaw, LogLinear])
@pytest.mark.parametrize("kl", [0.0, 0.1])
def test_no_mixture_of_a_fine_grid_is_better_than_the_answer(kind, kl):
    """The slow reference: all mixtures of three sources in steps of 1/200, within floor and budgets."""
    law = planted(3, 2, seed=5)
    sizes, budgets = np.array([0.3e9, 1e9, 2e9]), np.array([1.0, 1.2, 0.2])
    planner = kind(kl=kl, law=law, targets={"t0": 3, "t1": 1})
    found = planner.allocate(1e9, sizes, budgets, floor=0.02)
    region = region_of(1e9, sizes, budgets, 0.02)
    grid = np.array([(i, j, 200 - i - j) for i, j in itertools.product(range(201), repeat=2) if i + j <= 200]) / 200
    grid = grid[((grid >= region.least) & (grid <= region.most)).all(axis=1)]

    def objective(shares):
        divergence = (shares * np.log(shares / natural(sizes))).sum(axis=1)
        return law.losses(shares) @ [0.75, 0.25] + kl * divergence

    assert objective(found[None])[0] <= objective(grid).min() + 1e-9
    assert objective(found[None])[0] >= objective(grid).min() - 1e-3


@given(problems(), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_the_answer_is_in_the_region_and_follows_its_sources(problem, random):
    planner, tokens, sizes, budgets, floor = problem
    found = planner.allocate(tokens, sizes, budgets, floor=floor)
    region = region_of(tokens, sizes, budgets, floor)
    assert found.sum() == pytest.approx(1, abs=1e-9)
    assert (found >= region.least - 1e-12).all()
    assert (found <= region.most + 1e-12).all()
    order = random.sample(range(len(sizes)), len(sizes))
    law = planner.law
    turned = replace(law, sources=tuple(law.sources[i] for i in order), exponents=law.exponents[:, order])
    again = replace(planner, law=turned).allocate(tokens, sizes[order], budgets, floor=floor)
    assert again == pytest.approx(found[order], abs=2e-4)


@given(problems())
@settings(max_examples=40)
def test_a_strong_pull_gives_the_nearest_to_the_prior(problem):
    planner, tokens, sizes, budgets, floor = problem
    found = replace(planner, kl=1e6).allocate(tokens, sizes, budgets, floor=floor)
    region = region_of(tokens, sizes, budgets, floor)
    assert found == pytest.approx(region.project(natural(sizes)), abs=1e-4)
    prior = np.arange(1, len(sizes) + 1) / np.arange(1, len(sizes) + 1).sum()
    named = dict(zip(planner.law.sources, prior.tolist(), strict=True))
    found = replace(planner, kl=1e6, prior=named).allocate(tokens, sizes, budgets, floor=floor)
    assert found == pytest.approx(region.project(prior), abs=1e-4)


def test_a_budget_caps_the_source_that_the_law_wants_most():
    law = ExponentialLaw(("a", "b"), ("t",), np.array([1.0]), np.array([[-3.0, 0.5]]))
    planner = MixingLaw(kl=0.0, law=law)
    free = planner.allocate(1e9, np.array([1e8, 1e9]), np.full(2, math.inf))
    assert free == pytest.approx([1, 0], abs=1e-9)
    capped = planner.allocate(1e9, np.array([1e8, 1e9]), np.array([4.0, 4.0]))
    assert capped == pytest.approx([0.4, 0.6], abs=1e-12)


@given(st.integers(2, 6), st.integers(0, 999), st.sampled_from([1.0, 1e-3, 1e-5]))
def test_relative_entropy_is_bent_only_where_it_does_not_matter(count, seed, small):
    random = np.random.default_rng(seed)
    prior, shares = random.dirichlet(np.ones(count), 2)
    shares[0] *= small
    plain = float((shares * np.log(shares / prior)).sum())
    value, slopes = relative_entropy(shares, prior)
    assert -1e-12 <= plain - value <= 1 / 20_000 + 1e-12
    for number in range(count):
        step = np.where(np.arange(count) == number, 1e-3 * shares[number], 0)
        rise = relative_entropy(shares + step, prior)[0] - relative_entropy(shares - step, prior)[0]
        assert slopes[number] == pytest.approx(rise / (2 * step[number]), rel=1e-3, abs=1e-3)
    at_zero, slopes = relative_entropy(np.where(np.arange(count) == 0, 0, shares), prior)
    assert np.isfinite(slopes).all()
    assert np.isfinite(at_zero)


@given(st.floats(-5, 5), st.integers(0, 1000))
def test_a_constant_from_k_to_t_changes_no_prediction(constant, seed):
    """k exp(sum t r) with sum r = 1: k e^-s and t + s are the same law, and told as the same k and t."""
    law = planted(4, 3, seed)
    shares = np.random.default_rng(seed).dirichlet(np.ones(4), 10)
    factors, transfer = law.factors * np.exp(-constant), law.transfer + constant
    direct = law.floors + factors * np.exp(shares @ transfer.T)
    assert law.losses(shares) == pytest.approx(direct, rel=1e-12)
    same = replace(law, exponents=np.log(factors)[:, None] + transfer)
    assert same.factors == pytest.approx(law.factors)
    assert same.transfer.sum(axis=1) == pytest.approx(np.zeros(3), abs=1e-12)


@pytest.mark.parametrize("kind", [MixingLaw, LogLinear])
def test_sources_and_runs_in_another_order_give_the_same_predictions(kind):
    law = planted(4, 3)
    runs = runs_of(law, 40)
    asked = np.random.default_rng(3).dirichlet(np.ones(4), 20)
    found = kind().fit(runs).predict(asked, 1e9)
    order = [2, 0, 3, 1]
    turned = table_of(
        [runs.sources[i] for i in order], runs.proportions[::-1][:, order], 1e9, runs.losses[::-1], targets=law.targets
    )
    assert kind().fit(turned).predict(asked[:, order], 1e9) == pytest.approx(found, rel=1e-5)


@pytest.mark.parametrize("kind", [MixingLaw, LogLinear])
def test_a_refit_starts_where_it_was_and_ends_there(kind):
    runs = runs_of(planted(4, 3), 40)
    first = kind().fit(runs)
    again = first.fit(runs)
    shares = runs.proportions
    assert again.predict(shares, 1e9) == pytest.approx(first.predict(shares, 1e9), rel=1e-5)
    assert kind().law is None


def test_one_run_that_went_wrong_does_not_decide_the_law():
    law = planted(3, 1)
    runs = runs_of(law, 40, noise=0.001)
    losses = runs.losses.copy()
    losses[7] *= 3
    planner = MixingLaw().fit(replace(runs, losses=losses))
    asked = np.random.default_rng(3).dirichlet(np.ones(3), 100)
    assert np.abs(planner.predict(asked, 1e9) / law.losses(asked) - 1).max() < 0.02


def test_a_target_is_fitted_to_the_runs_that_have_its_loss():
    law = planted(3, 2)
    runs = runs_of(law, 40)
    losses = runs.losses.copy()
    losses[20:, 1] = np.nan
    gaps = MixingLaw().fit(replace(runs, losses=losses))
    whole, half = MixingLaw().fit(runs), MixingLaw().fit(runs.rows(range(20)))
    assert gaps.law.exponents == pytest.approx(np.array([whole.law.exponents[0], half.law.exponents[1]]))


def test_runs_of_one_budget_are_taken_from_those_of_several():
    law = planted(3, 2)
    runs = runs_of(law, 40)
    mixed = replace(runs, tokens=np.where(np.arange(40) < 20, 1e9, 4e9))
    with pytest.raises(RunTableError, match=r"of 1,000,000,000 to 4,000,000,000 tokens.*runs of one budget"):
        MixingLaw().fit(mixed)
    chosen = MixingLaw(budget=4e9).fit(mixed)
    assert chosen.law.exponents == pytest.approx(MixingLaw().fit(runs.rows(range(20, 40))).law.exponents)
    with pytest.raises(RunTableError, match=r"no run of 2,000,000,000 tokens"):
        MixingLaw(budget=2e9).fit(mixed)
    with pytest.raises(RunTableError, match=r"1,000 to 2,000 parameters.*runs of one model size"):
        LogLinear().fit(replace(runs, parameters=np.where(np.arange(40) < 20, 1e3, 2e3)))


def test_too_few_runs_are_told_with_how_many_are_missing():
    runs = runs_of(planted(4, 2), 40)
    with pytest.raises(FitError, match=r"mixing-law, target 't0': 5 parameters \(a floor, and one for each of 4"):
        MixingLaw().fit(runs.rows(range(4)))
    with pytest.raises(FitError, match=r"log-linear.*3 runs have its loss, 3 of them different; 1 more are missing"):
        LogLinear().fit(runs.rows(range(3)))
    with pytest.raises(FitError, match=r"8 runs have its loss, 2 of them different; 3 more are missing"):
        MixingLaw().fit(runs.rows([0, 1] * 4))
    again = runs.rows([0, 1, 2, 3] * 2)  # the same mixtures again, of a budget 2 % larger: they tell nothing new
    with pytest.raises(FitError, match=r"8 runs have its loss, 4 of them different; 1 more are missing"):
        MixingLaw().fit(replace(again, tokens=again.tokens * np.repeat([1, 1.02], 4)))
    losses = runs.losses.copy()
    losses[3:, 1] = np.nan
    with pytest.raises(FitError, match=r"target 't1'.* 2 more are missing"):
        MixingLaw().fit(replace(runs, losses=losses))


def test_sources_that_runs_do_not_tell_apart_are_refused():
    random = np.random.default_rng(0)
    shares = random.dirichlet(np.ones(2), 20)
    losses = random.uniform(2, 3, (20, 1))
    never = np.column_stack([shares, np.zeros(20)])
    with pytest.raises(FitError, match=r"no run reads c \(1 of 3 sources\)"):
        MixingLaw().fit(table_of(NAMES[:3], never, 1e9, losses, targets=("t",)))
    tied = np.column_stack([shares[:, 0], shares[:, 1] / 2, shares[:, 1] / 2])
    with pytest.raises(FitError, match=r"20 runs vary 2 of 3 proportions apart.*; 1 more are missing"):
        LogLinear().fit(table_of(NAMES[:3], tied, 1e9, losses, targets=("t",)))


@pytest.mark.parametrize("planner", LAWS)
def test_bad_questions_are_refused(planner):
    with pytest.raises(FitError, match="has not been fitted; call fit"):
        planner.predict(np.array([[1.0]]), 1e9)
    fitted = replace(planner, law=planted(3, 2))
    sizes, free = np.full(3, 1e9), np.full(3, 4.0)
    with pytest.raises(RunTableError, match=r"proportions from 0.3 and sum 0.9; expected"):
        fitted.predict(np.array([[0.3, 0.3, 0.3]]), 1e9)
    with pytest.raises(RunTableError, match=r"of shape \(1, 2\), expected \(mixtures, 3 sources\)"):
        fitted.predict(np.array([[0.5, 0.5]]), 1e9)
    with pytest.raises(RunTableError, match="proportions from -0.5"):
        fitted.predict(np.array([[-0.5, 0.5, 1.0]]), 1e9)
    with pytest.raises(BudgetError, match=r"supply 12,000,000,000"):
        fitted.allocate(13e9, sizes, free)
    with pytest.raises(FloorError, match=r"floor=0.5"):
        fitted.allocate(1e9, sizes, free, floor=0.5)
    with pytest.raises(RunTableError, match="a run of 0 tokens"):
        fitted.allocate(0, sizes, free)
    with pytest.raises(RunTableError, match="target 'x' is not in the table"):
        replace(fitted, targets={"x": 1.0}).allocate(1e9, sizes, free)
    with pytest.raises(WeightsError, match=r"no weight for c \(1 of 3"):
        replace(fitted, prior={"a": 0.5, "b": 0.5}).allocate(1e9, sizes, free)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kl": -1}, r"kl=-1; expected a finite number of at least 0"),
        ({"kl": math.inf}, "kl=inf; expected a finite number"),
        ({"delta": 0}, "delta=0; expected a finite number"),
        ({"prior": {"a": 1.0, "b": 0.0}}, "prior of 'b' is 0.0; expected a share above 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(FitError, match=message):
        MixingLaw(**options)
