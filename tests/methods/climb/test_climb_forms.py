"""The ratio equals its equations, its slopes are the true ones, and reading alone is worth 1."""

from __future__ import annotations

import numpy as np
import pytest
from climb_pilots import of_form, planted, slow_ratio
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import FitError
from mixstream.methods.climb.forms import BEND, FORMS, bent, form_named
from mixstream.methods.climb.ratio import Alone, loss_at, observed_ratio

forms = st.sampled_from(sorted(FORMS))


@st.composite
def laws_and_mixtures(draw):
    law = planted(draw(forms), draw(st.integers(2, 6)), draw(st.integers(0, 1000)))
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    return law, random.dirichlet(np.ones(len(law.floor))), draw(st.floats(1e8, 1e12))


@given(laws_and_mixtures())
def test_ratios_are_what_the_equations_say(given_law):
    law, shares, tokens = given_law
    slow = slow_ratio(law, shares, tokens)
    usual = slow > BEND
    assert law.ratios(shares[None], np.array([tokens]))[0][usual] == pytest.approx(slow[usual], rel=1e-12)
    assert law.ratio_slopes(shares, tokens)[0][usual] == pytest.approx(slow[usual], rel=1e-12)


@given(laws_and_mixtures())
def test_slopes_are_those_of_small_steps(given_law):
    law, shares, tokens = given_law
    shares = 0.9 * shares + 0.1 / len(shares)  # not where the bend begins
    step = 1e-6
    for number in range(len(shares)):
        moved = [shares.copy(), shares.copy()]
        moved[0][number] -= step
        moved[1][number] += step
        for function in (law.ratio_slopes, law.loss_slopes):
            low, high = (function(one, tokens)[0] for one in moved)
            slopes = function(shares, tokens)[1][:, number]
            assert (high - low) / (2 * step) == pytest.approx(slopes, rel=1e-5, abs=1e-6)


@given(forms, st.integers(0, 1000), st.floats(1e8, 1e12))
def test_a_language_alone_has_ratio_1_and_its_monolingual_loss(form, seed, tokens):
    law = planted(form, 3, seed)
    for number, alone in enumerate(np.eye(3)):
        assert law.ratios(alone[None], np.array([tokens]))[0, number] == pytest.approx(1)
        assert law.losses(alone[None], np.array([tokens]))[0, number] == pytest.approx(law.alone(tokens)[number])


@given(st.floats(-5, 2), st.floats(1e-9, 1))
def test_bent_ratios_are_above_0_and_rise(raw, more):
    low, high = bent(np.array([raw, raw + more]))[0]
    assert 0 < low < high
    assert bent(np.array([1e-3, 0.5]))[0].tolist() == [1e-3, 0.5]
    below, above = bent(np.array([BEND * (1 - 1e-9), BEND * (1 + 1e-9)]))[1]
    assert below == pytest.approx(above)


@given(laws_and_mixtures())
def test_the_observed_ratio_undoes_the_law(given_law):
    law, shares, tokens = given_law
    ratio = law.ratios(shares[None], np.array([tokens]))[0]
    scaled = tokens / law.reference_tokens
    for number, one in enumerate(ratio):
        alone = Alone(law.scale[number], law.exponent[number], law.floor[number])
        loss = loss_at(one, scaled, alone)
        assert loss == pytest.approx(law.losses(shares[None], np.array([tokens]))[0, number])
        assert observed_ratio(np.array([loss]), np.array([scaled]), alone, of="eu") == pytest.approx(one, rel=1e-6)


def test_a_loss_at_the_floor_is_refused():
    with pytest.raises(
        FitError, match=r"'eu': 2 of 3 losses are at or below the fitted floor E=2 \(the least is 1\.9\)"
    ):
        observed_ratio(np.array([1.9, 2.0, 2.5]), np.ones(3), Alone(1.0, 0.3, 2.0), of="eu")


def test_an_unknown_form_is_refused():
    with pytest.raises(FitError, match=r"no form 'f2'.*expected F1, F2, F3"):
        form_named("f2")


def test_a_language_that_is_not_read_gets_nothing_unless_donors_give():
    shares = np.array([0.0, 0.5, 0.3, 0.2])
    assert of_form("F1").ratio_slopes(shares, 100.0)[0][0] > 0.1
    for form in ("F2", "F3"):
        assert of_form(form).ratio_slopes(shares, 100.0)[0][0] == pytest.approx(BEND / 2)
