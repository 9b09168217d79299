"""M9 over whole runs: every batch, and every draw of every sample, from the files that a run left and nothing else."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from conftest import write_stream
from hypothesis import given, settings
from hypothesis import strategies as st

from mixstream import Catalog, Plan, build_plan
from mixstream.errors import FormatError, StateError, StreamError
from mixstream.loader import MixtureLoader
from mixstream.loader.positions import line_of, plan_digest
from mixstream.loader.trace import History, draws_of_samples, rows_of_batch
from mixstream.methods.learning.history import WeightsUpdate
from mixstream.mixture.position import Position
from mixstream.report.tracing import show_batch

# conftest.write_stream: seven samples a shard, so a stream of 35 is one of 14 with three shards added.
SIZES = {"ca.a": (14, 35, 70), "en.a": (42, 49), "eu.a": (7, 21), "gl.a": (23,), "es.a": (3,)}


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """Every stream in every size: {(name, size): folder that it is in}."""
    folders = {}
    for number, (name, sizes) in enumerate(SIZES.items()):
        for size in sizes:
            folders[name, size] = tmp_path_factory.mktemp(f"{name}.{size}")
            write_stream(folders[name, size], name, number, size)
    return folders


def lay_out(root, versions, sizes) -> Catalog:
    """Make `root` a folder of the streams {name: size}."""
    root.mkdir(exist_ok=True)
    for link in root.iterdir():
        link.unlink()
    for name, size in sizes.items():
        (root / name).symlink_to(versions[name, size] / name)
    return Catalog.open(root)


@dataclass
class Played:
    """A run in plain PyTorch: its folder, and the draws of each leg's batches as the loader gave them."""

    folder: Path
    legs: list[dict[int, list[tuple[str, int, int]]]] = field(default_factory=list)

    def note(self, loader, leg):
        line = line_of(loader.state_dict(), plan_digest(loader.plan), leg, 1)
        self._append("positions.jsonl", line.model_dump())

    def learn(self, loader, weights, update, note_position):
        batch = loader.ledger().batch
        line = WeightsUpdate(
            update=update,
            batch=batch,
            at_batch=loader.set_weights(weights),
            weights=weights,
            scores=None,
            probe_losses=None,
            eta=None,
            position=Position.of(loader.ledger()) if note_position else None,
        )
        self._append("weights.jsonl", line.model_dump())

    def _append(self, name, content):
        with (self.folder / name).open("a") as file:
            file.write(json.dumps(content) + "\n")


def play(folder, plans, lag=2, interval=4, updates=None, note_position=True) -> Played:
    """Read plans one after the other, each up to a batch: [(plan, batches that this leg reads)]."""
    folder.mkdir()
    played, state = Played(folder), None
    for leg, (plan, batches) in enumerate(plans):
        loader = MixtureLoader(plan, weight_lag=lag)
        if state is not None:
            loader.load_state_dict(state, migrate=True)
        played.note(loader, leg)
        own = {}
        for batch in loader:
            told = zip(batch["stream"].tolist(), batch["sample"].tolist(), batch["repeat"].tolist(), strict=True)
            own[loader.ledger().batch - 1] = [(plan.streams[i], sample, repeat) for i, sample, repeat in told]
            now = loader.ledger().batch
            if now in (updates or {}):
                played.learn(loader, updates[now], 1 + list(updates).index(now), note_position)
            if now % interval == 0:
                played.note(loader, leg)
            if len(own) == batches:
                break
        state = loader.state_dict()
        played.legs.append(own)
        if plan is not plans[-1][0]:
            plan.save(folder / f"plan-to-ba{loader.ledger().batch}-{leg}.json")
    plans[-1][0].save(folder / "plan.json")
    metrics = {"batch": loader.ledger().batch, "metrics": {"loss/train/total": 2.5}}
    (folder / "metrics.jsonl").write_text(json.dumps(metrics) + "\n")
    return played


def check_all(played):
    """Compare every batch, and every draw of every sample, with what the loader gave."""
    history = History.open(played.folder)
    assert [leg.number for leg in history.legs] == list(range(len(played.legs)))
    seen: Counter = Counter()
    draws: dict[tuple[str, int], list[tuple[int, int, int, int, int]]] = {}
    for leg, own in zip(history.legs, played.legs, strict=True):
        for batch, expected in own.items():
            rows = rows_of_batch(leg, batch)
            assert [(one.origin.stream, one.sample, one.origin.repeat) for one in rows] == expected
            for one, (stream, sample, repeat) in zip(rows, expected, strict=True):
                assert one.seen == seen[stream, sample]
                place = leg.number, batch, one.row, repeat, seen[stream, sample]
                draws.setdefault((stream, sample), []).append(place)
                seen[stream, sample] += 1
    for name in {name for leg in history.legs for name in leg.plan.streams}:
        size = max(entry.num_samples for leg in history.legs for entry in leg.plan.entries if entry.name == name)
        told: dict[tuple[str, int], list[tuple[int, int, int, int, int]]] = {}
        for one in draws_of_samples(history, name, range(size)):
            place = one.leg, one.batch, one.row, one.repeat, one.seen
            told.setdefault((name, one.sample), []).append(place)
        assert told == {key: places for key, places in draws.items() if key[0] == name}
        first = [one.batch for one in draws_of_samples(history, name, [0])]
        assert first == [place[1] for place in draws.get((name, 0), [])]


@settings(max_examples=12)
@given(data=st.data())
def test_every_draw_of_a_run_that_was_carried_over_is_told(data, versions, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("run")
    lanes, seed = data.draw(st.sampled_from([1, 2])), data.draw(st.integers(0, 99))
    sizes = {name: own[0] for name, own in SIZES.items()}
    plans = []
    for leg in range(data.draw(st.integers(1, 3))):
        batch_size = data.draw(st.sampled_from([4, 6, 10]))
        catalog = lay_out(tmp_path / f"streams-{leg}", versions, sizes)
        read = sum(plan.batch_size * batches for plan, batches in plans)
        budget = (read + 40 * batch_size) * 8
        plan = build_plan(catalog, "uniform", budget, batch_size, lanes=lanes, seed=seed, window_samples=20)
        plans.append((plan, data.draw(st.integers(3, 14))))
        # For the next leg some streams grow, and one may go or come.
        for name, own in SIZES.items():
            if name in sizes and data.draw(st.booleans()):
                sizes[name] = own[min(own.index(sizes[name]) + 1, len(own) - 1)]
        if data.draw(st.booleans()):
            sizes.pop("gl.a", None)
        elif "gl.a" not in sizes:
            sizes["gl.a"] = SIZES["gl.a"][0]
    check_all(play(tmp_path / "run", plans))


@pytest.mark.parametrize("note_position", [True, False])
def test_every_draw_of_a_run_that_learns_is_told(catalog, tmp_path, note_position):
    plan = build_plan(catalog, "uniform", 40 * 12 * 8, 12, window_samples=20, max_repeats=30, floor=0.02, lanes=2)
    names = plan.streams
    updates = {}
    for number, batch in enumerate((5, 6, 13, 20, 33)):
        weights = np.roll(np.array([0.5, 0.2, 0.15, 0.1, 0.05]), number)
        updates[batch] = dict(zip(names, weights.tolist(), strict=True))
    played = play(tmp_path / "run", [(plan, 40)], lag=3, interval=9, updates=updates, note_position=note_position)
    check_all(played)
    (played.folder / "positions.jsonl").unlink()  # as runs of older versions
    check_all(played)


def test_weights_in_the_loss_change_nothing_of_what_was_read(catalog, tmp_path):
    plan = build_plan(catalog, "uniform", budget_tokens=8 * 8 * 20, batch_size=8, seed=3)
    played = play(tmp_path / "run", [(plan, 20)])
    (played.folder / "positions.jsonl").unlink()
    weights = dict(zip(plan.streams, [1.0, *[0.0] * (len(plan.streams) - 1)], strict=True))
    line = WeightsUpdate(
        update=1, batch=5, at_batch=5, weights=weights, scores=None, probe_losses=None, eta=None, apply="loss"
    )
    (played.folder / "weights.jsonl").write_text(line.model_dump_json() + "\n")
    check_all(played)


def test_without_logs_a_plan_tells_what_its_run_reads(catalog, tmp_path):
    plan = build_plan(catalog, "uniform", 20 * 12 * 8, 12, window_samples=20)
    plan.save(tmp_path / "my.json")
    history = History.open(tmp_path / "my.json")
    assert (history.trained, history.legs[0].first) == (None, 0)
    draws = [draw for name in plan.streams for draw in draws_of_samples(history, name, range(300))]
    assert len({(draw.batch, draw.row) for draw in draws}) == len(draws) == 20 * 12


def test_streams_that_were_moved_are_named(versions, tmp_path):
    sizes = {name: own[0] for name, own in SIZES.items()}
    plan = build_plan(lay_out(tmp_path / "a", versions, sizes), "uniform", 10 * 4 * 8, 4)
    plan.save(tmp_path / "plan.json")
    before = rows_of_batch(History.open(tmp_path / "plan.json").legs[0], 7)
    (tmp_path / "a").rename(tmp_path / "b")
    with pytest.raises(StreamError, match="a/ca.a"):
        rows_of_batch(History.open(tmp_path / "plan.json").legs[0], 7)
    moved = History.open(tmp_path / "plan.json", streams=str(tmp_path / "b"))
    assert rows_of_batch(moved.legs[0], 7) == before


def test_a_stream_that_is_another_one_by_now_is_refused(versions, tmp_path):
    sizes = {name: own[0] for name, own in SIZES.items()}
    plan = build_plan(lay_out(tmp_path / "a", versions, sizes | {"ca.a": 70}), "uniform", 10 * 4 * 8, 4)
    plan.save(tmp_path / "plan.json")
    lay_out(tmp_path / "a", versions, sizes)
    with pytest.raises(StreamError, match=r"ca.a: not the stream that was read: it has 14 samples, .*, and had 70"):
        rows_of_batch(History.open(tmp_path / "plan.json").legs[0], 0)


@pytest.fixture
def carried(versions, tmp_path) -> Played:
    """A run that was carried over to batches of twice the size: of batches 5 and 6 each leg has its own."""
    catalog = lay_out(tmp_path / "streams", versions, {name: own[0] for name, own in SIZES.items()})
    plans = [build_plan(catalog, "uniform", 400 * 8, size, window_samples=20) for size in (4, 8)]
    return play(tmp_path / "run", list(zip(plans, (10, 8), strict=True)))


def test_of_two_batches_of_one_number_the_newer_is_told_and_the_older_by_its_plan(carried):
    history = History.open(carried.folder)
    assert [(leg.first, leg.end) for leg in history.legs] == [(0, 10), (5, None)]
    assert [history.leg_of(batch).number for batch in (0, 4, 5, 9, 10)] == [0, 0, 1, 1, 1]
    older = History.open(carried.folder / "plan-to-ba10-0.json")
    assert [(leg.number, leg.end) for leg in older.legs] == [(0, 10)]
    with pytest.raises(StateError, match=r"plan-to-ba10-0.json: has no batch 10; its batches are 0 to 9, counted"):
        older.leg_of(10)
    with pytest.raises(StateError, match=r"run: has no batch 50; its batches are 0 to 9, 5 to 49, counted from 0"):
        history.leg_of(50)


def test_without_positions_a_run_that_was_carried_over_is_traced_as_far_as_that_is_true(carried):
    path = carried.folder / "positions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if json.loads(line)["leg"]).replace('"leg": 1', '"leg": 0'))
    assert [leg.first for leg in History.open(carried.folder).legs] == [5]
    path.unlink()
    with pytest.raises(FormatError, match=r"run: was carried over to another plan, and nobody noted where it was then"):
        History.open(carried.folder)
    first = History.open(carried.folder / "plan-to-ba10-0.json").legs[0]
    found = [(one.origin.stream, one.sample, one.origin.repeat) for one in rows_of_batch(first, 9)]
    assert found == carried.legs[0][9]


def test_the_logs_of_a_later_plan_are_not_taken_for_those_of_the_first(carried):
    """An older version noted nothing of the first plan; the one that carried the run over began the log."""
    path = carried.folder / "positions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if json.loads(line)["leg"]).replace('"leg": 1', '"leg": 0'))
    history = History.open(carried.folder / "plan-to-ba10-0.json")
    assert history.trained is None  # what was noted is how far the second plan came
    for batch, expected in carried.legs[0].items():
        rows = rows_of_batch(history.legs[0], batch)
        assert [(one.origin.stream, one.sample, one.origin.repeat) for one in rows] == expected


def test_a_later_plan_of_a_run_without_positions_is_not_counted_from_its_first_batch(carried):
    (carried.folder / "positions.jsonl").unlink()
    for path in (carried.folder, carried.folder / "plan.json"):
        with pytest.raises(FormatError, match=r"nobody noted where .*; its first plan, .*/plan-to-ba10-0.json, can be"):
            History.open(path)


def test_the_losses_of_each_leg_are_its_own(carried):
    """Where batches became larger the metrics were put aside, and later ones count batches anew."""
    for name, batches, loss in (("metrics-to-ba10.jsonl", range(1, 11), 9.0), ("metrics.jsonl", range(6, 14), 4.0)):
        lines = [{"batch": batch, "metrics": {"loss/train/total": loss}} for batch in batches]
        (carried.folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    older, newer = carried.folder / "plan-to-ba10-0.json", carried.folder
    assert {one.loss for one in show_batch(History.open(newer), 7).losses} == {4.0}
    assert {one.loss for one in show_batch(History.open(newer), 2).losses} == {9.0}
    assert [(one.batch, one.loss) for one in show_batch(History.open(older), 7).losses] == [
        (batch, 9.0) for batch in range(4, 10)
    ]
    (carried.folder / "positions.jsonl").unlink()
    assert {one.loss for one in show_batch(History.open(older), 7).losses} == {9.0}


def test_weights_that_no_log_tells_of_are_noticed(catalog, tmp_path):
    plan = build_plan(catalog, "uniform", 40 * 12 * 8, 12, window_samples=20)
    weights = dict(zip(plan.streams, (0.6, 0.1, 0.1, 0.1, 0.1), strict=True))
    played = play(tmp_path / "run", [(plan, 40)], interval=8, updates={13: weights})
    check_all(played)
    (played.folder / "weights.jsonl").unlink()
    leg = History.open(played.folder).legs[0]
    for batch in (0, 7, 16, 39):
        rows = rows_of_batch(leg, batch)
        assert [(one.origin.stream, one.sample, one.origin.repeat) for one in rows] == played.legs[0][batch]
    with pytest.raises(StateError, match=r"between batches 8 and 16 the run read otherwise than its logs tell"):
        rows_of_batch(leg, 15)


def test_weights_that_no_log_tells_of_are_noticed_also_where_they_came_to_the_same_draws(catalog, tmp_path):
    """They act from batch 11 on, change what batches 11 to 14 read, and every cursor is even again at 16."""
    plan = build_plan(catalog, "uniform", 40 * 12 * 8, 12, window_samples=20)
    weights = dict(zip(plan.streams, (0.21, 0.21, 0.19, 0.19, 0.2), strict=True))
    played = play(tmp_path / "run", [(plan, 16)], interval=8, updates={9: weights})
    check_all(played)
    (played.folder / "weights.jsonl").unlink()
    with pytest.raises(StateError, match=r"between batches 8 and 16 the run read otherwise than its logs tell"):
        rows_of_batch(History.open(played.folder).legs[0], 12)


def test_weights_that_act_from_the_first_batch_on_are_followed(catalog, tmp_path):
    plan = build_plan(catalog, "uniform", 20 * 12 * 8, 12, window_samples=20)
    plan.save(tmp_path / "plan.json")
    weights = dict(zip(plan.streams, (0.6, 0.1, 0.1, 0.1, 0.1), strict=True))
    first = {"update": 0, "batch": 0, "at_batch": 0, "weights": dict.fromkeys(plan.streams, 0.2)}
    second = first | {"update": 1, "weights": weights}
    common = {"format": "mixstream.weights_update"} | dict.fromkeys(("scores", "probe_losses", "eta"))
    (tmp_path / "weights.jsonl").write_text("".join(json.dumps(common | line) + "\n" for line in (first, second)))
    loader = MixtureLoader(plan, weight_lag=0)
    assert loader.set_weights(weights) == 0
    leg = History.open(tmp_path).legs[0]
    for number, batch in enumerate(loader):
        told = zip(batch["stream"].tolist(), batch["sample"].tolist(), strict=True)
        expected = [(plan.streams[stream], sample) for stream, sample in told]
        assert [(one.origin.stream, one.sample) for one in rows_of_batch(leg, number)] == expected


def test_a_log_of_another_run_is_refused(carried, catalog, tmp_path):
    other = build_plan(catalog.__class__(catalog.root, dict(list(catalog.streams.items())[:2])), "uniform", 800, 4)
    played = play(tmp_path / "other", [(other, 9)])
    line = json.loads((carried.folder / "positions.jsonl").read_text().splitlines()[-1])
    line |= {"leg": 0, "plan": plan_digest(other)}
    (played.folder / "positions.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(FormatError, match=r"its position at batch 12 is not of 1 lanes and 2 streams, as the plan is"):
        rows_of_batch(History.open(played.folder).legs[0], 13)


def test_a_plan_of_another_run_is_refused(catalog, tmp_path):
    plan, other = (build_plan(catalog, "uniform", 20 * 4 * 8, 4, seed=seed) for seed in (1, 2))
    played = play(tmp_path / "run", [(plan, 9)])
    other.save(played.folder / "plan.json")
    told = rf"run: positions.jsonl tells of plan {plan_digest(plan)}, plan.json is {plan_digest(other)}; one of the two"
    with pytest.raises(FormatError, match=told):
        History.open(played.folder)
    assert History.open(played.folder / "plan.json").trained is None  # by its own name it is a plan and no run


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("positions.jsonl", "positions.jsonl, line 1: not JSON"),
        ("plan.json", "plan.json: not JSON"),
        ("metrics.jsonl", "metrics.jsonl, line 1: not JSON"),
    ],
)
def test_damaged_files_are_named(carried, damage, told):
    path = carried.folder / damage
    path.write_text(path.read_text()[1:])
    with pytest.raises(FormatError, match=told):
        History.open(carried.folder)


def test_what_is_no_run_is_refused(carried):
    with pytest.raises(FormatError, match=r"not a run's folder, it holds no plan.json; it holds the runs run: name"):
        History.open(carried.folder.parent)
    with pytest.raises(FormatError, match=r"streams: not a run's folder, .*; `mixstream train` makes one"):
        History.open(carried.folder.parent / "streams")
    with pytest.raises(FormatError, match="gone: No such file|gone.*no such file"):
        History.open(carried.folder.parent / "gone")
    assert isinstance(Plan.load(carried.folder / "plan.json"), Plan)
