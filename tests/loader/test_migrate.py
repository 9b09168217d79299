"""A run carried over to other plans: no sample comes again before its turn, budgets hold, states resume exactly."""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from dataclasses import dataclass

import pytest
from conftest import write_stream
from contract import check_resumable
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import told

from mixstream import Catalog, build_plan
from mixstream.errors import BudgetError, StateError
from mixstream.loader import MixtureLoader
from mixstream.mixture.lanes import lane_bounds

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


@pytest.fixture
def root(tmp_path):
    return tmp_path / "streams"


def lay_out(root, versions, sizes):
    """Make `root` a folder of the streams {name: size}."""
    root.mkdir(exist_ok=True)
    for link in root.iterdir():
        link.unlink()
    for name, size in sizes.items():
        (root / name).symlink_to(versions[name, size] / name)
    return Catalog.open(root)


@dataclass
class Turn:
    """The repeat of a stream that a lane is in, its draws so far, and the lane's samples."""

    repeat: int = 0
    drawn: int = 0
    size: int = 0


def note(plan, batch, drawn, turns):
    """Note a batch: no sample comes again in a repeat, and no repeat begins in a lane before the last is complete."""
    sizes = {entry.name: entry.num_samples for entry in plan.entries}
    for row, (stream, sample, repeat) in enumerate(zip(*told(batch), strict=True)):
        name, lane = plan.streams[stream], row * plan.lanes // plan.batch_size
        assert (name, sample, repeat) not in drawn
        drawn.add((name, sample, repeat))
        turn = turns.setdefault((name, lane), Turn())
        if repeat != turn.repeat:
            assert (repeat, turn.drawn) == (turn.repeat + 1, turn.size)
            turn.repeat, turn.drawn = repeat, 0
        turn.drawn += 1
        bounds = lane_bounds(name, 0, sizes[name], plan.lanes)
        turn.size = bounds[lane + 1] - bounds[lane]


def plan_for(catalog, read, batches, batch_size, weights, max_repeats, lanes):
    weights = dict(zip(catalog.names, weights, strict=False))
    total = sum(weights.values())
    weights = {name: weight / total for name, weight in weights.items()}
    num_batches = -(-read // batch_size) + batches
    return build_plan(
        catalog,
        weights,
        num_batches * batch_size * 8,
        batch_size,
        max_repeats=max_repeats,
        lanes=lanes,
        window_samples=9,
    )


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_migrations_read_no_sample_before_its_turn(versions, root, data):
    """M2 and M3 over streams that come, go and grow, and over batch sizes, weights and budgets that change."""
    lanes = data.draw(st.sampled_from([1, 2, 3]))
    drawn: set[tuple[str, int, int]] = set()
    turns: dict[tuple[str, int], Turn] = {}
    sizes = dict.fromkeys(SIZES, 0)
    state = None
    for _ in range(data.draw(st.integers(2, 4))):
        names = sorted(data.draw(st.sets(st.sampled_from(sorted(SIZES)), min_size=1)))
        for name in names:
            sizes[name] = data.draw(st.sampled_from([size for size in SIZES[name] if size >= sizes[name]]))
        catalog = lay_out(root, versions, {name: sizes[name] for name in names})
        weights = data.draw(st.lists(st.floats(0.01, 1), min_size=len(names), max_size=len(names)))
        batch_size = lanes * data.draw(st.integers(1, 5))
        repeats = data.draw(st.sampled_from([None, 2.0, 3.5, 20.0]))
        try:
            plan = plan_for(catalog, len(drawn), data.draw(st.integers(1, 15)), batch_size, weights, repeats, lanes)
        except BudgetError:
            continue
        before = set(drawn)
        loader = MixtureLoader(plan)
        if state is not None:
            loader.load_state_dict(state, migrate=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # budgets may end it early
            for batch in loader:
                note(plan, batch, drawn, turns)
        state = loader.state_dict()
        after = Counter(name for name, _, _ in drawn)
        assert loader.ledger().drawn.tolist() == [after[name] for name in plan.streams]
        for name in names:
            new = [repeat for own, _, repeat in drawn - before if own == name]
            if repeats is not None and new:
                assert after[name] <= repeats * sizes[name]
                assert max(new) < math.ceil(repeats)


@pytest.mark.parametrize("lanes", [1, 2])
def test_samples_that_came_late_do_not_let_the_others_exceed_their_budget(versions, root, lanes):
    """Of 14 samples, read 1.5 times, and 21 that came then: two repeats are 28 + 21 draws, not 70."""
    first = MixtureLoader(plan_for(lay_out(root, versions, {"ca.a": 14}), 0, 7, 3 * lanes, [1], None, lanes))
    for _, _batch in zip(range(7 // lanes), first, strict=False):
        pass
    grown = lay_out(root, versions, {"ca.a": 35, "en.a": 42})
    read = first.ledger().drawn.sum()
    loader = MixtureLoader(
        plan_for(grown, read, (100 - read) // (3 * lanes), 3 * lanes, [0.9, 0.1], {"ca.a": 2}, lanes)
    )
    loader.load_state_dict(first.state_dict(), migrate=True)
    repeats = [repeat for batch in loader for own, _, repeat in zip(*told(batch), strict=True) if own == 0]
    assert max(repeats) == 1
    assert loader.ledger().drawn[0] == 49


def migrated(versions, root, lanes=2):
    """Return a plan, and a state of another plan after 11 of 20 batches that it can go on from."""
    catalog = lay_out(root, versions, {"ca.a": 14, "en.a": 42, "gl.a": 23})
    first = MixtureLoader(plan_for(catalog, 0, 20, 6, [0.5, 0.3, 0.2], None, lanes))
    for _, _batch in zip(range(11), first, strict=False):
        pass
    catalog = lay_out(root, versions, {"ca.a": 35, "en.a": 42, "eu.a": 7})
    return plan_for(catalog, 66, 12, 4, [0.3, 0.3, 0.4], 9.0, lanes), first.state_dict()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_states_of_a_migrated_run_resume_at_every_position(versions, root, num_workers):
    plan, state = migrated(versions, root)
    carried = MixtureLoader(plan)
    differences = carried.load_state_dict(state, migrate=True)
    assert any("gl.a is gone" in told for told in differences)
    assert any("eu.a is new" in told for told in differences)
    start = carried.state_dict()

    def make():
        loader = MixtureLoader(plan, num_workers=num_workers)
        loader.load_state_dict(start)
        return loader

    def change(loader, position):
        if position == 2:
            loader.set_weights({"ca.a": 0.1, "en.a": 0.1, "eu.a": 0.8})

    check_resumable(make, told, change)


def test_composer_counts_on_in_a_run_whose_batch_size_changed(versions, root):
    """66 samples were read in batches of 6; those of 4 go on at 68, and Composer's count at 66."""
    plan, state = migrated(versions, root)
    carried = MixtureLoader(plan)
    carried.load_state_dict(state, migrate=True)
    loader = MixtureLoader(plan)
    loader.dataset.load_state_dict(carried.state_dict())
    states = [loader.state_dict()]
    iterator = iter(loader)
    for trained in range(5):
        next(iterator)
        states.append(loader.state_dict())
        assert loader.dataset.state_dict(66 + 4 * trained, True) == states[trained]
        assert loader.dataset.state_dict(66 + 4 * (trained + 1), True) == states[trained + 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 3}, "state's plan has seed=17, this one 3; it decides the order of every stream"),
        ({"lanes": 1}, "state's plan has lanes=2, this one 1"),
        ({"window_samples": 8}, "state's plan has window_samples=9, this one 8"),
        ({"budget_tokens": 60 * 8}, "the state has read 66 samples, the plan's whole run is 60"),
    ],
)
def test_what_would_lose_the_order_is_refused(versions, root, change, message):
    _, state = migrated(versions, root)
    options = {"budget_tokens": 900, "batch_size": 6, "lanes": 2, "window_samples": 9, "seed": 17} | change
    other = build_plan(Catalog.open(root), "uniform", **options)
    with pytest.raises(StateError, match=message):
        MixtureLoader(other).load_state_dict(state, migrate=True)


def test_a_stream_that_shrank_or_is_another_is_refused(versions, root, tmp_path):
    _, state = migrated(versions, root)
    write_stream(tmp_path / "other", "en.a", 9, 49)  # longer, with other tokens
    write_stream(tmp_path / "less", "en.a", 1, 35)
    for folder, size in (("other", 49), ("less", 35)):
        (root / "en.a").unlink()
        (root / "en.a").symlink_to(tmp_path / folder / "en.a")
        plan = plan_for(Catalog.open(root), 66, 9, 4, [1, 1, 1], None, 2)
        with pytest.raises(StateError, match=f"stream 'en.a' has changed: it had 42 samples, .* and has {size}, .*"):
            MixtureLoader(plan).load_state_dict(state, migrate=True)


def test_a_stream_that_was_read_from_another_column_is_refused(versions, root):
    plan, state = migrated(versions, root)
    told = json.loads(state)
    told["plan"]["entries"][0]["token_column"] = "input_ids"
    with pytest.raises(StateError, match="was read from column 'input_ids', is now from 'tokens'"):
        MixtureLoader(plan).load_state_dict(json.dumps(told), migrate=True)
    del told["plan"]["entries"][0]["token_column"]
    with pytest.raises(StateError, match="not a state of mixstream's loader: it: key 'plan.entries.0.token_column' is"):
        MixtureLoader(plan).load_state_dict(json.dumps(told), migrate=True)


def test_a_state_of_the_same_plan_is_just_loaded(versions, root):
    plan, state = migrated(versions, root)
    loader = MixtureLoader(plan)
    assert loader.load_state_dict(state, migrate=True)
    again = MixtureLoader(plan)
    assert again.load_state_dict(loader.state_dict(), migrate=True) == []
    assert again.state_dict() == loader.state_dict()
