"""ODM: numbers by hand, EXP3 one draw at a time against our rounds, and what a state holds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from observing import NAN, check_resumable, lines_of, observations, seen

from mixstream.errors import MixtureError, ScoreError, StateError
from mixstream.methods.learning.losses import told_losses
from mixstream.methods.odm import ODM, add_rewards, exp3_weights, exploration

losses = st.floats(0, 20)
rewards = st.lists(st.floats(0, 1e6), min_size=1, max_size=8).map(np.array)


def exp3_by_draws(draws, rewards, scale, probabilities, first_round):
    """Return R and pi after every draw of one source at a time, as the authors' loop has it.

    The probabilities of the draws stay as they are over all of them: weights change between updates only.
    """
    count = len(probabilities)
    sums = [0.0] * count
    now = min(1 / count, math.sqrt(math.log(count) / (count * first_round))) if first_round else 1 / count
    for number, source in enumerate(draws, start=first_round + 1):
        sums[source] += rewards[source] / scale / probabilities[source]
        before, now = now, min(1 / count, math.sqrt(math.log(count) / (count * number)))
    total = sum(math.exp(before * own) for own in sums)
    return sums, [(1 - count * now) * math.exp(before * own) / total + now for own in sums]


def test_exploration_gives_the_numbers_of_the_equation():
    assert exploration(0, 4) == exploration(1, 4) == 0.25  # sqrt(ln 4 / 4) = 0.589
    assert exploration(100, 4) == pytest.approx(math.sqrt(math.log(4) / 400))
    assert exploration(7, 1) == 0


def test_weights_give_the_numbers_of_the_equation():
    """K = 2, t = 50: eps_50 = sqrt(ln 2 / 100) = 0.083256, eps_49 = 0.084101; R = (0, 10)."""
    odds = math.exp(-0.84101)
    rest = 1 - 2 * 0.083256
    expected = [rest * odds / (1 + odds) + 0.083256, rest / (1 + odds) + 0.083256]
    assert exp3_weights(np.array([0.0, 10.0]), 50) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(("shares", "rounds"), [([1, 1, 2, 4], 80), ([1, 2], 30), ([3, 3, 3, 1], 200)])
def test_rounds_equal_one_draw_at_a_time_in_proportion(shares, rounds):
    """n rounds at pi draw a source n pi times: where these are whole, the two sums are one number."""
    probabilities = np.array(shares) / sum(shares)
    draws = np.repeat(np.arange(len(shares)), (rounds * probabilities).round().astype(int))
    np.random.default_rng(0).shuffle(draws)
    told = np.linspace(2, 5, len(shares))
    sums, weights = exp3_by_draws(draws.tolist(), told, 10, probabilities, 0)
    assert add_rewards(np.zeros(len(shares)), told, probabilities, rounds, 10) == pytest.approx(sums)
    method = ODM()
    assert method.update(seen(told, batch=rounds, shares=probabilities)) == pytest.approx(weights)


def test_rounds_are_the_mean_of_random_draws():
    """The authors' sum of one run is noisy about ours: its mean over many runs is ours within 4 standard errors."""
    probabilities, told = np.array([0.1, 0.3, 0.6]), np.array([4.0, 3.0, 2.0])
    random = np.random.default_rng(0)
    runs = np.array(
        [exp3_by_draws(random.choice(3, 50, p=probabilities), told, 10, probabilities, 0)[0] for _ in range(800)]
    )
    error = runs.std(axis=0, ddof=1) / math.sqrt(len(runs))
    assert (np.abs(runs.mean(axis=0) - add_rewards(np.zeros(3), told, probabilities, 50, 10)) < 4 * error).all()


@given(rewards, st.integers(1, 10**6))
def test_weights_are_of_the_simplex_and_at_least_the_exploration(sums, rounds):
    weights = exp3_weights(sums, rounds)
    assert weights.sum() == pytest.approx(1, abs=1e-12)
    assert weights.min() >= exploration(rounds, len(sums)) - 1e-15
    assert (np.diff(weights[np.argsort(sums)]) >= -1e-15).all()


@given(rewards, st.integers(1, 1000), st.randoms(use_true_random=False))
def test_sources_in_another_order_get_the_same_weights(sums, rounds, random):
    order = random.sample(range(len(sums)), len(sums))
    assert exp3_weights(sums[order], rounds) == pytest.approx(exp3_weights(sums, rounds)[order], rel=1e-9)


def test_huge_rewards_do_not_overflow():
    weights = exp3_weights(np.array([1e300, 0.0]), 10)
    assert weights == pytest.approx([1 - exploration(10, 2), exploration(10, 2)])


def test_a_source_that_was_not_read_is_taken_for_the_mean_of_what_was():
    method = ODM()
    method.update(seen([2.0, 3.0, 4.0], batch=10))
    before = method.state_dict()["rewards"]
    method.update(seen([2.0, NAN, 4.0], batch=20, shares=[0.25, 0, 0.75]))
    assert method.state_dict()["rewards"] == pytest.approx([before[0] + 2, before[1] + 3.5, before[2] + 4])


def test_a_source_that_joins_late_is_one_of_the_others():
    """After 5,000 batches without it, equal losses; with no reward in the meantime it would begin at 0.9 %."""
    method = ODM()
    for batch in range(10, 5001, 10):
        weights = method.update(seen([3.0, 3.0, NAN], batch=batch))
    assert weights == pytest.approx([1 / 3] * 3)
    assert method.update(seen([3.0, 3.0, 4.0], batch=5010)).argmax() == 2


@given(lines_of(3, losses), st.integers(1, 20))
def test_it_goes_on_from_a_checkpoint_at_every_position(lines, interval):
    check_resumable(ODM, observations(lines, interval))


@pytest.mark.parametrize("bad", [NAN, float("inf"), -1.0])
def test_a_loss_that_is_no_number_changes_nothing(bad):
    method = ODM()
    method.update(seen([2.0, 3.0], batch=10))
    before = method.state_dict()
    with pytest.raises(
        ScoreError, match=r"training losses of sources number \[1\] are \[.*\]; expected finite numbers"
    ):
        method.update(seen([2.0, bad], batch=20, shares=[0.5, 0.5]))
    assert method.state_dict() == before


def test_losses_that_are_not_there_are_refused():
    with pytest.raises(ScoreError, match="no losses; expected the training loss of each of 2 sources"):
        told_losses(seen(None, sizes=[10, 10]))
    with pytest.raises(ScoreError, match=r"losses of shape \(3,\); expected the training loss of each of 2 sources"):
        told_losses(seen([1.0, 1.0, 1.0], weights=[0.5, 0.5]))
    with pytest.raises(ScoreError, match="no source was read since the last update"):
        told_losses(seen([NAN, NAN]))


def test_a_state_of_other_sources_is_refused():
    method = ODM()
    method.update(seen([2.0, 3.0], batch=10))
    with pytest.raises(StateError, match="ODM's state is of 2 sources, the run has 3"):
        method.update(seen([2.0, 3.0, 4.0], batch=20))


def test_a_bad_scale_is_refused():
    with pytest.raises(MixtureError, match="reward_scale=0; expected a finite number above 0"):
        ODM(reward_scale=0)
