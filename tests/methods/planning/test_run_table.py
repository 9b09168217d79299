from __future__ import annotations

import math

import numpy as np
import pytest
from bowls import NAMES, random_table, tables
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import RunTableError
from mixstream.methods.planning.joining import join
from mixstream.methods.planning.planner import target_weights
from mixstream.methods.planning.table import table_of

EVEN = np.full((2, 2), 0.5)
LOSSES = np.ones((2, 2))


def alike(one, other):
    """Two tables are the same to the last bit."""
    for name in ("sources", "targets", "runs"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("proportions", "tokens", "losses", "parameters", "unique"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    return True


def test_what_is_left_out_is_filled_in():
    table = table_of(("a", "b"), EVEN, 10, LOSSES)
    assert (table.targets, table.runs, len(table)) == (("a", "b"), ("0", "1"), 2)
    assert np.isnan(table.parameters).all()
    assert np.isinf(table.unique).all()
    assert (table.repeats == 0).all()
    assert table_of(("a", "b"), EVEN, 10, LOSSES, unique=np.array([1, 5])).repeats.tolist() == [[5, 1]] * 2


def test_proportions_are_divided_by_sums_that_are_nearly_1():
    table = table_of(("a", "b"), EVEN * (1 + 9e-7), 10, LOSSES)
    assert np.abs(table.proportions.sum(axis=1) - 1).max() <= 2e-16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": ("a", "a")}, "source 'a' stands twice"),
        ({"targets": ("x", "x")}, "target 'x' stands twice"),
        ({"runs": ("r", "r")}, "run 'r' stands twice"),
        ({"sources": (), "proportions": np.ones((2, 0))}, "the table has no source"),
        ({"proportions": np.array([[0.5, 0.5], [1.5, -0.5]])}, "run '1': proportions of 'b': found -0.5, expected a nu"),
        ({"proportions": np.array([[0.5, 0.5], [math.nan, 0.5]])}, "run '1': proportions of 'a': found nan"),
        ({"proportions": np.array([[0.5, 0.5], [math.inf, 0.5]])}, "run '1': its proportions sum to inf"),
        ({"proportions": EVEN * 1.001}, r"run '0': its proportions sum to 1.001 \(2 of 2 runs\), expected 1 within 1e-06"),
        ({"tokens": 0}, "run '0': tokens: found 0, expected a finite number above 0"),
        ({"tokens": np.array([5, -3])}, "run '1': tokens: found -3"),
        ({"tokens": math.inf}, "tokens: found inf"),
        ({"tokens": np.ones(3)}, r"tokens are of shape \(3,\), expected \(2,\)"),
        ({"losses": np.array([[1, 1], [1, 0.0]])}, "run '1': losses of 'b': found 0, expected a finite number above 0, or"),
        ({"losses": np.ones((2, 3))}, r"losses are of shape \(2, 3\), expected \(2, 2\)"),
        ({"losses": np.full((2, 2), np.inf)}, "losses of 'a': found inf"),
        ({"parameters": -1}, "run '0': parameters: found -1"),
        ({"unique": np.array([1.0, 0.0])}, "run '0': unique of 'b': found 0, expected a number of tokens above 0"),
        ({"unique": np.ones((3, 2))}, r"unique are of shape \(3, 2\), expected \(2, 2\)"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused(change, message):
    good = {"sources": ("a", "b"), "proportions": EVEN, "tokens": 10, "losses": LOSSES}
    table_of(**good)
    with pytest.raises(RunTableError, match=message):
        table_of(**good | change)


def test_rows_are_chosen_by_mask_or_number_and_told_apart():
    table = random_table(4, runs=("a", "a#2", "b", "c"))
    chosen = table.rows([0, 0, 1, 3, 0])
    assert chosen.runs == ("a", "a#3", "a#2", "c", "a#4")
    np.testing.assert_array_equal(chosen.losses, table.losses[[0, 0, 1, 3, 0]])
    np.testing.assert_allclose(chosen.proportions, table.proportions[[0, 0, 1, 3, 0]], rtol=1e-15)
    assert table.rows(np.array([True, False, False, True])).runs == ("a", "c")
    for nothing in ([], np.zeros(4, dtype=bool)):
        with pytest.raises(RunTableError, match="the table has no run"):
            table.rows(nothing)
    with pytest.raises(RunTableError, match=r"a mask of shape \(3,\) chooses runs; expected one entry for each of 4"):
        table.rows(np.ones(3, dtype=bool))


@given(tables(), st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_any_choice_is_a_table_and_can_be_chosen_from_again(table, numbers):
    numbers = [number % len(table) for number in numbers]
    twice = table.rows(numbers).rows([0, *range(len(numbers))])
    assert len(set(twice.runs)) == len(numbers) + 1
    np.testing.assert_array_equal(twice.losses, table.losses[[numbers[0], *numbers]])


def test_a_target_is_found_by_name():
    table = random_table(targets=("basque", "catalan"))
    assert table.target("catalan") == 1
    with pytest.raises(RunTableError, match="no losses of 'basq'; did you mean 'basque'"):
        table.target("basq")


def test_targets_are_weighed():
    assert target_weights(None, NAMES).tolist() == [1 / 3] * 3
    assert target_weights({"eu": 3, "ca": 1}, NAMES).tolist() == [0.25, 0.75, 0]
    for asked, message in (
        ({"eus": 1}, "target 'eus' is not in the table of runs; did you mean 'eu'"),
        ({"eu": -1}, "target 'eu' has weight -1; expected a finite number of at least 0"),
        ({"eu": math.nan}, "target 'eu' has weight nan"),
        ({"eu": 0}, "all targets have weight 0"),
    ):
        with pytest.raises(RunTableError, match=message):
            target_weights(asked, NAMES)


def test_tables_are_joined_by_name():
    first, other = random_table(2, runs=("a", "b")), random_table(3, names=NAMES[::-1], runs=("c", "d", "e"), seed=1)
    both = join({"first": first, "other": other})
    assert (both.sources, both.targets, both.runs) == (NAMES, NAMES, ("a", "b", "c", "d", "e"))
    np.testing.assert_array_equal(both.losses, np.concatenate([first.losses, other.losses[:, ::-1]]))
    np.testing.assert_allclose(both.proportions[2:], other.proportions[:, ::-1], rtol=1e-15)
    assert alike(join({"first": first}), first)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({}, "no table of runs; give one or more"),
        (
            {"x": random_table(), "y": random_table(names=("ca", "eus", "gl"))},
            r"sources eus \(1\) are in y, not in x; did you mean 'eu'\?; join tables of the same sources",
        ),
        ({"x": random_table(), "y": random_table(names=("ca", "gl"))}, r"sources eu \(1\) are in x, not in y"),
        ({"x": random_table(targets=("t", "u")), "y": random_table()}, r"targets ca, eu, gl \(3\) are in y, not in x"),
        ({"x": random_table(), "y": random_table()}, "run '0' is in x and in y; give each run once"),
    ],
)
def test_tables_that_do_not_join_are_refused(tables, message):
    with pytest.raises(RunTableError, match=message):
        join(tables)
