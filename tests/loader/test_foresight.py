"""What is told of the future against what the engine then draws, batch by batch."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
from conftest import fake_catalog
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mixstream import Plan, build_plan
from mixstream.errors import BudgetError, FloorError
from mixstream.loader.batches import Draws, GlobalOrder
from mixstream.loader.foresight import Forecaster, lanes_read
from mixstream.loader.order import Growth, StreamOrder
from mixstream.loader.sampler import Walk
from mixstream.mixture.ledger import Ledger, open_ledger
from mixstream.mixture.simplex import Float64
from mixstream.streams.index import Int64


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
    try:
        plan = build_plan(catalog, weights[0], batches * batch_size * 8, batch_size, lanes=lanes, **options)
    except (BudgetError, FloorError):
        assume(False)
    changes = draw(st.sets(st.integers(0, batches - 1), max_size=2))
    return run_of(
        plan,
        [stream.index.shard_samples for stream in catalog],
        growth={name: draw(growths(sizes, lanes)) for name, sizes in shards.items() if draw(st.booleans())},
        pending={batch: draw(mixtures(count)) for batch in changes},
    )


@st.composite
def growths(draw, sizes, lanes):
    """When a stream came to its last shards, if it did not have them from the start."""
    before = np.cumsum(sizes)[draw(st.integers(0, len(sizes) - 1))]
    if before == sum(sizes):
        return ()
    return (Growth(int(before), tuple(draw(st.integers(0, 40)) for _ in range(lanes))),)


@dataclass(repr=False)
class Run:
    """A run that was walked: the draws of its batches, the ledger before each and after the last."""

    plan: Plan
    shard_samples: list[Int64]
    growth: dict[str, tuple[Growth, ...]]
    pending: dict[int, Float64]
    draws: list[Draws]
    ledgers: list[Ledger]

    def __repr__(self):
        shards = [samples.tolist() for samples in self.shard_samples]
        return f"{self.plan.num_batches} x {self.plan.batch_size}, {self.plan.lanes} lanes, window {self.plan.window_samples}, {shards}, {self.growth}, {self.pending}, limits {self.plan.terms.limits}, weights {self.plan.weights}, schedule {len(self.plan.phases)}"

    @property
    def end(self):
        """Where it was to end: it may end sooner, where a lane's budget leaves no way to deal a batch."""
        return self.ledgers[-1].end_batch

    @property
    def off(self):
        """Draws of a stream by which times may be off, in a lane."""
        return 2 if self.plan.lanes == 1 else 4


def run_of(plan, shard_samples, growth, pending):
    """Walk a run; return it with every batch's draws, and the ledger before each."""
    order = GlobalOrder(plan, shard_samples, growth)
    walk = Walk(order, open_ledger(order.terms), pending, 0, lambda draws: None)
    draws, ledgers = [], [walk.ledger(0)]
    while (block := walk.draws(len(draws), 1)) is not None:
        draws.append(block.take(0))
        ledgers.append(walk.ledger(len(draws)))
    return Run(plan, shard_samples, growth, pending, draws, ledgers)


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
    earliest = drawn[place - run.off].batch if place >= run.off else 0
    latest = drawn[place + run.off].batch if place + run.off < len(drawn) else run.end
    assert min(run.end, max(start, earliest)) <= told + 1
    assert told <= min(run.end, latest + 1)


def look(run, start, lanes):
    outlook = Forecaster(run.plan, run.shard_samples, run.growth, lanes).look(run.ledgers[start], run.pending)
    return outlook


@settings(max_examples=150)
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
            assert [need.shard for need in told[: len(visits)]] == [visit[0] for visit in visits]
            assert len(told) - len(visits) <= run.off or len(run.draws) < run.end
            for need, (_, first, last) in zip(told, visits, strict=False):
                check_time(run, need.batch, drawn, first, start)
                check_time(run, need.until, drawn, last, start)
                assert start <= need.batch <= need.until


@settings(max_examples=100)
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
            assert np.isfinite(others).sum() <= run.off or len(run.draws) < run.end
