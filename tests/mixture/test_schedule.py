"""Weights that change with training time: times, phases, and repeat budgets over all of them (M3)."""

from __future__ import annotations

import json
import math
from itertools import combinations

import numpy as np
import pytest
from conftest import fake_catalog
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from walking import walk

from mixstream import Plan, build_plan
from mixstream.errors import BudgetError, FloorError, FormatError, MixtureError, WeightsError
from mixstream.mixture.apportion import UNIT
from mixstream.mixture.phases import fit_scale
from mixstream.mixture.schedule import Clock, PlannedChange, phase_weights, read_schedule
from mixstream.mixture.simplex import project
from mixstream.mixture.supply import starved_sets

CATALOG = fake_catalog({"ca.a": [10, 10], "en.a": [50, 30], "eu.a": [5]})
CA, EN, EU = ({name: float(name == only) for name in CATALOG.names} for only in CATALOG.names)


def plan_of(schedule, weights="uniform", batches=100, **options):
    return build_plan(CATALOG, weights, batches * 8 * 8, 8, schedule=schedule, **options)


@pytest.mark.parametrize(
    ("time", "batch"),
    [
        ("0ba", 0),
        ("17ba", 17),
        ("0.5dur", 50),
        ("0.501dur", 51),
        ("1dur", 100),
        ("8sp", 1),
        ("9sp", 2),
        ("1e3 sp", 125),
        ("65tok", 2),
        ("6.4e2tok", 10),
    ],
)
def test_times(time, batch):
    assert math.ceil(Clock(100, 8, 8).batches(time)) == batch


def test_times_that_are_no_whole_batches_leave_no_batch_over():
    plan = plan_of([{"at": "0.5dur", "ramp": "0.5dur", "weights": EN}], batches=5)
    assert [(change.at_batch, change.ramp_batches) for change in plan.schedule] == [(3, 2)]


@pytest.mark.parametrize(
    ("time", "message"),
    [
        ("1ep", r"'1ep': a run is one epoch.*use ba, sp, tok or dur \(the run has 100ba\)"),
        ("5sec", "use ba"),
        ("1iter", "use ba"),
        ("1.5ba", "expected a whole number of ba"),
        ("-1ba", "expected a number and a unit"),
        ("1e999999999ba", "expected a number and a unit"),
        ("100", "expected a number and a unit"),
        ("5gb", "expected a number and a unit"),
        (100, "time 100; expected a number and a unit"),
    ],
)
def test_times_that_are_none(time, message):
    with pytest.raises(MixtureError, match=message):
        Clock(100, 8, 8).batches(time)


def test_a_jump_and_a_ramp():
    plan = plan_of([{"at": "0.2dur", "weights": EN}, {"at": "50ba", "ramp": "4ba", "weights": CA}])
    assert [phase.first_batch for phase in plan.phases] == [0, 20, 50, 51, 52, 53, 54]
    assert plan.phases[1].shares.tolist() == [0, UNIT, 0]
    assert [phase.shares[0] / UNIT for phase in plan.phases[2:]] == pytest.approx([1 / 8, 3 / 8, 5 / 8, 7 / 8, 1])
    assert all(int(phase.shares.sum()) == UNIT for phase in plan.phases)
    assert plan.shares.tolist() == plan.phases[0].shares.tolist()
    samples = [row.samples for row in plan.table()]
    assert samples == pytest.approx([160 / 3 + 16 + 46 * 8, 160 / 3 + 240 + 16, 160 / 3], abs=1)
    assert plan.proportions == pytest.approx(np.array(samples) / 800, abs=1 / 800)
    assert np.abs(walk(plan).sum(axis=0) - samples).max() <= 1


def test_a_ramp_from_the_start_to_the_end():
    plan = plan_of([{"at": "0ba", "ramp": "1dur", "weights": CA}], EN, batches=1000)
    assert len(plan.phases) == 256
    assert plan.phases[0].first_batch == 0
    assert plan.proportions == pytest.approx([0.5, 0.5, 0])


@given(st.integers(1, 2000), st.integers(1, 2000), st.data())
def test_a_ramp_in_steps_comes_to_what_a_ramp_without_comes_to(num_batches, length, data):
    assume(length <= num_batches)
    at = data.draw(st.integers(0, num_batches - length))
    change = PlannedChange(at_batch=at, ramp_batches=length, weights={"a": 0.0, "b": 1.0})
    firsts, rows = phase_weights(np.array([0.75, 0.25]), [change], ["a", "b"], num_batches)
    lengths = np.diff(firsts, append=num_batches)
    assert firsts[0] == 0
    assert (lengths > 0).all()
    assert rows.sum(axis=1) == pytest.approx(1)
    steps = lengths[(firsts >= at) & (firsts < at + length)]
    assert len(steps) == min(256, length)
    assert steps.max() - steps.min() <= 1
    # Batch j of the ramp lies from j to j + 1: on average at j + 1/2.
    exact = at * 0.75 + sum(0.75 * (1 - (j + 0.5) / length) for j in range(length))
    assert float(lengths @ rows[:, 0]) == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ([{"at": "100ba", "weights": EN}], "change 1 of the schedule: it begins at batch 100, but the run has 100"),
        ([{"at": "0ba", "weights": EN}], "begins at batch 0, where the plan's own weights hold"),
        ([{"at": "90ba", "ramp": "11ba", "weights": EN}], "its ramp ends at batch 101, but the run has 100 batches"),
        ([{"at": "9ba", "ramp": "0ba", "weights": EN}], "ramp '0ba' is no time at all"),
        ([{"at": "9ba", "weights": EN}] * 2, "change 2 of the schedule: it begins at batch 9.*batch 10 or later"),
        (
            [{"at": "9ba", "ramp": "10ba", "weights": EN}, {"at": "18ba", "weights": CA}],
            "it begins at batch 18, but the ramp before it lasts to batch 19; begin it at batch 19 or later",
        ),
        ([{"at": "1ep", "weights": EN}], "change 1 of the schedule: time '1ep': a run is one epoch"),
        ({"at": "9ba", "weights": EN}, "schedule is dict; expected a list of changes"),
        ("9ba", "schedule is str; expected a list"),
        ([{"at": f"{n}ba", "weights": EN} for n in range(1, 40)], "has 39 changes; expected 32 at most"),
    ],
)
def test_schedules_that_cannot_be(schedule, message):
    with pytest.raises(MixtureError, match=message):
        plan_of(schedule)


def test_changes_that_say_something_else():
    with pytest.raises(FormatError, match="change 1 of the schedule: unknown key 'form'"):
        plan_of([{"at": "9ba", "form": "cosine", "weights": EN}])
    with pytest.raises(WeightsError, match="change 1 of the schedule: no weight for"):
        plan_of([{"at": "9ba", "weights": {"ca.a": 1.0}}])


def test_a_schedule_in_a_file(tmp_path):
    path = tmp_path / "schedule.yaml"
    path.write_text("- {at: 10ba, weights: natural}\n- {at: 0.5dur, ramp: 0.1dur, weights: uniform}\n")
    changes = read_schedule(path)
    assert [change.at for change in changes] == ["10ba", "0.5dur"]
    assert [change.at_batch for change in plan_of(changes).schedule] == [10, 50]
    for text, message in [
        ("at: 10ba", "changes: "),
        ("- {at: 10ba, weight: natural}", "unknown key 'changes.0.weight'; did you mean 'weights'"),
        ("- {", "not a YAML file"),
        ("- {at: 1ba, at: 2ba, weights: natural}", "key 'at' stands twice"),
    ]:
        path.write_text(text)
        with pytest.raises(FormatError, match=message):
            read_schedule(path)
    with pytest.raises(FormatError, match="no such file"):
        read_schedule(tmp_path / "none.yaml")


def test_saved_and_loaded_a_schedule_is_the_same(tmp_path):
    schedule = [{"at": "20ba", "weights": EN}, {"at": "50ba", "ramp": "40ba", "weights": "natural"}]
    plan = plan_of(schedule, max_repeats={"en.a": 4, "*": 20}, floor=0.01)
    plan.save(tmp_path / "plan.json")
    loaded = Plan.load(tmp_path / "plan.json")
    assert loaded == plan
    assert loaded.identity == plan.identity
    assert [p.first_batch for p in loaded.phases] == [p.first_batch for p in plan.phases]
    assert all((a.shares == b.shares).all() for a, b in zip(loaded.phases, plan.phases, strict=True))
    content = plan.model_dump(mode="json")
    for change, message in [
        ({"schedule": [{**content["schedule"][0], "at_batch": 21}]}, "proportions are not what the schedule comes to"),
        ({"schedule": [{**content["schedule"][0], "weights": {"eu.a": 1.0}}]}, "names other streams"),
        ({"lanes": 3}, "3 lanes cannot share batches of 8"),
        ({"sequence_length": 3}, "rows of 8 tokens hold no samples of 3"),
    ]:
        (tmp_path / "plan.json").write_text(json.dumps(content | change))
        with pytest.raises(FormatError, match=message):
            Plan.load(tmp_path / "plan.json")


def test_the_identity_covers_the_schedule_in_few_words():
    plans = [plan_of(None), plan_of([{"at": "20ba", "weights": EN}]), plan_of([{"at": "20ba", "weights": CA}])]
    told = [plan.identity["schedule"] for plan in plans]
    assert len(set(told)) == 3
    assert told[0] is None
    assert told[1].startswith("changes at batches 20 (")
    assert len(told[1]) < 60


def test_a_budget_over_a_schedule_scales_a_stream_down_by_one_factor():
    """eu.a is asked for 10 + 20 % of 400 draws each, 120, and may give 60: half the odds against en.a everywhere."""
    before = {"ca.a": 0.0, "en.a": 0.9, "eu.a": 0.1}
    after = {"ca.a": 0.0, "en.a": 0.8, "eu.a": 0.2}
    plan = plan_of([{"at": "50ba", "weights": after}], before, max_repeats={"eu.a": 12})
    odds = [phase.shares[2] / phase.shares[1] for phase in plan.phases]
    assert odds[0] / (1 / 9) == pytest.approx(odds[1] / (1 / 4)) == plan.entries[2].scale
    assert plan.entries[2].samples == 60
    assert [entry.scale for entry in plan.entries[:2]] == [1, 1]


def test_phases_that_cannot_be_supplied_are_refused_with_the_ways_out():
    schedule = [{"at": "20ba", "weights": EU}, {"at": "30ba", "weights": EN}]
    with pytest.raises(BudgetError, match=r"in batches 20 to 29 the schedule gives weight to 'eu\.a' only") as error:
        plan_of(schedule, max_repeats={"eu.a": 4, "*": 100})
    assert "need 80 samples of them, and their repeat budgets supply 20; raise their max_repeats to 16.20" in str(
        error.value
    )
    plan_of(schedule, max_repeats={"eu.a": 16.2, "*": 100})
    with pytest.raises(BudgetError, match=r"the run needs .* supply"):
        plan_of(schedule, max_repeats=0.5)
    with pytest.raises(FloorError, match="adds up to"):
        plan_of(schedule, floor=0.4)
    with pytest.raises(FloorError, match="the repeat budget of 'eu.a' allows it"):
        plan_of(schedule, floor=0.2, max_repeats={"eu.a": 4, "*": 100})
    # With a floor every stream serves every phase: those of weight 0 fill what eu.a cannot.
    plan = plan_of(schedule, floor=0.01, max_repeats={"eu.a": 4, "*": 100})
    assert plan.entries[2].samples <= 20
    assert plan.phases[1].shares[2] == max(phase.shares[2] for phase in plan.phases)


def supplied(sets, needs, limits):
    """Hall's condition, the slow way: over every set of needs."""
    groups = range(len(needs))
    chosen = [list(some) for count in groups for some in combinations(groups, count + 1)]
    return all(sum(needs[some]) <= limits[sets[some].any(axis=0)].sum() for some in chosen)


@settings(max_examples=300)
@given(st.data())
def test_starved_phases_are_found(data):
    groups, count = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    sets = np.array(
        data.draw(st.lists(st.lists(st.booleans(), min_size=count, max_size=count), min_size=groups, max_size=groups))
    )
    needs = np.array(data.draw(st.lists(st.integers(1, 9), min_size=groups, max_size=groups)))
    limits = np.array(data.draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)))
    starved = starved_sets(sets, needs, limits)
    assert starved.any() != supplied(sets, needs, limits)
    if starved.any():
        assert needs[starved].sum() > limits[sets[starved].any(axis=0)].sum()


def totals_of(weights, draws, scale, floor):
    least, most = np.full(len(scale), floor), np.ones(len(scale))
    return sum(n * project(row * scale, least, most) for n, row in zip(draws, weights, strict=True))


@settings(max_examples=300)
@given(st.data())
def test_factors_solve_the_problem(data):
    """The conditions that only the nearest point of entropy meets: within limits, at them where scaled down."""
    count, phases = data.draw(st.integers(2, 6)), data.draw(st.integers(1, 5))
    weight = st.one_of(st.floats(0.001, 1), st.sampled_from([0.0, 1e-7]))
    rows = st.lists(weight, min_size=count, max_size=count).filter(lambda row: sum(row) > 0.001).map(np.array)
    weights = np.array([row / row.sum() for row in data.draw(st.lists(rows, min_size=phases, max_size=phases))])
    draws = np.array(data.draw(st.lists(st.integers(1, 5000), min_size=phases, max_size=phases)), dtype=float)
    floor = data.draw(st.sampled_from([0.0, 0.0, 0.02, 0.15 / count]))
    least = int(np.ceil(floor * draws.sum()))
    limits = least + np.array(data.draw(st.lists(st.integers(0, int(draws.sum())), min_size=count, max_size=count)))
    assume(limits.sum() >= draws.sum())
    starved = not floor and starved_sets(weights > 0, draws.astype(np.int64), limits).any()
    assume(not starved)
    scale = fit_scale(weights, draws, limits, floor, "abcdef")
    assert ((scale > 0) & (scale <= 1)).all()
    totals = totals_of(np.maximum(weights, 1e-12) if floor else weights, draws, scale, floor)
    assert (totals <= limits + 0.3).all()
    # A stream that a floor holds up everywhere is at its least whatever its factor.
    down = (scale < 1) & (totals > floor * draws.sum() + 0.3)
    assert (np.abs(totals - limits) <= 0.3)[down].all()


def test_factors_equal_slow_scaling():
    rng = np.random.default_rng(5)
    for _ in range(20):
        weights, draws = rng.dirichlet(np.ones(3), size=4), rng.integers(50, 500, 4).astype(float)
        limits = np.array([0.25, 0.4, 1]) * draws.sum() // 1
        scale = np.ones(3)
        for _ in range(3000):
            totals = (draws[:, None] * weights * scale / (weights * scale).sum(axis=1)[:, None]).sum(axis=0)
            scale = np.minimum(1, scale * limits / totals)
        found = fit_scale(weights, draws, limits.astype(np.int64), 0.0, "abc")
        assert found == pytest.approx(scale, rel=0.02)


def test_factors_that_are_not_found_are_told(monkeypatch):
    monkeypatch.setattr("mixstream.mixture.phases._MAX_STEPS", 1)
    with pytest.raises(BudgetError, match=r"'en\.a' would give \d+ samples, its budget is 160; raise its max_repeats"):
        plan_of([{"at": "50ba", "weights": "uniform"}], "natural", max_repeats={"eu.a": 12, "en.a": 2})


@settings(max_examples=60)
@given(st.data())
def test_a_constant_schedule_is_no_schedule(data):
    raw = np.array(data.draw(st.lists(st.floats(0.01, 1), min_size=3, max_size=3)))
    weights = dict(zip(CATALOG.names, (raw / raw.sum()).tolist(), strict=True))
    budgets = {name: data.draw(st.floats(0.5, 20)) for name in CATALOG.names}
    floor = data.draw(st.sampled_from([0.0, 0.002]))
    options = {"max_repeats": budgets, "floor": floor, "batches": 100}
    try:
        plain = plan_of(None, weights, **options)
    except (BudgetError, FloorError):
        assume(False)
    plan = plan_of(
        [{"at": "30ba", "weights": weights}, {"at": "50ba", "ramp": "9ba", "weights": weights}], weights, **options
    )
    assert plan.proportions == pytest.approx(plain.proportions, abs=1 / 800)


@settings(max_examples=60)
@given(st.data())
def test_the_engine_reads_what_a_schedule_promises(data):
    """M1 and M3 over a whole run: every batch is read, shares are kept, no budget is passed."""
    count = data.draw(st.integers(1, 5))
    catalog = fake_catalog({f"l{i}.d": [data.draw(st.integers(1, 30))] for i in range(count)})
    weight = st.one_of(st.floats(0.01, 1), st.just(0.0))
    mixture = (
        st.lists(weight, min_size=count, max_size=count)
        .filter(sum)
        .map(lambda row: dict(zip(catalog.names, (np.array(row) / sum(row)).tolist(), strict=True)))
    )
    batches, batch_size = data.draw(st.integers(4, 60)), data.draw(st.integers(1, 6))
    schedule = [
        {"at": "0.25dur", "weights": data.draw(mixture)},
        {"at": "0.5dur", "ramp": "0.5dur", "weights": data.draw(mixture)},
    ]
    budgets = {name: data.draw(st.floats(0.3, 40)) for name in catalog.names}
    options = {"max_repeats": budgets, "schedule": schedule, "floor": data.draw(st.sampled_from([0.0, 0.03]))}
    try:
        plan = build_plan(catalog, data.draw(mixture), batches * batch_size * 8, batch_size, **options)
    except (BudgetError, FloorError):
        assume(False)
    rows = walk(plan)
    assert len(rows) == batches
    assert (rows.sum(axis=0) <= plan.terms.limits).all()
    samples = np.array([row.samples for row in plan.table()])
    assert samples.sum() >= batches * batch_size - count
    assert np.abs(rows.sum(axis=0) - samples).max() <= 2
