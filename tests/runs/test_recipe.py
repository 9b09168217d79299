from __future__ import annotations

import pytest
import yaml
from conftest import REPOSITORY

from mixstream.errors import RecipeError
from mixstream.runs.recipe import ChainRecipe, SingleRecipe, all_keys, dump_yaml, load_recipe

BASE = {
    "version": 1,
    "kind": "base",
    "streams": "streams",
    "out": "run",
    "mixture": {"weights": "uniform", "budget_tokens": 1000, "batch_size": 4},
    "model": {"hidden_size": 16, "intermediate_size": 16, "num_layers": 1, "num_heads": 2},
    "training": {"learning_rate": 0.001, "microbatch_size": 4, "checkpoint_batches": 5},
}
XDOGE = {"name": "xdoge", "interval_batches": 5, "mu": 0.01}
CHAIN = {
    "version": 1,
    "kind": "chain",
    "streams": "streams",
    "out": "run",
    "proxy": {key: BASE[key] for key in ("mixture", "model", "training")} | {"method": XDOGE},
    "average_last": 0.5,
    "base": {"mixture": BASE["mixture"] | {"weights": "proxy"}, "model": BASE["model"], "training": BASE["training"]},
    "controls": {"uniform": "uniform"},
}


@pytest.fixture
def save(tmp_path):
    def write(content):
        path = tmp_path / "recipe.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return path

    return write


def change(content, place, value):
    """Return a deep copy with one key, given by its dotted place, set or removed."""
    content = yaml.safe_load(yaml.safe_dump(content))
    *path, last = place.split(".")
    inner = content
    for key in path:
        inner = inner[key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return content


def test_recipes_of_both_kinds(save):
    recipe = load_recipe(save(BASE))
    assert isinstance(recipe, SingleRecipe)
    assert recipe.run.training.weight_lag == 8
    assert isinstance(load_recipe(save(CHAIN)), ChainRecipe)


def test_places_can_be_given_from_outside(save, tmp_path):
    recipe = load_recipe(save(BASE), tmp_path / "s", tmp_path / "o")
    assert (recipe.streams, recipe.out) == (str(tmp_path / "s"), str(tmp_path / "o"))


def test_the_recipe_that_ships_is_one():
    assert isinstance(load_recipe(REPOSITORY / "recipes" / "demo.yaml"), ChainRecipe)


def test_a_recipe_writes_out_all_that_changes_results(save):
    run = load_recipe(save(BASE)).run
    assert yaml.safe_load(dump_yaml(run))["training"]["final_learning_rate"] == 0.1
    assert all_keys(run)["mixture.batch_size"] == 4


@pytest.mark.parametrize(
    ("content", "place", "value", "message"),
    [
        (BASE, "training.learning_rat", 0.1, r"unknown key 'training\.learning_rat'; did you mean 'learning_rate'"),
        (BASE, "mixtures", {}, "unknown key 'mixtures'; did you mean 'mixture'"),
        (BASE, "mixture.batch_size", None, r"key 'mixture\.batch_size' is missing"),
        (BASE, "mixture.batch_size", 0, r"mixture\.batch_size: .*greater than 0 \(found 0\)"),
        (BASE, "mixture.batch_size", "many", r"mixture\.batch_size: .*\(found 'many'\)"),
        (BASE, "mixture.floor", -0.1, r"mixture\.floor: .*greater than or equal to 0"),
        (BASE, "training.learning_rate", float("nan"), r"training\.learning_rate"),
        (BASE, "training.device", "tpu", r"training\.device: .*'cpu' or 'gpu'"),
        (BASE, "version", 2, "version: .*1"),
        (BASE, "kind", "bsae", "kind is 'bsae', expected one of proxy, base, chain, proxies; did you mean 'base'"),
        (BASE, "kind", "proxy", "a proxy has a section 'method'"),
        (BASE, "method", XDOGE, "a base run has none"),
        (BASE, "kind", ["base"], "kind is .'base'., expected one of"),
        (BASE, "model.num_heads", 3, "model: hidden_size 16 is no multiple of 2 x num_heads"),
        (BASE, "training.precision", "amp_bf16", "precision amp_bf16 needs device gpu"),
        (BASE, "training.num_workers", 9, "num_workers 9 read ahead beyond weight_lag 8"),
        (BASE, "seed", 2**32, r"seed: .*less than 4294967296"),
        (CHAIN, "controls", {"../../escape": "uniform"}, r"controls.*should match pattern"),
        (CHAIN, "controls", {"weights.json": "uniform"}, r"controls.weights.json: String should match pattern"),
        (CHAIN, "controls", {"own": {"eu.a": "x"}}, r"^\S+: controls.own.eu.a: [^;]*\(found 'x'\)$"),
        (BASE, "mixture.max_repeats", {"eu.a": -1}, r"^\S+: mixture.max_repeats.eu.a: [^;]*\(found -1\)$"),
        (BASE, "model.hidden_size", 2**40, r"model\.hidden_size: .*less than or equal to 1048576"),
        (CHAIN, "base.mixture.weights", "uniform", "base.mixture.weights is 'uniform', expected 'proxy'"),
        (CHAIN, "proxy.method", None, "'proxy' has a section 'method'"),
        (CHAIN, "controls", {"base": "uniform"}, "controls names 'base', which is taken"),
        (CHAIN, "proxy.method.intervall_batches", 1, "did you mean 'interval_batches'"),
    ],
)
def test_a_wrong_recipe_is_refused_with_what_was_found(save, content, place, value, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(save(change(content, place, value)))


def test_numbers_may_be_written_as_in_json_and_python(save):
    text = yaml.safe_dump(BASE).replace("0.001", "2e-3")
    assert load_recipe(save(text)).run.training.learning_rate == 0.002


def test_what_is_no_recipe_is_refused(save, tmp_path):
    with pytest.raises(RecipeError, match="no such file; write one"):
        load_recipe(tmp_path / "nowhere.yaml")
    with pytest.raises(RecipeError, match="not a YAML file"):
        load_recipe(save("a: [1"))
    with pytest.raises(RecipeError, match="not a YAML file .*key 'seed' stands twice"):
        load_recipe(save("version: 1\nkind: base\nseed: 1\nseed: 2\n"))
    with pytest.raises(RecipeError, match="not a YAML file"):
        load_recipe(tmp_path)
    with pytest.raises(RecipeError, match="cannot be told as JSON"):
        load_recipe(save(yaml.safe_dump(CHAIN).replace("uniform: uniform", "2024-01-01: uniform")))
    with pytest.raises(RecipeError, match="cannot be told as JSON"):
        load_recipe(save(yaml.safe_dump(BASE | {"model": None}).replace("model: null", "model: &a {x: *a}")))
    with pytest.raises(RecipeError, match="expected keys such as version, kind"):
        load_recipe(save("- 1"))


def test_a_schedule_of_weights_excludes_learning_them(save):
    schedule = [{"at": "0.5dur", "ramp": "10ba", "weights": "natural"}]
    base = change(BASE, "mixture.schedule", schedule)
    mixture = load_recipe(save(base)).run.mixture
    assert (mixture.lanes, mixture.sequence_length, mixture.schedule[0].ramp) == (1, None, "10ba")
    with pytest.raises(RecipeError, match="method learns the weights that mixture.schedule sets; leave one"):
        load_recipe(save({**base, "kind": "proxy", "method": XDOGE}))
    with pytest.raises(RecipeError, match=r"unknown key 'mixture\.schedule\.0\.weight'; did you mean 'weights'"):
        load_recipe(save(change(BASE, "mixture.schedule", [{"at": "1ba", "weight": "natural"}])))
