from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import MixtureError
from mixstream.methods.repetition import effective_repeats, worth_of_next

FITTED = 15.387756  # Muennighoff et al. 2023
repeats_of_any_size = st.floats(0, 1e4)


def test_the_fixture_of_the_papers():
    repeats = np.array([0.5, 1, 2, 4, 8, 16, 40, 100])
    expected = [0.5, 1, 1.968199, 3.725673, 6.624119, 10.582457, 15.167465, 16.363035]
    assert effective_repeats(repeats, FITTED) == pytest.approx(expected, abs=1e-6)


@given(repeats_of_any_size, st.floats(1e-3, 1e3))
def test_it_is_the_integral_of_the_worth_of_the_next(repeats, saturation):
    """S(r) = integral of dS/dr from 0, by the midpoint rule on either side of the kink at 1."""
    length = max(0.0, min(repeats, 1 + 40 * saturation) - 1)  # beyond, nothing is left
    grid = 1 + (np.arange(4000) + 0.5) / 4000 * length
    integral = min(repeats, 1) + worth_of_next(grid, saturation).mean() * length
    assert effective_repeats(np.array(repeats), saturation) == pytest.approx(integral, rel=1e-4)


@given(repeats_of_any_size, repeats_of_any_size, st.floats(1e-3, 1e6))
def test_more_is_never_worth_less_and_never_more_than_fresh(first, second, saturation):
    few, many = effective_repeats(np.array(sorted((first, second))), saturation)
    assert few <= many <= max(first, second) * (1 + 1e-12)
    assert many <= 1 + saturation


def test_the_limits():
    repeats = np.array([0.0, 0.5, 1.0, 3.0, 50.0])
    assert effective_repeats(repeats, np.inf).tolist() == repeats.tolist()
    assert effective_repeats(repeats, 1e12) == pytest.approx(repeats, rel=1e-9)
    assert effective_repeats(repeats, 1e-12) == pytest.approx(np.minimum(repeats, 1))
    assert worth_of_next(repeats, np.inf).tolist() == [1.0] * 5
    assert worth_of_next(np.array([1e9]), 1.0).tolist() == [0.0]


def test_tiny_excess_keeps_its_digits():
    assert effective_repeats(np.array([1 + 1e-9]), 1e6)[0] - 1 == pytest.approx(1e-9, rel=1e-6)


def test_each_source_may_have_its_own_saturation():
    repeats = np.full(3, 8.0)
    each = effective_repeats(repeats, np.array([5.0, FITTED, np.inf]))
    assert each == pytest.approx([float(effective_repeats(np.array(8.0), r)) for r in (5.0, FITTED, np.inf)])


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_a_saturation_that_is_none_is_refused(bad):
    with pytest.raises(MixtureError, match=r"saturation R\*=.*; expected repeats above 0"):
        effective_repeats(np.ones(2), bad)
    with pytest.raises(MixtureError, match="expected repeats above 0"):
        worth_of_next(np.ones(2), np.array([1.0, bad]))


@pytest.mark.parametrize("bad", [-0.1, float("nan"), float("inf")])
def test_repeats_that_are_none_are_refused(bad):
    with pytest.raises(MixtureError, match="expected finite numbers of at least 0"):
        effective_repeats(np.array([1.0, bad]), FITTED)


@given(st.lists(repeats_of_any_size, min_size=1, max_size=8), st.floats(1e-2, 1e3))
def test_the_three_writings_of_the_papers_agree(counts, saturation):
    """Muennighoff: D' = U + U R* (1 - exp(-R_D / R*)), R_D = r - 1; Apple: r_1 = R*; ATLAS: lambda = 1 / R*."""
    repeats, unique, rate = np.array(counts), 3e8, 1 / saturation
    beyond = np.maximum(repeats - 1, 0)
    muennighoff = np.where(
        repeats <= 1, unique * repeats, unique + unique * saturation * (1 - np.exp(-beyond / saturation))
    )
    apple = unique * np.where(repeats <= 1, repeats, 1 + saturation * (1 - np.exp(-beyond / saturation)))
    atlas = unique * np.where(repeats <= 1, repeats, 1 + (1 - np.exp(-rate * beyond)) / rate)
    ours = unique * effective_repeats(repeats, saturation)
    for writing in (muennighoff, apple, atlas):
        assert ours == pytest.approx(writing, rel=1e-9)
