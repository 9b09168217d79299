from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import BudgetError, RunTableError
from mixstream.methods.planning.sources import budgets_by_source, sizes_by_source, streams_of, to_streams

LANGUAGES = {"ca.web": "ca", "eu.web": "eu", "eu.wiki": "eu", "plain.x": None}
GROUPS = {"eu": ("eu.web", "eu.wiki"), "ca": ("ca.web",)}
TOKENS = {"ca.web": 100.0, "eu.web": 30.0, "eu.wiki": 10.0}


def test_streams_belong_to_the_source_of_their_name_or_their_language():
    assert streams_of(("eu", "ca", "plain"), LANGUAGES) == {
        "eu": ("eu.web", "eu.wiki"),
        "ca": ("ca.web",),
        "plain": ("plain.x",),
    }
    mixed = streams_of(("eu.wiki", "eu", "ca", "plain"), LANGUAGES)
    assert (mixed["eu.wiki"], mixed["eu"]) == (("eu.wiki",), ("eu.web",))
    assert streams_of(tuple(LANGUAGES), LANGUAGES) == {name: (name,) for name in LANGUAGES}


def test_streams_and_sources_that_do_not_meet_are_refused():
    with pytest.raises(
        RunTableError, match=r"stream 'plain.x' \(language 'plain'\) is none of the runs' sources eu, ca"
    ):
        streams_of(("eu", "ca"), LANGUAGES)
    with pytest.raises(RunTableError, match=r"no stream for gl \(1 of 4 sources of the runs\); convert"):
        streams_of(("eu", "ca", "gl", "plain"), LANGUAGES)


def test_a_source_has_its_streams_tokens_and_the_least_of_their_budgets():
    assert sizes_by_source(GROUPS, TOKENS) == {"eu": 40, "ca": 100}
    assert budgets_by_source(GROUPS, None) == {"eu": math.inf, "ca": math.inf}
    assert budgets_by_source(GROUPS, 4) == {"eu": 4, "ca": 4}
    assert budgets_by_source(GROUPS, {"eu.wiki": 2, "*": 8}) == {"eu": 2, "ca": 8}
    assert budgets_by_source(GROUPS, {"eu": 3, "eu.wiki": 9, "eu.web": 5}) == {"eu": 5, "ca": math.inf}
    with pytest.raises(BudgetError, match="max_repeats names 'eus', which is no stream; did you mean 'eu'"):
        budgets_by_source(GROUPS, {"eus": 2})
    with pytest.raises(BudgetError, match="max_repeats of 'eu' is 0"):
        budgets_by_source(GROUPS, {"eu": 0})


@given(st.floats(0, 1), st.lists(st.floats(1, 1e12), min_size=3, max_size=3), st.floats(1, 1e12))
def test_dealing_keeps_shares_and_repeats_every_stream_of_a_source_alike(share, sizes, run):
    tokens = dict(zip(TOKENS, sizes, strict=True))
    dealt = to_streams({"eu": share, "ca": 1 - share}, GROUPS, tokens)
    assert list(dealt) == list(tokens)
    assert dealt["eu.web"] + dealt["eu.wiki"] == pytest.approx(share)
    assert math.fsum(dealt.values()) == pytest.approx(1, abs=1e-12)
    repeats = {name: dealt[name] * run / tokens[name] for name in tokens}
    assert repeats["eu.web"] == pytest.approx(repeats["eu.wiki"], rel=1e-9)
    assert repeats["eu.web"] == pytest.approx(share * run / sizes_by_source(GROUPS, tokens)["eu"], rel=1e-9)
