"""docs/methods.md is true: its keys are the recipe's, its example of code trains."""

from __future__ import annotations

import re
from typing import Any, get_args

import torch
import yaml
from composer import Trainer
from conftest import REPOSITORY
from pydantic import TypeAdapter

from mixstream.methods.learning.history import read_history
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


def test_the_example_of_code_trains(streams, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "streams").symlink_to(streams)
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    example = example.replace("budget_tokens=200_000, batch_size=16", "budget_tokens=8 * 10 * 24, batch_size=10")
    known: dict[str, Any] = {}
    exec(example, known)
    plan = known["plan"]
    assert plan.num_batches == 24
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
