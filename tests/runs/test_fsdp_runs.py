"""Runs whose model is sharded over processes, or compiled: the same as others, and resumed by any number of them."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from tiny import RUN, save, single

from mixstream.errors import RecipeError
from mixstream.runs.chain import run_recipe
from mixstream.runs.folder import RunFolder
from mixstream.runs.recipe import load_recipe

# Runs a recipe as recipes/train.py does; its processes are killed (kill -9) where they are told to.
KILLED = """
import os, signal, sys
from mixstream.callbacks.exposure import Exposure
from mixstream.cli import main

def stop(self, state, logger):
    if int(state.timestamp.batch) == int(os.environ.get("STOP_AT", -1)):
        os.kill(os.getpid(), signal.SIGKILL)

Exposure.batch_start = stop
main(["train", *sys.argv[1:]])
"""

# One row of each held-out split: the second process has none.
TRAINING = RUN["training"] | {"heldout_samples": 1, "heldout_batches": 10}
MODEL = RUN["model"] | {"tie_embeddings": True, "num_layers": 2}
SHARDED = TRAINING | {"fsdp": {"activation_checkpointing": True}}


def run(tmp_path, content):
    return run_recipe(load_recipe(save(tmp_path / "recipe.yaml", content)), lambda name, run: None)["base"]


def start_two(tmp_path, content, **environment):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    return subprocess.run(
        [
            str(Path(sys.executable).parent / "composer"),
            *("-n", "2", str(script), str(save(tmp_path / "sharded.yaml", content))),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_a_sharded_run_is_killed_and_goes_on_sharded_or_not(streams, tmp_path):
    """Its checkpoints are whole; its model is that of a run on one process, but for the order of sums."""
    whole = run(tmp_path, single(streams, tmp_path / "whole", model=MODEL, training=TRAINING))
    sharded = single(streams, tmp_path / "sharded", model=MODEL, training=SHARDED)
    assert start_two(tmp_path, sharded, STOP_AT="13").returncode
    assert RunFolder(tmp_path / "sharded").newest_checkpoint().name == "ba10-rank0.pt"
    assert not (tmp_path / "sharded" / "model").exists()
    shutil.copytree(tmp_path / "sharded", tmp_path / "alone")
    done = start_two(tmp_path, sharded)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "going on from ba10-rank0.pt" in done.stdout
    alone = run(tmp_path, single(streams, tmp_path / "alone", model=MODEL, training=TRAINING))
    both = json.loads((tmp_path / "sharded" / "result.json").read_text())
    for name, loss in whole.heldout.items():
        assert loss.num_tokens == both["heldout"][name]["num_tokens"] == 8
        assert both["heldout"][name]["nats_per_token"] == pytest.approx(loss.nats_per_token, rel=1e-4)
        assert alone.heldout[name].nats_per_token == pytest.approx(loss.nats_per_token, rel=1e-4)
    models = [
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name / "model") for name in ("whole", "sharded")
    ]
    assert models[1].lm_head.weight is models[1].model.embed_tokens.weight
    for name, weight in models[0].state_dict().items():
        assert torch.allclose(weight, models[1].state_dict()[name], rtol=1e-3, atol=1e-4), name
    sizes = [(tmp_path / name / "model" / "model.safetensors").stat().st_size for name in ("whole", "sharded")]
    assert sizes[0] == sizes[1]  # tied tables are written once


@pytest.mark.parametrize(
    ("fsdp", "message"),
    [
        ({}, r"training.fsdp shards the model over processes, but there is one; start several \(composer -n 8"),
        (
            {"state_dict_type": "sharded"},
            r"fsdp.state_dict_type: a run's checkpoints are whole \('full'\), so that any",
        ),
        ({"mixed_precision": "LOW"}, "fsdp.mixed_precision: .*'DEFAULT', 'PURE' or 'FULL'"),
        ({"reshard_after_forwards": True}, "unknown key .*; did you mean 'reshard_after_forward'"),
        (True, r"training.fsdp: .*\(found True\)"),
    ],
)
def test_sharding_that_cannot_be_is_refused(streams, tmp_path, fsdp, message):
    with pytest.raises(RecipeError, match=message):
        run(tmp_path, single(streams, tmp_path / "run", training=RUN["training"] | {"fsdp": fsdp}))
    assert not (tmp_path / "run").exists()


def test_a_compiled_run_learns_what_another_does(streams, tmp_path, monkeypatch):
    """Traced as ever, but without the minute in which a C++ compiler makes code of it."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    torch._dynamo.utils.counters.clear()
    compiled = run(tmp_path, single(streams, tmp_path / "compiled", training=TRAINING | {"compile": True}))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    plain = run(tmp_path, single(streams, tmp_path / "plain", training=TRAINING))
    for name, loss in plain.heldout.items():
        assert compiled.heldout[name].nats_per_token == pytest.approx(loss.nats_per_token, rel=1e-4)
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "compiled" / "model")
