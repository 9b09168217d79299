"""DoReMi's update on records: by hand, and the same as online."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from observing import NAN, seen

from mixstream.errors import MixtureError, ScoreError
from mixstream.methods.doremi import DoReMi
from mixstream.methods.offline_doremi import offline_doremi


def test_two_steps_give_the_numbers_of_the_equation():
    """Excess (0, ln 2), then (0, ln 4) without smoothing: odds 1:2, then 1:8; mean of (1/3, 2/3) and (1/9, 8/9)."""
    losses = np.array([[1.0, 3.0 + np.log(2)], [2.0, 3.0 + np.log(4)]])
    found = offline_doremi(losses, np.array([2.0, 3.0]), smoothing=0.0)
    assert found.trajectory == pytest.approx(np.array([[1 / 3, 2 / 3], [1 / 9, 8 / 9]]))
    assert found.weights == pytest.approx([2 / 9, 7 / 9])


def test_a_source_without_a_loss_keeps_its_last_excess():
    losses = np.array([[3.0, NAN], [NAN, 4.0], [NAN, NAN]])
    found = offline_doremi(losses, np.array([2.0, 2.0]))
    filled = np.array([[3.0, 2.0], [3.0, 4.0], [3.0, 4.0]])
    assert found.trajectory == pytest.approx(offline_doremi(filled, np.array([2.0, 2.0])).trajectory)


@given(st.integers(1, 6), st.integers(1, 20), st.integers(0, 999), st.floats(0.01, 10), st.floats(0, 1))
def test_the_same_as_online_updates_one_after_the_other(count, steps, seed, eta, smoothing):
    random = np.random.default_rng(seed)
    losses, reference = random.uniform(1, 4, (steps, count)), random.uniform(1, 3, count)
    start = random.dirichlet(np.ones(count))
    found = offline_doremi(losses, reference, eta=eta, smoothing=smoothing, start=start)
    method, weights = DoReMi(eta=eta, smoothing=smoothing), start
    for step, now in enumerate(losses):
        weights = method.update(seen(np.maximum(now - reference, 0), weights))
        assert found.trajectory[step] == pytest.approx(weights, rel=1e-12)
    assert found.weights == pytest.approx(found.trajectory.mean(axis=0))
    assert found.weights.sum() == pytest.approx(1, abs=1e-9)


def test_excesses_can_be_given_and_a_reference_by_step():
    losses, reference = np.array([[3.0, 2.0], [2.5, 2.5]]), np.array([[2.0, 2.0], [2.0, 2.4]])
    assert offline_doremi(losses, reference).weights == pytest.approx(offline_doremi(losses - reference, 0).weights)


@pytest.mark.parametrize(
    ("losses", "options", "error", "message"),
    [
        (np.empty((0, 2)), {}, MixtureError, r"shape \(0, 2\); expected \(steps, sources\)"),
        (np.ones(3), {}, MixtureError, r"shape \(3,\)"),
        (np.full((2, 2), np.inf), {}, ScoreError, "not finite; leave out the steps"),
        (np.ones((2, 2)), {"reference": NAN}, ScoreError, "not finite"),
        (np.ones((2, 2)), {"reference": np.ones(3)}, MixtureError, r"the reference is of shape \(3,\), the losses"),
        (np.ones((2, 2)), {"reference": np.ones((4, 2, 2))}, MixtureError, "the reference is of shape"),
        (np.ones((2, 2)), {"start": np.array([0.5, 0.6])}, MixtureError, r"start is \[0.5, 0.6\]; expected 2 weights"),
        (np.ones((2, 2)), {"start": np.array([NAN, 1.0])}, MixtureError, r"start is \[nan, 1.0\]; expected 2 weights"),
        (np.ones((2, 2)), {"start": np.array([1.0])}, MixtureError, "expected 2 weights"),
        (np.ones((2, 2)), {"eta": 0}, MixtureError, "eta=0; expected a finite number above 0"),
        (np.ones((2, 2)), {"smoothing": 2}, MixtureError, "smoothing=2; expected a share"),
    ],
)
def test_bad_records_are_refused(losses, options, error, message):
    with pytest.raises(error, match=message):
        offline_doremi(losses, options.pop("reference", 0.0), **options)
