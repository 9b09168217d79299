"""Effective unique data: what is interpolated, what lies outside, and runs that tell no multiplier."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import FitError
from mixstream.methods.multiplier import unique_data_multiplier

SIZES = np.array([1e8, 3e8, 1e9, 3e9, 1e10])
LOSSES = 2 + 3 * (SIZES / 1e8) ** -0.3


def test_at_a_monolingual_run_it_is_that_run():
    found = unique_data_multiplier(SIZES, LOSSES, 1e8, LOSSES)
    assert found.unique == pytest.approx(SIZES, rel=1e-9)
    assert found.multiplier == pytest.approx(SIZES / 1e8, rel=1e-9)
    assert found.outside.tolist() == [0] * 5


@given(st.floats(8, 10))
def test_between_runs_it_is_near_the_law_they_follow(log_size):
    """Three runs a decade, of a smooth power law: within 5 %."""
    loss = np.array([2 + 3 * (10**log_size / 1e8) ** -0.3])
    found = unique_data_multiplier(SIZES, LOSSES, 2e8, loss)
    assert found.multiplier[0] == pytest.approx(10**log_size / 2e8, rel=0.05)


@given(st.permutations(range(5)), st.lists(st.floats(2.0, 6.0), min_size=2, max_size=6))
def test_a_better_loss_is_never_worth_less_and_order_does_not_matter(order, losses):
    order, losses = np.array(order), np.array(sorted(losses))
    found = unique_data_multiplier(SIZES[order], LOSSES[order], 1e8, losses)
    same = unique_data_multiplier(SIZES, LOSSES, 1e8, losses)
    assert np.array_equal(found.bound, same.bound)
    assert (np.diff(found.bound) <= 0).all()
    assert (np.diff(found.outside) <= 0).all()
    assert np.isnan(found.multiplier).tolist() == (found.outside != 0).tolist()


def test_outside_the_measured_range_there_is_a_bound_and_no_multiplier():
    found = unique_data_multiplier(SIZES, LOSSES, np.array([2e8, 2e8, 2e8]), np.array([6.0, 3.0, 2.1]))
    assert found.outside.tolist() == [-1, 0, 1]
    assert np.isnan(found.multiplier).tolist() == [True, False, True]
    assert np.isnan(found.unique).tolist() == [True, False, True]
    assert found.bound[[0, 2]] == pytest.approx([0.5, 50])


def test_accuracies_rise():
    """The same runs told as accuracies: a mixture can be worth more on them than on the loss."""
    accuracies = np.array([0.30, 0.34, 0.40, 0.46, 0.52])
    found = unique_data_multiplier(SIZES, accuracies, 1e8, np.array([0.40, 0.43, 0.60, 0.2]), score="accuracy")
    assert found.multiplier[0] == pytest.approx(10)
    assert 10 < found.multiplier[1] < 30
    assert found.outside.tolist() == [0, 0, 1, -1]


def test_runs_that_tell_no_multiplier_are_refused():
    with pytest.raises(FitError, match=r"loss .* does not improve from 1e\+08 to 1e\+09 unique tokens \(3, then 3.1\)"):
        unique_data_multiplier(np.array([1e9, 1e8]), np.array([3.1, 3.0]), 1e8, np.array([3.0]))
    with pytest.raises(FitError, match="accuracy of monolingual runs does not improve"):
        unique_data_multiplier(SIZES, LOSSES, 1e8, np.array([3.0]), score="accuracy")
    with pytest.raises(FitError, match="1 sizes and 1 scores of monolingual runs; expected one each of 2 or more"):
        unique_data_multiplier(SIZES[:1], LOSSES[:1], 1e8, np.array([3.0]))
    with pytest.raises(FitError, match=r"two monolingual runs of 1e\+08 unique tokens; give their mean"):
        unique_data_multiplier(np.array([1e8, 1e8]), np.array([3.1, 3.0]), 1e8, np.array([3.0]))
    with pytest.raises(FitError, match="score='perplexity'; expected 'loss' or 'accuracy'"):
        unique_data_multiplier(SIZES, LOSSES, 1e8, LOSSES, score="perplexity")


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_sizes_that_are_none_are_refused(bad):
    with pytest.raises(FitError, match="unique tokens of the mixed runs: found"):
        unique_data_multiplier(SIZES, LOSSES, bad, LOSSES)
    with pytest.raises(FitError, match="unique tokens of the monolingual runs: found"):
        unique_data_multiplier(np.array([bad, 1e9]), LOSSES[:2], 1e8, LOSSES)


def test_scores_that_are_none_are_refused():
    spoilt = np.where(np.arange(5) == 2, math.nan, LOSSES)
    with pytest.raises(FitError, match="loss of monolingual run 2 is no finite number"):
        unique_data_multiplier(SIZES, spoilt, 1e8, LOSSES)
    with pytest.raises(FitError, match="loss of mixed run 2 is no finite number"):
        unique_data_multiplier(SIZES, LOSSES, 1e8, spoilt)
