"""M5: the position is the state, restored at every batch; what does not belong is refused."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import SIZES
from contract import check_resumable
from reading import OTHER, WEIGHTS, global_batches, plan_of, told

from mixstream import Catalog
from mixstream.errors import StateError, WeightsError
from mixstream.loader import MixtureLoader
from mixstream.mixture.apportion import UNIT


@pytest.mark.parametrize("num_workers", [0, 2])
def test_restored_at_every_position_it_goes_on_exactly(catalog, num_workers):
    """M5, with weights pending and acting; with workers, prefetched batches are not in the state."""
    plan = plan_of(catalog, batches=14 if num_workers else 25, max_repeats=6)

    def change(loader, position):
        if position in (3, 4, 9):
            loader.set_weights(OTHER if position % 2 else WEIGHTS)

    check_resumable(lambda: MixtureLoader(plan, 0, 1, num_workers, weight_lag=4), told, change)


def test_a_checkpoint_may_change_ranks_and_workers(catalog):
    """M4 and M5 together: 1 rank, then 2 with workers, then 4, read what one rank reads alone."""
    plan = plan_of(catalog, batches=30)
    alone = [told(batch) for batch in global_batches(plan)]
    loader = MixtureLoader(plan)
    read = [told(batch) for _, batch in zip(range(9), loader, strict=False)]
    state = loader.state_dict()
    for world_size, num_workers, count in ((2, 1, 8), (4, 0, 30)):
        loaders = [MixtureLoader(plan, rank, world_size, num_workers) for rank in range(world_size)]
        for loader in loaders:
            loader.load_state_dict(state)
        for parts in zip(*loaders, strict=True):
            read.append(told({key: torch.cat([part[key] for part in parts]) for key in parts[0]}))
            if len(read) == 9 + count:
                break
        states = {loader.state_dict() for loader in loaders}
        assert len(states) == 1
        state = states.pop()
    assert read == alone


def test_a_state_is_small_and_starting_from_it_costs_nothing(catalog):
    """M5 and M7: state and start do not grow with the position."""
    plan = plan_of(catalog, batches=2_000_000)
    loader = MixtureLoader(plan)
    state = json.loads(loader.state_dict())
    fresh_bytes = len(loader.state_dict())
    batch = 1_500_000
    state["batch"] = batch
    drawn = [int(p * batch * 12) for p in plan.proportions]
    drawn[0] += batch * 12 - sum(drawn)
    state["owed"] = [int(s) * batch * 12 - d * UNIT for s, d in zip(plan.shares, drawn, strict=True)]
    state |= {"cursors": [drawn], "samples": batch * 12}
    loader.load_state_dict(json.dumps(state))
    assert len(loader.state_dict()) < fresh_bytes + 200
    assert fresh_bytes < 4000
    first = next(iter(loader))
    assert first["repeat"].max() > 10_000


def test_a_finished_loader_reads_again_from_an_earlier_state(catalog):
    loader = MixtureLoader(plan_of(catalog, batches=3))
    start = loader.state_dict()
    first = [told(batch) for batch in loader]
    loader.dataset.load_state_dict(start)
    assert [told(batch) for batch in loader] == first
    loader.load_state_dict(start)
    assert [told(batch) for batch in loader] == first


def test_loading_forgets_changes_that_were_to_come(catalog):
    loader = MixtureLoader(plan_of(catalog), weight_lag=2)
    state = loader.state_dict()
    loader.set_weights(OTHER, 5)
    loader.load_state_dict(state)
    assert loader.state_dict() == state


def test_composers_protocol(catalog):
    """Its count of trained samples: at the start, between batches, within one, and set back at an epoch's end."""
    plan = plan_of(catalog, batches=4)
    loader = MixtureLoader(plan)
    states = [loader.state_dict()]
    assert loader.dataset.state_dict(0, True) == states[0]
    iterator = iter(loader)
    for trained in range(4):
        next(iterator)
        states.append(loader.state_dict())
        if trained < 3:
            assert loader.dataset.state_dict(12 * trained, True) == states[trained]
        assert loader.dataset.state_dict(12 * (trained + 1), True) == states[trained + 1]
    assert loader.dataset.state_dict(0, True) == states[4]
    # A second `fit` counts on while the loader has gone ahead: refused, or states would skip batches.
    again = MixtureLoader(plan)
    iterator = iter(again)
    for _ in range(3):
        next(iterator)
    with pytest.raises(StateError, match="has trained 1 batches, the loader has handed out 3: batches were skipped"):
        again.dataset.state_dict(12, True)
    # A trainer that begins to count at a state that was loaded by hand.
    by_hand = MixtureLoader(plan)
    by_hand.load_state_dict(states[2])
    next(iter(by_hand))
    assert by_hand.dataset.state_dict(12, True) == states[3]
    assert by_hand.dataset.state_dict(0, True) == states[2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 3}, "seed was 17, is 3"),
        ({"weights": OTHER}, r"stream ca.tales weight was 0\.3, is 0\.05"),
        ({"batches": 31}, "num_batches was 30, is 31"),
        ({"max_repeats": 50}, r"stream ca.tales max_repeats was None, is 50\.0"),
    ],
)
def test_a_state_of_another_plan_is_refused_with_the_difference(catalog, change, message):
    state = MixtureLoader(plan_of(catalog)).state_dict()
    with pytest.raises(StateError, match=message):
        MixtureLoader(plan_of(catalog, **change)).load_state_dict(state)


def test_a_state_of_other_streams_is_refused(catalog):
    state = MixtureLoader(plan_of(catalog)).state_dict()
    fewer = Catalog(catalog.root, {name: catalog[name] for name in list(SIZES)[:4]})
    loader = MixtureLoader(plan_of(fewer, weights="uniform"))
    with pytest.raises(StateError, match="stream gl.tales is gone"):
        loader.load_state_dict(state)
    with pytest.raises(StateError, match="stream gl.tales is new"):
        MixtureLoader(plan_of(catalog)).load_state_dict(loader.state_dict())


@pytest.mark.parametrize("state", ["", "{", "[]", "[" * 100_000, '{"format": "x", "version": 1}', None, 5])
def test_what_is_no_state_is_refused(catalog, state):
    with pytest.raises(StateError, match="not a state of mixstream's loader"):
        MixtureLoader(plan_of(catalog)).load_state_dict(state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": -3}, "not a state"),
        ({"batch": "3"}, "not a state"),
        ({"batch": 3}, "samples of its batches are False"),
        ({"samples": 3}, "draws are 0, expected 3"),
        ({"cursors": [[0] * 5, [0] * 5]}, r"lanes are \{2\}, expected \{1\}"),
        ({"growth": {"la.new": []}}, "streams that have grown"),
        ({"end_batch": 10**9}, "batches up to its end"),
        ({"cursors": [[1]]}, "streams counted"),
        ({"owed": [1, 0, 0, 0, 0]}, "units owed are 1, expected 0"),
        ({"shares": [0] * 5}, "units of shares are 0"),
        ({"cursors": [[2**70] * 5]}, "not a state"),
        ({"owed": [2**70, -(2**70), 0, 0, 0]}, "not a state"),
        ({"pending": [[5, {"ca.tales": 1.0}]]}, "no weight for"),
        ({"pending": [[99, OTHER]]}, "weights for batch 99"),
        ({"plan": None}, "not a state"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_a_damaged_state_is_refused(catalog, change, message):
    loader = MixtureLoader(plan_of(catalog))
    state = json.loads(loader.state_dict()) | change
    with pytest.raises((StateError, WeightsError), match=message):
        loader.load_state_dict(json.dumps(state))
