from __future__ import annotations

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixstream.errors import BudgetError, FitError, FloorError, RunTableError
from mixstream.methods.planning.allocating import GAP, Region, minimise, region_of, slsqp
from mixstream.mixture.simplex import project_l2


@st.composite
def regions(draw, most_sources=8):
    """Regions that hold a mixture: some tight, some with sources at a cap of next to nothing."""
    count = draw(st.integers(1, most_sources))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    sizes = 10 ** rng.uniform(6, 11, count)
    tokens = float(sizes.sum() * draw(st.sampled_from([0.01, 0.5, 1.0, 3.9])))
    budgets = np.where(rng.random(count) < 0.2, np.inf, 4.0)
    caps = np.minimum(budgets * sizes / tokens, 1)
    floor = draw(st.sampled_from([0.0, 0.5, 1.0])) * min(caps.min(), 1 / count) * (1 - 1e-9)
    return region_of(tokens, sizes, budgets, floor)


def corners(region):
    """Every point of the region with all but one source at a bound."""
    count = len(region.least)
    for free in range(count):
        others = [i for i in range(count) if i != free]
        for bounds in itertools.product(*((region.least[i], region.most[i]) for i in others)):
            point = np.empty(count)
            point[others] = bounds
            point[free] = 1 - sum(bounds)
            if region.least[free] - 1e-9 <= point[free] <= region.most[free] + 1e-9:
                yield point


def test_a_region_is_what_floor_and_budgets_leave():
    region = region_of(1000, np.array([100.0, 50, 5000]), np.array([4.0, np.inf, 1]), 0.1)
    assert region.least.tolist() == [0.1] * 3
    assert region.most.tolist() == [0.4, 1, 1]


@given(st.lists(st.integers(1000, 10**12), min_size=2, max_size=8), st.floats(1, 5))
def test_budgets_that_supply_the_run_to_the_last_token_are_enough(sizes, times):
    unique = np.array(sizes, dtype=np.float64)
    tokens = int(unique.sum() * times)
    region = region_of(tokens, unique, np.full(len(sizes), tokens / unique.sum()))
    np.testing.assert_allclose(region.project(np.ones(len(sizes))), unique / unique.sum())


@given(st.integers(1000, 10**12), st.floats(1.01, 1e4))
def test_the_factor_that_a_message_tells_is_enough(size, times):
    unique = np.array([size, 3.0 * size])
    with pytest.raises(BudgetError) as refused:
        region_of(times * 4 * size, unique, np.ones(2))
    factor = float(str(refused.value).partition("raise the budgets by ")[2].partition(" times")[0])
    region_of(times * 4 * size, unique, np.full(2, factor))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"tokens": 0}, RunTableError, "a run of 0 tokens"),
        ({"tokens": math.inf}, RunTableError, "a run of inf tokens; expected a finite number"),
        ({"sizes": np.array([100.0, -1])}, RunTableError, "sizes: 'eu' has -1, expected a number above 0"),
        ({"budgets": np.array([math.nan, 1])}, RunTableError, "repeat budgets: 'ca' has nan"),
        (
            {"budgets": np.ones(3)},
            RunTableError,
            r"sizes are of shape \(2,\), repeat budgets of \(3,\); expected \(2,\)",
        ),
        (
            {"tokens": 1000},
            BudgetError,
            "needs 1,000 tokens, but the repeat budgets of its 2 sources supply 400; raise the budgets by 2.5 times",
        ),
        ({"floor": 0.6}, FloorError, "floor=0.6 for 2 streams adds up to 1.2"),
        ({"tokens": 300, "floor": 0.4}, FloorError, "the repeat budget of 'ca' allows it 0.333333 of the mixture"),
        ({"floor": -0.1}, FloorError, "floor=-0.1; expected"),
    ],
)
def test_a_region_without_a_mixture_is_refused(options, error, message):
    good = {"tokens": 100, "sizes": np.array([100.0, 300]), "budgets": np.ones(2), "names": ("ca", "eu")}
    region_of(**good)
    with pytest.raises(error, match=message):
        region_of(**good | options)


@given(regions(), st.integers(0, 5))
def test_starts_lie_in_the_region_and_depend_on_the_seed_alone(region, seed):
    starts = region.starts(4, seed)
    assert starts.shape == (4, len(region.least))
    assert (starts >= region.least - 1e-12).all()
    assert (starts <= region.most + 1e-12).all()
    np.testing.assert_allclose(starts.sum(axis=1), 1, atol=1e-9)
    np.testing.assert_array_equal(starts, region.starts(4, seed))


@given(regions(5), st.integers(0, 10**6))
def test_the_gap_is_the_best_gain_over_all_corners(region, seed):
    """A linear function is least at a corner: the slow reference tries them all."""
    rng = np.random.default_rng(seed)
    point, gradient = region.starts(2, seed)[-1], rng.standard_normal(len(region.least))
    slow = max(float(gradient @ (point - corner)) for corner in corners(region))
    assert region.gap(point, gradient) == pytest.approx(slow, abs=1e-8)


@given(regions(), st.integers(0, 10**6), st.sampled_from([1e-6, 1.0, 1e5]))
@settings(max_examples=60)
def test_the_minimum_of_a_bowl_is_the_projection(region, seed, unit):
    """min |p - w|^2 has an exact solution of another make; whatever the unit of the objective."""
    wanted = np.random.default_rng(seed).uniform(-0.5, 1, len(region.least))
    found = minimise(region, lambda p: (unit * float(((p - wanted) ** 2).sum()), 2 * unit * (p - wanted)), of="bowl")
    np.testing.assert_allclose(found.proportions, project_l2(wanted, region.least, region.most), atol=2e-3)
    value = float(((project_l2(wanted, region.least, region.most) - wanted) ** 2).sum())
    assert found.value <= unit * (value + 1e-4)


@given(regions(), st.integers(0, 10**6))
@settings(max_examples=60)
def test_the_minimum_of_power_laws_equalises_what_one_more_token_brings(region, seed):
    """sum B p^-b is convex, and steep without limit at 0: the gap bounds what any other mixture could gain."""
    rng = np.random.default_rng(seed)
    amounts, powers = 10 ** rng.uniform(-2, 2, len(region.least)), rng.uniform(0.1, 0.6, len(region.least))

    def laws(p):
        safe = np.maximum(p, 1e-12)
        return float((amounts * safe**-powers).sum()), -amounts * powers * safe ** (-powers - 1)

    found = minimise(region, laws, of="laws")
    assert found.proportions.sum() == pytest.approx(1, abs=1e-9)
    assert (found.proportions >= region.least - 1e-12).all()
    assert (found.proportions <= region.most + 1e-12).all()
    for other in region.starts(30, seed):
        assert laws(other)[0] >= found.value * (1 - 1e-4)


def test_of_several_minima_the_least_is_found_and_how_many_starts_agreed():
    region = Region(np.zeros(2), np.ones(2))

    def two_wells(p):
        x = p[0]
        value = (x - 0.1) ** 2 * (x - 0.9) ** 2 * 100 + x
        return float(value), np.array([200 * (x - 0.1) * (x - 0.9) * (2 * x - 1) + 1, 0.0])

    grid = np.linspace(0, 1, 100_001)
    least = grid[np.argmin((grid - 0.1) ** 2 * (grid - 0.9) ** 2 * 100 + grid)]
    found = minimise(region, two_wells, of="wells", starts=np.array([[0.9, 0.1], [0.2, 0.8], [0.05, 0.95]]))
    assert found.proportions[0] == pytest.approx(least, abs=1e-3)
    assert (found.agreed, found.starts) == (2, 3)


def test_a_region_of_one_point_is_its_own_answer():
    point = np.array([0.25, 0.75])
    found = minimise(Region(point, point), lambda p: (float(p @ p), 2 * p), of="point")
    np.testing.assert_allclose(found.proportions, point, atol=1e-9)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (lambda p: (math.nan, p), "law: the objective is not finite at any of 5 starts"),
        (lambda p: (1.0, p * math.inf), "law: the objective is not finite at any of 5 starts"),
        # A gradient that is not the objective's: nothing that it leads to is an answer.
        (lambda p: (1 + float(p[0]), np.array([-5.0, 5.0])), r"law: no solution was found from 5 starts \(a gain of"),
        (lambda p: (1 + abs(float(p[0]) - 0.3), np.sign(p - 0.3) * [3, 0]), "no solution was found from 5 starts"),
    ],
)
def test_what_has_not_converged_is_no_answer(objective, message):
    with pytest.raises(FitError, match=message):
        minimise(Region(np.zeros(2), np.ones(2)), objective, of="law")


def test_the_gap_of_an_answer_is_told():
    found = minimise(Region(np.zeros(3), np.ones(3)), lambda p: (float((p**2).sum()), 2 * p), of="bowl")
    assert 0 <= found.gap <= GAP
    np.testing.assert_allclose(found.proportions, 1 / 3, atol=1e-4)


def test_steps_out_of_bounds_by_rounding_are_no_news_and_other_warnings_are():
    """Scipy 1.15, the newest of Python 3.10, warns of the first in words of its own, and then clips."""

    def bowl(told):
        def value(x):
            warnings.warn(told, RuntimeWarning, stacklevel=2)
            return float((x**2).sum()), 2 * x

        return value

    clipped = "Values in x were outside bounds during a minimize step, clipping to bounds"
    np.testing.assert_allclose(slsqp(bowl(clipped), np.ones(2), jac=True).x, 0, atol=1e-6)
    with pytest.raises(RuntimeWarning, match="overflow"):
        slsqp(bowl("overflow"), np.ones(2), jac=True)
