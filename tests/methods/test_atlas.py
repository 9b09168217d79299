"""ATLAS: its law by hand, planted truth at every scale, transfer given or fitted, and what it will not say."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime

from mixstream.errors import BudgetError, FitError, FloorError, RunTableError
from mixstream.methods.atlas import (
    Atlas,
    bilingual_transfer_score,
    given_transfer,
    score_of_transfer,
    transfer_of_score,
)
from mixstream.methods.atlas.law import AtlasLaw, effective_tokens
from mixstream.methods.planning.allocating import region_of
from mixstream.methods.planning.table import table_of
from mixstream.methods.repetition import effective_repeats

NAMES = tuple("abcdefgh")


def planted(count, seed=0, *, sized=False, saturation=8.0, scale=1e9, least=-0.1):
    """Return a law of `count` languages with a term of the model size, or without."""
    random = np.random.default_rng(seed)
    transfer = random.uniform(least, 0.5, (count, count))
    np.fill_diagonal(transfer, 1)
    model = np.column_stack([random.uniform(0.3, 0.6, count), random.uniform(0.25, 0.4, count)])
    return AtlasLaw(
        sources=NAMES[:count],
        targets=NAMES[:count],
        floors=random.uniform(1.2, 2.0, count),
        model=model if sized else np.zeros((count, 2)),
        data=np.column_stack([random.uniform(0.5, 1.2, count), random.uniform(0.2, 0.4, count)]),
        transfer=transfer,
        saturation=saturation,
        sized=sized,
        parameters=math.nan,
        reference_parameters=1e8,
        reference_tokens=scale,
    )


def runs_of(law, num_runs, *, noise=0.01, seed=1, sizes=None):
    """Return runs at three budgets, and at three model sizes if the law knows them; sizes finite: they repeat."""
    random = np.random.default_rng(seed)
    count, scale = len(law.sources), law.reference_tokens
    shares = random.dirichlet(np.ones(count), num_runs) * 0.95 + 0.05 / count
    tokens = scale * random.choice([0.3, 1.0, 4.0], num_runs)
    parameters = random.choice([3e7, 1e8, 4e8], num_runs) if law.sized else np.full(num_runs, 1e8)
    unique = np.broadcast_to(math.inf if sizes is None else sizes, shares.shape)
    losses = law.losses(shares * tokens[:, None], unique, parameters)
    losses = losses * np.exp(noise * random.normal(size=losses.shape))
    return table_of(law.sources, shares, tokens, losses, parameters=parameters, unique=unique)


def true_mean(law, shares, tokens, sizes):
    return float(law.losses(shares[None] * tokens, sizes[None], np.array([1e8])).mean())


def test_the_law_by_hand():
    """Two languages, tau 0.5 into a: D_eff of a is 30 + 0.5 x 70 = 65, of b 70; 2 + 4 (65 / 100)^-0.5."""
    law = AtlasLaw(
        ("a", "b"),
        ("a", "b"),
        np.array([2.0, 1.0]),
        np.array([[1.0, 0.5], [0.0, 0.0]]),
        np.array([[4.0, 0.5], [3.0, 1.0]]),
        np.array([[1.0, 0.5], [0.0, 1.0]]),
        8.0,
        True,
        math.nan,
        1e6,
        100.0,
    )
    planner = Atlas(law=law)
    found = planner.predict(np.array([[0.3, 0.7]]), 100, parameters=4e6)
    assert found == pytest.approx(np.array([[2 + 0.5 + 4 / math.sqrt(0.65), 1 + 3 / 0.7]]))
    repeated = planner.predict(np.array([[0.3, 0.7]]), 100, parameters=4e6, unique=np.array([10.0, math.inf]))
    worth = 10 * float(effective_repeats(np.array(3.0), 8.0)) + 35
    assert repeated[0, 0] == pytest.approx(2.5 + 4 / math.sqrt(worth / 100))


def test_effective_tokens_are_those_of_the_papers_lambda():
    """U + U (1 - exp(-lambda (D / U - 1))) / lambda, and D up to the first repeat; digits for R* = 15.387756."""
    repeats = np.array([0.5, 1, 2, 4, 8, 16, 40, 100])
    expected = [0.5, 1, 1.968199, 3.725673, 6.624119, 10.582457, 15.167465, 16.363035]
    assert effective_tokens(repeats * 7, np.full(8, 7.0), 15.387756) == pytest.approx(7 * np.array(expected), rel=1e-6)
    assert effective_tokens(repeats, np.full(8, math.inf), math.nan) == pytest.approx(repeats)


def test_transfer_scores():
    """42B tokens alone: half and half needs 84B without transfer (0), 42B at best (1), 100B with interference."""
    scores = bilingual_transfer_score(np.array([84e9, 42e9, 100e9]), np.array(42e9))
    assert scores == pytest.approx([0, 1, -16 / 42])
    assert transfer_of_score(scores) == pytest.approx([0, 1, -16 / 100])
    assert score_of_transfer(transfer_of_score(scores)) == pytest.approx(scores)
    with pytest.raises(RunTableError, match="bilingual tokens: found 0, expected a finite number above 0"):
        bilingual_transfer_score(np.array([0.0]), np.array([1.0]))


def test_the_score_of_a_transfer_is_that_of_the_law():
    """The loss of d tokens alone is reached by half and half after (2 - BTS) d."""
    law = planted(2, seed=4)
    alone = law.losses(np.array([[1e9, 0.0]]), np.full((1, 2), math.inf), np.array([1e8]))[0, 0]
    tokens = (2 - float(score_of_transfer(law.transfer[0, 1]))) * 1e9
    both = law.losses(np.full((1, 2), tokens / 2), np.full((1, 2), math.inf), np.array([1e8]))[0, 0]
    assert both == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize(
    ("count", "num_runs", "sized", "scale"), [(3, 48, False, 1e5), (4, 64, True, 1e13), (8, 96, False, 1e9)]
)
def test_a_planted_law_is_found_again_and_its_optimum(count, num_runs, sized, scale):
    """1 % noise: predictions within 1 % on mixtures between 10 times fewer and more tokens, the answer within 0.5 %."""
    law = planted(count, seed=count, sized=sized, scale=scale)
    sizes = np.geomspace(0.02, 2, count) * scale
    planner = Atlas().fit(runs_of(law, num_runs, sizes=sizes))
    random = np.random.default_rng(7)
    asked = random.dirichlet(np.ones(count), 200) * 0.95 + 0.05 / count
    tokens = scale * random.uniform(0.5, 4, 200)
    expected = planner.predict(asked, tokens, parameters=1e8, unique=sizes)
    true = law.losses(asked * tokens[:, None], np.broadcast_to(sizes, asked.shape), np.full(200, 1e8))
    assert np.median(np.abs(expected / true - 1)) < 0.01
    assert 4 < planner.law.saturation < 16
    found = planner.allocate(3 * scale, sizes, np.full(count, 20.0))
    best = Atlas(law=law).allocate(3 * scale, sizes, np.full(count, 20.0))
    assert true_mean(law, found, 3 * scale, sizes) <= true_mean(law, best, 3 * scale, sizes) * 1.005


def test_the_same_numbers_at_another_scale_give_the_same_law():
    small, large = planted(3, seed=2, scale=1e5), planted(3, seed=2, scale=1e13)
    sizes = np.array([0.05, 0.5, 2.0])
    fits = [Atlas().fit(runs_of(law, 48, sizes=sizes * law.reference_tokens)).law for law in (small, large)]
    assert fits[0].transfer == pytest.approx(fits[1].transfer, abs=1e-4)
    assert fits[0].saturation == pytest.approx(fits[1].saturation, rel=1e-3)


def test_given_transfer_and_saturation_are_kept():
    law = planted(3, seed=1)
    matrix = {
        source: {target: float(law.transfer[row, column]) for row, target in enumerate(NAMES[:3]) if target != source}
        for column, source in enumerate(NAMES[:3])
    }
    runs = runs_of(law, 24, sizes=np.full(3, 3e8))
    fitted = Atlas(transfer=matrix, saturation=8.0).fit(runs).law
    assert fitted.transfer == pytest.approx(law.transfer)
    assert fitted.saturation == 8.0
    with pytest.raises(FitError, match=r"target 'a': 5 parameters \(E, B and beta, 2 of transfer\), but 4 runs"):
        Atlas().fit(runs.rows(range(4)))
    assert Atlas(transfer=matrix).fit(runs.rows(range(4))).law.transfer == pytest.approx(law.transfer)


def test_a_refit_starts_where_it_was_and_ends_there():
    law = planted(3, seed=3, sized=True)
    runs = runs_of(law, 48, sizes=np.full(3, 3e8))
    first = Atlas().fit(runs)
    again = first.fit(runs)
    assert again.law.transfer == pytest.approx(first.law.transfer, abs=1e-3)
    asked = runs.proportions
    near = again.predict(asked, 1e9, parameters=1e8)
    assert near == pytest.approx(first.predict(asked, 1e9, parameters=1e8), rel=1e-4)
    fewer = runs.rows(runs.tokens < 2e9)  # of another geometric mean of tokens
    moved, afresh = (planner.fit(fewer).predict(asked, 1e9, parameters=1e8) for planner in (first, Atlas()))
    assert moved == pytest.approx(afresh, rel=1e-3)


@given(st.integers(2, 5), st.integers(0, 999), st.booleans())
def test_slopes_are_the_derivatives_of_the_terms(count, seed, repeated):
    law = planted(count, seed, least=0.0)
    sizes = np.full(count, 0.07e9 if repeated else math.inf)
    draws = (np.random.default_rng(seed).dirichlet(np.ones(count)) + 0.1) * 1e9
    _, slopes = law.data_terms(draws, sizes)
    for row in range(count):
        numeric = approx_fprime(draws, lambda x, row=row: law.data_terms(x, sizes)[0][row], 1.0)
        assert slopes[row] == pytest.approx(numeric, rel=1e-3, abs=1e-14)


def test_no_mixture_of_a_fine_grid_is_better_than_the_answer():
    law = planted(3, seed=8)
    sizes, budgets = np.array([0.05e9, 0.3e9, 2e9]), np.array([4.0, 8.0, 1.0])
    found = Atlas(law=law).allocate(1e9, sizes, budgets, floor=0.02)
    region = region_of(1e9, sizes, budgets, 0.02)
    grid = np.array([(i, j, 200 - i - j) for i, j in itertools.product(range(201), repeat=2) if i + j <= 200]) / 200
    grid = grid[((grid >= region.least) & (grid <= region.most)).all(axis=1)]
    losses = law.losses(grid * 1e9, np.broadcast_to(sizes, grid.shape), np.full(len(grid), 1e8)).mean(axis=1)
    assert true_mean(law, found, 1e9, sizes) <= losses.min() + 1e-9
    assert true_mean(law, found, 1e9, sizes) >= losses.min() - 1e-3


@given(
    st.integers(2, 6), st.integers(0, 999), st.floats(0.1, 3.9), st.floats(0, 0.99), st.randoms(use_true_random=False)
)
@settings(max_examples=50)
def test_the_answer_is_in_the_region_and_follows_its_sources(count, seed, repeats, part, random):
    law = planted(count, seed, least=0.0)
    sizes = np.random.default_rng(seed).uniform(1e7, 1e9, count)
    tokens, budgets = repeats * sizes.sum(), np.full(count, 4.0)
    floor = part * min(1 / count, float((4 * sizes / tokens).min()))
    found = Atlas(law=law).allocate(tokens, sizes, budgets, floor=floor)
    region = region_of(tokens, sizes, budgets, floor)
    assert found.sum() == pytest.approx(1, abs=1e-9)
    assert (found >= region.least - 1e-12).all()
    assert (found <= region.most + 1e-12).all()
    order = random.sample(range(count), count)
    turned = replace(law, sources=tuple(NAMES[i] for i in order), transfer=law.transfer[:, order])
    again = Atlas(law=turned).allocate(tokens, sizes[order], budgets, floor=floor)
    assert true_mean(turned, again, tokens, sizes[order]) == pytest.approx(
        true_mean(law, found, tokens, sizes), rel=1e-7
    )
    assert again == pytest.approx(found[order], abs=3e-3)


def test_a_budget_caps_the_language_that_helps_most():
    law = replace(planted(2), transfer=np.array([[1.0, 0.0], [0.9, 1.0]]), data=np.array([[1.0, 0.3], [0.1, 0.3]]))
    free = Atlas(law=law).allocate(1e9, np.array([2e8, 1e9]), np.full(2, math.inf))
    capped = Atlas(law=law).allocate(1e9, np.array([2e8, 1e9]), np.array([2.0, 2.0]))
    assert free[0] > 0.5
    assert capped == pytest.approx([0.4, 0.6])


def test_what_runs_do_not_tell_about_repeats_is_not_said():
    law = planted(3)
    fitted = Atlas().fit(runs_of(law, 40))
    assert math.isnan(fitted.law.saturation)
    sizes = np.full(3, 1e9)
    assert fitted.allocate(1e9, sizes, np.ones(3)).sum() == pytest.approx(1)
    with pytest.raises(FitError, match=r"no run that it was fitted to repeats a source, and the budgets of 3 sources"):
        fitted.allocate(2e9, sizes, np.full(3, 4.0))
    with pytest.raises(FitError, match=r"and the mixtures that are asked about do; give saturation"):
        fitted.predict(np.array([[0.8, 0.1, 0.1]]), 2e9, unique=sizes)
    assert Atlas(saturation=15.39).fit(runs_of(law, 40)).allocate(2e9, sizes, np.full(3, 4.0)).sum() == pytest.approx(1)


@settings(max_examples=30)
@given(st.integers(0, 1000), st.floats(0.4, 1))
def test_what_a_budget_of_one_repeat_allows_is_answered(seed, part):
    """Shares at U / D, times D, may be above U by rounding: no repeat."""
    sizes = np.random.default_rng(seed).uniform(1e8, 1e9, 3)
    tokens = float(part * sizes.sum())
    law = replace(planted(3), saturation=math.nan)
    most = np.minimum(sizes / tokens, 1)
    shares = region_of(tokens, sizes, np.ones(3)).project(np.array([1.0, 1e-3, 1e-3]))
    assert (shares <= most).all()
    assert np.isfinite(Atlas(law=law).predict(shares, tokens, unique=sizes)).all()


def test_model_sizes_that_runs_do_not_tell_are_not_guessed():
    law = planted(3, sized=True)
    runs = runs_of(law, 60)
    assert Atlas().fit(runs).law.sized
    with pytest.raises(RunTableError, match="as the runs were of several model sizes,: found nan"):
        Atlas().fit(runs).predict(np.full((1, 3), 1 / 3), 1e9)
    with pytest.raises(
        FitError, match=r"2 model sizes, 30,000,000 and 100,000,000, cannot tell how fast .*; runs of 1 more"
    ):
        Atlas().fit(runs.rows(runs.parameters < 2e8))
    one = Atlas().fit(runs.rows(runs.parameters == 1e8))
    near = one.predict(np.full((1, 3), 1 / 3), 1e9)
    assert one.predict(np.full((1, 3), 1 / 3), 1e9, parameters=1e8) == pytest.approx(near)
    with pytest.raises(FitError, match=r"asked about 70,000,000,000 parameters, but all runs had 100,000,000"):
        one.predict(np.full((1, 3), 1 / 3), 1e9, parameters=7e10)
    with pytest.raises(RunTableError, match=r"parameters: found -1e\+08, expected a finite number above 0"):
        one.predict(np.full((1, 3), 1 / 3), 1e9, parameters=-1e8)
    told = np.where(np.arange(60) < 10, np.nan, 1e8)
    with pytest.raises(RunTableError, match="parameters are told of 50 of 60 runs"):
        Atlas().fit(replace(runs, parameters=told))


def test_bad_tables_and_questions_are_refused():
    law = planted(3)
    runs = runs_of(law, 40)
    with pytest.raises(RunTableError, match="target 'x' is none of the sources"):
        Atlas().fit(replace(runs, targets=("a", "b", "x")))
    with pytest.raises(FitError, match="atlas has not been fitted"):
        Atlas().allocate(1e9, np.ones(3), np.ones(3))
    fitted = Atlas(law=law)
    sizes = np.full(3, 1e9)
    with pytest.raises(RunTableError, match="tokens: found -1, expected a finite number above 0"):
        fitted.predict(np.full((1, 3), 1 / 3), -1.0)
    with pytest.raises(RunTableError, match=r"sum 0.9; expected"):
        fitted.predict(np.full((1, 3), 0.3), 1e9)
    with pytest.raises(BudgetError, match="supply 3,000,000,000"):
        fitted.allocate(4e9, sizes, np.ones(3))
    with pytest.raises(FloorError, match="floor=0.5"):
        fitted.allocate(1e9, sizes, np.ones(3), floor=0.5)
    for options, message in (({"delta": 0}, "delta=0"), ({"saturation": -1}, "saturation=-1; expected")):
        with pytest.raises(FitError, match=message):
            Atlas(**options)


@pytest.mark.parametrize(
    ("transfer", "message"),
    [
        ({"a": {"b": 0.1}}, "transfer from 'b' to 'a' is None; expected a number above -1, 0 for none"),
        ({"a": {"b": 0.1}, "b": {"a": -1}}, "transfer from 'b' to 'a' is -1"),
        ({"a": {"b": math.nan}, "b": {"a": 0}}, "transfer from 'a' to 'b' is nan"),
        ({"aa": {"b": 0.1}}, "transfer: source 'aa' is not in the table of runs; did you mean 'a'"),
        ({"a": {"x": 0.1}}, "transfer: target 'x' is not in the table"),
        ([0.1], r"transfer is \[0.1\]; expected {source: {target: worth}}"),
        ({"a": 0.1}, "transfer is {'a': 0.1}; expected {source: {target: worth}}"),
    ],
)
def test_bad_transfer_is_refused(transfer, message):
    with pytest.raises(RunTableError, match=message):
        given_transfer(transfer, ("a", "b"), ("a", "b"))
