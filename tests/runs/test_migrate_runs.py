"""Runs that are carried over to a changed recipe or changed streams: what they read, count, keep and refuse."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections import Counter
from pathlib import Path

import pytest
from conftest import BYTE, SIZES, write_stream
from tiny import RUN, XDOGE, chain, save, single

from mixstream.callbacks.exposure import Exposure
from mixstream.cli import main
from mixstream.errors import StateError
from mixstream.mixture.plan import Plan
from mixstream.runs.chain import run_recipe
from mixstream.runs.folder import RunFolder
from mixstream.runs.recipe import load_recipe

NAMES = list(SIZES)


class PowerCut(BaseException):
    pass


@pytest.fixture
def copied(streams, tmp_path) -> Path:
    shutil.copytree(streams, tmp_path / "streams")
    return tmp_path / "streams"


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Return a function that runs a recipe, up to a batch if one is given, and tells what it trained on."""

    def run(content, stop_at=None, migrate=False):
        seen: dict[int, list[tuple[str, int, int]]] = {}

        def note(self, state, logger):
            batch = int(state.timestamp.batch)
            if batch == stop_at:
                raise PowerCut
            names = [self._names[number] for number in state.batch["stream"].tolist()]
            for name, tokens, row in zip(names, state.batch["input_ids"], state.batch["sample"].tolist(), strict=True):
                # conftest.write_stream: a row tells its stream and its number.
                assert (NUMBERS[name], row) == (tokens[0], 256 * tokens[1] + tokens[2])
            seen[batch] = list(zip(names, state.batch["sample"].tolist(), state.batch["repeat"].tolist(), strict=True))
            rates[batch] = state.schedulers[0].get_last_lr()[0]

        monkeypatch.setattr(Exposure, "batch_start", note, raising=False)
        recipe = load_recipe(save(tmp_path / "recipe.yaml", content))
        with contextlib.suppress(PowerCut):
            run_recipe(recipe, lambda name, run: None, migrate)
        return seen

    rates: dict[int, float] = {}
    run.rates = rates
    return run


NUMBERS = {name: number for number, name in enumerate(NAMES)} | {"an.tales": 7}


def mixture(**changes):
    return RUN["mixture"] | changes


def in_turn(batches, sizes) -> Counter:
    """Check M2 over all that was read, in order: a sample comes again only when its stream is through."""
    seen: Counter = Counter()
    through: Counter = Counter()
    for draws in batches:
        for name, sample, repeat in draws:
            assert seen[name, sample] == repeat, f"{name} {sample} is read for the {seen[name, sample] + 1}th time"
            seen[name, sample] += 1
            through[name, repeat] += 1
            assert repeat == 0 or through[name, repeat - 1] == sizes[name], f"{name} {sample} comes before its turn"
    return seen


def test_a_stream_that_was_added_begins_and_the_others_go_on(copied, tmp_path, train):
    content = single(copied, tmp_path / "run")
    before = train(content, stop_at=13)  # the newest checkpoint is of batch 10
    write_stream(copied, "an.tales", 7, 37, heldout=4)
    with pytest.raises(
        StateError, match=r"stream an.tales is new; .*carry this run over to it \(--migrate\), choose another folder"
    ):
        train(content)
    after = train(content, migrate=True)
    assert sorted(after) == list(range(10, 24))
    read = [*(before[batch] for batch in range(10)), *after.values()]
    seen = in_turn(read, SIZES | {"an.tales": 37})
    by_name = Counter(name for draws in after.values() for name, _, _ in draws)
    assert all(abs(count - 14 * 10 / 6) < 1 for count in by_name.values())
    assert seen.total() == 240
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["batches"], result["tokens"]) == (24, 24 * 80)
    assert "an.tales" in result["heldout"]
    assert "an.tales" in Plan.load(tmp_path / "run" / "plan.json").streams
    assert Plan.load(tmp_path / "run" / "plan-to-ba10.json").streams == tuple(NAMES)
    # Metrics go on: every batch once.
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["batch"] for line in lines if "loss/train/total" in line["metrics"]] == list(range(1, 25))
    share = next(
        line["metrics"]["mixture/read/an.tales"] for line in lines if "mixture/read/an.tales" in line["metrics"]
    )
    assert share == sum(name == "an.tales" for batch in (10, 11) for name, _, _ in after[batch]) / 40


def test_a_stream_that_was_dropped_and_comes_back_goes_on_where_it_was(copied, tmp_path, train):
    content = single(copied, tmp_path / "run")
    before = train(content, stop_at=12)
    (copied / "eu.tales").rename(tmp_path / "eu.tales")
    without = train(content, stop_at=17, migrate=True)
    (tmp_path / "eu.tales").rename(copied / "eu.tales")
    back = train(content, migrate=True)
    read = [*(before[b] for b in range(10)), *(without[b] for b in range(10, 15)), *(back[b] for b in range(15, 24))]
    assert not any(name == "eu.tales" for b in range(10, 15) for name, _, _ in without[b])
    assert in_turn(read, SIZES).total() == 240
    kept = [Plan.load(tmp_path / "run" / f"plan-to-ba{batch}.json").streams for batch in (10, 15)]
    assert [len(streams) for streams in kept] == [5, 4]


def test_a_stream_that_has_grown_reads_nothing_twice_before_its_turn(copied, tmp_path, train):
    """gl.tales is cut to its first shards, and is whole again later."""
    whole = copied / "gl.tales"
    shutil.copytree(whole, tmp_path / "whole")
    index = json.loads((whole / "index.json").read_text())
    index["shards"] = index["shards"][:-2]
    size = sum(shard["samples"] for shard in index["shards"])
    (whole / "index.json").write_text(json.dumps(index))
    manifest = json.loads((whole / "stream.json").read_text())
    (whole / "stream.json").write_text(json.dumps(manifest | {"num_samples": size, "num_tokens": size * 8}))
    content = single(copied, tmp_path / "run")
    before = train(content, stop_at=16)  # the newest checkpoint is of batch 15: 30 draws of each
    shutil.rmtree(whole)
    (tmp_path / "whole").rename(whole)
    with pytest.raises(StateError, match=rf"stream gl.tales num_samples was {size}, is 31"):
        train(content)
    after = train(content, migrate=True)
    draws = [(s, r) for b in (*range(15), *range(15, 24)) for n, s, r in {**before, **after}[b] if n == "gl.tales"]
    # What was added is read at the end of the repeat in which it came, which is the second of what was there.
    assert sorted(draws[:size]) == [(sample, 0) for sample in range(size)]
    assert max(sample for sample, _ in draws[size : 2 * size]) < size <= min(sample for sample, _ in draws[2 * size :])
    assert len(set(draws)) == len(draws) == 48
    assert {repeat for _, repeat in draws[size:]} == {1}


@pytest.mark.parametrize(("batch_size", "batch"), [(15, 7), (4, 25)])
def test_another_batch_size_goes_on_and_is_resumed_exactly(copied, tmp_path, train, batch_size, batch):
    """100 samples read in tens are 6 2/3 batches of 15: the eighth, number 7, is the next; 25 whole ones of 4."""
    content = single(copied, tmp_path / "run")
    before = train(content, stop_at=13)
    read = [before[b] for b in range(10)]
    training = RUN["training"] | {"microbatch_size": batch_size, "heldout_batches": 3}
    other = content | {"mixture": mixture(batch_size=batch_size), "training": training}
    num_batches = 240 // batch_size
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    whole = train(other, migrate=True)
    assert sorted(whole) == list(range(batch, num_batches))
    in_turn([*read, *whole.values()], SIZES)
    rates = dict(train.rates)
    # The learning rate is that of the new count, but for the first batch, which has that of the checkpoint.
    assert rates[num_batches - 1] == pytest.approx(cosine(num_batches - 1, num_batches))
    assert rates[batch + 1] == pytest.approx(cosine(batch + 1, num_batches))
    assert rates[batch] == pytest.approx(cosine(10, 24))
    # Metrics are counted anew, those so far are kept.
    kept = [json.loads(line) for line in (tmp_path / "run" / "metrics-to-ba10.jsonl").read_text().splitlines()]
    assert [line["batch"] for line in kept if "loss/train/total" in line["metrics"]] == list(range(1, 11))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    numbered = [line["batch"] for line in lines if "loss/train/total" in line["metrics"]]
    assert numbered == list(range(batch + 1, num_batches + 1))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert (result["batches"], result["tokens"]) == (num_batches, (100 + len(whole) * batch_size) * 8)
    # Cut after a checkpoint of the new count, it goes on from there, without a word of migration.
    later = -(-(batch + 1) // 5) * 5
    again = {**other, "out": str(tmp_path / "again")}
    first = train(again, stop_at=later + 1, migrate=True)
    rest = train(again)
    assert sorted(rest) == list(range(later, num_batches))
    assert {**first, **rest} == whole
    assert json.loads((tmp_path / "again" / "result.json").read_text())["heldout"] == result["heldout"]


def cosine(batch, num_batches):
    """Return Composer's rate of a batch, which it computes while the one before is the last one trained."""
    share = (batch - 1 - 2) / (num_batches - 2)
    return 0.01 * (0.1 + 0.9 * (1 + math.cos(math.pi * share)) / 2)


def test_weights_budgets_and_a_schedule_may_change_and_a_run_that_has_ended_go_on(copied, tmp_path, train):
    content = single(copied, tmp_path / "run")
    read = list(train(content).values())
    changed = content | {"mixture": mixture(weights="natural", max_repeats={"eu.tales": 2.5, "*": 9.0})}
    with pytest.raises(StateError, match=r"has read 1,920 tokens, all of the new plan's; raise mixture.budget_tokens"):
        train(changed, migrate=True)
    assert train(content) == {}  # still the run that has ended
    changed["mixture"] |= {"budget_tokens": 30 * 80, "schedule": [{"at": "27ba", "weights": "uniform"}]}
    after = train(changed, migrate=True)
    assert sorted(after) == list(range(24, 30))
    seen = in_turn([*read, *after.values()], SIZES)
    assert sum(count for (name, _), count in seen.items() if name == "eu.tales") <= int(2.5 * 23)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["batches"] == 30
    assert json.loads((tmp_path / "run" / "result-to-ba24.json").read_text())["batches"] == 24
    assert "natural" not in (tmp_path / "run" / "recipe-to-ba24.yaml").read_text()
    assert train(changed, migrate=True) == {}  # nothing has changed since


@pytest.mark.parametrize("last", ["RunFolder.keep", "_write", "RunFolder.keep_only", "Plan.save"])
def test_a_migration_that_was_cut_is_done_by_the_same_command(copied, tmp_path, train, monkeypatch, last):
    content = single(copied, tmp_path / "run")
    train(content, stop_at=13)
    changed = content | {"mixture": mixture(batch_size=20), "training": RUN["training"] | {"microbatch_size": 20}}
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    whole = train(changed, migrate=True)
    module = {"RunFolder": RunFolder, "Plan": Plan}.get(last.partition(".")[0], "mixstream.runs.migrate")
    name = last.rpartition(".")[2]
    target = (f"{module}.{name}",) if isinstance(module, str) else (module, name)
    again = changed | {"out": str(tmp_path / "other")}
    with monkeypatch.context() as patch:
        patch.setattr(*target, power_cut)
        with pytest.raises(PowerCut):
            run_recipe(load_recipe(save(tmp_path / "cut.yaml", again)), lambda name, run: None, migrate=True)
    assert train(again, migrate=True) == whole
    left = {name: sorted(p.name for p in (tmp_path / name).iterdir()) for name in ("run", "other")}
    assert set(left["run"]) <= set(left["other"])


def power_cut(*arguments):
    raise PowerCut


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 6}, "seed was 5, is 6 .it decides the order of every stream"),
        ({"mixture": mixture(window_samples=21)}, "window_samples was 20, is 21 .it decides the order"),
        ({"mixture": mixture(lanes=2)}, "lanes was 1, is 2 .it decides the order"),
        ({"mixture": mixture(sequence_length=4)}, "sequence_length was 8, is 4 .it decides the order"),
        ({"model": RUN["model"] | {"hidden_size": 32}}, r"hidden_size was 16, is 32 \(the trained parameters"),
        ({"training": RUN["training"] | {"learning_rate": 0.1}}, r"is 0.1 \(a migration changes what is read"),
        ({"method": XDOGE, "kind": "proxy"}, "learnt weights belong to what they were learnt over"),
    ],
)
def test_what_no_migration_changes_is_refused_with_the_reason(copied, tmp_path, train, changes, message):
    content = single(copied, tmp_path / "run")
    train(content, stop_at=6)
    with pytest.raises(StateError, match=rf"this run cannot be carried over: .*{message}.*; leave it as it was, or"):
        train(content | changes, migrate=True)
    with pytest.raises(StateError, match="^((?!--migrate).)*$"):
        train(content | changes)


def test_another_tokenizer_and_another_column_are_refused(copied, tmp_path, train, edit_json):
    content = single(copied, tmp_path / "run")
    train(content, stop_at=6)
    for path in copied.rglob("stream.json"):
        edit_json(path, lambda manifest: manifest["tokenizer"].update(fingerprint="byte-2"))
    with pytest.raises(StateError, match=rf"fingerprint was '{BYTE.fingerprint}', is 'byte-2' \(the model has learnt"):
        train(content, migrate=True)
    edit_json(
        tmp_path / "run" / "plan.json", lambda plan: [entry.update(token_column="ids") for entry in plan["entries"]]
    )
    with pytest.raises(StateError, match="stream ca.tales was read from column 'ids', now from 'tokens'"):
        train(content, migrate=True)


def test_streams_that_were_converted_anew_are_refused(copied, tmp_path, train):
    content = single(copied, tmp_path / "run")
    train(content, stop_at=6)
    shutil.rmtree(copied / "eu.tales")
    write_stream(copied, "eu.tales", 4, 24)
    with pytest.raises(StateError, match=r"stream 'eu.tales' has changed: it had 23 samples"):
        train(content, migrate=True)
    assert Plan.load(tmp_path / "run" / "plan.json").sizes.tolist() == list(SIZES.values())


def test_a_proxy_is_not_carried_over(copied, tmp_path, train):
    content = single(copied, tmp_path / "run", method=XDOGE)
    train(content, stop_at=11)
    log = (tmp_path / "run" / "weights.jsonl").read_text()
    write_stream(copied, "an.tales", 7, 37, heldout=4)
    with pytest.raises(StateError, match=r"stream an.tales is new \(learnt weights belong .* begin another proxy with"):
        train(content, migrate=True)
    assert (tmp_path / "run" / "weights.jsonl").read_text() == log
    shutil.rmtree(copied / "an.tales")
    assert sorted(train(content, migrate=True)) == list(range(10, 24))


def test_the_command_prints_what_has_changed(copied, tmp_path, train, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    content = single(copied, tmp_path / "run")
    train(content, stop_at=6)
    write_stream(copied, "an.tales", 7, 37, heldout=4)
    recipe = str(save(tmp_path / "recipe.yaml", content))
    monkeypatch.setattr(Exposure, "batch_start", lambda *arguments: None)
    for options, code in (([], 2), (["--migrate"], 0)):
        with pytest.raises(SystemExit) as stop:
            main(["train", recipe, *options])
        assert int(stop.value.code or 0) == code
    told = capfd.readouterr().out
    assert "base: to be carried over: stream an.tales is new" in told
    assert "base: going on from ba5-rank0.pt, 24 batches of 10 samples" in told


def test_a_chain_carries_its_base_over(copied, tmp_path, train):
    content = chain(copied, tmp_path / "out")
    train(content)
    content["base"] = content["base"] | {"mixture": content["base"]["mixture"] | {"budget_tokens": 26 * 80}}
    with pytest.raises(StateError, match=r"run 'uniform': .* mixture.budget_tokens was 1920, is 2080"):
        train(content)
    train(content, migrate=True)
    for name, batches in {"proxy": 24, "base": 26, "uniform": 26}.items():
        assert json.loads((tmp_path / "out" / name / "result.json").read_text())["batches"] == batches


def test_without_a_whole_checkpoint_there_is_nothing_to_carry_over(copied, tmp_path, train):
    content = single(copied, tmp_path / "run")
    train(content, stop_at=7)
    changed = content | {"mixture": mixture(batch_size=20), "training": RUN["training"] | {"microbatch_size": 20}}
    checkpoint = tmp_path / "run" / "checkpoints" / "ba5-rank0.pt"
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole.replace(b"dataset_state", b"\xff" * len(b"dataset_state")))
    with pytest.raises(StateError, match=r"ba5-rank0.pt: cannot be loaded \("):
        train(changed, migrate=True)
    checkpoint.write_bytes(whole[:-100])
    with pytest.raises(StateError, match="holds no whole checkpoint, so there is nothing to carry over"):
        train(changed, migrate=True)
