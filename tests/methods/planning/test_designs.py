"""Designs of pilots: what CLIMB's runs are, and that the cheaper choice is the best there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import MixtureError
from mixstream.methods.planning.designs import (
    Design,
    candidates,
    climb_design,
    d_optimal,
    default_ratios,
    log_det,
    monolingual_design,
    num_parameters,
    told_tokens,
)

BUDGETS = (200_000, 400_000)


def names(count: int) -> list[str]:
    return [f"l{i}" for i in range(count)]


@given(st.integers(2, 20), st.lists(st.integers(1, 10**13), min_size=2, max_size=3, unique=True))
def test_climb_has_3_ratios_a_language_at_each_budget(count, budgets):
    design = climb_design(names(count), budgets)
    assert len(design) == 3 * count * len(budgets) == len(set(design.runs))
    assert np.abs(design.proportions.sum(axis=1) - 1).max() < 1e-12
    assert (design.proportions > 0).all()
    assert {own: int((design.tokens == own).sum()) for own in budgets} == dict.fromkeys(budgets, 3 * count)
    at_one = design.proportions[: 3 * count]
    assert len({tuple(row.round(9)) for row in at_one}) == 3 * count  # no mixture twice
    for i in range(count):
        own = at_one[3 * i : 3 * i + 3]
        assert own[:, i] == pytest.approx(default_ratios(count))
        others = np.delete(own, i, axis=1)
        assert np.ptp(others, axis=1).max() < 1e-12  # they share the rest evenly


def test_ratios_that_are_given():
    design = climb_design(("ca", "en", "eu"), BUDGETS, (0.1, 0.5, 0.9))
    assert design.proportions[3].tolist() == pytest.approx([0.45, 0.1, 0.45])
    assert design.runs[3] == "en-0.1-200k"
    assert design.runs[-1] == "eu-0.9-400k"
    assert design.rows([3, 0]).runs == ("en-0.1-200k", "ca-0.1-200k")


def test_monolingual_runs_are_of_one_language():
    design = monolingual_design(("ca", "en"), (1000, 2000, 3500))
    assert design.runs == tuple(f"{name}-alone-{size}" for size in ("1k", "2k", "3500") for name in ("ca", "en"))
    assert design.proportions.tolist() == [[1, 0], [0, 1]] * 3
    assert design.tokens.tolist() == [1000, 1000, 2000, 2000, 3500, 3500]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: climb_design(["ca"], BUDGETS), "a mixture of 1 source"),
        (lambda: climb_design(names(3), (5,)), "budgets of mixed pilots are 5; expected at least 2 different"),
        (lambda: climb_design(names(3), (5, 5, 7)), "budgets of mixed pilots are 5, 5, 7; .* each once"),
        (lambda: monolingual_design(names(3), (5, 6)), "monolingual pilots are 5, 6; expected at least 3"),
        (lambda: climb_design(names(3), BUDGETS, (0.1, 1.0)), "ratio 1.0; expected numbers above 0 and below 1"),
        (lambda: climb_design(names(4), BUDGETS, (0.1, 0.25)), "0.25 is the even share of 4 sources"),
        (lambda: climb_design(names(2), BUDGETS, (0.3, 0.7)), "ratios 0.3 and 0.7 make the same mixtures of 2"),
        (lambda: climb_design(names(3), BUDGETS, (0.12341, 0.12344)), "0.12341 and 0.12344 make .* to four decimals"),
        (lambda: d_optimal(climb_design(names(3), BUDGETS), 4), "4 runs are fewer than the 5 parameters .* 3 sources"),
        (lambda: d_optimal(climb_design(names(3), BUDGETS), 19), "19 runs cannot be chosen from 18"),
    ],
)
def test_what_cannot_be_a_design_is_refused(make, told):
    with pytest.raises(MixtureError, match=told):
        make()


def test_candidates_that_tell_too_little_are_refused():
    pool = climb_design(names(3), BUDGETS)
    one_budget = Design(pool.runs, pool.proportions, np.full(len(pool), 1000))
    with pytest.raises(MixtureError, match="no choice of 6 of the 18 candidates tells the parameters of 'climb' apart"):
        d_optimal(one_budget, 6)


def test_parameters_are_climbs_own():
    """2 m^2 - m: m (m - 1) each of b and k, and m eta."""
    for count in range(2, 17):
        assert count * num_parameters("climb", count) == 2 * count**2 - count


@pytest.mark.parametrize("law", ["climb", "quadratic"])
@pytest.mark.parametrize("seed", range(4))
def test_the_choice_is_the_best_of_all_where_all_can_be_tried(law, seed):
    pool = candidates(("ca", "en"), BUDGETS, 3, seed)
    few = pool.rows(sorted(np.random.default_rng(seed).choice(len(pool), 11, replace=False).tolist()))
    num = num_parameters(law, 2) + 1
    every = [log_det(few, list(chosen), law) for chosen in itertools.combinations(range(len(few)), num)]
    chosen = d_optimal(few, num, law, seed=seed)
    assert log_det(few, chosen, law) == pytest.approx(max(every), abs=1e-6)


@given(st.integers(2, 5), st.integers(0, 3), st.integers(0, 100), st.sampled_from(["climb", "quadratic"]))
def test_the_choice_is_at_least_as_good_as_random_ones_and_the_same_again(count, more, seed, law):
    pool = candidates(names(count), BUDGETS, 10, seed)
    num = num_parameters(law, count) + more
    chosen = d_optimal(pool, num, law, seed=seed)
    assert chosen == d_optimal(pool, num, law, seed=seed)
    assert len(set(chosen)) == num
    random = np.random.default_rng(seed)
    others = [log_det(pool, random.choice(len(pool), num, replace=False).tolist(), law) for _ in range(20)]
    assert log_det(pool, chosen, law) >= max(others)


def test_a_choice_of_half_the_runs_tells_more_than_half_of_what_all_tell():
    """Information a run, by the geometric mean over parameters: that of the chosen runs is greater."""
    pool = climb_design(names(4), BUDGETS)
    chosen = d_optimal(pool, 12)
    parameters = 4 * num_parameters("climb", 4)
    a_run = {num: log_det(pool, own) / parameters - np.log(num) for num, own in ((12, chosen), (24, range(24)))}
    assert a_run[12] > a_run[24]


def test_tokens_in_short_are_exact():
    assert [told_tokens(own) for own in (1, 1000, 1500, 2_000_000, 25 * 10**9)] == ["1", "1k", "1500", "2m", "25b"]
