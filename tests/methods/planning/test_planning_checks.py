"""What planners refuse, and the mixtures that they take."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mixstream.errors import FitError, RunTableError
from mixstream.methods.planning.checks import check_amounts, check_mixtures, check_option, of_one_setting, prior_shares
from mixstream.methods.planning.table import table_of


def test_mixtures_are_divided_by_their_sums_and_one_is_a_row():
    assert check_mixtures(np.array([0.25, 0.75 + 5e-7]), ("a", "b")).sum() == pytest.approx(1, abs=1e-15)
    assert check_mixtures(np.array([[0.25, 0.75], [1.0, 0.0]]), ("a", "b")).shape == (2, 2)
    with pytest.raises(RunTableError, match="mixture 1 has proportions from 0.5 and sum 1.1; expected numbers"):
        check_mixtures(np.array([[0.5, 0.5], [0.5, 0.6]]), ("a", "b"))
    with pytest.raises(RunTableError, match="mixture 0 has proportions from nan"):
        check_mixtures(np.array([[math.nan, 0.5]]), ("a", "b"))
    with pytest.raises(RunTableError, match=r"shape \(2, 2, 2\)"):
        check_mixtures(np.full((2, 2, 2), 0.5), ("a", "b"))


def test_amounts_are_those_of_all_or_of_each():
    assert check_amounts("tokens", 5.0, 3).tolist() == [5, 5, 5]
    assert check_amounts("tokens", np.array([1.0, 2.0]), 2).tolist() == [1, 2]
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(RunTableError, match=f"tokens: found {bad:g}, expected a finite number above 0"):
            check_amounts("tokens", np.array([1.0, bad]), 2)


@pytest.mark.parametrize("value", [True, "1", None, math.nan, -1, 11])
def test_options_are_numbers_in_their_range(value):
    with pytest.raises(FitError, match=r"kl=.*; expected a finite number of at least 0 and at most 10"):
        check_option("kl", value, 0, 10)


def test_budgets_within_5_percent_are_one():
    shares = np.array([[0.5, 0.5], [0.2, 0.8], [0.9, 0.1]])
    runs = table_of(("a", "b"), shares, np.array([100.0, 104.0, 200.0]), np.full((3, 2), 2.0))
    assert of_one_setting(runs, "law", 100.0).runs == ("0", "1")
    with pytest.raises(RunTableError, match="law: the runs are of 100 to 200 tokens"):
        of_one_setting(runs, "law")
    with pytest.raises(RunTableError, match="law: no run of 150 tokens; the table has runs of 100 to 200"):
        of_one_setting(runs, "law", 150.0)


def test_a_prior_is_that_of_the_sizes_unless_given():
    assert prior_shares(None, np.array([1.0, 3.0]), ("a", "b")).tolist() == [0.25, 0.75]
    assert prior_shares({"b": 0.1, "a": 0.9}, np.array([1.0, 3.0]), ("a", "b")).tolist() == [0.9, 0.1]
