from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import MixtureError, ScoreError, WeightsError
from mixstream.methods.learning.bounds import Bounds
from mixstream.methods.learning.stages import Join, Stages, neutral_scores, present_weights
from mixstream.methods.xdoge import mirror_step

NAMES = ("ca", "es", "eu", "gl")
STAGES = Stages(NAMES, (Join(("eu",), 30, 10), Join(("gl",), 50)))


@pytest.mark.parametrize(
    ("batch", "eu", "gl"),
    [(0, 0, 0), (30, 0, 0), (31, 0.1, 0), (35, 0.5, 0), (39, 0.9, 0), (40, 1, 0), (49, 1, 0), (50, 1, 1), (999, 1, 1)],
)
def test_streams_join_at_their_batch_and_rise_along_their_ramp(batch, eu, gl):
    assert STAGES.presence(batch) == pytest.approx([1, 1, eu, gl])


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 30)), max_size=6))
def test_presence_never_falls_and_ends_at_1(times):
    names = ("first", *map(str, range(len(times))))
    stages = Stages(names, tuple(Join((str(i),), at, ramp) for i, (at, ramp) in enumerate(times)))
    course = np.array([stages.presence(batch) for batch in range(82)])
    assert (np.diff(course, axis=0) >= 0).all()
    assert ((course >= 0) & (course <= 1)).all()
    assert (course[:, 0] == 1).all()  # no stage names it
    assert (course[-1] == 1).all()
    grows = np.flatnonzero((np.diff(course > 0, axis=0)).any(axis=1)) + 1
    assert {0, *grows.tolist()} == {batch for batch in stages.first_batches if batch < 82} | {0}


def test_no_stages_are_all_streams_all_the_time():
    assert Stages(NAMES).presence(0).tolist() == [1, 1, 1, 1]
    assert Stages(NAMES).first_batches == (0,)
    assert STAGES.first_batches == (0, 31, 50)


def test_what_is_read_is_the_product():
    weights = np.array([0.4, 0.3, 0.2, 0.1])
    assert present_weights(weights, STAGES.presence(0)) == pytest.approx([4 / 7, 3 / 7, 0, 0])
    assert present_weights(weights, STAGES.presence(35)) == pytest.approx([0.5, 0.375, 0.125, 0])
    assert present_weights(weights, STAGES.presence(60)) == pytest.approx(weights)
    with pytest.raises(WeightsError, match="no stream that is there has weight"):
        present_weights(np.array([0, 0, 0.5, 0.5]), STAGES.presence(0))


def test_bounds_can_be_kept_from_the_first_batch_to_the_last():
    bounds, weights = Bounds(0.1, np.array([0.9, 0.5, 0.5, 0.5])), np.array([0.97, 0.01, 0.01, 0.01])
    for batch in range(60):
        presence = STAGES.presence(batch)
        shares = bounds.present(presence).apply(present_weights(weights, presence))
        assert (shares >= 0.1 * presence - 1e-12).all()
        assert (shares[presence == 0] == 0).all()
        assert shares.sum() == pytest.approx(1, abs=1e-12)


def test_absent_streams_have_the_mean_score_of_the_others():
    scores = np.array([2.0, -1.0, float("nan"), float("nan")])
    weights = np.array([0.3, 0.1, 0.4, 0.2])
    assert neutral_scores(scores, weights, STAGES.presence(0)) == pytest.approx([2, -1, 1.25, 1.25])
    assert neutral_scores(np.arange(4.0), weights, np.array([1, 1, 0.1, 1])).tolist() == [0, 1, 2, 3]
    with pytest.raises(WeightsError, match="no stream that is there has weight"):
        neutral_scores(scores, np.array([0, 0, 0.5, 0.5]), STAGES.presence(0))


@given(st.lists(st.tuples(st.floats(0.05, 1), st.floats(-1, 1), st.booleans()), min_size=1, max_size=12))
def test_an_update_leaves_the_latent_weight_of_the_absent(sources):
    """To first order: what is moved shrinks with the square of the step."""
    weights = np.array([1.0, *(w for w, _, _ in sources)])
    weights /= weights.sum()
    presence = np.array([1.0, *(float(there) for _, _, there in sources)])
    scores = neutral_scores(np.array([0.0, *(s for _, s, _ in sources)]), weights, presence)
    absent = presence == 0
    for eta in (0.1, 0.01):
        moved = mirror_step(weights, eta * scores, 1.0)[absent].sum() - weights[absent].sum()
        assert abs(moved) <= eta**2  # scores within [-1, 1]: at most their variance


def test_scores_that_are_not_finite_are_left_for_the_method_to_refuse():
    scores = np.array([float("inf"), -float("inf"), 0, 0])
    passed = neutral_scores(scores, np.full(4, 0.25), STAGES.presence(0))
    with pytest.raises(ScoreError, match="not finite"):
        mirror_step(np.full(4, 0.25), passed, 1.0)


@pytest.mark.parametrize(
    ("joins", "message"),
    [
        ((Join(("eus",), 3),), "a stage names 'eus', which is no stream; did you mean 'eu'"),
        ((Join(("eu",), 3), Join(("gl", "eu"), 5)), "'eu' joins twice"),
        ((Join(("eu", "eu"), 3),), "'eu' joins twice"),
        ((Join(("eu", "gl"), -1),), "eu, gl join at batch -1 over 0 batches; expected 0 or more"),
        ((Join(("eu",), 1, -2),), "eu join at batch 1 over -2 batches"),
        ((Join(NAMES, 1),), "no stream is there at batch 0"),
    ],
)
def test_stages_that_are_none_are_refused(joins, message):
    with pytest.raises(MixtureError, match=message):
        Stages(NAMES, joins)
