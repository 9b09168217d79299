"""docs/methods.md is true: its keys are the recipe's, its example of code trains."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import numpy as np
import torch
import yaml
from composer import Trainer
from conftest import REPOSITORY
from pydantic import TypeAdapter

from mixstream import build_plan
from mixstream.callbacks.online import OnlineWeights, Timing
from mixstream.callbacks.scores import provider_of
from mixstream.callbacks.signals import Alignment
from mixstream.loader import MixtureLoader
from mixstream.methods.learning.bounds import Bounds
from mixstream.methods.learning.history import read_history
from mixstream.methods.learning.learner import Learner
from mixstream.methods.learning.stages import Stages
from mixstream.methods.xdoge import XDoGE
from mixstream.runs.methods import MethodRecipe, XdogeRecipe
from mixstream.runs.model import build_model
from mixstream.runs.sections import ModelRecipe

GUIDE = (REPOSITORY / "docs" / "methods.md").read_text()
METHODS = get_args(get_args(MethodRecipe)[0])


def test_the_example_is_a_section_of_a_recipe():
    (example,) = re.findall(r"```yaml\n(.*?)```", GUIDE, flags=re.DOTALL)
    recipe = TypeAdapter(MethodRecipe).validate_python(yaml.safe_load(example)["method"])
    assert isinstance(recipe, XdogeRecipe)


def test_every_key_of_every_method_is_told():
    named = set(re.findall(r"`(\w+)", GUIDE))
    for method in METHODS:
        assert set(method.model_fields) <= named, method
        (name,) = get_args(method.model_fields["name"].annotation)
        assert f"| `{name}` |" in GUIDE


def test_the_example_of_code_trains(catalog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    plan = build_plan(catalog, "uniform", 8 * 10 * 24, 10)
    known = {
        "np": np, "Path": Path, "Learner": Learner, "XDoGE": XDoGE, "Bounds": Bounds, "Stages": Stages,
        "Alignment": Alignment, "MixtureLoader": MixtureLoader, "provider_of": provider_of,
        "OnlineWeights": OnlineWeights, "Timing": Timing, "plan": plan, "loader": MixtureLoader(plan),
        "probe_plan": build_plan(catalog, "uniform", 8 * 10 * 24, 10),
    }  # fmt: skip
    exec(example, known)
    recipe = ModelRecipe(hidden_size=16, intermediate_size=24, num_layers=1, num_heads=2)
    model = build_model(recipe, plan, 0)
    trainer = Trainer(
        model=model,
        train_dataloader=known["loader"],
        max_duration="1ep",
        callbacks=[known["callback"]],
        optimizers=torch.optim.SGD(model.parameters(), lr=0.1),
        device="cpu",
        device_train_microbatch_size=5,
        progress_bar=False,
    )
    trainer.fit()
    trainer.close()
    assert [line.batch for line in read_history(tmp_path / "weights.jsonl")] == [0, 10, 20]
