"""Composer's own loggers: real files of theirs, read back with their own readers, also after a run was cut."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_train import metrics_of
from tiny import RUN, XDOGE, save, single

from mixstream.errors import MissingExtraError, RecipeError
from mixstream.runs import loggers
from mixstream.runs.chain import run_recipe
from mixstream.runs.loggers import LoggersRecipe, check_loggers
from mixstream.runs.recipe import load_recipe

# A run of its own process, killed in batch 14 if asked: nothing of these loggers stays behind in the tests'.
SCRIPT = """
import sys
from pathlib import Path
from composer.core import Callback
from mixstream.callbacks.exposure import Exposure
from mixstream.runs.chain import run_recipe
from mixstream.runs.recipe import load_recipe

def cut(self, state, logger):
    if int(state.timestamp.batch) == 13:
        import mlflow, os
        mlflow.flush_async_logging()  # as if some seconds had gone by since the checkpoint
        os._exit(9)

if sys.argv[2] == "cut":
    Exposure.batch_start = cut
run_recipe(load_recipe(Path(sys.argv[1])), lambda name, run: None)
"""
SHORT = RUN | {"training": RUN["training"] | {"log_batches": 3}}


def train(recipe: Path, how: str = "whole", **environment: str) -> subprocess.CompletedProcess[str]:
    offline = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false", "HOME": str(recipe.parent)}
    own = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "MLFLOW_"))}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(recipe), how],
        env=own | offline | environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == (9 if how == "cut" else 0), done.stderr[-2000:]
    return done


def run(recipe: Path) -> None:
    run_recipe(load_recipe(recipe), lambda name, run: None)


@pytest.fixture(scope="module")
def logged(streams, tmp_path_factory) -> Path:
    """A proxy's folder: killed in batch 14, gone on from batch 10, with all four loggers."""
    folder = tmp_path_factory.mktemp("logged")
    asked = {"tensorboard": {}, "wandb": {"mode": "offline"}, "mlflow": {}, "file": {}}
    recipe = save(folder / "recipe.yaml", SHORT | single(streams, folder / "the run", method=XDOGE, loggers=asked))
    train(recipe, "cut")
    train(recipe)
    return folder / "the run"


@pytest.fixture(scope="module")
def own(logged) -> dict[str, dict[int, float]]:
    """What metrics.jsonl has: each number once a batch, whatever else is logged to."""
    return metrics_of(logged)


def test_tensorboard_has_each_number_once_though_the_run_was_cut(logged, own):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logged / "loggers" / "tensorboard" / "the run"), size_guidance={"scalars": 0})
    events.Reload()
    tags = events.Tags()["scalars"]
    assert set(own) <= set(tags)
    for name in ("mixture/proportion/eu.tales", "mixture/weight/eu.tales", "xdoge/score/eu.tales", "loader/seconds"):
        assert {point.step: point.value for point in events.Scalars(name)} == pytest.approx(own[name], rel=1e-6)
        assert len(events.Scalars(name)) == len(own[name]), name
    # Composer tells a batch's loss before it counts the batch.
    losses = {point.step + 1: point.value for point in events.Scalars("loss/train/total")}
    assert losses == pytest.approx(own["loss/train/total"], rel=1e-6)
    assert sorted(losses) == list(range(1, 25))


def records_of(content: bytes) -> Iterator[bytes]:
    """Yield the records of W&B's file: LevelDB's log, in blocks of 32 KB, after a header of 7 bytes."""
    at, parts = 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # what is left of a block
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""


def test_wandb_has_one_run_of_two_lives(logged, own):
    from wandb.proto import wandb_internal_pb2 as pb

    ids, found = set(), {}
    lives = sorted((logged / "loggers" / "wandb" / "wandb").glob("offline-run-*/*.wandb"), key=os.path.getmtime)
    for path in lives:
        for data in records_of(path.read_bytes()):
            record = pb.Record()
            record.ParseFromString(data)
            if record.HasField("run"):
                ids.add(record.run.run_id)
            if record.HasField("history"):
                line = {
                    item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
                }
                for name in line.keys() & own.keys():
                    found.setdefault(name, {})[record.history.step.num] = line[name]
    assert ids == {(logged / "loggers" / "wandb" / "run_id").read_text()}
    assert len(lives) == 2
    for name in ("mixture/proportion/eu.tales", "xdoge/score/eu.tales", "mixture/repeat/eu.tales"):
        assert found[name] == pytest.approx(own[name], rel=1e-6)


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_mlflow_has_one_run_of_two_lives(logged, own):
    from mlflow import MlflowClient

    client = MlflowClient((logged / "loggers" / "mlflow" / "store").resolve().as_uri())
    experiment = client.get_experiment_by_name("mixstream")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_id == (logged / "loggers" / "mlflow" / "run_id").read_text()
    assert (run.info.run_name, run.info.status) == ("the run", "FINISHED")
    for name in ("mixture/proportion/eu.tales", "xdoge/score/eu.tales"):
        points = client.get_metric_history(run.info.run_id, name)
        assert {point.step: point.value for point in points} == pytest.approx(own[name])
        assert len(points) == len(own[name]), name


def test_the_text_of_each_life_is_kept(logged, own):
    one, two = (logged / "loggers" / name for name in ("log-rank0.txt", "log-rank0-2.txt"))
    assert "[metric][batch=12]: mixture/proportion/eu.tales" in one.read_text()
    assert "[metric][batch=24]: mixture/proportion/eu.tales" not in one.read_text()
    assert "[metric][batch=24]: mixture/proportion/eu.tales" in two.read_text()


def test_loggers_may_come_and_go_and_change_nothing(logged, streams, tmp_path):
    """They are no other recipe: the run has ended, and stays so; and without them it is the same run."""
    asked = SHORT | single(streams, logged, method=XDOGE)
    before = (logged / "result.json").read_bytes()
    run(save(tmp_path / "without.yaml", asked))
    assert (logged / "result.json").read_bytes() == before
    run(save(tmp_path / "alone.yaml", asked | {"out": str(tmp_path / "alone")}))
    ours, theirs = ((folder / "weights.jsonl").read_text() for folder in (logged, tmp_path / "alone"))
    assert ours == theirs
    assert not (tmp_path / "alone" / "loggers").exists()


def test_what_a_logger_refuses_is_told_in_a_line(streams, tmp_path):
    """Without a key, W&B cannot begin: before any training, and the run goes on once it is seen to."""
    recipe = save(tmp_path / "r.yaml", single(streams, tmp_path / "run", loggers={"wandb": {}}))
    code = f"from mixstream.cli import main; main(['train', {str(recipe)!r}])"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"HOME": str(tmp_path), "WANDB_SILENT": "true", "WANDB_BASE_URL": "http://127.0.0.1:9"},
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "loggers.wandb: " in line
    assert "take it out of the recipe: the same command goes on" in line
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, r"names no logger; expected one or more of tensorboard: \{\}, wandb: \{\}, mlflow: \{\}, file: \{\}"),
        ({"tensorbord": {}}, "unknown key 'loggers.tensorbord'; did you mean 'tensorboard'"),
        ({"wandb": {"mode": "sometimes"}}, "loggers.wandb.mode: Input should be 'online' or 'offline'"),
        ({"mlflow": {"tracking_uri": "https://me:secret@host"}}, "no place for a password; give it as MLFLOW_TRACKING"),
    ],
)
def test_sections_that_cannot_be_are_refused(streams, tmp_path, asked, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(save(tmp_path / "r.yaml", single(streams, tmp_path / "run", loggers=asked)))


def test_a_package_that_is_missing_is_told_before_the_run(monkeypatch):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None if name == "mlflow" else True)
    check_loggers(None)
    check_loggers(LoggersRecipe.model_validate({"tensorboard": {}, "file": {}}))
    with pytest.raises(
        MissingExtraError, match=r"loggers.mlflow needs the package 'mlflow'; .*mixstream-llm\[loggers\]"
    ):
        check_loggers(LoggersRecipe.model_validate({"tensorboard": {}, "mlflow": {}}))
