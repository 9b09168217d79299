"""Weights on their way through a run: always a mixture, within bounds, of the streams that are there."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import BudgetError, ScoreError, WeightsError
from mixstream.methods.learning.bounds import Bounds
from mixstream.methods.learning.learner import Learner
from mixstream.methods.learning.stages import Join, Stages
from mixstream.methods.odm import ODM
from mixstream.methods.xdoge import XDoGE

NAMES = ("a", "b", "c", "d")
SIZES = np.array([100, 200, 300, 400])
START = np.array([0.1, 0.2, 0.3, 0.4])

scores = st.lists(st.lists(st.floats(-50, 50), min_size=4, max_size=4), min_size=1, max_size=8)
joins = st.lists(
    st.builds(Join, st.sampled_from([("a",), ("b",), ("c",)]), st.integers(0, 60), st.integers(0, 40)),
    max_size=2,
    unique_by=lambda join: join.streams,
).map(tuple)


def learner(stages=(), floor=0.03, cap=0.9, **options):
    return Learner(XDoGE(mu=0.5, **options), Bounds(floor, np.full(4, cap)), Stages(NAMES, stages), START)


def step(one, batch, signal):
    drawn = np.full(4, 3 * batch)
    one.follow(batch, one.wish(batch, 100, 0.1, drawn, SIZES, one.neutral(batch, np.array(signal))))


@given(scores, joins)
def test_weights_are_a_mixture_of_the_streams_that_are_there(signals, stages):
    one = learner(stages)
    for batch in range(0, 10 * len(signals), 10):
        step(one, batch, signals[batch // 10])
        presence = one.presence(batch)
        assert one.acting.sum() == pytest.approx(1, abs=1e-12)
        assert (one.acting >= 0.03 * presence - 1e-12).all()
        assert (one.acting <= 0.9 + 1e-12).all()
        assert (one.acting[presence == 0] == 0).all()


@given(scores)
def test_without_stages_what_acts_is_the_update_within_bounds(signals):
    one, alpha = learner(), START
    for batch, signal in enumerate(signals):
        step(one, batch, signal)
        raised = alpha * np.exp(0.1 * (np.array(signal) - max(signal)) / 0.5)
        alpha = Bounds(0.03, np.full(4, 0.9)).apply(raised / raised.sum())
        assert one.acting == pytest.approx(alpha, abs=1e-9)


@given(scores, joins, st.integers(0, 7))
def test_a_learner_goes_on_from_its_state(signals, stages, cut):
    whole, again = learner(stages, ema=0.7, saturation=2.0), learner(stages, ema=0.7, saturation=2.0)
    for number, signal in enumerate(signals):
        step(whole, 10 * number, signal)
        if number == cut:
            again.load_state_dict(json.loads(json.dumps(whole.state_dict())))
        elif number > cut:
            step(again, 10 * number, signal)
            assert again.acting.tolist() == whole.acting.tolist()


def test_an_absent_stream_waits_with_its_weight():
    one = learner((Join(("d",), 50),))
    assert one.acting == pytest.approx([1 / 6, 2 / 6, 3 / 6, 0])
    step(one, 10, [0, 0, 0, 1000])  # of what is not there nothing is known
    assert one.acting == pytest.approx([1 / 6, 2 / 6, 3 / 6, 0])
    assert not one.let_join(40)
    assert one.let_join(50)
    assert one.acting == pytest.approx(START)


def test_shares_are_those_since_the_last_wish():
    seen = []

    class Noting(ODM):
        def update(self, seen_now):
            seen.append(seen_now.shares.tolist())
            return START

    def new():
        return Learner(Noting(), Bounds(0.0, np.ones(4)), Stages(NAMES), START)

    one = new()
    for drawn in ([4, 4, 0, 0], [4, 4, 6, 2], [4, 4, 6, 2]):
        one.wish(1, 10, 0.1, np.array(drawn), SIZES, np.array([1.0, 1, 1, 1]))
        again = new()
        again.load_state_dict(one.state_dict())
        one = again
    assert seen == [[0.5, 0.5, 0, 0], [0, 0, 0.75, 0.25], [0, 0, 0, 0]]


def test_a_signal_that_is_not_finite_changes_nothing():
    one = learner()
    with pytest.raises(ScoreError, match="not finite"):
        step(one, 10, [1.0, float("nan"), 0, 0])
    assert one.acting.tolist() == START.tolist()


def test_what_cannot_be_at_some_time_is_refused_at_the_start():
    """Two streams at first, with caps of 0.4: nobody could fill the mixture."""
    with pytest.raises(BudgetError, match="0.8"):
        learner((Join(("c", "d"), 50),), cap=0.4)
    with pytest.raises(WeightsError):
        Learner(XDoGE(mu=1), Bounds(0.0, np.full(4, 0.4)), Stages(NAMES), np.array([0.5, 0.5, 0, 0]))
