"""Runs in processes of their own: two ranks, kill -9, Ctrl-C, by the commands that users type."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import REPOSITORY, SIZES
from tiny import RUN, XDOGE, save, single

from mixstream import Plan
from mixstream.loader import MixtureLoader
from mixstream.methods.learning.history import read_history

BIN = Path(sys.executable).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

# Runs a recipe as recipes/train.py does, and notes what each rank is given to train on. It sets weights where a log
# says so, and dies without a word where it is told to.
RECORDER = """
import json, os, sys, time
from composer.utils import dist
from mixstream.callbacks.exposure import Exposure
from mixstream.cli import main

weights = json.loads(os.environ.get("WEIGHTS", "{}"))

def note(self, state, logger):
    number = int(state.timestamp.batch)
    if number == int(os.environ.get("STOP_AT", -1)):
        dist.barrier()
        time.sleep(1 if dist.get_global_rank() == 0 else 0)  # it serves the others' barrier
        os._exit(0)
    if str(number) in weights:
        self._loader.set_weights(weights[str(number)])
    batch = {key: state.batch[key].tolist() for key in ("stream", "sample", "repeat", "input_ids")}
    with open(f"{sys.argv[1]}.rank{os.environ.get('RANK', 0)}", "a") as file:
        file.write(json.dumps([number, batch]) + "\\n")

Exposure.batch_start = note
main(["train", *sys.argv[2:]])
"""


COLUMNS = ("stream", "sample", "repeat", "input_ids")


def recorded(path: Path, ranks: int) -> list[dict]:
    """Return the global batches that were trained on, in order."""
    parts = [
        [json.loads(line) for line in path.with_name(f"{path.name}.rank{rank}").read_text().splitlines()]
        for rank in range(ranks)
    ]
    return [
        {key: [value for _, part in own for value in part[key]] for key in COLUMNS} for own in zip(*parts, strict=True)
    ]


@pytest.fixture
def record(tmp_path):
    script = tmp_path / "record.py"
    script.write_text(RECORDER)

    def run(content: dict, name: str, ranks: int, *options: str, **environment: str) -> list[dict]:
        recipe = save(tmp_path / f"{name}.yaml", content)
        command = (
            [sys.executable, str(script)] if ranks == 1 else [str(BIN / "composer"), "-n", str(ranks), str(script)]
        )
        done = subprocess.run(
            [*command, str(tmp_path / name), str(recipe), *options],
            env=ENVIRONMENT | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return recorded(tmp_path / name, ranks)

    return run


def test_two_processes_train_on_the_same_global_batches_as_one(streams, tmp_path, record):
    """M4 under Composer and gloo, for fixed weights: the very same rows, in the same order."""
    alone = record(single(streams, tmp_path / "run-one"), "one", 1)
    assert len(alone) == 24
    assert record(single(streams, tmp_path / "run-two"), "two", 2) == alone
    # Trained on the same batches, they come to the same model, but for the order of sums.
    losses = [
        json.loads((tmp_path / f"run-{name}" / "result.json").read_text())["languages"] for name in ("one", "two")
    ]
    for language in losses[0]:
        assert losses[1][language]["nats_per_token"] == pytest.approx(losses[0][language]["nats_per_token"], rel=1e-3)


def test_two_processes_learn_the_same_weights_as_one(streams, tmp_path, record):
    """Scores are sums over ranks: equal but for the order of additions; and every batch is what the weights say."""
    alone = record(single(streams, tmp_path / "run-one", method=XDOGE), "one", 1)
    both = record(single(streams, tmp_path / "run-two", method=XDOGE), "two", 2)
    histories = [read_history(tmp_path / f"run-{name}" / "weights.jsonl") for name in ("one", "two")]
    assert [(u.batch, u.at_batch) for u in histories[0]] == [(u.batch, u.at_batch) for u in histories[1]]
    for first, second in zip(*histories, strict=True):
        assert second.weights == pytest.approx(first.weights, rel=1e-3)
    assert histories[0][-1].weights != histories[0][0].weights
    # The global batches that were trained on are those of the plan and the log, to the last row.
    for name, history, batches in zip(("one", "two"), histories, (alone, both), strict=True):
        loader = MixtureLoader(Plan.load(tmp_path / f"run-{name}" / "plan.json"), weight_lag=2)
        for update in history[1:]:
            if update.at_batch < 24:
                loader.set_weights(update.weights, update.at_batch)
        replayed = [{key: batch[key].tolist() for key in COLUMNS} for batch in loader]
        assert replayed == batches


def test_two_processes_carry_weights_in_the_loss_as_one(streams, tmp_path, record):
    """Rows are weighed by the global batch's shares, whatever part of it a rank has; the data stays the plan's."""
    method = XDOGE | {"apply": "loss", "probe": "same_batch", "mu": 0.002}
    alone = record(single(streams, tmp_path / "run-one", method=method), "one", 1)
    assert record(single(streams, tmp_path / "run-two", method=method), "two", 2) == alone
    histories = [read_history(tmp_path / f"run-{name}" / "weights.jsonl") for name in ("one", "two")]
    for first, second in zip(*histories, strict=True):
        assert second.weights == pytest.approx(first.weights, rel=1e-3)
    last = list(histories[0][-1].weights.values())
    assert max(last) > 1.1 * min(last)  # rows did count differently
    losses = [json.loads((tmp_path / f"run-{name}" / "result.json").read_text())["heldout"] for name in ("one", "two")]
    for stream in losses[0]:
        assert losses[1][stream]["nats_per_token"] == pytest.approx(losses[0][stream]["nats_per_token"], rel=1e-3)


def wait_for_batch(folder: Path, batch: int, process: subprocess.Popen) -> None:
    path = folder / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        lines = path.read_text().splitlines() if path.exists() else []
        if any(json.loads(line)["batch"] >= batch for line in lines[:-1]):
            return
        assert process.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.02)
    pytest.fail(f"batch {batch} was not reached")


@pytest.mark.parametrize(
    ("how", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)], ids=["kill -9", "Ctrl-C"]
)
def test_a_run_that_is_stopped_goes_on_where_it_was(streams, tmp_path, how, code):
    """The same command again: what is learnt and lost is to the last digit that of a run left alone."""
    mixture = RUN["mixture"] | {"budget_tokens": 150 * 10 * 8}
    content = {name: single(streams, tmp_path / name, mixture=mixture, method=XDOGE) for name in ("whole", "cut")}
    commands = {
        name: [str(BIN / "mixstream"), "train", str(save(tmp_path / f"{name}.yaml", recipe))]
        for name, recipe in content.items()
    }
    subprocess.run(commands["whole"], env=ENVIRONMENT, check=True, capture_output=True, timeout=300)
    process = subprocess.Popen(
        commands["cut"], env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_for_batch(tmp_path / "cut", 23, process)
    process.send_signal(how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert not (tmp_path / "cut" / "result.json").exists()
    if how == signal.SIGINT:
        assert errors.rstrip().endswith(
            "interrupted; the same command goes on from the newest checkpoint, if there is one"
        )
    again = subprocess.run(commands["cut"], env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "going on from ba" in again.stdout
    whole, cut = ((tmp_path / name / "weights.jsonl").read_text() for name in ("whole", "cut"))
    assert cut == whole
    results = [json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "cut")]
    assert results[0]["heldout"] == results[1]["heldout"]


def test_a_run_goes_on_with_another_number_of_processes(streams, tmp_path, record):
    """M4 and M5 under Composer: begun on two ranks, ended on one."""
    alone = record(single(streams, tmp_path / "run-one"), "one", 1)
    record(single(streams, tmp_path / "run-two"), "two", 2)
    for path in (tmp_path / "run-two").glob("checkpoints/ba24*"):
        path.unlink()
    (tmp_path / "run-two" / "result.json").unlink()
    assert record(single(streams, tmp_path / "run-two"), "later", 1) == alone[20:]


def test_one_four_and_two_processes_in_turn_read_what_one_loader_reads(streams, tmp_path, record):
    """M4, M5 and M6 under Composer and gloo: row by row and token by token, through changes of weights on the way.

    The first change is scheduled; the others are set, each pending in the checkpoint at which processes change.
    """
    mixture = RUN["mixture"] | {"batch_size": 12, "budget_tokens": 17 * 12 * 4, "lanes": 2, "sequence_length": 4}
    mixture |= {"schedule": [{"at": "2ba", "ramp": "2ba", "weights": "natural"}]}
    content = single(streams, tmp_path / "run", mixture=mixture)
    first, last = (0.5, 0.2, 0.1, 0.1, 0.1), (0.1, 0.1, 0.1, 0.2, 0.5)
    log = {number: dict(zip(SIZES, new, strict=True)) for number, new in ((4, first), (9, last))}
    weights = json.dumps(log)
    parts = [
        record(content, "first", 1, WEIGHTS=weights, STOP_AT="6"),
        record(content, "second", 4, WEIGHTS=weights, STOP_AT="11"),
        record(content, "third", 2, WEIGHTS=weights),
    ]
    loader = MixtureLoader(Plan.load(tmp_path / "run" / "plan.json"), 0, 1, weight_lag=2)
    expected = []
    for number, batch in enumerate(loader):
        expected.append({key: batch[key].tolist() for key in COLUMNS})
        if number in log:
            loader.set_weights(log[number])
    assert [len(part) for part in parts] == [6, 6, 7]
    for start, part in zip((0, 5, 10), parts, strict=True):
        assert part == expected[start : start + len(part)]
    # The weights did act, from batches 7 and 12 on.
    drawn = [batch["stream"].count(0) for batch in expected]
    assert sum(drawn[7:12]) == pytest.approx(5 * 12 * 0.5, abs=2)
    assert sum(drawn[12:17]) == pytest.approx(5 * 12 * 0.1, abs=2)


def test_a_run_is_carried_over_to_another_batch_size_by_two_processes(streams, tmp_path, record):
    """What the two of them read is what a loader reads that is given the old one's state."""
    content = single(streams, tmp_path / "run")
    record(content, "before", 1, STOP_AT="13")
    old = MixtureLoader(Plan.load(tmp_path / "run" / "plan.json"), 0, 1)
    for _ in zip(range(10), old, strict=False):
        pass
    after = record(content | {"mixture": RUN["mixture"] | {"batch_size": 16}}, "after", 2, "--migrate")
    new = MixtureLoader(Plan.load(tmp_path / "run" / "plan.json"), 0, 1)
    assert new.load_state_dict(old.state_dict(), migrate=True)
    assert after == [{key: batch[key].tolist() for key in COLUMNS} for batch in new]
    assert len(after) == 15 - 7


def test_the_script_that_launchers_want_does_what_the_command_does(tmp_path):
    recipe = save(tmp_path / "recipe.yaml", {"kind": "bsae"})
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "recipes" / "train.py"), str(recipe)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert (
        done.stderr.strip()
        == f"error: {recipe}: kind is 'bsae', expected one of proxy, base, chain, proxies; did you mean 'base'?"
    )
