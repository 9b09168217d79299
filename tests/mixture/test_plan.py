from __future__ import annotations

import json
import re

import numpy as np
import pytest
from conftest import BYTE, fake_catalog
from hypothesis import assume, given
from hypothesis import strategies as st

from mixstream import Plan, build_plan
from mixstream.errors import BudgetError, FloorError, FormatError, MixtureError, StreamError, WeightsError
from mixstream.mixture.apportion import UNIT
from mixstream.streams.manifest import TokenizerInfo

CATALOG = fake_catalog({"ca.a": [10, 10], "en.a": [50, 30], "eu.a": [5]})


def test_the_table_tells_what_was_decided():
    plan = build_plan(CATALOG, {"ca.a": 0.25, "en.a": 0.5, "eu.a": 0.25}, budget_tokens=8 * 80, batch_size=8)
    assert plan.streams == ("ca.a", "en.a", "eu.a")
    assert plan.num_batches == 10
    assert [tuple(row) for row in plan.table()] == [
        ("ca.a", 0.25, 0.25, 20, 160, 1.0),
        ("en.a", 0.5, 0.5, 40, 320, 0.5),
        ("eu.a", 0.25, 0.25, 20, 160, 4.0),
    ]


def test_a_stream_past_its_budget_is_held_and_the_others_get_the_rest_in_proportion():
    """M3: eu.a may give 10 of 80 draws; ca.a and en.a share the other 70 as 1 : 2."""
    plan = build_plan(CATALOG, {"ca.a": 0.25, "en.a": 0.5, "eu.a": 0.25}, 8 * 80, 8, max_repeats={"eu.a": 2, "*": 40})
    assert plan.proportions == pytest.approx([70 / 3 / 80, 140 / 3 / 80, 10 / 80])
    assert plan.weights.tolist() == [0.25, 0.5, 0.25]
    assert plan.table()[2].samples == 10
    assert plan.table()[2].repeats == 2.0


def test_a_budget_that_cannot_supply_the_run_is_refused_with_the_ways_out():
    with pytest.raises(BudgetError, match=r"needs 1,600 tokens \(200 samples\).* supply 840 \(105 samples\)") as error:
        build_plan(CATALOG, "uniform", 1600, 8, max_repeats=1)
    assert "raise max_repeats to 1.94 or more, lower budget_tokens to 840 or less, or add data" in str(error.value)
    build_plan(CATALOG, "uniform", 1600, 8, max_repeats=1.94)
    build_plan(CATALOG, "uniform", 840, 5, max_repeats=1)


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=6),
    st.integers(1, 8),
    st.integers(1, 200),
    st.floats(0.05, 4),
    st.floats(0, 1),
)
def test_every_way_out_of_a_refusal_works(sizes, batch_size, batches, repeats, floor):
    """Whatever number a refusal names, a plan with that number is not refused for the same reason."""
    catalog = fake_catalog({f"s{i}.a": [size] for i, size in enumerate(sizes)})

    def plan_with(floor=floor, budget_tokens=batches * batch_size * 8, max_repeats=repeats):
        return build_plan(catalog, "uniform", budget_tokens, batch_size, floor=floor, max_repeats=max_repeats)

    def told(pattern, error):
        found = re.search(pattern + r" ([\d,]+(?:\.[\d]+)?(?:e-\d+)?)", str(error))
        return float(found[1].replace(",", "")) if found else None

    try:
        plan_with()
    except FloorError as error:
        most = told(r"floor (?:in \[0,|of at most)", error)
        try:
            plan_with(floor=most)
        except FloorError as again:  # the sum is met, now a stream's budget is in the way: that is lower
            assert told("floor of at most", again) < most
        except BudgetError:
            pass
    except BudgetError as error:
        if "pays less than one sample" in str(error):
            name = re.search("'(.*?)'", str(error))[1]
            ways = [{"max_repeats": {name: told("raise it to", error), "*": repeats}}]
        else:
            name = "raise max_repeats"
            tokens = told("lower budget_tokens to", error)
            ways = [{"max_repeats": told("raise max_repeats to", error)}]
            ways += [{"budget_tokens": int(tokens)}] if tokens else []
        for way in ways:
            try:
                plan_with(**way)
            except FloorError:
                pass
            except BudgetError as again:
                assert name not in str(again)


def test_numbers_of_numpy_are_numbers():
    plan = build_plan(
        CATALOG,
        {"ca.a": np.float64(0.25), "en.a": np.float32(0.5), "eu.a": 0.25},
        np.int64(640),
        np.int32(8),
        max_repeats=np.int64(16),
        seed=np.uint8(3),
    )
    assert (plan.seed, plan.batch_size, plan.entries[0].max_repeats) == (3, 8, 16.0)
    with pytest.raises(BudgetError, match="max_repeats of '\\*' is True"):
        build_plan(CATALOG, "uniform", 640, 8, max_repeats=True)
    with pytest.raises(WeightsError, match="weight for 1, which is no stream"):
        build_plan(CATALOG, {1: 1.0}, 640, 8)


def test_a_budget_below_one_batch_is_refused():
    with pytest.raises(BudgetError, match=r"budget_tokens=63 does not pay one batch of 8 samples of 8 tokens \(64\)"):
        build_plan(CATALOG, "uniform", 63, 8)


@pytest.mark.parametrize("budget", [0, -1, float("nan"), float("inf"), "2"])
def test_a_repeat_budget_that_is_none_is_refused(budget):
    with pytest.raises(BudgetError, match="finite number above 0"):
        build_plan(CATALOG, "uniform", 640, 8, max_repeats=budget)


def test_a_repeat_budget_below_one_sample_is_refused():
    with pytest.raises(
        BudgetError, match=r"budget of 'eu.a' \(5 samples\) pays less than one sample; raise it to 0\.2 or"
    ):
        build_plan(CATALOG, "uniform", 640, 8, max_repeats={"eu.a": 0.19})


def test_huge_numbers_are_counted_with():
    catalog = fake_catalog({"ca.a": [10**12], "en.a": [10**12], "eu.a": [1]})
    plan = build_plan(catalog, "uniform", 10**9 * 131_072 * 8, 131_072, max_repeats=1.7e308)
    assert plan.num_batches == 10**9
    assert sum(row.samples for row in plan.table()) == 10**9 * 131_072


def test_a_repeat_budget_of_an_unknown_stream_is_refused():
    with pytest.raises(BudgetError, match="'eu.b', which is no stream; did you mean 'eu.a'"):
        build_plan(CATALOG, "uniform", 640, 8, max_repeats={"eu.b": 2})


def test_floors():
    plan = build_plan(CATALOG, {"ca.a": 0.0, "en.a": 1.0, "eu.a": 0.0}, 640, 8, floor=0.1)
    assert plan.proportions == pytest.approx([0.1, 0.8, 0.1])
    # Where the streams with weight cannot fill the run, those at the floor give more.
    plan = build_plan(CATALOG, {"ca.a": 0.0, "en.a": 1.0, "eu.a": 0.0}, 640, 8, floor=0.1, max_repeats={"en.a": 0.5})
    assert plan.proportions == pytest.approx([0.25, 0.5, 0.25])
    exact = build_plan(CATALOG, "natural", 640, 8, floor=1 / 3)
    assert exact.proportions == pytest.approx([1 / 3] * 3)
    with pytest.raises(FloorError, match=r"adds up to 1\.2"):
        build_plan(CATALOG, "uniform", 640, 8, floor=0.4)
    with pytest.raises(FloorError, match=r"'eu.a' allows it 0\.0625 of the mixture at most"):
        build_plan(CATALOG, "uniform", 640, 8, floor=0.1, max_repeats={"eu.a": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sequence_length": 3}, r"rows of 8 tokens.*choose one of 8, 4, 2, 1, or convert with --sequence-length 3"),
        ({"sequence_length": 16}, "choose one of 8, 4, 2, 1"),
        ({"sequence_length": 0}, "sequence_length=0; expected a whole number of at least 1"),
        ({"lanes": 3}, "lanes=3 cannot share a batch of 8 samples evenly; choose one of 1, 2, 4$"),
        ({"lanes": 8}, "stream 'eu.a' has 5 samples.*choose one of 1, 2, 4, or leave the stream out"),
        ({"lanes": 0}, "lanes=0; expected a whole number of at least 1"),
        ({"window_samples": 0}, "expected a whole number of at least 1"),
        ({"window_samples": 1.5}, r"window_samples=1\.5; expected a whole number"),
        ({"seed": -1}, "expected a whole number of at least 0"),
        ({"seed": True}, "seed=True; expected a whole number"),
        ({"budget_tokens": 640.0}, r"budget_tokens=640\.0; expected a whole number"),
        ({"budget_tokens": 10**30}, r"below 2\^62"),
        ({"floor": None}, "floor=None; expected a finite number"),
        ({"catalog": fake_catalog({})}, "holds no stream"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 1 << 18}, "batch_size=262144"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(MixtureError, match=message):
        build_plan(**({"catalog": CATALOG, "weights": "uniform", "budget_tokens": 640, "batch_size": 8} | options))


def test_weights_of_other_streams_are_refused():
    with pytest.raises(WeightsError, match="no weight for"):
        build_plan(CATALOG, {"ca.a": 1.0}, 640, 8)


def test_streams_that_differ_in_length_or_tokenizer_are_not_mixed():
    short = fake_catalog({"eu.b": [5]}, sequence_length=4)["eu.b"]
    with pytest.raises(StreamError, match="'eu.b' has sequence length 4, 'ca.a' has 8"):
        build_plan(type(CATALOG)(CATALOG.root, {**CATALOG.streams, "eu.b": short}), "uniform", 640, 8)
    other = TokenizerInfo(name="bpe", fingerprint="f", vocab_size=9, eod_token_id=0)
    for tokenizer, told in ((other, "'bpe'"), (None, "unknown")):
        changed = type(short)(**{**CATALOG["eu.a"].__dict__, "tokenizer": tokenizer})
        with pytest.raises(StreamError, match=f"made with tokenizer {told}.*'ca.a' with 'byte'"):
            build_plan(type(CATALOG)(CATALOG.root, {**CATALOG.streams, "eu.a": changed}), "uniform", 640, 8)
    assert BYTE.name == "byte"


def test_saved_and_loaded_a_plan_is_the_same(tmp_path):
    plan = build_plan(CATALOG, "temperature:0.3", 640, 8, max_repeats=20, floor=0.05)
    path = tmp_path / "deep" / "plan.json"
    plan.save(path)
    assert Plan.load(path) == plan
    assert (Plan.load(path).shares == plan.shares).all()
    assert [p.name for p in path.parent.iterdir()] == ["plan.json"]


def test_a_plan_file_that_is_wrong_is_refused(tmp_path):
    path = tmp_path / "plan.json"
    with pytest.raises(FormatError, match="no such file; `mixstream plan` makes one"):
        Plan.load(path)
    path.write_text('{"format": ')
    with pytest.raises(FormatError, match="not JSON"):
        Plan.load(path)
    content = build_plan(CATALOG, "uniform", 640, 8).model_dump(mode="json")
    content["entries"][0]["wieght"] = 0.5
    path.write_text(json.dumps(content))
    with pytest.raises(FormatError, match=r"unknown key 'entries\.0\.wieght'; did you mean 'weight'"):
        Plan.load(path)
    content["entries"][0].pop("wieght")
    for change, message in [
        ({"batch_size": "8"}, "batch_size: .*found '8'"),
        ({"seed": True}, "seed: .*found True"),
        ({"entries": []}, "entries: "),
        ({"entries": content["entries"] * 2}, "a stream is named twice"),
        ({"entries": content["entries"][:2]}, r"proportions sum to 0\.66"),
    ]:
        path.write_text(json.dumps(content | change))
        with pytest.raises(FormatError, match=message):
            Plan.load(path)
    with pytest.raises(FormatError, match="cannot be read"):
        Plan.load(tmp_path)
    path.write_text(json.dumps({**content, "version": 2}))
    with pytest.raises(FormatError, match="version"):
        Plan.load(path)


sizes = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=4), min_size=1, max_size=8)


@given(sizes, st.data())
def test_planned_draws_fill_the_run_within_every_budget(shards, data):
    count = len(shards)
    catalog = fake_catalog({f"l{i}.d": own for i, own in enumerate(shards)})
    raw = np.array(data.draw(st.lists(st.floats(0, 1), min_size=count, max_size=count)))
    assume(raw.sum() > 0)
    weights = dict(zip(catalog.names, (raw / raw.sum()).tolist(), strict=True))
    budgets = {name: data.draw(st.one_of(st.none(), st.floats(0.1, 9)), label=name) or 1000.0 for name in catalog.names}
    batch_size = data.draw(st.integers(1, 8))
    num_batches = data.draw(st.integers(1, 30))
    try:
        plan = build_plan(catalog, weights, batch_size * num_batches * 8, batch_size, max_repeats=budgets)
    except BudgetError:
        limits = [int(budgets[name] * size) for name, size in catalog.sizes.items() if weights[name] > 0]
        assert sum(limits) < batch_size * num_batches or 0 in limits
        return
    assert plan.shares.sum() == UNIT
    assert abs(sum(row.samples for row in plan.table()) - batch_size * num_batches) <= count
    for row in plan.table():
        assert row.samples <= budgets[row.name] * catalog.sizes[row.name]
        assert row.weight > 0 or row.samples == 0


def test_lanes_and_a_shorter_length_are_decided():
    plan = build_plan(CATALOG, "natural", 640, 8, sequence_length=2, lanes=4, max_repeats=2, window_samples=16)
    assert (plan.lanes, plan.sequence_length, plan.stored_sequence_length) == (4, 2, 8)
    assert plan.sizes.tolist() == [80, 320, 20]
    assert plan.num_batches == 40
    assert sum(row.tokens for row in plan.table()) == 640
    longer = build_plan(CATALOG, "natural", 640, 8, max_repeats=2)
    assert plan.proportions == pytest.approx(longer.proportions)
    assert [row.repeats for row in plan.table()] == pytest.approx([row.repeats for row in longer.table()], abs=0.2)
