"""The recipes that ship: each can be read and planned, and the tiny ones differ from the others in what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import transformers
from conftest import BYTE, REPOSITORY, write_stream

from mixstream.formats import dump_json
from mixstream.mixture.weights import save_weights
from mixstream.runs.pilots.recipe import load_pilots
from mixstream.runs.pretrained import NOTE_NAME, ModelNote
from mixstream.runs.recipe import ProxiesRecipe, SingleRecipe, all_keys, load_recipe
from mixstream.runs.train import plan_run

RECIPES = sorted((REPOSITORY / "recipes").glob("*.yaml"))
TWINS = [path for path in RECIPES if path.stem.endswith("_tiny")]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_can_be_read(path):
    recipe = load_pilots(path) if path.stem == "climb_demo" else load_recipe(path)
    assert recipe.kind in path.read_text()
    assert all_keys(recipe)["version"] == 1


def test_the_pilots_of_the_demo_are_for_its_base_run():
    pilots, base = (load(REPOSITORY / "recipes" / f"{name}.yaml") for load, name in ((load_pilots, "climb_demo"), (load_recipe, "climb_demo_base")))  # fmt: skip
    assert isinstance(base, SingleRecipe)
    assert pilots.target_tokens == base.mixture.budget_tokens
    assert (pilots.run.model, pilots.run.training) == (base.model, base.training)
    assert pilots.streams == base.streams
    apart = {"weights", "budget_tokens"}
    assert pilots.run.mixture.model_dump(exclude=apart) == base.mixture.model_dump(exclude=apart)


@pytest.mark.parametrize("path", TWINS, ids=lambda path: path.stem)
def test_a_tiny_recipe_differs_in_what_it_says_and_in_nothing_else(path):
    said = re.search(r"# Differs in: (.*?)\n[^#]", path.read_text(), re.DOTALL)
    sections = {section.strip() for section in said[1].replace("#", "").split(",")}
    big, tiny = (all_keys(load_recipe(p)) for p in (path.with_stem(path.stem.removesuffix("_tiny")), path))
    differ = {key for key in big.keys() | tiny.keys() if big.get(key) != tiny.get(key)}
    differ = {key for key in differ if not key.startswith("run.model.")}  # of proxies, that of `models`
    for key in differ:
        assert any(key == section or key.startswith(f"{section}.") for section in sections), f"{key} is not told"
    for section in sections:
        assert any(key == section or key.startswith(f"{section}.") for key in differ), f"{section} does not differ"


def test_the_tiny_recipes_can_be_planned_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    streams = Path("runs/quickstart/streams")
    streams.mkdir(parents=True)
    for number, name in enumerate(("en.tales", "eu.tales")):
        write_stream(streams, name, number, 90, sequence_length=128, heldout=4)
    proxies = load_recipe(REPOSITORY / "recipes" / "xdoge_proxy_tiny.yaml")
    assert isinstance(proxies, ProxiesRecipe)
    plans = {name: plan_run(run, proxies.streams, Path(proxies.out) / name) for name, run in proxies.proxies.items()}
    assert list(plans) == ["35k-s1", "35k-s2", "117k-s1", "117k-s2"]
    assert {plan.plan.num_batches for plan in plans.values()} == {120}
    save_weights(Path(proxies.out, "weights.json"), dict.fromkeys(("en.tales", "eu.tales"), 0.5), "test")
    base = planned("xdoge_base_tiny")
    assert base.recipe.mixture.weights == f"{proxies.out}/weights.json"
    model = base.folder.model
    assert planned_model("cpt_tiny") == str(model)
    sizes = base.recipe.model
    config = transformers.LlamaConfig(
        vocab_size=257,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_hidden_layers=1,
        num_attention_heads=sizes.num_heads,
        max_position_embeddings=128,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(model)
    (model / NOTE_NAME).write_text(dump_json(ModelNote(tokenizer=BYTE)))
    assert planned("cpt_tiny").plan.num_batches == 100


def planned(name):
    recipe = load_recipe(REPOSITORY / "recipes" / f"{name}.yaml")
    assert isinstance(recipe, SingleRecipe)
    return plan_run(recipe.run, recipe.streams, Path(recipe.out))


def planned_model(name):
    return load_recipe(REPOSITORY / "recipes" / f"{name}.yaml").run.model.pretrained


@pytest.mark.parametrize(("name", "vocab_size"), [("xdoge_proxy", 50_000), ("xdoge_proxy_tiny", 257)])
def test_the_numbers_of_parameters_are_as_the_comments_say(name, vocab_size):
    path = REPOSITORY / "recipes" / f"{name}.yaml"
    said = dict(re.findall(r"^  (\w+): +# ([\d.,]+)", path.read_text(), re.MULTILINE))
    recipe = load_recipe(path)
    assert said.keys() == recipe.models.keys()
    for size, model in recipe.models.items():
        count = count_parameters(model, vocab_size)
        shown = f"{count / 1e6:.1f}" if vocab_size > 1000 else f"{count:,}"
        assert said[size] == shown, size


def count_parameters(model, vocab_size: int) -> int:
    llama = transformers.LlamaForCausalLM  # imported before torch makes nothing but shapes
    with torch.device("meta"):
        made = llama(
            transformers.LlamaConfig(
                vocab_size=vocab_size,
                hidden_size=model.hidden_size,
                intermediate_size=model.intermediate_size,
                num_hidden_layers=model.num_layers,
                num_attention_heads=model.num_heads,
                tie_word_embeddings=model.tie_embeddings,
            )
        )
    made.tie_weights()
    return sum(parameter.numel() for parameter in made.parameters())
