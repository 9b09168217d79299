"""DoReMi's update: numbers by hand, properties of Group DRO, and the importance correction."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from observing import NAN, check_resumable, observations, seen

from mixstream.errors import MixtureError, ScoreError, WeightsError
from mixstream.methods.doremi import DoReMi, excess_loss, group_dro_step, importance

simplex = st.lists(st.floats(1e-6, 1), min_size=1, max_size=8).map(lambda raw: np.array(raw) / sum(raw))
cases = simplex.flatmap(
    lambda weights: st.tuples(
        st.just(weights),
        st.lists(st.floats(0, 50), min_size=len(weights), max_size=len(weights)).map(np.array),
    )
)


def test_one_update_gives_the_numbers_of_the_equation():
    """a = (.5, .3, .2), lambda = (0, ln 2, ln 4): odds .5, .6, .8, sum 1.9; then 0.9 a + 0.1 / 3."""
    stepped = group_dro_step(np.array([0.5, 0.3, 0.2]), np.log([1.0, 2.0, 4.0]), eta=1.0, smoothing=0.1)
    assert stepped == pytest.approx(0.9 * np.array([0.5, 0.6, 0.8]) / 1.9 + 0.1 / 3)
    half = group_dro_step(np.array([0.5, 0.5]), np.log([1.0, 9.0]), eta=0.5, smoothing=0.0)
    assert half == pytest.approx([0.25, 0.75])


def test_an_excess_is_clipped_token_by_token():
    """A token on which the proxy is ahead does not make up for one on which it is behind."""
    assert excess_loss(np.array([3.0, 1.0, 2.0]), np.array([2.0, 2.0, 2.0])) == pytest.approx(1 / 3)
    assert excess_loss(np.array([1.0, 1.0]), np.array([2.0, 9.0])) == 0


@given(cases, st.floats(0.01, 100), st.floats(0, 1))
def test_weights_are_of_the_simplex_and_at_least_the_smoothing(case, eta, smoothing):
    weights, excess = case
    stepped = group_dro_step(weights, excess, eta, smoothing)
    assert stepped.sum() == pytest.approx(1, abs=1e-12)
    assert stepped.min() >= smoothing / len(weights) - 1e-15


@given(cases, st.randoms(use_true_random=False))
def test_sources_in_another_order_get_the_same_weights(case, random):
    weights, excess = case
    order = random.sample(range(len(weights)), len(weights))
    stepped = group_dro_step(weights, excess, 1.0, 1e-3)
    assert group_dro_step(weights[order], excess[order], 1.0, 1e-3) == pytest.approx(stepped[order], rel=1e-12)


@given(cases, st.floats(0, 100))
def test_an_excess_that_all_have_changes_nothing(case, constant):
    weights, excess = case
    stepped = group_dro_step(weights, excess + constant, 1.0, 1e-3)
    assert stepped == pytest.approx(group_dro_step(weights, excess, 1.0, 1e-3), rel=1e-9)


def test_huge_excesses_do_not_overflow():
    assert group_dro_step(np.array([0.5, 0.5]), np.array([1e8, 0.0]), 1e3, 0.02) == pytest.approx([0.99, 0.01])


def test_the_class_steps_from_the_weights_it_is_told():
    method = DoReMi(eta=2.0, smoothing=0.1)
    assert method.needs == "excess"
    weights, excess = np.array([0.2, 0.8]), np.array([0.3, 0.1])
    assert method.update(seen(excess, weights)) == pytest.approx(group_dro_step(weights, excess, 2.0, 0.1))


def test_it_goes_on_from_a_checkpoint():
    check_resumable(DoReMi, observations([[0.1, 0.4, 0.0], [0.3, 0.0, 0.0], [0.0, 0.0, 1.0]]))


@given(simplex, st.data())
def test_importance_makes_any_shares_train_on_the_weights(weights, data):
    """sum_i p_i w_i l_i = sum_i a_i l_i for all losses: the expected loss is that of the weights."""
    raw = data.draw(st.lists(st.floats(1e-3, 1), min_size=len(weights), max_size=len(weights)))
    shares = np.array(raw) / sum(raw)
    factors = importance(weights, shares)
    losses = np.arange(1.0, len(weights) + 1)
    assert (shares * factors) @ losses == pytest.approx(weights @ losses)
    assert (shares * factors).sum() == pytest.approx(1)


def test_importance_is_one_where_the_loader_follows_the_weights():
    weights = np.array([0.7, 0.3, 0.0])
    assert importance(weights, weights).tolist() == [1.0, 1.0, 0.0]
    with pytest.raises(WeightsError, match=r"sources number \[1\] have weight but no share of the draws"):
        importance(weights, np.array([0.5, 0.0, 0.5]))


@pytest.mark.parametrize("bad", [NAN, float("inf"), -0.1])
def test_an_excess_that_is_none_never_reaches_the_weights(bad):
    with pytest.raises(ScoreError, match=r"excess losses are .*; expected finite numbers of at least 0"):
        DoReMi().update(seen([0.1, bad], shares=[0.5, 0.5]))


def test_no_excess_at_all_is_refused():
    with pytest.raises(ScoreError, match="no excess loss for each of 2 sources"):
        DoReMi().update(seen(None, sizes=[10, 10]))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"eta": 0}, r"eta=0; expected a finite number above 0"),
        ({"eta": NAN}, r"eta=nan; expected a finite number above 0"),
        ({"smoothing": 1.5}, r"smoothing=1\.5; expected a share from 0 to 1"),
    ],
)
def test_bad_options_are_refused(options, told):
    with pytest.raises(MixtureError, match=told):
        DoReMi(**options)
