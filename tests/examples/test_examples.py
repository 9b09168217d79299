"""The examples train on the very batches of their plan, in order, however often they are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import REPOSITORY
from safetensors.torch import load_file

from mixstream import Plan, build_plan
from mixstream.loader import MixtureLoader

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
ENVIRONMENT["PYTHONPATH"] = str(REPOSITORY)
EVERY = 5  # steps between checkpoints


class Example:
    """An example, run as a user runs it, and what its plan says that it reads."""

    def __init__(self, name: str, accumulated: int, batch_size: int | None, last: str) -> None:
        self.name = name
        self.accumulated = accumulated  # batches of a step
        self._batch_size = batch_size  # None: 4 a process
        self._last = last  # what holds the trained model

    def plan(self, catalog, ranks: int) -> Plan:
        batch_size = self._batch_size or 4 * ranks
        tokens = 20 * self.accumulated * batch_size * 8
        return build_plan(catalog, "temperature:0.3", tokens, batch_size, seed=17)

    def model(self, out: Path) -> dict[str, torch.Tensor]:
        path = max(out.glob(self._last))
        if path.suffix == ".safetensors":
            return load_file(path)
        saved = torch.load(path, weights_only=False)
        return saved.get("state_dict") or saved["model"]


EXAMPLES = {
    "ddp": Example("ddp", 1, 16, "checkpoint.pt"),
    "hf_trainer": Example("hf_trainer", 2, None, "model.safetensors"),
    "accelerate_loop": Example("accelerate_loop", 1, 16, "batch-*/model.safetensors"),
    "lightning_module": Example("lightning_module", 1, 16, "last.ckpt"),
}


class Runner:
    """Runs examples, one at a time, in processes that are forked from one that has imported all they need."""

    def __init__(self, folder: Path, streams: Path) -> None:
        self._folder = folder
        self._streams = streams
        self._runs = 0
        self._models: dict[str, dict[str, torch.Tensor]] = {}
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("forked.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,
            env=ENVIRONMENT,
            text=True,
        )
        assert self._process.stdout.readline() == "ready\n"

    def run(self, example: Example, plan: Plan, out: Path, ranks: int, kill_at: int | None = None) -> list[list]:
        """Return the global batches that were trained on, a list of rows each."""
        self._runs += 1
        log = self._folder / f"run{self._runs}"
        order = {
            "example": str(REPOSITORY / "examples" / f"{example.name}.py"),
            "arguments": list(map(str, [self._streams, out, "--tokens", plan.budget_tokens, "--save-every", EVERY])),
            "ranks": ranks,
            "log": str(log),
            "kill_at": kill_at,
        }
        if example.name == "lightning_module":
            order["arguments"] += ["--devices", str(ranks)]
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        ended = json.loads(self._process.stdout.readline())
        told = "".join(Path(f"{log}.output{rank}").read_text() for rank in range(ranks))
        if kill_at is None:
            assert ended == [0] * ranks, told
        else:
            assert -signal.SIGKILL in ended, told
        parts = [Path(f"{log}.rank{rank}").read_text().splitlines() for rank in range(ranks)]
        return [[row for part in own for row in json.loads(part)] for own in zip(*parts, strict=kill_at is None)]

    def model_of_a_whole_run(self, example: Example, catalog) -> dict[str, torch.Tensor]:
        """Return the model of one process that was never stopped."""
        if example.name not in self._models:
            plan, out = example.plan(catalog, 1), self._folder / f"whole-{example.name}"
            assert self.run(example, plan, out, 1) == planned(plan)
            self._models[example.name] = example.model(out)
        return self._models[example.name]

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(60)


@pytest.fixture(scope="module")
def runner(tmp_path_factory, streams) -> Iterator[Runner]:
    runner = Runner(tmp_path_factory.mktemp("examples"), streams)
    yield runner
    runner.close()


def planned(plan: Plan) -> list[list]:
    """Return what each global batch of a plan holds, read by a loader alone."""
    return [batch["input_ids"][:, :3].tolist() for batch in MixtureLoader(plan, rank=0, world_size=1)]


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_killed_twice_an_example_trains_on_its_plan(example, runner, catalog, tmp_path):
    """No batch is left out, trained twice, or read ahead and lost; and the models come out the same."""
    plan = example.plan(catalog, 1)
    expected, step = planned(plan), example.accumulated
    assert len(expected) == 20 * step
    killed = tmp_path / "killed"
    # In the 13th step; in the 9th after the checkpoint of the 10th; from that of the 15th on to the end.
    assert runner.run(example, plan, killed, 1, kill_at=13 * step) == expected[: 13 * step]
    assert runner.run(example, plan, killed, 1, kill_at=9 * step) == expected[10 * step : 19 * step]
    assert runner.run(example, plan, killed, 1) == expected[15 * step :]
    assert runner.run(example, plan, killed, 1) == []  # what is done is done
    assert_same(example.model(killed), runner.model_of_a_whole_run(example, catalog), exactly=True)


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_two_ranks_share_the_plan_and_the_model(example, runner, catalog, tmp_path):
    """A batch is dealt to ranks once, before a kill and after; and where one rank reads the same plan, so it learns."""
    plan = example.plan(catalog, 2)
    expected, step = planned(plan), example.accumulated
    assert runner.run(example, plan, tmp_path / "two", 2, kill_at=13 * step) == expected[: 13 * step]
    assert runner.run(example, plan, tmp_path / "two", 2) == expected[10 * step :]
    if plan == example.plan(catalog, 1):
        alone = runner.model_of_a_whole_run(example, catalog)
        assert_same(example.model(tmp_path / "two"), alone, exactly=False)


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], exactly: bool) -> None:
    """Compare models; the names of DDP's parameters begin with module."""
    found = {name.removeprefix("module."): values for name, values in found.items()}
    tolerance = 0.0 if exactly else 1e-4
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)
