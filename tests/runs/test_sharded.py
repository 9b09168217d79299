"""The loader's state in a sharded checkpoint: two gloo processes, FSDP2, torch's distributed checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import write_stream
from tiny import RUN

from mixstream import Catalog, build_plan
from mixstream.loader import MixtureLoader

SCRIPT = """
import json, sys
from pathlib import Path
import torch
from composer import Callback, Trainer
from composer.utils import dist, get_device
from mixstream import Plan
from mixstream.errors import StateError
from mixstream.loader import MixtureLoader
from mixstream.runs.model import build_model
from mixstream.runs.recipe import ModelRecipe

folder = Path(sys.argv[1])
dist.initialize_dist(get_device("cpu"))
told = {}

class Note(Callback):
    def batch_start(self, state, logger):
        read.append(state.batch["sample"].tolist())

def train(plan, until, load):
    plan = Plan.load(folder / plan)
    model = build_model(ModelRecipe(**json.loads(sys.argv[2])), plan, 0)
    trainer = Trainer(
        model=model, train_dataloader=MixtureLoader(plan), max_duration=until, device="cpu", callbacks=[Note()],
        optimizers=torch.optim.AdamW(model.parameters()), device_train_microbatch_size=4, progress_bar=False,
        parallelism_config={"fsdp": {"state_dict_type": "sharded"}}, load_path=load,
        save_folder=str(folder / until), save_interval="4ba", save_latest_filename=None,
    )
    trainer.fit()
    trainer.close()

read = []
train("plan.json", "6ba", None)
told["first"] = read
load = str(next((folder / "6ba").glob("*ba4*")))
for other in ("more.json", "fewer.json"):
    try:
        train(other, "1ep", load)
    except StateError as error:
        told[other] = str(error)
read = []
train("plan.json", "1ep", load)
told["second"] = read
(folder / f"rank{dist.get_global_rank()}.json").write_text(json.dumps(told))
"""


def test_a_sharded_checkpoint_is_resumed_exactly_and_one_of_other_streams_refused(streams, tmp_path):
    """A stream that came and one that went: the string is a leaf, so that no key of it is dropped or missed."""
    shutil.copytree(streams, tmp_path / "streams")
    options = {"weights": "uniform", "budget_tokens": 10 * 8 * 8, "batch_size": 8, "window_samples": 20}
    plans = {"plan.json": build_plan(Catalog.open(tmp_path / "streams"), **options)}
    write_stream(tmp_path / "streams", "an.tales", 7, 30)
    plans["more.json"] = build_plan(Catalog.open(tmp_path / "streams"), **options)
    shutil.rmtree(tmp_path / "streams" / "an.tales")
    (tmp_path / "streams" / "gl.tales").rename(tmp_path / "gone")
    plans["fewer.json"] = build_plan(Catalog.open(tmp_path / "streams"), **options)
    (tmp_path / "gone").rename(tmp_path / "streams" / "gl.tales")
    write_stream(tmp_path / "streams", "an.tales", 7, 30)
    for name, plan in plans.items():
        plan.save(tmp_path / name)
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "composer"),
            "-n",
            "2",
            str(script),
            str(tmp_path),
            json.dumps(RUN["model"]),
        ],
        env={**os.environ, "FSDP_VERSION": "2", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    expected = [batch["sample"].tolist() for batch in MixtureLoader(plans["plan.json"], 0, 1)]
    for part, batches in (("first", expected[:6]), ("second", expected[4:])):
        assert [first + second for first, second in zip(ranks[0][part], ranks[1][part], strict=True)] == batches
    for told in ranks:
        assert "the state belongs to another plan: stream an.tales is new" in told["more.json"]
        assert "the state belongs to another plan: stream gl.tales is gone" in told["fewer.json"]
