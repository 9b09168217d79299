"""Baselines: the digits of other people's code, and what floors and repeat budgets leave of a rule."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import BudgetError, FloorError, FormatError, RunTableError, WeightsError
from mixstream.methods.baselines import Fixed, Natural, Temperature, Uniform, UniMax, baseline, fixed
from mixstream.mixture.weights import natural, temperature

SIZES = np.array([1, 5, 20, 100, 1000.0])
NAMES = ("a", "b", "c", "d", "e")
FREE = np.full(5, math.inf)

sizes = st.lists(st.floats(1e3, 1e12), min_size=2, max_size=8).map(np.array)
rules = st.sampled_from([Natural(), Uniform(), Temperature(0.3), Temperature(0.0), Temperature(100.0), UniMax(4.0)])


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("temperature:0.3", [0.058818, 0.095325, 0.144485, 0.234160, 0.467212]),
        ("temperature:0.7", [0.006126, 0.018900, 0.049877, 0.153878, 0.771219]),
        ("temperature:0.2", [0.093517, 0.129028, 0.170254, 0.234904, 0.372298]),
        ("temperature:1", [0.000888, 0.00444, 0.017762, 0.08881, 0.888099]),
        ("natural", [0.000888, 0.00444, 0.017762, 0.08881, 0.888099]),
        ("unimax:4", [0.02, 0.1, 0.293333, 0.293333, 0.293333]),
        ("uniform", [0.2] * 5),
    ],
)
def test_without_bounds_a_rule_gives_the_digits_of_the_fixtures(spec, expected):
    """Computed apart from this code, for sizes 1, 5, 20, 100, 1000 and 200 tokens."""
    assert baseline(spec, NAMES).allocate(200, SIZES, FREE) == pytest.approx(expected, abs=1e-6)


def test_what_a_budget_refuses_goes_to_the_others_in_the_ratios_of_the_rule():
    """200 tokens, at most 4 of a and 20 of b: 0.02 and 0.1; the rest keeps the ratios of sizes^0.3."""
    found = Temperature(0.3).allocate(200, SIZES, np.full(5, 4.0))
    wanted = temperature(SIZES, 0.3)
    assert found[0] == pytest.approx(0.02)
    assert found[1:] == pytest.approx(0.98 * wanted[1:] / wanted[1:].sum())


def test_a_floor_holds_up_what_a_rule_gives_less():
    found = Natural().allocate(200, SIZES, FREE, floor=0.01)
    assert found[:2] == pytest.approx([0.01, 0.01])
    assert found[2:] == pytest.approx(0.98 * natural(SIZES[2:]))


@given(rules, sizes, st.floats(0.2, 3.9), st.floats(0, 1), st.randoms(use_true_random=False))
def test_proportions_are_in_the_region_and_follow_their_sources(rule, sizes, repeats, part, random):
    tokens = repeats * sizes.sum()
    budgets = np.full(len(sizes), 4.0)
    most = np.minimum(4 * sizes / tokens, 1)
    floor = part * min(1 / len(sizes), most.min()) * 0.999
    found = rule.allocate(tokens, sizes, budgets, floor=floor)
    assert found.sum() == pytest.approx(1, abs=1e-9)
    assert (found >= floor - 1e-12).all()
    assert (found <= most + 1e-12).all()
    order = random.sample(range(len(sizes)), len(sizes))
    assert rule.allocate(tokens, sizes[order], budgets, floor=floor) == pytest.approx(found[order], rel=1e-9)


@given(sizes)
def test_all_that_budgets_supply_is_natural_whatever_the_rule(sizes):
    """As much as all may be repeated can be read in one way only."""
    tokens = 4 * sizes.sum() * (1 - 1e-9)
    for rule in (Uniform(), Temperature(0.3), UniMax(4.0)):
        found = rule.allocate(tokens, sizes, np.full(len(sizes), 4.0))
        assert found == pytest.approx(natural(sizes), rel=1e-6, abs=1e-8)


def test_fixed_weights_come_from_a_mapping_or_a_file(tmp_path):
    given = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4, "e": 0.0}
    path = tmp_path / "weights.json"
    path.write_text(json.dumps(given))
    for one in (baseline(given, NAMES), baseline(f"fixed:{path}", NAMES), fixed(given, NAMES)):
        assert one.allocate(200, SIZES, FREE) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.0], abs=1e-9)
        held = [0.1, 0.8 * 2 / 9, 0.8 * 3 / 9, 0.8 * 4 / 9, 0.1]
        assert one.allocate(200, SIZES, FREE, floor=0.1) == pytest.approx(held, abs=1e-9)


def test_names_are_those_of_the_command_line():
    specs = ("natural", "uniform", "temperature:0.3", "unimax:4", dict.fromkeys(NAMES, 0.2))
    found = [baseline(spec, NAMES).name for spec in specs]
    assert found == ["natural", "uniform", "temperature", "unimax", "fixed"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("unifrom", "baseline 'unifrom' is none of natural.*; did you mean 'uniform'"),
        ("natural:2", "baseline 'natural:2' is none of"),
        ("fixed", "baseline 'fixed' is none of .*fixed:FILE"),
        ("fixed:nowhere.json", "weights 'nowhere.json': neither a file"),
        ("temperature", "expected its name, a colon and a number"),
        ("unimax:many", "baseline 'unimax:many'; expected its name, a colon and a number"),
        ("temperature:-1", "temperature exponent -1.0; expected a number from 0 to 100"),
        ("temperature:nan", "temperature exponent nan"),
        ("unimax:0", "unimax with 0.0 repeats; expected a finite number above 0"),
        ("unimax:inf", "unimax with inf repeats"),
        ({"a": 1.0}, r"no weight for b, c, d, e \(4 of 5"),
        ({"a": 0.2, "b": 0.2, "c": 0.2, "d": 0.2, "f": 0.2}, "weight for 'f', which is no stream"),
    ],
)
def test_bad_specs_are_refused(spec, message):
    with pytest.raises(WeightsError, match=message):
        baseline(spec, NAMES)


def test_a_file_that_holds_no_weights_is_refused(tmp_path):
    path = tmp_path / "weights.json"
    path.write_text("[1, 2]")
    with pytest.raises(FormatError):
        baseline(f"fixed:{path}", NAMES)


def test_bounds_that_leave_no_mixture_are_refused():
    with pytest.raises(BudgetError, match=r"needs 5,000 tokens, but the repeat budgets of its 5 sources supply 4,504"):
        Uniform().allocate(5000, SIZES, np.full(5, 4.0))
    with pytest.raises(BudgetError, match=r"unimax:1 supplies 1,126 tokens, the run needs 2,000; allow 1.7762 repeats"):
        UniMax(1).allocate(2000, SIZES, np.full(5, 4.0))
    with pytest.raises(FloorError, match=r"floor=0.3 for 5"):
        Natural().allocate(200, SIZES, FREE, floor=0.3)
    with pytest.raises(RunTableError, match=r"sizes: '1' has 0, expected a number above 0"):
        Natural().allocate(200, np.array([1.0, 0.0]), FREE[:2])
    with pytest.raises(WeightsError, match="fixed weights of 2 sources, but the run has 5"):
        Fixed((0.5, 0.5)).allocate(200, SIZES, FREE)
