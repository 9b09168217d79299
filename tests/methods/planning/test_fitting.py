from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from mixstream.errors import FitError
from mixstream.methods.planning.fitting import fit_from

TOKENS = np.geomspace(1, 1000, 12)


def power_law(x):
    amount, power, floor = x
    return np.exp(amount) * TOKENS ** (-power) + floor


BOX = (np.array([-5.0, 0.01, 0.0]), np.array([5.0, 2.0, 10.0]))
STARTS = np.array([[0.0, 0.3, 1.0], [1.0, 1.0, 0.1], [-1.0, 0.1, 3.0]])


@given(st.floats(-2, 3), st.floats(0.2, 1.0), st.floats(0.5, 4))
@settings(max_examples=30)
def test_a_planted_law_is_found(amount, power, floor):
    truth = np.array([amount, power, floor])
    found = fit_from(STARTS, lambda x: power_law(x) - power_law(truth), BOX, of="law")
    np.testing.assert_allclose(found.parameters, truth, rtol=1e-4, atol=1e-4)
    assert found.converged >= 1
    assert found.objective < 1e-12
    assert len(found.residuals) == 12


def test_the_objective_is_hubers():
    """The same minimum, and the same value there, as of Huber's loss written out and given to another solver."""
    rng = np.random.default_rng(0)
    seen = power_law([1.0, 0.4, 2.0]) + 0.01 * rng.standard_normal(12)
    seen[[3, 7]] += 2.0

    def huber(x):
        far = np.abs(power_law(x) - seen)
        return float(np.where(far <= 0.05, far**2 / 2, 0.05 * (far - 0.025)).sum())

    found = fit_from(STARTS, lambda x: power_law(x) - seen, BOX, of="law", delta=0.05)
    slow = minimize(huber, [1, 0.4, 2], method="Nelder-Mead", options={"maxiter": 5000, "xatol": 1e-9, "fatol": 1e-12})
    assert found.objective == pytest.approx(huber(found.parameters), rel=1e-9)
    assert found.objective == pytest.approx(slow.fun, rel=1e-5)
    assert found.agreed == 3
    plain = fit_from(STARTS, lambda x: power_law(x) - seen, BOX, of="law")
    assert plain.objective == pytest.approx(float(((power_law(plain.parameters) - seen) ** 2).sum()) / 2)
    truth = power_law([1.0, 0.4, 2.0])
    assert np.abs(power_law(found.parameters) - truth).max() < 0.2 * np.abs(power_law(plain.parameters) - truth).max()


def test_a_prior_counts_squared_however_far_it_pulls():
    """The residuals of a prior stay squares, beyond Huber's delta as well."""
    seen = power_law([1.0, 0.4, 2.0])
    seen[3] += 2.0
    prior = np.array([3.0, 0.0, 0.5])

    def residuals(x):
        return np.append(power_law(x) - seen, 0.3 * (x - prior))

    def objective(x):
        far, pull = np.abs(power_law(x) - seen), 0.3 * (x - prior)
        return float(np.where(far <= 0.05, far**2 / 2, 0.05 * (far - 0.025)).sum() + pull @ pull / 2)

    found = fit_from(STARTS, residuals, BOX, of="law", delta=0.05, num_squared=3)
    slow = minimize(objective, found.parameters + 0.1, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    assert np.abs(found.residuals[-3:]).max() > 0.1
    assert found.objective == pytest.approx(objective(found.parameters), rel=1e-9)
    assert found.objective == pytest.approx(slow.fun, rel=1e-6)


def test_a_jacobian_changes_nothing_but_the_time():
    def residuals(x):
        return power_law(x) - power_law([1.0, 0.4, 2.0]) - 0.1 * np.sin(TOKENS)

    def jacobian(x):
        law = np.exp(x[0]) * TOKENS ** -x[1]
        return np.stack([law, -law * np.log(TOKENS), np.ones(12)], axis=1)

    one, other = (fit_from(STARTS, residuals, BOX, of="law", jacobian=how) for how in (None, jacobian))
    np.testing.assert_allclose(one.parameters, other.parameters, rtol=1e-5)


def test_other_steps_find_the_same_and_a_rough_fit_costs_less():
    calls = []

    def residuals(x):
        calls.append(x)
        return power_law(x) - power_law([1.0, 0.4, 2.0]) - 0.1 * np.sin(TOKENS)

    counts, found = [], []
    for options in ({}, {"steps": "dogbox"}, {"tolerance": 1e-3}):
        calls.clear()
        found.append(fit_from(STARTS, residuals, BOX, of="law", **options).parameters)
        counts.append(len(calls))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-4)
    np.testing.assert_allclose(found[2], found[0], rtol=0.3)
    assert counts[2] < counts[0]


def test_starts_outside_are_brought_in_and_the_box_holds():
    box = (np.array([0.0]), np.array([1.0]))
    found = fit_from(np.array([[-7.0], [9.0]]), lambda x: x - 3, box, of="law")
    assert found.parameters == pytest.approx([1.0])


def test_exact_fits_of_different_rounding_agree():
    """Costs of 1e-30 and 1e-26 are the same minimum: nothing."""
    found = fit_from(
        np.array([[0.1], [5.0], [9.0]]),
        lambda x: np.array([x[0] ** 2 - 4.0]),
        (np.zeros(1), np.full(1, 10.0)),
        of="law",
    )
    assert (found.converged, found.agreed) == (3, 3)


def test_a_start_that_is_not_finite_is_left_out():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit_from(
            np.array([[-2.0], [4.0]]), lambda x: np.log(x) - 1, (np.full(1, -5.0), np.full(1, 9.0)), of="law"
        )
    assert found.parameters == pytest.approx([math.e])
    assert found.converged == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"residuals": lambda x: x * math.nan}, "law: the law is not finite at any of 2 starts; look for runs"),
        ({"jacobian": lambda x: np.full((1, 1), math.nan)}, "law: the law is not finite at any of 2 starts"),
        (
            {"residuals": lambda x: np.exp(-x), "max_evaluations": 2},
            r"law: no fit converged, from 2 starts of 2 evaluations each \(the least objective was",
        ),
    ],
)
def test_what_has_not_converged_is_no_fit(options, message):
    good = {
        "residuals": lambda x: x - 1.0,
        "starts": np.array([[0.0], [5.0]]),
        "bounds": (np.zeros(1), np.full(1, 900.0)),
    }
    fit_from(**good, of="law")
    with pytest.raises(FitError, match=message):
        fit_from(**good | options, of="law")
