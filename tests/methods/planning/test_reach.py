from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from bowls import NAMES, random_table
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import RunTableError
from mixstream.methods.planning.reach import Pilots, hull_distance, pilots_of, reach
from mixstream.methods.planning.table import table_of

EVEN = np.full(3, 1 / 3)


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_of_two_sources_the_hull_is_an_interval(seed, num_runs):
    rng = np.random.default_rng(seed)
    shares, own = rng.random(num_runs), rng.random()
    corners = np.stack([shares, 1 - shares], axis=1)
    expected = max(shares.min() - own, own - shares.max(), 0)
    assert hull_distance(corners, np.array([own, 1 - own])) == pytest.approx(expected, abs=1e-9)


@given(st.integers(0, 10**6))
def test_of_three_sources_the_hull_is_the_best_of_a_grid_of_blends(seed):
    rng = np.random.default_rng(seed)
    corners, point = rng.dirichlet(np.full(3, 0.5), 3), rng.dirichlet(np.ones(3))
    grid = np.array([(i, j, 40 - i - j) for i in range(41) for j in range(41 - i)]) / 40
    slow = np.abs(grid @ corners - point).sum(axis=1).min() / 2
    assert slow - 0.05 <= hull_distance(corners, point) <= slow + 1e-9


@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(2, 6))
def test_a_blend_is_inside_and_nothing_is_further_than_the_nearest_pilot(seed, num_runs, count):
    rng = np.random.default_rng(seed)
    table = table_of(
        [f"s{i}" for i in range(count)], rng.dirichlet(np.ones(count), num_runs), 1e9, np.ones((num_runs, count))
    )
    blend = rng.dirichlet(np.ones(num_runs)) @ table.proportions
    assert hull_distance(table.proportions, blend) == pytest.approx(0, abs=1e-9)
    found = reach(pilots_of(table), rng.dirichlet(np.full(count, 0.3)), 1e9)
    assert 0 <= found.hull_distance <= found.nearest_distance + 1e-9
    assert found.nearest in table.runs


def test_a_run_among_the_pilots_is_not_warned_of():
    table = random_table(tokens=np.geomspace(1e8, 1e10, 12), parameters=1e8, unique=np.full(3, 1e9))
    found = reach(pilots_of(table), table.proportions[4], 1e9, parameters=1e8, repeats=table.repeats[4])
    assert found.warnings == ()
    assert (found.tokens_factor, found.size_factor, found.nearest) == (1, 1, "4")
    assert found.nearest_distance == 0
    assert found.hull_distance == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "tokens_factor", "size_factor", "message"),
    [
        ({"tokens": 1e12}, 100, 1, "1,000,000,000,000 tokens are 100 times the largest of the pilots' budgets .100,000,000 to 10"),
        ({"tokens": 1e7}, 0.1, 1, "10,000,000 tokens are 10 times below the smallest of the pilots' budgets"),
        ({"parameters": 7e9}, 1, 70, "7,000,000,000 parameters are 70 times the largest of the pilots' models"),
        ({"parameters": 5e7}, 1, 0.5, "50,000,000 parameters are 2 times below the smallest of the pilots' models"),
        ({"repeats": np.array([0, 20.0, 5])}, 1, 1, "'eu', 'gl': repeated more than the pilots did; 'eu' is read 20 times, the pilots read nothing of it twice"),
    ],
)  # fmt: skip
def test_what_is_beyond_the_pilots_is_told(change, tokens_factor, size_factor, message):
    table = random_table(tokens=np.geomspace(1e8, 1e10, 12), parameters=1e8)
    asked = {"proportions": table.proportions.mean(axis=0), "tokens": 1e9, "parameters": 1e8}
    found = reach(pilots_of(table), **asked | change)
    assert found.tokens_factor == pytest.approx(tokens_factor)
    assert found.size_factor == pytest.approx(size_factor)
    assert len(found.warnings) == 1
    assert message.replace(".100,", "(100,") in found.warnings[0]


def test_proportions_outside_are_told_with_the_nearest_pilot():
    table = table_of(NAMES, np.array([[0.5, 0.5, 0], [0.4, 0.6, 0]]), 1e9, np.ones((2, 3)), runs=("half", "less"))
    found = reach(pilots_of(table), np.array([0.3, 0.5, 0.2]), 1e9)
    assert found.warnings == (
        "no pilot read 'gl', which the run reads",
        "the proportions are outside what the pilots mixed: 20.0% of the tokens would have to move to make them a "
        "blend of pilots (20.0% to make them those of 'half', the nearest)",
    )


def test_repeats_that_the_pilots_had_or_that_cost_nothing_are_not_told():
    table = random_table(unique=np.full(3, 1e7), tokens=1e9)  # up to a hundred repeats
    most = table.repeats.max(axis=0)
    pilots = pilots_of(table)
    assert reach(pilots, EVEN, 1e9, repeats=most).warnings == ()
    assert len(reach(pilots, EVEN, 1e9, repeats=1.6 * most).warnings) == 1
    assert "the pilots read at most" in reach(pilots, EVEN, 1e9, repeats=2 * most).warnings[0]
    assert reach(pilots_of(random_table()), EVEN, 1e9, repeats=np.full(3, 4.0)).warnings == ()


def test_pilots_that_do_not_tell_their_size_leave_it_unknown():
    found = reach(pilots_of(random_table()), EVEN, 1e9, parameters=7e9)
    assert math.isnan(found.size_factor)
    assert "do not tell their model's size, so that what 7,000,000,000 parameters change" in found.warnings[0]


def test_arrays_that_do_not_fit_are_refused():
    pilots = pilots_of(random_table(4))
    with pytest.raises(RunTableError, match=r"pilots: tokens are of shape \(3,\), expected \(4,\)"):
        replace(pilots, tokens=np.ones(3))
    with pytest.raises(RunTableError, match="no pilots; give the runs"):
        Pilots(NAMES, (), np.ones((0, 3)), np.ones(0), np.ones(0), np.ones((0, 3)))
