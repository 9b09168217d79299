"""A recommendation: with runs, with a law, and with nothing but sizes; its ranges and its warnings."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repeating import BILLION, SETS, law_of_target, pilots

from mixstream.errors import BudgetError, FitError, FloorError, RunTableError
from mixstream.methods.mixture_law import MixtureLaw
from mixstream.methods.mixture_law.law import best_share
from mixstream.methods.muennighoff import PUBLISHED
from mixstream.methods.recommend import UNSEEN, recommend, without_runs

SIZES = {"en": 1000e9, "ca": 10e9, "eu": 1e9}


def test_without_runs_each_source_learns_by_itself():
    """Losses are the published law's, and no shift of share from one source to another makes their mean less."""
    told = recommend(SIZES, 100e9, parameters=1e9)
    assert told.sources == told.targets == ("en", "ca", "eu")
    assert told.proportions.sum() == pytest.approx(1)
    unique = np.array(list(SIZES.values()))
    assert told.repeats == pytest.approx(told.proportions * 100e9 / unique)
    own = PUBLISHED.losses(1.0, told.proportions * 100e9, unique) - PUBLISHED.losses(1.0, 1e15, 1e15)
    assert np.diff(told.losses) == pytest.approx(np.diff(own), rel=1e-6)

    def mean_loss(shares):
        return without_runs(list(SIZES), 1e9).predict(shares, 100e9, unique=unique).mean(axis=1)

    shifts = 1e-3 * (np.eye(3)[:, None] - np.eye(3)[None]).reshape(9, 3)
    assert (mean_loss(told.proportions + shifts) >= mean_loss(told.proportions[None]) - 1e-12).all()
    assert told.repeats[2] > told.repeats[1] > told.repeats[0]
    assert UNSEEN in told.warnings
    assert "R* from 4 to 40" in told.between
    free = np.full(3, 40.0)
    ends = [without_runs(list(SIZES), 1e9, saturation).allocate(100e9, unique, free) for saturation in (4, 40)]
    assert told.proportions_between == pytest.approx(np.sort(ends, axis=0), rel=1e-6)


def test_the_losses_without_runs_are_those_of_the_papers_law():
    """One source, and a model that its tokens can use."""
    told = recommend({"en": 25e9}, 50e9, parameters=1e9)
    assert told.losses[0] == pytest.approx(float(PUBLISHED.losses(1e9, 50e9, 25e9)), rel=1e-12)


@settings(max_examples=20)
@given(st.lists(st.floats(7, 12), min_size=1, max_size=5), st.floats(0.1, 8), st.floats(1, 10))
def test_the_ranges_hold_the_answer(logs, times, budget):
    sizes = {f"s{number}": 10**log for number, log in enumerate(logs)}
    told = recommend(sizes, times * sum(sizes.values()), parameters=1e9, max_repeats=times + budget)
    for between, value in (
        (told.proportions_between, told.proportions),
        (told.repeats_between, told.repeats),
        (told.losses_between, told.losses),
    ):
        assert (between[0] <= value * (1 + 1e-9)).all()
        assert (value <= between[1] * (1 + 1e-9)).all()
    assert (told.repeats <= (times + budget) * (1 + 1e-9)).all()


def test_with_runs_it_is_the_fitted_laws_answer_and_its_range_holds_the_planted():
    truth = law_of_target(*SETS[2])
    runs = pilots(truth, 0.01)
    sizes = {"en": math.inf, "hi": 0.16e9}
    told = recommend(sizes, 16e9, runs=runs, refits=12)
    assert told.sources == ("hi", "en")  # the order of the runs
    assert told.targets == ("hi",)
    planner = MixtureLaw().fit(runs)
    assert told.proportions == pytest.approx(planner.allocate(16e9, np.array([0.16e9, np.inf]), np.array([40, np.inf])))
    planted = best_share(truth, 16e9, 0.16e9)
    assert told.proportions_between[0, 0] < planted.share < told.proportions_between[1, 0]
    assert told.losses_between[0, 0] < planted.loss < told.losses_between[1, 0]
    assert told.proportions_between[1, 0] / told.proportions_between[0, 0] < 1.5
    assert told.between == "the middle 90% of 12 fits to resampled runs"
    again = recommend(sizes, 16e9, runs=runs, refits=12)
    assert np.array_equal(told.proportions_between, again.proportions_between)


def test_more_noise_is_less_sure():
    widths = []
    for noise in (0.003, 0.02):
        told = recommend({"hi": 0.16e9, "en": math.inf}, 16e9, runs=pilots(law_of_target(*SETS[2]), noise), refits=12)
        widths.append(np.ptp(told.proportions_between[:, 0]))
    assert widths[1] > 2 * widths[0]


def test_a_law_beyond_its_runs_says_so():
    runs = replace(pilots(law_of_target(*SETS[0])), parameters=np.full(36, 1e8))
    law = MixtureLaw().fit(runs)
    told = " | ".join(recommend({"hi": 0.5e9, "en": math.inf}, 64e9, parameters=1e9, law=law).warnings)
    assert "fitted to runs of at most 1.6e+10 tokens; 6.4e+10 is 4 times that" in told
    assert "models of at most 1e+08 parameters, and this one has 1e+09: the best share of a scarce source falls" in told
    assert "beyond 16 repeats losses can rise again" in told
    near = recommend({"hi": 0.5e9, "en": math.inf}, 16e9, parameters=1e8, law=law, max_repeats=10)
    assert near.warnings == ()
    unknown = MixtureLaw().fit(pilots(law_of_target(*SETS[0])))
    told = recommend({"hi": 0.5e9, "en": math.inf}, 16e9, parameters=1e9, law=unknown, max_repeats=4).warnings
    assert any("the runs do not tell their model's parameters" in warning for warning in told)


def test_many_repeats_are_warned_of():
    alone = recommend({"eu": 1e9}, 6e9, parameters=1e8).warnings
    assert any("eu is read 6 times and nothing else is: beyond 4 repeats" in warning for warning in alone)
    assert not any("eu" in warning for warning in recommend({"eu": 1e9}, 3e9, parameters=1e8).warnings)
    law = MixtureLaw().fit(pilots(law_of_target(2, 8, 0.3, 60, 40, 0.0)))
    told = recommend({"hi": 0.01e9, "en": math.inf}, 16e9, law=law, max_repeats=None)
    assert told.repeats[0] > 40
    assert any("no paper finds more than 40 repeats useful" in warning for warning in told.warnings)
    assert any(f"hi is read {told.repeats[0]:.3g} times, in the runs" in warning for warning in told.warnings) == (
        told.repeats[0] > law.fitted.repeats[0]
    )


def test_refits_that_fail_are_told_or_refused():
    """Runs of which few resamples determine the law: an error, that says how many and why."""
    runs = pilots(law_of_target(*SETS[0]), 0.01).rows([0, 1, 2, 17, 20, 31, 35])
    with pytest.raises(
        FitError, match=r"\d+ of 10 refits failed, more than 25%.*the first: the repetition law of 'hi'"
    ):
        recommend({"hi": 0.5e9, "en": math.inf}, 16e9, runs=runs, refits=10)


def test_refits_that_miss_a_model_size_count_as_failed():
    """Only 2 of 38 runs are of the third size: without them a resample is of two, which no law fits."""
    truth = replace(
        law_of_target(*SETS[1]),
        capacity=0.5,
        capacity_exponent=0.3,
        size_exponent=0.1,
        reference_parameters=1e8,
    )
    runs = pilots(truth, 0.002, sizes=(3e7, 1e8, 3e8))
    last = np.flatnonzero(runs.parameters == 3e8)
    runs = runs.rows(np.concatenate([np.flatnonzero(runs.parameters < 3e8), last[[5, 30]]]))
    told = recommend({"hi": 0.16e9, "en": math.inf}, 16e9, parameters=1e8, runs=runs, refits=10)
    missed = [warning for warning in told.warnings if "of 10 fits to resampled runs failed" in warning]
    assert len(missed) == 1
    assert "(the first: the repetition law: runs of 2 model sizes" in missed[0]


@pytest.mark.parametrize(
    ("sizes", "options", "error", "match"),
    [
        ({}, {}, RunTableError, "no sources; give"),
        ({"en": 0.0}, {}, RunTableError, "'en' has 0.0 unique tokens; expected a number above 0"),
        ({"en": -5}, {}, RunTableError, "'en' has -5 unique tokens"),
        (SIZES, {"parameters": math.nan}, FitError, "without runs the model's size is needed"),
        (SIZES, {"law": MixtureLaw()}, FitError, "the law has not been fitted; give the runs"),
        (SIZES, {"refits": 1}, FitError, "refits=1; expected at least 2"),
        (SIZES, {"floor": 0.5}, FloorError, "floor=0.5 for 3 streams adds up to 1.5"),
        ({"en": 1e9, "eu": 1e8}, {}, BudgetError, "the run needs 100,000,000,000 tokens"),
    ],
)
def test_what_cannot_be_recommended_is_refused(sizes, options, error, match):
    with pytest.raises(error, match=match):
        recommend(sizes, 100e9, **{"parameters": 1e9} | options)


@pytest.mark.parametrize("tokens", [0.0, -1e9, math.nan])
def test_tokens_that_are_none_are_refused(tokens):
    with pytest.raises(RunTableError, match="expected a finite number above 0"):
        recommend(SIZES, tokens, parameters=1e9)


def test_sources_of_another_law_are_refused():
    law = MixtureLaw().fit(pilots(law_of_target(*SETS[0])))
    with pytest.raises(RunTableError, match="the law knows nothing of 'hin'; did you mean 'hi'"):
        recommend({"hin": BILLION, "en": BILLION}, 1e9, law=law)
    with pytest.raises(RunTableError, match="no size of en, which the law was fitted to"):
        recommend({"hi": BILLION}, 1e9, law=law)
