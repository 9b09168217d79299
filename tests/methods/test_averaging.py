"""Averages equal the plain mean, batch by batch; what runs learnt together has the spread that it has."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import WeightsError
from mixstream.methods.learning.averaging import aggregate, average_ema, average_last, average_weights

END = 40
histories = st.lists(st.tuples(st.integers(0, 45), st.floats(0.01, 0.99)), max_size=6).map(
    lambda changes: [(batch, np.array([w, 1 - w])) for batch, w in sorted({0: 0.5, **dict(changes)}.items())]
)


def by_batch(history):
    """The weights that act in each batch, one row a batch."""
    return np.array([[w for at, w in history if at <= batch][-1] for batch in range(END)])


def test_averages_count_the_batches_that_weights_act_in():
    history = [(0, np.array([1.0, 0.0])), (10, np.array([0.5, 0.5])), (40, np.array([0.0, 1.0]))]
    assert average_weights(history, 0, 50) == pytest.approx([(10 + 15) / 50, (15 + 10) / 50])
    assert average_weights(history, 20, 50) == pytest.approx([10 / 30, 20 / 30])
    assert average_weights(history, 45, 50) == pytest.approx([0, 1])
    assert average_weights(history[:1], 0, 5) == pytest.approx([1, 0])
    # A change that was noted for a batch after the end never acts.
    assert average_weights([*history, (60, np.array([9.0, 9.0]))], 45, 50) == pytest.approx([0, 1])


@given(histories, st.integers(0, END - 1))
def test_a_mean_is_the_mean_over_batches(history, start):
    assert average_weights(history, start, END) == pytest.approx(by_batch(history)[start:].mean(axis=0))


@given(histories, st.integers(1, END))
def test_the_last_n_are_the_last_n(history, number):
    assert average_last(history, END, number) == pytest.approx(by_batch(history)[-number:].mean(axis=0))


@given(histories, st.floats(0.05, 1e6))
def test_the_moving_average_is_the_one_run_batch_by_batch(history, half_life):
    decay = 2 ** (-1 / half_life)
    mean, count = np.zeros(2), 0.0
    for weights in by_batch(history):
        mean = decay * mean + (1 - decay) * weights
        count = decay * count + (1 - decay)  # what the beginning at 0 has left
    assert average_ema(history, END, half_life) == pytest.approx(mean / count, rel=1e-9)


def test_a_batch_counts_half_for_every_half_life_of_age():
    history = [(0, np.array([1.0, 0.0])), (1, np.array([0.0, 1.0]))]
    assert average_ema(history, 2, 1) == pytest.approx([1 / 3, 2 / 3])


def test_averages_over_nothing_are_refused():
    history = [(0, np.array([1.0, 0.0]))]
    with pytest.raises(WeightsError, match="no weights act in batches 50 to 50"):
        average_weights(history, 50, 50)
    with pytest.raises(WeightsError, match="the last 10000 batches, but weights act in 300; average over 1 to that"):
        average_last(history, 300, 10_000)
    with pytest.raises(WeightsError, match="the last 0 batches"):
        average_last(history, 300, 0)
    with pytest.raises(WeightsError, match="the last 1 batches, but weights act in 0"):
        average_last([], 300, 1)
    with pytest.raises(WeightsError, match="no weights act before batch 0"):
        average_ema(history, 0, 5)
    with pytest.raises(WeightsError, match="half-life of 0 batches; expected a finite number above 0"):
        average_ema(history, 10, 0)


def test_runs_are_averaged_alike_and_their_spread_is_told():
    together = aggregate(
        {
            "70M": {"ca": 0.5, "eu": 0.3, "gl": 0.2},
            "160M": {"gl": 0.4, "ca": 0.4, "eu": 0.2},  # another order, the same streams
            "500M": {"ca": 0.3, "eu": 0.4, "gl": 0.3},
        }
    )
    assert together.weights == pytest.approx({"ca": 0.4, "eu": 0.3, "gl": 0.3})
    assert together.std == pytest.approx({"ca": 0.1, "eu": 0.1, "gl": 0.1})
    assert together.least == {"ca": 0.3, "eu": 0.2, "gl": 0.2}
    assert together.greatest == {"ca": 0.5, "eu": 0.4, "gl": 0.4}
    assert together.num_runs == 3


def test_a_single_run_shows_no_spread():
    alone = aggregate({"70M": {"ca": 0.5, "eu": 0.5}})
    assert (alone.weights, alone.std, alone.num_runs) == ({"ca": 0.5, "eu": 0.5}, None, 1)


@given(st.lists(st.lists(st.floats(0.01, 1), min_size=70, max_size=70), min_size=1, max_size=4))
def test_what_runs_learnt_together_sums_to_1_and_lies_between_them(runs):
    learnt = {str(i): dict(zip(map(str, range(70)), np.array(w) / sum(w), strict=True)) for i, w in enumerate(runs)}
    together = aggregate(learnt)
    assert sum(together.weights.values()) == pytest.approx(1, abs=1e-12)
    for name, weight in together.weights.items():
        assert together.least[name] - 1e-12 <= weight <= together.greatest[name] + 1e-12


def test_runs_over_other_streams_are_refused():
    with pytest.raises(WeightsError, match=r"seed2 has weights for gl \(1 streams\), seed1 has none"):
        aggregate({"seed1": {"ca": 1.0}, "seed2": {"ca": 0.5, "gl": 0.5}})
    with pytest.raises(WeightsError, match=r"seed1 has weights for gl \(1 streams\), seed2 has none"):
        aggregate({"seed1": {"ca": 0.5, "gl": 0.5}, "seed2": {"ca": 1.0}})
    with pytest.raises(WeightsError, match="no runs"):
        aggregate({})
    with pytest.raises(WeightsError, match="weights sum to 0.7"):
        aggregate({"seed1": {"ca": 0.7}})
