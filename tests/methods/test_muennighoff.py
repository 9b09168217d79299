"""The data-constrained law: its published numbers, its limits, what repeats are worth, and its fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import FitError
from mixstream.methods.muennighoff import PUBLISHED, DataConstrainedLaw, fit_data_constrained

logs = st.floats(7, 12)


def test_the_published_losses_to_all_digits():
    assert float(PUBLISHED.losses(6.34e9, 242e9, 25e9)) == pytest.approx(2.2256440889984477, rel=1e-14)
    assert float(PUBLISHED.losses(8.67e9, 178e9, 25e9)) == pytest.approx(2.2269634075087867, rel=1e-14)
    assert PUBLISHED.floor == pytest.approx(1.869144, abs=1e-6)
    assert math.exp(PUBLISHED.log_model_scale) == pytest.approx(520.825, abs=1e-3)
    assert math.exp(PUBLISHED.log_data_scale) == pytest.approx(1487.716, abs=1e-3)


@given(logs, logs, logs)
def test_losses_are_those_of_the_equation(log_model, log_data, log_unique):
    model, data = 10**log_model, 10**log_data
    unique = min(10**log_unique, data)
    law = PUBLISHED
    a, b = math.exp(law.log_model_scale), math.exp(law.log_data_scale)
    alpha, beta = law.model_exponent, law.data_exponent
    g = (alpha * a / (beta * b)) ** (1 / (alpha + beta))
    used = min(model, (unique * g) ** (beta / alpha) * g)
    more_data, more_model = max(data / unique - 1, 0), max(model / used - 1, 0)
    of_data = unique + unique * law.data_saturation * (1 - math.exp(-more_data / law.data_saturation))
    of_model = used + used * law.model_saturation * (1 - math.exp(-more_model / law.model_saturation))
    expected = law.floor + a / of_model**alpha + b / of_data**beta
    assert float(law.losses(model, data, unique)) == pytest.approx(expected, rel=1e-9)


@given(logs, logs, st.floats(1, 100))
def test_data_that_are_not_read_do_not_count(log_model, log_data, more):
    fresh = PUBLISHED.losses(10**log_model, 10**log_data, 10**log_data)
    assert PUBLISHED.losses(10**log_model, 10**log_data, more * 10**log_data) == fresh
    assert PUBLISHED.losses(10**log_model, 10**log_data, math.inf) == fresh


def test_the_optimal_model_is_optimal():
    """N_opt(D) is the N of the least loss of a compute budget, where nothing repeats."""
    best = PUBLISHED.compute_optimal(1e21, math.inf)
    assert best.parameters == pytest.approx(float(PUBLISHED.optimal_parameters(best.tokens)), rel=1e-4)
    assert 6 * best.parameters * best.tokens == pytest.approx(1e21)
    assert best.repeats == 0


def test_with_few_data_compute_goes_to_repeats_and_then_to_no_avail():
    """More compute over 25 B unique tokens: more repeats and parameters, and less gain by each; no split is better."""
    plenty, scarce = (PUBLISHED.compute_optimal(9.3e21, unique) for unique in (math.inf, 25e9))
    assert scarce.loss > plenty.loss
    assert 6 < scarce.repeats < 14  # the published pair of models has 7.1 and 9.7
    tokens = np.geomspace(scarce.tokens / 50, scarce.tokens * 50, 2001)
    assert scarce.loss <= PUBLISHED.losses(9.3e21 / 6 / tokens, tokens, 25e9).min() + 1e-12


def test_what_repeats_are_worth():
    worth = PUBLISHED.worth_of_repeats(np.array([0.5, 1, 4, 16, 40]))
    assert worth.effective == pytest.approx([0.5, 1, 3.725673, 10.582457, 15.167465], abs=1e-6)
    assert worth.share == pytest.approx(worth.effective / worth.repeats)
    assert worth.share[2] > 0.93  # four are almost free
    assert worth.next_one[3] == pytest.approx(math.exp(-15 / 15.387756))


def test_planted_constants_are_found_again():
    random = np.random.default_rng(0)
    model, unique = 10 ** random.uniform(7, 9.5, 60), 10 ** random.uniform(8, 10, 60)
    tokens = unique * 10 ** random.uniform(-0.5, 1.8, 60)
    losses = PUBLISHED.losses(model, tokens, unique)
    away = DataConstrainedLaw(2, 5, 5, 0.3, 0.3, 8, 8)
    exact = fit_data_constrained(model, tokens, unique, losses, start=away)
    assert list(vars(exact).values()) == pytest.approx(list(vars(PUBLISHED).values()), rel=1e-5)
    noisy = fit_data_constrained(model, tokens, unique, losses * np.exp(0.003 * random.normal(size=60)), start=away)
    assert noisy.losses(model, tokens, unique) == pytest.approx(losses, rel=0.01)
    assert noisy.data_saturation == pytest.approx(15.39, rel=0.3)


@pytest.mark.parametrize(
    ("numbers", "what"),
    [
        ((0, 1e9, 1e9), "parameters"),
        ((1e8, -1, 1e9), "tokens"),
        ((1e8, 1e9, 0), "unique"),
        ((1e8, math.inf, 1e9), "tokens"),
    ],
)
def test_numbers_that_are_none_are_refused(numbers, what):
    with pytest.raises(FitError, match=f"{what}: found .*, expected a finite number above 0"):
        PUBLISHED.losses(*numbers)


@pytest.mark.parametrize("bad", [(0.0, 1e9), (1e20, 0.0), (math.inf, 1e9), (math.nan, 1e9)])
def test_compute_that_is_none_is_refused(bad):
    with pytest.raises(FitError, match="expected numbers above 0, FLOPs finite"):
        PUBLISHED.compute_optimal(*bad)


def test_runs_that_determine_no_law_are_refused():
    few = np.full(5, 1e9)
    with pytest.raises(FitError, match="5 runs for the 7 unknowns of the data-constrained law; 2 more are needed"):
        fit_data_constrained(few, few, few / 4, np.full(5, 3.0))
    many = np.geomspace(1e8, 1e9, 9)
    with pytest.raises(FitError, match=r"no run repeats its data .* R\*_D is not determined"):
        fit_data_constrained(many, many, many, np.full(9, 3.0))
    with pytest.raises(FitError, match="expected finite numbers above 0"):
        fit_data_constrained(many, many, many / 4, np.full(9, -3.0))
    with pytest.raises(FitError, match=r"losses \[inf\]; expected finite numbers above 0"):
        fit_data_constrained(many, many, many / 4, np.append(np.full(8, 3.0), math.inf))
    with pytest.raises(FitError, match=r"are of shapes .*; expected one number a run of each"):
        fit_data_constrained(many, many[:3], many / 4, np.full(9, 3.0))


def test_runs_of_one_model_size_do_not_tell_what_size_changes():
    """All of a model that its unique tokens can use, so that E, A, alpha and R*_N are one number to them."""
    tokens, unique = np.tile([1e9, 2e9, 4e9, 8e9], 3), np.repeat([5e8, 1e9, 2e9], 4)
    one = np.full(12, 1e6)
    losses = PUBLISHED.losses(one, tokens, unique)
    with pytest.raises(FitError, match=r"leave [23] of its 7 unknowns undetermined, among .*A, alpha.*R\*_N"):
        fit_data_constrained(one, tokens, unique, losses)
