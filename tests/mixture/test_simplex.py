from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import FloorError, WeightsError
from mixstream.mixture.simplex import check_floor, check_weights, project


def bounds_and_weights():
    def build(parts):
        weights = np.array([w for w, _, _ in parts])
        weights = weights / weights.sum()
        floor = np.array([f for _, f, _ in parts]) / len(parts)
        cap = np.maximum(floor, np.array([c for _, _, c in parts]))
        return weights, floor, cap + max(0.0, 1.001 - cap.sum()) / len(parts)

    part = st.tuples(st.floats(1e-6, 1), st.floats(0, 0.9), st.floats(0, 1))
    return st.lists(part, min_size=1, max_size=10).map(build)


@given(bounds_and_weights())
def test_the_projection_is_clip_of_scaled_weights(case):
    """The optimum's form, found by bisection on the scale: slow and obvious."""
    weights, floor, cap = case
    low, high = -800.0, 800.0
    for _ in range(300):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(weights * np.exp(middle), floor, cap).sum() < 1 else (low, middle)
    reference = np.clip(weights * np.exp(low), floor, cap)
    shares = project(weights, floor, cap)
    assert shares.sum() == pytest.approx(1, abs=1e-9)
    assert shares == pytest.approx(reference, abs=1e-7)


def test_the_fixture_of_the_floor():
    """Floor 0.02, computed apart from this code; clipping and renormalising once gives .019231, below the floor."""
    weights = np.array([0.6, 0.3, 0.08, 0.015, 0.004, 0.001])
    shares = project(weights, np.full(6, 0.02), np.ones(6))
    assert shares == pytest.approx([0.575510, 0.287755, 0.076735, 0.02, 0.02, 0.02], abs=1e-6)


def test_what_lies_within_the_bounds_stays():
    weights = np.array([0.5, 0.3, 0.2])
    assert project(weights, np.zeros(3), np.ones(3)) == pytest.approx(weights)


def test_a_weight_of_zero_stays_at_its_floor():
    shares = project(np.array([1.0, 0.0]), np.array([0.0, 0.1]), np.ones(2))
    assert shares == pytest.approx([0.9, 0.1])


def test_tiny_weights_do_not_overflow():
    shares = project(np.array([1.0, 1e-310, 1e-310]), np.zeros(3), np.array([0.5, 1.0, 1.0]))
    assert shares == pytest.approx([0.5, 0.25, 0.25])


def test_a_weight_that_rounding_left_above_1_is_1():
    assert check_weights({"a": 1.0000000000000002, "b": 0.0}, ["a", "b"]).tolist() == [1.0, 0.0]


def test_caps_that_leave_no_mixture_are_refused():
    with pytest.raises(WeightsError, match=r"add up to 0\.5 of it"):
        project(np.array([1.0, 0.0]), np.zeros(2), np.array([0.5, 1.0]))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"a": 0.5, "b": 0.4}, r"sum to 0\.9, expected 1"),
        ({"a": 0.5, "b": -0.5}, r"weight of 'b' is -0\.5; expected a number from 0 to 1"),
        ({"a": 10**400, "b": 0}, "weight of 'a' is 10000"),
        ({"a": float("nan"), "b": 0.5}, "weight of 'a' is nan"),
        ({"a": float("inf"), "b": 0.5}, "weight of 'a' is inf"),
        ({"a": 1.0}, "no weight for b"),
        ({"a": 0.5, "b": 0.3, "bb": 0.2}, "'bb', which is no stream of the catalog; did you mean 'b'"),
        ({"a": "0.5", "b": 0.5}, "weight of 'a' is '0.5'"),
    ],
)
def test_bad_weights_are_refused_with_what_was_found(weights, message):
    with pytest.raises(WeightsError, match=message):
        check_weights(weights, ["a", "b"])


def test_a_floor_that_is_too_high_is_refused_with_the_way_out():
    with pytest.raises(FloorError, match=r"floor=0\.3 for 4 streams adds up to 1\.2 .* choose a floor in \[0, 0\.25\]"):
        check_floor(0.3, 4)
    with pytest.raises(FloorError, match="at least 0"):
        check_floor(-0.1, 4)
