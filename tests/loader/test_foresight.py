"""What is told of the future against what the engine then draws, batch by batch."""

from __future__ import annotations

import dataclasses
import itertools
import math
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from conftest import fake_catalog
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mixstream import build_plan
from mixstream.errors import BudgetError, FloorError
from mixstream.loader.batches import GlobalOrder
from mixstream.loader.foresight import Forecaster, lanes_read
from mixstream.loader.order import Growth, StreamOrder
from mixstream.loader.sampler import Walk
from mixstream.mixture.ledger import open_ledger


def mixtures(count):
    """Weights of `count` streams, some of them 0."""
    weight = st.one_of(st.floats(0.02, 1), st.just(0.0))
    return st.lists(weight, min_size=count, max_size=count).filter(sum).map(lambda row: np.array(row) / sum(row))


@st.composite
def runs(draw):
    """A run of a few streams: lanes, windows, growths, schedules, budgets, weights set on the way."""
    count, lanes = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    shards = {f"l{i}.d": draw(st.lists(st.integers(3, 14), min_size=1, max_size=8)) for i in range(count)}
    catalog = fake_catalog(shards)
    batches, batch_size = draw(st.integers(4, 60)), lanes * draw(st.integers(1, 6))
    weights = [dict(zip(shards, draw(mixtures(count)).tolist(), strict=True)) for _ in range(2)]
    schedule = [{"at": "0.3dur", "ramp": "0.2dur", "weights": weights[1]}]
    options = {
        "schedule": draw(st.sampled_from([None, schedule])),
        "max_repeats": draw(st.sampled_from([None, 3.0, 8.5])),
        "window_samples": draw(st.integers(1, 40)),
        "floor": draw(st.sampled_from([0.0, 0.02])),
    }
    grown = {name: draw(growths(sizes, lanes)) for name, sizes in shards.items() if draw(st.booleans())}
    if any(grown.values()):  # a growth may cost a stream draws of its budget, which shares do not know
        options["max_repeats"] = None
    try:
        plan = build_plan(catalog, weights[0], batches * batch_size * 8, batch_size, lanes=lanes, **options)
    except (BudgetError, FloorError):
        assume(False)
    changes = draw(st.sets(st.integers(0, batches - 1), max_size=2))
    return run_of(
        plan,
        [stream.index.shard_samples for stream in catalog],
        growth=grown,
        pending={batch: draw(mixtures(count)) for batch in changes},
    )


@st.composite
def growths(draw, sizes, lanes):
    """When a stream came to its last shards, if it did not have them from the start."""
    before = np.cumsum(sizes)[draw(st.integers(0, len(sizes) - 1))]
    if before == sum(sizes):
        return ()
    return (Growth(int(before), tuple(draw(st.integers(0, 40)) for _ in range(lanes))),)


class Run(SimpleNamespace):
    """A run that was walked: plan, shard_samples, growth, pending; draws of its batches; ledgers before and after."""

    def __repr__(self):
        shards = [samples.tolist() for samples in self.shard_samples]
        return f"{self.plan.num_batches} x {self.plan.batch_size}, {self.plan.lanes} lanes, window {self.plan.window_samples}, {shards}, {self.growth}, {self.pending}, limits {self.plan.terms.limits}, weights {self.plan.weights}, schedule {len(self.plan.phases)}"

    @property
    def off(self):
        """Draws of a stream by which a lane may be off.

        Lanes' budgets differ by a sample a repeat and stream, and a lane at one's end takes from the others instead.
        """
        repeats = sum(math.ceil(entry.max_repeats or 0) for entry in self.plan.entries)
        return 2 if self.plan.lanes == 1 else 6 + repeats


def run_of(plan, shard_samples, growth, pending):
    """Walk a run; return it with every batch's draws, and the ledger before each."""
    order = GlobalOrder(plan, shard_samples, growth)
    walk = Walk(order, open_ledger(order.terms), pending, 0, lambda draws: None)
    draws, ledgers = [], [walk.ledger(0)]
    while (block := walk.draws(len(draws), 1)) is not None:
        draws.append(block.take(0))
        ledgers.append(walk.ledger(len(draws)))
    return Run(plan=plan, shard_samples=shard_samples, growth=growth, pending=pending, draws=draws, ledgers=ledgers)


class Drawn(NamedTuple):
    """A row of a stream's order in a lane: its shard, where its window begins, and the batch that it came in."""

    shard: int
    window: int
    batch: float


def drawn_in(run, lane):
    """Return, for each stream, all rows that a lane draws, in order, and (with batch inf) those left in its window."""
    size = run.plan.batch_size // run.plan.lanes
    read = [draws.take(slice(lane * size, (lane + 1) * size)) for draws in run.draws]
    found = []
    for stream, samples in enumerate(run.shard_samples):
        name, plan = run.plan.streams[stream], run.plan
        order = StreamOrder(name, samples, plan.window_samples, plan.seed, plan.lanes, run.growth.get(name, ()))
        # A batch's rows are shuffled: only which rows it has can be compared.
        own = [sorted(draws.sample[draws.stream == stream].tolist()) for draws in read]
        batches = [batch for batch, rows in enumerate(own) for _ in rows]
        windows = []
        while len(windows) <= len(batches):
            window = order.window(lane, len(windows))
            windows += [window.start] * (window.end - window.start)
        rows = order.rows(0, len(windows), lane)[0]
        drawn = itertools.groupby(zip(batches, rows.tolist(), strict=False), key=lambda pair: pair[0])
        assert {batch: sorted(row for _, row in pairs) for batch, pairs in drawn} == {
            batch: rows for batch, rows in enumerate(own) if rows
        }
        shards = np.searchsorted(np.cumsum(samples), rows, side="right").tolist()
        batches += [np.inf] * (len(windows) - len(batches))
        found.append(list(map(Drawn, shards, windows, batches)))
    return found


def visits_of(drawn, cursor):
    """Return the visits from row `cursor` on that are begun, as (shard, place of its first row, of its last)."""
    visits = {}
    for place in range(cursor, len(drawn)):
        row = drawn[place]
        if (row.window, row.shard) in visits or row.batch < np.inf:
            visits.setdefault((row.window, row.shard), [row.shard, place, place])[2] = place
    return list(visits.values())


def check_time(run, told, drawn, place, start):
    """Check the time told for a draw: no further off than the stream takes for some draws, or than a batch."""
    end = len(run.draws)
    earliest = drawn[place - run.off].batch if place >= run.off else 0
    latest = drawn[place + run.off].batch if place + run.off < len(drawn) else np.inf
    assert min(end, max(start, earliest)) <= told + 1
    assert told <= min(run.plan.num_batches, latest + 1)


def look(run, start, lanes):
    return Forecaster(run.plan, run.shard_samples, run.growth, lanes).look(run.ledgers[start], run.pending)


@settings(max_examples=120)
@given(runs(), st.data())
def test_what_comes_is_what_is_read(run, data):
    start = data.draw(st.integers(0, len(run.draws)))
    for lane in range(run.plan.lanes):
        needs = list(look(run, start, [lane]).upcoming())
        assert [need.batch for need in needs] == sorted(need.batch for need in needs)
        for stream, drawn in enumerate(drawn_in(run, lane)):
            told = [need for need in needs if need.stream == stream]
            cursor = int(run.ledgers[start].cursors[lane, stream])
            visits = visits_of(drawn, cursor)
            for need, (shard, _, _) in zip(told, visits, strict=False):
                assert need.shard == shard
            exact = run.plan.lanes == 1 or run.plan.entries[0].max_repeats is None
            assert (0 if exact else -run.off) <= len(told) - len(visits) <= run.off
            for need, (_, first, last) in zip(told, visits, strict=False):
                check_time(run, need.batch, drawn, first, start)
                check_time(run, need.until, drawn, last, start)
                assert start <= need.batch <= need.until


@settings(max_examples=120)
@given(runs(), st.data())
def test_next_use_is_the_next_visit(run, data):
    """Exact in the window that is read and the next; beyond, a shard counts from where its window begins."""
    start = data.draw(st.integers(0, len(run.draws)))
    for lane in range(run.plan.lanes):
        outlook = look(run, start, [lane])
        for stream, drawn in enumerate(drawn_in(run, lane)):
            cursor = int(run.ledgers[start].cursors[lane, stream])
            told = outlook.next_use(stream)
            begun = drawn[cursor].window < cursor
            near = [drawn[cursor].window, *{row.window: 0 for row in drawn[cursor:]}][:3]
            expected = {}
            for shard, first, _ in visits_of(drawn, cursor):
                expected.setdefault(shard, first if drawn[first].window in near else drawn[first].window)
            for shard, place in expected.items():
                if begun and drawn[place].window == near[0]:
                    assert told[shard] <= start
                else:
                    check_time(run, told[shard], drawn, place, start)
            order = sorted(expected, key=expected.get)
            assert told[order].tolist() == sorted(told[order].tolist())
            others = told[[shard for shard in range(len(told)) if shard not in expected]]
            assert np.isfinite(others).sum() <= run.off


@settings(max_examples=40)
@given(runs(), st.lists(st.integers(0, 60), min_size=2, max_size=5))
def test_what_is_kept_changes_nothing(run, starts):
    """One forecaster that has looked from other places, back and forth, tells what a new one does; so do lanes."""
    lanes = range(run.plan.lanes)
    kept = Forecaster(run.plan, run.shard_samples, run.growth, lanes)
    for start in (min(start, len(run.draws)) for start in starts):
        seen = kept.look(run.ledgers[start], run.pending)
        alone = [look(run, start, [lane]) for lane in lanes]
        needs = [need for outlook in alone for need in outlook.upcoming()]
        assert sorted(seen.upcoming()) == sorted(needs)
        for stream in range(len(run.shard_samples)):
            uses = np.min([outlook.next_use(stream) for outlook in alone], axis=0)
            assert seen.next_use(stream).tolist() == uses.tolist()


@pytest.mark.parametrize("pending", [{}, {70: np.array([0.6, 0.3, 0.1, 0.0])}])
def test_streams_of_a_draw_a_batch_or_more_are_told_to_within_two_batches(pending):
    catalog = fake_catalog({"a.a": [40] * 9, "b.a": [40, 30] * 4, "c.a": [25] * 30, "d.a": [50] * 3})
    weights = {"a.a": 0.4, "b.a": 0.05, "c.a": 0.25, "d.a": 0.3}
    plan = build_plan(catalog, weights, 200 * 32 * 8, 32, window_samples=80, max_repeats={"c.a": 4, "*": None})
    run = run_of(plan, [stream.index.shard_samples for stream in catalog], {}, pending)
    drawn = drawn_in(run, 0)
    for start in (0, 37, 66, 71, 150):
        needs = list(look(run, start, [0]).upcoming())
        for stream, rows in enumerate(drawn):
            told = [need for need in needs if need.stream == stream]
            for need, (_, first, last) in zip(
                told, visits_of(rows, int(run.ledgers[start].cursors[0, stream])), strict=True
            ):
                assert abs(need.batch - 0.5 - rows[first].batch) <= 2
                assert abs(need.until - 0.5 - min(200, rows[last].batch)) <= 2


def test_weights_set_on_the_way_change_times_only():
    """The same shards in the same order, later or sooner; a stream without weight comes no more."""
    catalog = fake_catalog({"a.a": [10] * 8, "b.a": [10] * 8})
    plan = build_plan(catalog, "uniform", 40 * 4 * 8, 4, window_samples=20)
    samples = [stream.index.shard_samples for stream in catalog]
    forecaster, ledger = Forecaster(plan, samples, {}, [0]), open_ledger(plan.terms)
    before, after = (list(forecaster.look(ledger, new).upcoming()) for new in ({}, {10: np.array([1.0, 0.0])}))
    shards = [[need.shard for need in needs if need.stream == 0] for needs in (before, after)]
    assert shards[1][: len(shards[0])] == shards[0]
    assert len(shards[1]) == 8 + 6  # 20 + 120 draws: a repeat, and three windows of two shards
    assert len({need.shard for need in after if need.stream == 1}) == 2
    uses = forecaster.look(ledger, {10: np.array([1.0, 0.0])}).next_use(1)
    assert np.isfinite(uses).sum() == 2
    none = build_plan(catalog, {"a.a": 1.0, "b.a": 0.0}, 40 * 4 * 8, 4)
    outlook = Forecaster(none, samples, {}, [0]).look(open_ledger(none.terms), {})
    assert {need.stream for need in outlook.upcoming()} == {0}
    assert np.isinf(outlook.next_use(1)).all()


@pytest.mark.parametrize(("lanes", "world_size"), [(1, 4), (2, 1), (4, 2), (4, 8), (6, 4), (3, 4)])
def test_a_rank_reads_the_lanes_of_its_rows(lanes, world_size):
    catalog = fake_catalog({"a.a": [100]})
    plan = build_plan(catalog, "uniform", 5 * 24 * 8, 24, lanes=lanes)
    for rank in range(world_size):
        rows = range(rank * 24 // world_size, (rank + 1) * 24 // world_size)
        assert set(lanes_read(plan, rank, world_size)) == {row * lanes // 24 for row in rows}


def test_rare_shards_of_an_open_window_and_those_already_read():
    """Against the rows themselves: a shard of three rows among hundreds is found, and when all were read comes later."""
    sizes = np.array([900, 3, 700, 3, 800, 3, 900, 3, 600, 3])
    catalog = fake_catalog({"a.a": sizes.tolist()})
    plan = build_plan(catalog, "uniform", 3 * sizes.sum() * 8, 1, window_samples=1200)
    order = StreamOrder("a.a", sizes, 1200, plan.seed)
    shards = np.searchsorted(np.cumsum(sizes), order.rows(0, 3 * sizes.sum())[0], side="right")
    forecaster = Forecaster(plan, [sizes], {}, [0])
    for cursor in range(1, 4000, 97):
        ledger = dataclasses.replace(open_ledger(plan.terms), batch=cursor, cursors=np.array([[cursor]]))
        outlook = forecaster.look(ledger, {})
        window = order.window(0, cursor)
        here = list(dict.fromkeys(shards[cursor : window.end].tolist()))
        needs = list(itertools.islice(outlook.upcoming(), len(here)))
        assert [need.shard for need in needs] == here
        assert [int(need.batch) for need in needs] == [cursor + shards[cursor:].tolist().index(own) for own in here]
        uses = outlook.next_use(0)
        for shard in set(range(10)) - set(here):
            first = cursor + shards[cursor:].tolist().index(shard)
            assert order.window(0, first).start <= uses[shard] <= first + 1
