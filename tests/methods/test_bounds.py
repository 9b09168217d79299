"""Bounds hold exactly, and what they give is the nearest point: against bisection, and against every exchange."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixstream.errors import BudgetError, FloorError, MixtureError, WeightsError
from mixstream.methods.learning.bounds import Bounds, repeat_caps
from mixstream.methods.xdoge import update_weights
from mixstream.mixture.simplex import project, project_l2

ALPHA = np.array([0.6, 0.3, 0.08, 0.015, 0.004, 0.001])
EXACT = 1e-12
NAMES = ("ca.wiki", "ca.web", "eu.wiki", "eu.web", "gl.wiki", "gl.web")


@st.composite
def problems(draw, of_languages=None):
    """Weights, floors and caps that can be kept, and languages or None; weights of 0 have a floor."""
    count = draw(st.integers(1, 9))
    wide = st.lists(st.one_of(st.floats(1e-6, 1), st.floats(1e-3, 1)), min_size=count, max_size=count)
    weights = np.array(draw(wide))
    grouped = draw(st.booleans()) if of_languages is None else of_languages
    number = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)) if grouped else range(count)
    languages = np.unique(np.array(number), return_inverse=True)[1]
    floors = np.array(draw(st.lists(st.floats(0, 0.9), min_size=count, max_size=count)))[: languages.max() + 1]
    floors /= len(floors)
    cap = np.array(draw(st.lists(st.floats(0.01, 1), min_size=count, max_size=count)))
    room = np.bincount(languages, cap)
    cap *= np.maximum(1, 1.01 * floors / room)[languages]
    cap *= max(1.0, 1.01 / cap.sum())
    return weights / weights.sum(), floors, cap, languages if grouped else None


def groups(bounds_languages, count):
    return np.arange(count) if bounds_languages is None else bounds_languages


def bisected(total_at, low, high, target):
    """The argument at which a function that does not fall reaches its target."""
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if total_at(middle) < target else (low, middle)
    return (low + high) / 2


def reference(weights, floors, cap, languages, move):
    """total(x) = sum over languages of max(F, sum of what `move` makes of its weights): bisection, twice."""
    languages = groups(languages, len(weights))

    def held(number, argument):
        ours = languages == number
        free = np.clip(move(weights[ours], argument), 0, cap[ours])
        if free.sum() >= floors[number]:
            return free
        raised = bisected(
            lambda x: np.clip(move(weights[ours], x), 0, cap[ours]).sum(), argument, argument + 60, floors[number]
        )
        return np.clip(move(weights[ours], raised), 0, cap[ours])

    def at(argument):
        shares = np.zeros(len(weights))
        for number in range(len(floors)):
            shares[languages == number] = held(number, argument)
        return shares

    return at(bisected(lambda x: at(x).sum(), -40, 40, 1))


MOVES = {"kl": lambda w, x: w * np.exp(x), "l2": lambda w, x: w + x}
PROJECTIONS = pytest.mark.parametrize("form", ["kl", "l2"])


@PROJECTIONS
@settings(max_examples=30)
@given(problem=problems())
def test_the_point_is_the_one_that_bisection_finds(form, problem):
    weights, floors, cap, languages = problem
    found = Bounds(floors, cap, form, languages).apply(weights)
    assert found == pytest.approx(reference(weights, floors, cap, languages, MOVES[form]), abs=1e-8)


@PROJECTIONS
@given(problem=problems())
def test_no_exchange_between_two_streams_comes_nearer(form, problem):
    """At the optimum the distance's slope is no less for whoever may grow than for whoever may shrink."""
    weights, floors, cap, languages = problem
    shares = Bounds(floors, cap, form, languages).apply(weights)
    slope = np.log(np.maximum(shares, 1e-300) / weights) if form == "kl" else 2 * (shares - weights)
    number = groups(languages, len(weights))
    spare = (np.bincount(number, shares) - floors)[number] > 1e-9
    for giver in np.flatnonzero(shares > 1e-9):
        may_take = (shares < cap - 1e-9) & (spare[giver] | (number == number[giver]))
        assert (slope[may_take] >= slope[giver] - 1e-6).all()


@pytest.mark.parametrize("form", ["kl", "l2", "mix"])
@given(problem=problems(), dead=st.lists(st.booleans(), min_size=9, max_size=9))
def test_bounds_hold_exactly(form, problem, dead):
    """Also where some weights are 0, whatever is left of the others."""
    weights, floors, cap, languages = problem
    weights = np.where(dead[: len(weights)], 0, weights)
    floors = np.maximum(floors, 1e-3 / len(weights))  # a stream without weight or floor cannot help to fill the whole
    cap = np.maximum(cap, 1e-3 / len(weights))
    weights = weights / weights.sum() if weights.any() else np.full(len(weights), 1 / len(weights))
    shares = Bounds(floors, cap, form, languages).apply(weights)
    assert shares.sum() == pytest.approx(1, abs=EXACT)
    assert (shares <= cap + EXACT).all()
    assert (shares >= 0).all()
    assert (np.bincount(groups(languages, len(weights)), shares) >= floors - EXACT).all()


@pytest.mark.parametrize("form", ["kl", "l2"])
@given(problem=problems())
def test_what_lies_within_the_bounds_stays(form, problem):
    weights, floors, cap, languages = problem
    bounds = Bounds(floors, cap, form, languages)
    once = bounds.apply(weights)
    assert bounds.apply(once) == pytest.approx(once, abs=1e-11)


@pytest.mark.parametrize("form", ["kl", "l2", "mix"])
@given(problem=problems(), seed=st.integers(0, 99))
def test_the_order_of_the_streams_does_not_matter(form, problem, seed):
    weights, floors, cap, languages = problem
    shares = Bounds(floors, cap, form, languages).apply(weights)
    order = np.random.default_rng(seed).permutation(len(weights))
    if languages is None:
        moved = Bounds(floors[order], cap[order], form)
    else:
        moved = Bounds(floors, cap[order], form, languages[order])
    assert moved.apply(weights[order]) == pytest.approx(shares[order], abs=1e-11)


@given(problem=problems(of_languages=False))
def test_the_engines_projection_is_the_case_of_streams(problem):
    weights, floors, cap, _ = problem
    assert Bounds(floors, cap).apply(weights) == pytest.approx(project(weights, floors, cap), abs=EXACT)
    assert Bounds(floors, cap, "l2").apply(weights) == pytest.approx(project_l2(weights, floors, cap), abs=EXACT)


@PROJECTIONS
@given(problem=problems(of_languages=False))
def test_languages_of_one_stream_are_streams(form, problem):
    weights, floors, cap, _ = problem
    each = Bounds(floors, cap, form, np.arange(len(weights))).apply(weights)
    assert each == pytest.approx(Bounds(floors, cap, form).apply(weights), abs=1e-11)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("clip", [0.576923, 0.288462, 0.076923, 0.019231, 0.019231, 0.019231]),
        ("kl", [0.575510, 0.287755, 0.076735, 0.02, 0.02, 0.02]),
        ("l2", [0.586667, 0.286667, 0.066667, 0.02, 0.02, 0.02]),
        ("mix", [0.548, 0.284, 0.0904, 0.0332, 0.02352, 0.02088]),
    ],
)
def test_the_fixture_of_the_four_forms(form, expected):
    assert Bounds(0.02, np.ones(6), form).apply(ALPHA) == pytest.approx(expected, abs=1e-6)


def test_clip_breaks_the_floor_and_says_so():
    """What a short implementation does; kept to reproduce it, never in silence."""
    bounds = Bounds(0.02, np.ones(6), "clip")
    shares = bounds.apply(ALPHA)
    assert shares.min() < 0.0193
    assert shares.sum() == pytest.approx(1, abs=EXACT)
    assert "can end below the floor" in bounds.warning
    assert [Bounds(0.02, np.ones(6), form).warning for form in ("kl", "l2", "mix")] == [None] * 3
    with pytest.raises(WeightsError, match="cap of 0; give weight to more streams"):
        Bounds(0.0, np.array([0.0, 1.0]), "clip").apply(np.array([1.0, 0.0]))


def test_a_floor_of_languages_raises_their_streams_together():
    """Basque has .019 of .2 and grows 10.5 times, keeping its streams' ratio; of Galician's .001, all is needed."""
    languages = np.array([0, 0, 1, 1, 2, 2])
    weights = np.array([0.6, 0.38, 0.015, 0.004, 0.0006, 0.0004])
    shares = Bounds(0.2, np.ones(6), languages=languages).apply(weights)
    assert shares == pytest.approx([0.6 * 0.6 / 0.98, 0.6 * 0.38 / 0.98, 0.15789474, 0.04210526, 0.12, 0.08])
    capped = Bounds(0.2, np.array([1, 1, 0.1, 1, 1, 1.0]), languages=languages).apply(weights)
    assert capped[2:4] == pytest.approx([0.1, 0.1])  # the other stream of the language takes what the cap refuses
    mixed = Bounds(0.2, np.ones(6), "mix", languages).apply(weights)
    assert mixed[2:4] == pytest.approx([0.4 * 0.015 + 0.2 * 15 / 19, 0.4 * 0.004 + 0.2 * 4 / 19])


def test_a_language_without_weight_shares_its_floor_evenly():
    weights = np.array([1.0, 0.0, 0.0, 0.0])
    languages = np.array([0, 0, 1, 1])
    for form in ("kl", "mix"):
        shares = Bounds(0.1, np.ones(4), form, languages).apply(weights)
        assert shares.tolist() == pytest.approx([0.9, 0, 0.05, 0.05])
        assert shares[1] == 0  # of a language that has weight elsewhere, a stream without stays so
    shares = Bounds(0.1, np.array([1, 1, 1, 0.02]), "kl", languages).apply(weights)
    assert shares == pytest.approx([0.9, 0, 0.08, 0.02])


def test_a_stream_that_comes_back_by_its_floor_can_grow_again():
    bounds = Bounds(0.02, np.ones(3))
    weights = bounds.apply(np.array([0.7, 0.3, 0.0]))
    assert weights[2] == 0.02
    for _ in range(20):
        weights = bounds.apply(update_weights(weights, np.array([0.0, 0.0, 1.0]), eta=0.5, mu=1))
    assert weights[2] > 0.9


def test_a_stream_without_weight_takes_what_the_others_cannot():
    bounds = Bounds(0.1, np.array([0.3, 1.0, 1.0]))
    assert bounds.apply(np.array([1.0, 0.0, 0.0])) == pytest.approx([0.3, 0.35, 0.35])
    none = Bounds(0.0, np.array([0.3, 1.0, 1.0]))
    with pytest.raises(WeightsError, match=r"the streams with weight add up to 0\.3 of it at most, expected 1"):
        none.apply(np.array([1.0, 0.0, 0.0]))


def test_caps_come_from_repeat_budgets():
    """4 repeats of 10M of 100M tokens pay 0.4 of the mixture; what the cap refuses goes to the others in proportion."""
    caps = repeat_caps(np.array([4.0, np.inf, 20.0]), np.array([10e6, 1e6, 50e6]), 100_000_000)
    assert caps == pytest.approx([0.4, 1.0, 1.0])
    shares = Bounds(0.0, caps).apply(np.array([0.6, 0.3, 0.1]))
    assert shares == pytest.approx([0.4, 0.45, 0.15])
    assert shares[0] * 100e6 / 10e6 == pytest.approx(4)  # repeats
    with pytest.raises(BudgetError, match="budget_tokens=0"):
        repeat_caps(np.ones(2), np.ones(2), 0)
    with pytest.raises(BudgetError, match="expected numbers above 0"):
        repeat_caps(np.array([1.0, float("nan")]), np.ones(2), 10)
    assert repeat_caps(np.array([np.inf]), np.array([0]), 10).tolist() == [1.0]


def test_bounds_of_a_time_at_which_streams_are_partly_there():
    bounds = Bounds(0.1, np.array([1.0, 1.0, 0.5, 1.0]))
    there = bounds.present(np.array([1.0, 0.5, 0.25, 0.0]))
    assert there.floors.tolist() == [0.1, 0.05, 0.025, 0.0]
    assert there.cap.tolist() == [1.0, 1.0, 0.5, 0.0]
    assert there.apply(np.array([1.0, 0, 0, 0])) == pytest.approx([0.925, 0.05, 0.025, 0])
    of_languages = Bounds(0.1, np.ones(4), languages=np.array([0, 0, 1, 1])).present(np.array([1.0, 0.0, 0.5, 0.0]))
    assert of_languages.floors.tolist() == [0.1, 0.05]
    assert of_languages.apply(np.array([0.5, 0, 0.5, 0])) == pytest.approx([0.5, 0, 0.5, 0])
    with pytest.raises(BudgetError, match="add up to 0.5 of the mixture"):
        bounds.present(np.array([0.0, 0.0, 1.0, 0.0]))
    with pytest.raises(BudgetError, match="add up to 0 of the mixture, expected 1 or more; raise max_repeats, lower"):
        bounds.present(np.zeros(4))


def test_seventy_sources_and_ten_thousand_are_as_six():
    rng = np.random.default_rng(0)
    for count in (70, 10_000):
        weights = rng.dirichlet(np.full(count, 0.05))
        weights = weights / weights.sum()
        cap = np.minimum(1, rng.uniform(2, 50, size=count) / count)
        bounds = Bounds(0.2 / count, cap)
        shares = bounds.apply(weights)
        assert abs(shares.sum() - 1) <= EXACT
        assert ((shares >= 0.2 / count - EXACT) & (shares <= cap + EXACT)).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0.02, np.ones(70)), FloorError, r"floor=0\.02 for 70 streams adds up to 1\.4 .* \[0, 0\.0142857\] or drop"),
        (
            (np.where(np.arange(75) < 70, 0.02, 0), np.ones(75)),
            FloorError,
            r"floor=0\.02 for 70 streams adds up to 1\.4 of the mixture; choose a floor in \[0, 0\.0142857\] or drop",
        ),
        (
            (0.6, np.ones(4), "kl", np.array([0, 0, 1, 1])),
            FloorError,
            r"floor=0\.6 for 2 languages adds up to 1\.2 of the mixture; choose a floor in \[0, 0\.5\]",
        ),
        (
            (np.array([0.9, 0.35]), np.ones(2)),
            FloorError,
            r"the floors of 2 streams add up to 1\.25 of the mixture; divide them by 1\.25 or drop streams",
        ),
        ((np.array([0.5, -0.1]), np.ones(2)), FloorError, "expected finite numbers of at least 0"),
        ((float("nan"), np.ones(2)), FloorError, "floor=nan"),
        ((np.zeros(3), np.ones(2)), FloorError, r"floors of \(3,\) for 2 streams; give one number, or one for each"),
        (
            (0.1, np.array([1, 1, 0.05, 1, 0.04, 1]), "kl", None, NAMES),
            FloorError,
            r"the floor of 'eu\.wiki', 'gl\.wiki' is above the cap: 0\.1 against 0\.04; choose .* at most 0\.04, raise",
        ),
        (
            (0.1, np.array([1, 1, 0.05, 0.04, 1, 1]), "l2", np.array([0, 0, 1, 1, 2, 2]), NAMES),
            FloorError,
            r"the floor of one language, 'eu\.wiki', 'eu\.web', is above the cap: 0\.1 against 0\.09",
        ),
        (
            (0.0, np.array([0.5, 0.3])),
            BudgetError,
            r"caps of 2 streams add up to 0\.8 of the mixture, expected 1 or more; raise max_repeats 1\.25 times, lower",
        ),
        ((0.0, np.array([1, float("nan")])), BudgetError, r"caps of stream 1 are \[nan\]; expected 0 or more"),
        ((0.0, np.full(7, -1.0)), BudgetError, "caps of stream 0, .* stream 4 and 2 more are"),
        ((0.0, np.ones(2), "clips"), MixtureError, "floor_form='clips'; expected one of kl, l2, mix, clip"),
        ((0.0, np.ones(2), "clip", np.array([0, 1])), MixtureError, "'clip' knows floors of streams only; use 'kl'"),
        ((0.0, np.ones(2), "kl", np.array([0, 2])), MixtureError, r"numbered \[0, 2\]; expected .* with none left out"),
        ((0.0, np.ones(2), "kl", np.array([0])), MixtureError, "one number for each of the 2 streams"),
    ],
)
def test_bounds_that_cannot_be_kept_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Bounds(*arguments)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.4], r"weights sum to 0\.9, expected 1"),
        ([1.5, -0.5], r"weights of 'eu' are negative or not finite: \[-0\.5\]"),
        ([float("nan"), 0.5], "weights of 'ca' are negative or not finite"),
        ([1.0], r"weights of \(1,\) for 2 streams"),
    ],
)
def test_weights_that_are_none_are_refused(weights, message):
    with pytest.raises(WeightsError, match=message):
        Bounds(0.1, np.ones(2), names=("ca", "eu")).apply(np.array(weights))
