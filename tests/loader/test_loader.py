"""M1-M4, M6 and M10 on real streams, through the loader that users call."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SIZES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading import OTHER, WEIGHTS, global_batches, plan_of, told

import mixstream
from mixstream import Catalog, Plan
from mixstream.errors import CacheError, MixtureError, PlanSpentError, ShardError, StateError, StreamError, WeightsError
from mixstream.loader import MixtureLoader
from mixstream.mixture.apportion import UNIT


def test_a_batch_is_what_it_says(streams, catalog):
    plan = plan_of(catalog)
    batches = global_batches(plan)
    assert len(batches) == 30
    for batch in batches:
        assert {key: (column.dtype, tuple(column.shape)) for key, column in batch.items()} == {
            "input_ids": (torch.int64, (12, 8)),
            "labels": (torch.int64, (12, 8)),
            "stream": (torch.int64, (12,)),
            "sample": (torch.int64, (12,)),
            "repeat": (torch.int64, (12,)),
        }
        assert torch.equal(batch["input_ids"], batch["labels"])
        for row in range(12):
            # conftest.write_stream: a row tells its stream and its number.
            stream, high, low, *rest = batch["input_ids"][row].tolist()
            assert plan.streams[batch["stream"][row]] == list(SIZES)[stream]
            assert 256 * high + low == batch["sample"][row]
            assert rest == [0, 1, 2, 3, 4]


def test_shares_are_exact_at_every_batch(catalog):
    """M1, counted from what is read."""
    plan = plan_of(catalog, batches=60, batch_size=7)
    drawn = np.zeros(5)
    for number, batch in enumerate(global_batches(plan), start=1):
        drawn += np.bincount(batch["stream"].numpy(), minlength=5)
        assert np.abs(drawn - number * 7 * plan.proportions).max() < 1


def test_no_sample_comes_again_before_its_stream_is_through(catalog):
    """M2, and M3: no sample more often than its budget, rounded up."""
    plan = plan_of(catalog, batches=60, max_repeats={"eu.tales": 2.5, "*": 9})
    seen: Counter = Counter()
    for batch in global_batches(plan):
        for stream, sample, repeat in zip(*told(batch), strict=True):
            assert seen[stream, sample] == repeat
            seen[stream, sample] += 1
            complete = min(seen[stream, row] for row in range(plan.sizes[stream]))
            assert repeat <= complete
    eu = plan.streams.index("eu.tales")
    assert sum(count for (stream, _), count in seen.items() if stream == eu) == int(2.5 * 23)
    assert max(seen.values()) <= 9


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (2, 0), (3, 0), (4, 0), (12, 0), (1, 1), (2, 2)])
def test_ranks_and_workers_read_the_same_global_batches(catalog, world_size, num_workers):
    """M4, with a change of weights on the way (M6)."""
    plan = plan_of(catalog)
    changes = {5: OTHER, 11: WEIGHTS}
    alone = [told(batch) for batch in global_batches(plan, weights=changes)]
    assert [told(batch) for batch in global_batches(plan, world_size, num_workers, weights=changes)] == alone


def test_weights_act_at_the_batch_that_was_told(catalog):
    """M6: the batch is returned, is the same with and without workers, and shares change from it on."""
    plan = plan_of(catalog, batches=40)
    loader = MixtureLoader(plan, weight_lag=6)
    batches = []
    for batch in loader:
        batches.append(batch)
        if len(batches) == 10:
            assert loader.set_weights(OTHER) == 16
    before = torch.cat([batch["stream"] for batch in batches[:16]]).bincount() / (16 * 12)
    after = torch.cat([batch["stream"] for batch in batches[16:]]).bincount() / (24 * 12)
    assert before.tolist() == pytest.approx(list(WEIGHTS.values()), abs=1 / (16 * 12))
    assert after.tolist() == pytest.approx(list(OTHER.values()), abs=2 / (24 * 12))


def test_replaying_the_changes_gives_the_same_data(catalog):
    """M6: a log of (batch, weights) is enough."""
    plan = plan_of(catalog, batches=40)
    loader = MixtureLoader(plan, weight_lag=3)
    log, first = [], []
    for batch in loader:
        first.append(told(batch))
        if len(first) in (4, 5, 20):
            new = OTHER if len(first) % 2 else WEIGHTS
            log.append((loader.set_weights(new), new))
    again = MixtureLoader(plan, weight_lag=3)
    for at_batch, new in log:
        again.set_weights(new, at_batch)
    assert [told(batch) for batch in again] == first


def test_a_second_change_for_a_batch_replaces_the_first(catalog):
    loader = MixtureLoader(plan_of(catalog), weight_lag=2)
    loader.set_weights(OTHER, 5)
    loader.set_weights(WEIGHTS, 5)
    assert json.loads(loader.state_dict())["pending"] == [[5, WEIGHTS]]


def test_bad_changes_are_refused(catalog):
    loader = MixtureLoader(plan_of(catalog), weight_lag=4)
    with pytest.raises(
        StateError, match=r"at_batch=3, but 0 of 30 batches are consumed .* choose 4 or later, below 30"
    ):
        loader.set_weights(OTHER, 3)
    for at_batch, message in [(30, "below 30"), (12.5, "expected a whole number"), ("12", "expected a whole number")]:
        with pytest.raises(StateError, match=message):
            loader.set_weights(OTHER, at_batch)
    loader.set_weights(OTHER, np.int64(12))
    loader.load_state_dict(loader.state_dict())  # numpy's numbers are JSON's in the state
    with pytest.raises(WeightsError, match="no weight for"):
        loader.set_weights({"ca.tales": 1.0})
    with pytest.raises(WeightsError, match="nan"):
        loader.set_weights({**OTHER, "ca.tales": float("nan")})


def test_every_rank_reads_a_fair_sample(catalog):
    """M10: with four equal weights and four ranks, an exact interleaver gives every rank one stream."""
    four = Catalog(catalog.root, {name: catalog[name] for name in list(SIZES)[:4]})
    plan = plan_of(four, batches=200, batch_size=4, weights="uniform")
    for rank in range(4):
        streams = torch.cat([batch["stream"] for batch in MixtureLoader(plan, rank, 4)])
        counts = streams.bincount(minlength=4)
        # 200 draws of one row out of four, each a quarter: a standard deviation is 6.
        assert counts.min() > 50 - 5 * 6.2
        assert counts.max() < 50 + 5 * 6.2


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_history_of_weights_keeps_the_invariants(catalog, data):
    """M1 (to the measured bound under changes), M2, M3, M5 and M6 together, over random runs."""
    batch_size = data.draw(st.sampled_from([5, 8, 24]))
    repeats = data.draw(st.sampled_from([None, 12.0, 30.0]))
    plan = plan_of(catalog, 30, batch_size, "uniform", max_repeats=repeats, floor=0.02)
    changes = data.draw(st.dictionaries(st.integers(0, 25), st.lists(st.floats(0.01, 1), min_size=5, max_size=5)))
    stop = data.draw(st.integers(1, 29))

    def act(loader):
        new = changes.get(loader.ledger().batch)
        if new is not None:
            loader.set_weights(dict(zip(plan.streams, (np.array(new) / sum(new)).tolist(), strict=True)))

    def read(loader):
        out = []
        act(loader)
        for batch in loader:
            out.append(told(batch))
            assert np.abs(loader.ledger().owed).max() < 1.2 * UNIT
            if len(out) == stop and loader.ledger().batch == stop:
                states.append(loader.state_dict())
            act(loader)
        return out

    states: list[str] = []
    whole = read(MixtureLoader(plan, weight_lag=2))
    seen: Counter = Counter()
    for batch in whole:
        for stream, sample, repeat in zip(*batch, strict=True):
            assert seen[stream, sample] == repeat
            seen[stream, sample] += 1
    assert all(count <= np.ceil(repeats or 1000) for count in seen.values())
    resumed = MixtureLoader(plan, weight_lag=2)
    resumed.load_state_dict(states[0])
    assert read(resumed) == whole[stop:]


def test_the_end_is_clean_and_is_told(catalog):
    loader = MixtureLoader(plan_of(catalog, batches=3))
    assert len(list(loader)) == len(loader) == 3
    with pytest.raises(PlanSpentError, match=r"all 3 batches of the plan have been read \(288 tokens\)"):
        next(iter(loader))
    state = loader.state_dict()
    after = MixtureLoader(plan_of(catalog, batches=3))
    after.load_state_dict(state)
    assert list(after) == []
    with pytest.raises(PlanSpentError):
        list(after)


def test_a_break_does_not_lose_a_batch(catalog):
    plan = plan_of(catalog, batches=10)
    loader = MixtureLoader(plan)
    read = []
    for batch in loader:
        read.append(told(batch))
        if len(read) == 4:
            break
    read += [told(batch) for batch in loader]
    assert read == [told(batch) for batch in MixtureLoader(plan)]


def test_streams_that_are_spent_end_the_run_with_a_warning(catalog):
    plan = plan_of(catalog, batches=40, max_repeats={"eu.tales": 4})
    loader = MixtureLoader(plan, weight_lag=0)
    read = 0
    only = dict.fromkeys(plan.streams, 0.0) | {"eu.tales": 1.0}
    with pytest.warns(UserWarning, match=r"ends after \d+ of 40 batches: .* used up their repeat budgets"):
        for _ in loader:
            read += 1
            if read == 5:
                loader.set_weights(only)
    assert loader.ledger().drawn[plan.streams.index("eu.tales")] <= 4 * 23
    assert 5 < read < 40


def test_new_weights_for_none_but_spent_streams_end_a_run_with_a_floor_only_when_all_are_spent(catalog):
    """A stream of weight 0 is at the floor, and above it where the others cannot fill the run."""
    plan = plan_of(catalog, batches=40, weights="uniform", max_repeats={"eu.tales": 6}, floor=0.05)
    loader = MixtureLoader(plan, weight_lag=0)
    for read, _ in enumerate(loader, start=1):
        if read == 5:
            loader.set_weights(dict.fromkeys(plan.streams, 0.0) | {"eu.tales": 1.0})
    assert read == 40
    assert loader.ledger().drawn[plan.streams.index("eu.tales")] == 6 * 23


def test_an_iterator_that_was_overtaken_is_refused_and_spoils_nothing(catalog):
    plan = plan_of(catalog, batches=12)
    alone = [told(batch) for batch in MixtureLoader(plan)]
    loader = MixtureLoader(plan)
    first = iter(loader)
    states = [loader.state_dict()]
    for _ in range(6):
        next(first)
        states.append(loader.state_dict())
    loader.load_state_dict(states[3])
    with pytest.raises(StateError, match="this iterator is stale"):
        next(first)
    second, third = iter(loader), iter(loader)
    assert told(next(second)) == alone[3]
    assert told(next(third)) == alone[4]
    with pytest.raises(StateError, match="this iterator is stale"):
        next(second)
    assert loader.state_dict() == states[5]
    assert [told(batch) for batch in third] == alone[5:]


def test_weights_that_the_caller_changes_later_stay_as_they_were_set(catalog):
    loader = MixtureLoader(plan_of(catalog), weight_lag=2)
    mine = dict(OTHER)
    loader.set_weights(mine, 5)
    mine["ca.tales"] = 9.0
    assert json.loads(loader.state_dict())["pending"] == [[5, OTHER]]


def test_held_out_splits_can_be_planned_and_read(streams):
    plan = plan_of(Catalog.open(streams, split="heldout"), batches=3, weights="uniform")
    batches = global_batches(plan)
    eu = plan.streams.index("eu.tales")
    rows = {s for batch in batches for stream, s in zip(*told(batch)[:2], strict=True) if stream == eu}
    assert rows <= set(range(6))
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_ranks_that_cannot_share_a_batch_are_refused(catalog):
    plan = plan_of(catalog)
    with pytest.raises(MixtureError, match="dealt to 5 ranks evenly; it can to 1, 2, 3, 4, 6, 12"):
        MixtureLoader(plan, 0, 5)
    with pytest.raises(MixtureError, match="rank=2 of world_size=2"):
        MixtureLoader(plan, 2, 2)
    for rank, world_size in ((-1, 2), (0, 0), (0, -1), ("0", 1), (0.5, 2), (True, 2)):
        with pytest.raises(MixtureError, match=r"(rank|world_size)=.*; expected a whole number"):
            MixtureLoader(plan, rank, world_size)


def test_workers_that_would_read_beyond_the_lag_are_refused(catalog):
    with pytest.raises(MixtureError, match="num_workers=3 read at least 3 batches ahead, .* weight_lag of at least 3"):
        MixtureLoader(plan_of(catalog), num_workers=3, weight_lag=2)
    for option in ({"num_workers": -1}, {"num_workers": 1.5}, {"weight_lag": "8"}):
        with pytest.raises(MixtureError, match=r"(num_workers|weight_lag)=.*; expected a whole number of at least 0"):
            MixtureLoader(plan_of(catalog), **option)


@pytest.mark.parametrize("limit", ["a lot", 0, -1, "1,5 GB", True])
def test_a_cache_limit_that_is_no_size_is_refused(catalog, limit):
    with pytest.raises(CacheError, match=r"expected bytes above 0, as a number or such as '200 GB'"):
        MixtureLoader(plan_of(catalog), cache_limit=limit)


@pytest.fixture
def copied(streams, tmp_path) -> Path:
    shutil.copytree(streams, tmp_path / "streams")
    return tmp_path / "streams"


def test_a_stream_that_changed_since_the_plan_is_refused(copied, edit_json):
    plan = plan_of(Catalog.open(copied))

    def change(index):
        index["shards"][0]["raw_data"]["hashes"]["xxh64"] = "0"

    edit_json(copied / "eu.tales" / "index.json", change)
    with pytest.raises(StreamError, match=r"stream 'eu.tales' has changed since the plan was made: fingerprint"):
        MixtureLoader(plan)


def test_a_truncated_or_missing_shard_is_refused_before_the_run(copied):
    plan = plan_of(Catalog.open(copied))
    shard = copied / "gl.tales" / "shard.00002.mds"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(ShardError, match=r"shard.00002.mds: \d+ bytes, index.json says \d+ bytes"):
        MixtureLoader(plan)
    shard.unlink()
    with pytest.raises(ShardError, match=r"shard.00002.mds: no such file, index.json says"):
        MixtureLoader(plan)


def test_an_index_that_lies_about_samples_is_refused_before_the_run(copied, edit_json):
    """Else every row behind the shard would have another number than its own."""

    def lie(index):
        index["shards"][3]["samples"] -= 1

    def follow(manifest):
        manifest["num_samples"] -= 1
        manifest["num_tokens"] -= 8

    edit_json(copied / "en.tales" / "index.json", lie)
    edit_json(copied / "en.tales" / "stream.json", follow)
    plan = plan_of(Catalog.open(copied))
    with pytest.raises(ShardError, match="en.tales/shard.00003.mds: header says 7 samples, index.json says 6; one of"):
        MixtureLoader(plan)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_shard_truncated_during_the_run_ends_it_with_its_name(copied, num_workers):
    plan = plan_of(Catalog.open(copied), batches=200)
    loader = MixtureLoader(plan, num_workers=num_workers)
    shard = copied / "en.tales" / "shard.00030.mds"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ShardError, match=r"shard.00030.mds"):
        for _ in loader:
            pass


def test_ranks_come_from_the_launcher_or_torch_distributed(catalog, monkeypatch):
    plan = plan_of(catalog)
    second = next(iter(MixtureLoader(plan, 1, 2)))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert told(next(iter(MixtureLoader(plan)))) == told(second)


def test_two_processes_read_the_same_as_one(catalog, tmp_path):
    """M4 with torch.distributed, in processes of their own, with other hash seeds."""
    plan = plan_of(catalog, batches=6)
    plan.save(tmp_path / "plan.json")
    script = tmp_path / "read.py"
    script.write_text(
        "import json, sys, torch\n"
        "import torch.distributed as dist\n"
        "from mixstream import Plan\n"
        "from mixstream.loader import MixtureLoader\n"
        "dist.init_process_group('gloo')\n"
        "batches = [b['sample'].tolist() for b in MixtureLoader(Plan.load(sys.argv[1]))]\n"
        "json.dump(batches, open(f'{sys.argv[1]}.{dist.get_rank()}', 'w'))\n"
        "dist.destroy_process_group()\n"
    )
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    subprocess.run(
        [sys.executable, *command, str(tmp_path / "plan.json")],
        check=True,
        timeout=120,
        capture_output=True,
        env={**os.environ, "PYTHONHASHSEED": "123", "OMP_NUM_THREADS": "1"},
    )
    parts = [json.loads((tmp_path / f"plan.json.{rank}").read_text()) for rank in range(2)]
    alone = [batch["sample"].tolist() for batch in MixtureLoader(plan)]
    assert [first + second for first, second in zip(*parts, strict=True)] == alone
    assert mixstream.__version__
