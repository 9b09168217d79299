"""DoGE's and XDoGE's update: numbers computed by hand from the papers' equations, and edge cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import FloorError, ScoreError, WeightsError
from mixstream.methods.xdoge import alignment_scores, average_weights, update_weights

ALPHA = np.array([0.5, 0.3, 0.2])
weights_and_scores = st.lists(st.tuples(st.floats(1e-6, 1), st.floats(-1e3, 1e3)), min_size=1, max_size=12).map(
    lambda pairs: (np.array([w for w, _ in pairs]) / sum(w for w, _ in pairs), np.array([s for _, s in pairs]))
)


def test_one_update_gives_the_numbers_of_the_equation():
    """The papers' form, at the learning rate and step that DoGE's authors use."""
    updated = update_weights(ALPHA, np.array([2.0, 1.0, -1.0]), eta=5e-4, mu=0.05)
    assert updated == pytest.approx([0.504488, 0.299681, 0.195831], abs=1e-6)


@given(weights_and_scores)
def test_an_update_is_the_softmax_of_logs(case):
    weights, scores = case
    updated = update_weights(weights, scores, eta=1e-3, mu=0.02)
    reference = weights * np.exp(1e-3 * (scores - scores.max()) / 0.02)
    assert updated == pytest.approx(reference / reference.sum(), rel=1e-9)
    assert updated.sum() == pytest.approx(1, abs=1e-12)


@given(weights_and_scores, st.floats(-100, 100))
def test_a_constant_added_to_all_scores_changes_nothing(case, constant):
    weights, scores = case
    shifted = update_weights(weights, scores + constant, eta=1e-3, mu=0.02)
    assert shifted == pytest.approx(update_weights(weights, scores, eta=1e-3, mu=0.02), rel=1e-9)


@given(weights_and_scores, st.floats(0, 1))
def test_the_floor_holds_exactly(case, share):
    weights, scores = case
    floor = share / len(weights)
    updated = update_weights(weights, scores, eta=1e-2, mu=0.001, floor=floor)
    assert updated.min() >= floor - 1e-12
    assert updated.sum() == pytest.approx(1, abs=1e-12)


def test_scores_of_zero_leave_the_weights():
    assert update_weights(ALPHA, np.zeros(3), eta=1, mu=0.01) == pytest.approx(ALPHA)


def test_one_stream_keeps_all():
    assert update_weights(np.ones(1), np.array([-5.0]), eta=1, mu=0.01).tolist() == [1.0]


def test_huge_scores_do_not_overflow():
    updated = update_weights(ALPHA, np.array([1e9, -1e9, 0]), eta=1, mu=1e-3, floor=0.02)
    assert updated == pytest.approx([0.96, 0.02, 0.02])


def test_a_weight_of_zero_recovers_only_by_a_floor():
    dead = np.array([1.0, 0.0])
    assert update_weights(dead, np.array([0.0, 9.0]), eta=1, mu=0.1).tolist() == [1.0, 0.0]
    assert update_weights(dead, np.array([0.0, 9.0]), eta=1, mu=0.1, floor=0.1) == pytest.approx([0.9, 0.1])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_never_reach_the_weights(bad):
    with pytest.raises(ScoreError, match="not finite"):
        update_weights(ALPHA, np.array([1.0, bad, 0.0]), eta=1, mu=1)


def test_an_infeasible_floor_is_refused():
    with pytest.raises(FloorError, match=r"floor=0\.02 for 70 streams adds up to 1\.4"):
        update_weights(np.full(70, 1 / 70), np.zeros(70), eta=1, mu=1, floor=0.02)


def test_scores_are_inner_products_with_the_sum():
    gradients = np.random.default_rng(0).normal(size=(4, 100))
    scores = alignment_scores(gradients, gradients.sum(axis=0))
    assert scores == pytest.approx([sum(g @ h for h in gradients) for g in gradients])
    assert scores.sum() == pytest.approx((gradients.sum(axis=0) ** 2).sum())  # sum W = |G|^2


def test_averages_count_the_batches_that_weights_act_in():
    history = [(0, np.array([1.0, 0.0])), (10, np.array([0.5, 0.5])), (40, np.array([0.0, 1.0]))]
    assert average_weights(history, 0, 50) == pytest.approx([(10 + 15) / 50, (15 + 10) / 50])
    assert average_weights(history, 20, 50) == pytest.approx([10 / 30, 20 / 30])
    assert average_weights(history, 45, 50) == pytest.approx([0, 1])
    assert average_weights(history[:1], 0, 5) == pytest.approx([1, 0])
    # A change that was noted for a batch after the end never acts.
    assert average_weights([*history, (60, np.array([9.0, 9.0]))], 45, 50) == pytest.approx([0, 1])
    with pytest.raises(WeightsError, match="no weights act in batches 50 to 50"):
        average_weights(history, 50, 50)


@given(st.lists(st.tuples(st.integers(0, 30), st.floats(0.01, 0.99)), min_size=1, max_size=6), st.integers(1, 31))
def test_averages_equal_the_mean_over_batches(changes, start):
    changes = sorted({0: 0.5, **dict(changes)}.items())
    history = [(batch, np.array([w, 1 - w])) for batch, w in changes]
    acting = [[w for at, w in changes if at <= batch][-1] for batch in range(start, 40)]
    assert average_weights(history, start, 40)[0] == pytest.approx(np.mean(acting))
