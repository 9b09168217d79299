"""In what two plans differ: whatever changes what is read is told, and nothing else is."""

from __future__ import annotations

import pytest
from conftest import fake_catalog
from hypothesis import given
from hypothesis import strategies as st

from mixstream import Plan, build_plan
from mixstream.mixture.comparing import PlanDifference, compare_plans

SHARDS = {"ca.web": [40, 40], "eu.web": [9], "gl.web": [7, 5]}
OPTIONS = {"weights": "uniform", "budget_tokens": 8 * 120, "batch_size": 4, "max_repeats": 9.0, "seed": 1}


def planned(shards: dict = SHARDS, **options: object) -> Plan:
    return build_plan(fake_catalog(shards), **{**OPTIONS, **options})


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({"seed": 2}, {"seed"}),
        ({"batch_size": 8}, {"batch_size", "num_batches"}),
        ({"budget_tokens": 8 * 100}, {"budget_tokens", "num_batches"}),
        ({"floor": 0.1}, {"floor"}),
        ({"lanes": 2}, {"lanes"}),
        ({"window_samples": 5}, {"window_samples"}),
        ({"sequence_length": 4, "batch_size": 8}, {"sequence_length", "batch_size"}),
        ({"schedule": [{"at": "0.5dur", "weights": "natural"}]}, {"schedule"}),
        ({"weights": "natural"}, {"weights_from"}),
        ({"max_repeats": {"*": 9.0, "eu.web": 2.0}}, set()),
    ],
)
def test_each_option_that_differs_is_named(options, settings):
    found = compare_plans(planned(), planned(**options))
    assert not found.reads_same
    assert {change.name for change in found.settings} == settings
    assert found.settings or found.streams


def test_where_streams_lie_and_what_weights_are_called_changes_nothing(tmp_path):
    plan = planned()
    moved = plan.model_copy(update={"root": "elsewhere", "weights_from": "given"})
    found = compare_plans(plan, moved)
    assert found.reads_same
    assert [(own.name, own.now) for own in found.settings] == [("root", "elsewhere"), ("weights_from", "given")]
    assert found.streams == ()


def test_streams_that_came_went_or_changed():
    before, now = planned(), planned({"ca.web": [40, 41], "es.web": [30], "gl.web": [7, 5]}, max_repeats={"gl.web": 3})
    found = compare_plans(before, now)
    assert (found.new, found.gone, found.num_streams) == (("es.web",), ("eu.web",), 2)
    told = {own.name: own.what for own in found.streams}
    assert told["es.web"] == "new"
    assert told["eu.web"] == "gone"
    assert told["ca.web"] == "other shards (80 samples, now 81); budget 9, now none"
    assert told["gl.web"] == "budget 9, now 3"
    assert compare_plans(now, before).new == ("eu.web",)


def test_another_order_is_told():
    plan = planned()
    turned = Plan.model_validate(plan.model_dump() | {"entries": plan.entries[::-1]})
    found = compare_plans(plan, turned)
    assert not found.reads_same
    assert [(own.name, own.now) for own in found.settings] == [("order of streams", "another")]


weights = st.lists(st.integers(1, 5), min_size=3, max_size=3)
options = st.fixed_dictionaries(
    {
        "weights": weights.map(lambda w: {name: own / sum(w) for name, own in zip(SHARDS, w, strict=True)}),
        "seed": st.integers(0, 1),
        "batch_size": st.sampled_from([4, 5]),
        "max_repeats": st.sampled_from([9.0, 12.0]),
        "floor": st.sampled_from([0.0, 0.05]),
    }
)


@given(options, options)
def test_two_plans_that_read_the_same_do_not_differ_and_others_do(one, other):
    """The reference: what the plans' files say, less what changes nothing."""
    before, now = planned(**one), planned(**other)
    found = compare_plans(before, now)
    assert (found.settings == () and found.streams == ()) == (before == now)
    assert found.reads_same == (before == now)  # neither place nor rule differs here
    names = [own.name for own in found.streams]
    changed = [a.name for a, b in zip(before.entries, now.entries, strict=True) if a != b]
    assert names == changed
    for own in found.streams:
        entry = next(entry for entry in now.entries if entry.name == own.name)
        assert (own.now.weight, own.now.tokens, own.now.repeats) == (entry.weight, entry.tokens, entry.repeats)
    assert PlanDifference.model_validate_json(found.model_dump_json(), strict=True) == found
    back = compare_plans(now, before)
    assert [(own.before, own.now) for own in back.streams] == [(own.now, own.before) for own in found.streams]
