"""Proxies of several sizes and seeds: each a run of its own, their weights averaged and their spread told."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from tiny import RUN, XDOGE, chain, save

from mixstream.callbacks.exposure import Exposure
from mixstream.cli import main
from mixstream.errors import FormatError, RecipeError, StateError, WeightsError
from mixstream.methods.learning.history import read_history
from mixstream.mixture.weights import read_weights, save_weights
from mixstream.runs.chain import run_recipe
from mixstream.runs.learnt import learnt_by
from mixstream.runs.recipe import load_recipe
from mixstream.runs.sections import AverageRecipe

NAMES = ["large-s1", "large-s2", "small-s1", "small-s2"]


def proxies(streams, out, **changes):
    return {
        "version": 1,
        "kind": "proxies",
        "streams": str(streams),
        "out": str(out),
        "run": {"mixture": RUN["mixture"], "training": RUN["training"], "method": XDOGE},
        "models": {"small": RUN["model"], "large": RUN["model"] | {"hidden_size": 32}},
        "seeds": [1, 2],
        "average": {"last_batches": 15},
    } | changes


def run(tmp_path, content):
    names = []
    recipe = load_recipe(save(tmp_path / "recipe.yaml", content))
    return run_recipe(recipe, lambda name, run: names.append((name, run.recipe.model.hidden_size, run.plan.seed)))


@pytest.fixture(scope="module")
def trained(streams, tmp_path_factory):
    """Return the folder of four proxies that have learnt."""
    place = tmp_path_factory.mktemp("proxies")
    results = run(place, proxies(streams, place / "out"))
    assert list(results) == NAMES
    return place / "out"


def by_batch(folder) -> np.ndarray:
    """Return the weights that acted in each of the 24 batches, (24, K), told line by line."""
    acting = np.zeros((24, 5))
    for update in read_history(folder / "weights.jsonl"):
        acting[update.at_batch :] = list(update.weights.values())
    return acting


def test_weights_are_the_mean_over_batches_and_proxies_with_its_spread(trained):
    each = np.array([by_batch(trained / name)[-15:].mean(axis=0) for name in NAMES])
    told = json.loads((trained / "weights.json").read_text())
    assert list(told["weights"].values()) == pytest.approx(each.mean(axis=0), abs=1e-12)
    assert list(told["spread"].values()) == pytest.approx(each.std(axis=0, ddof=1), abs=1e-12)
    assert told["version"] == 2
    assert max(told["spread"].values()) > 0
    assert read_weights(trained / "weights.json") == told["weights"]
    # Sizes and seeds are the proxies' own.
    recipes = [(trained / name / "recipe.yaml").read_text() for name in NAMES]
    assert ["hidden_size: 32" in text for text in recipes] == [True, True, False, False]
    assert [text.splitlines()[0] for text in recipes] == ["seed: 1", "seed: 2"] * 2


def test_what_has_ended_is_not_trained_again_and_what_is_missing_is(streams, trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "small-s2")
    (tmp_path / "out" / "weights.json").unlink()
    batches = []
    monkeypatch.setattr(
        Exposure, "batch_start", lambda self, state, logger: batches.append(state.run_name), raising=False
    )
    run(tmp_path, proxies(streams, tmp_path / "out"))
    assert batches == ["small-s2"] * 24
    weights = [json.loads((out / "weights.json").read_text())["weights"] for out in (trained, tmp_path / "out")]
    assert weights[0] == weights[1]


def test_another_average_of_the_same_proxies_trains_nothing(streams, trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path / "out")
    monkeypatch.setattr(Exposure, "batch_start", lambda self, state, logger: pytest.fail("trains"), raising=False)
    run(tmp_path, proxies(streams, tmp_path / "out", average="all"))
    each = np.array([by_batch(trained / name).mean(axis=0) for name in NAMES])
    assert list(read_weights(tmp_path / "out" / "weights.json").values()) == pytest.approx(each.mean(axis=0))


@pytest.mark.parametrize(
    ("average", "counts"),
    [
        ("all", [1] * 24),
        (AverageRecipe(last=0.25), [0] * 18 + [1] * 6),
        (AverageRecipe(last_batches=7), [0] * 17 + [1] * 7),
        (AverageRecipe(half_life_batches=5), [2 ** (-(23 - batch) / 5) for batch in range(24)]),
    ],
)
def test_an_average_counts_batches_as_it_says(trained, average, counts):
    learnt = learnt_by(trained / "small-s1", average, 24)
    expected = np.average(by_batch(trained / "small-s1"), axis=0, weights=counts)
    assert list(learnt.values()) == pytest.approx(expected, abs=1e-12)


def test_the_command_averages_runs_of_any_folder(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    runs = [str(trained / name) for name in NAMES]

    def weights(*options):
        with pytest.raises(SystemExit) as stop:
            main(["weights", *options, "--out", str(tmp_path / "weights.json")])
        assert not stop.value.code, capsys.readouterr().err
        return json.loads((tmp_path / "weights.json").read_text())

    told = weights(*runs, "--last-batches", "15")
    assert told["weights"] == json.loads((trained / "weights.json").read_text())["weights"]
    shown = capsys.readouterr().out
    assert shown.splitlines()[0].split() == ["stream", "weight", "spread", "least", "greatest"]
    row = next(line.split() for line in shown.splitlines() if line.startswith("eu.tales"))
    each = [learnt_by(trained / name, AverageRecipe(last_batches=15), 24)["eu.tales"] for name in NAMES]
    values = (np.mean(each), np.std(each, ddof=1), min(each), max(each))
    assert row[1:] == [f"{value:.4f}" for value in values]
    alone = weights(runs[0], "--last", "0.25")
    assert (alone["version"], "spread" in alone) == (1, False)
    assert alone["weights"] == pytest.approx(learnt_by(trained / NAMES[0], AverageRecipe(last=0.25), 24))


@pytest.mark.parametrize("average", [{"last_batches": 25}, {"last": 0.01}])
def test_an_average_over_batches_that_there_will_not_be_is_refused_before_training(streams, tmp_path, average):
    for content in (proxies(streams, tmp_path / "out"), chain(streams, tmp_path / "out")):
        content.pop("average_last", None)
        with pytest.raises(
            WeightsError, match=r"run '(large-s1|proxy)': (asked for the mean of the last 25|no weights act)"
        ):
            run(tmp_path, content | {"average": average})
        assert not (tmp_path / "out").exists()


def test_weights_that_cannot_be_averaged_are_refused(trained, tmp_path):
    with pytest.raises(WeightsError, match="asked for the mean of the last 10000 batches, but weights act in 24"):
        learnt_by(trained / "small-s1", AverageRecipe(last_batches=10_000), 24)
    with pytest.raises(SystemExit):
        main(["weights", str(tmp_path)])
    save_weights(tmp_path / "weights.json", {"a": 0.5, "b": 0.5}, "here", {"a": 0.1, "b": 0.1})
    content = json.loads((tmp_path / "weights.json").read_text())
    for wrong, message in (
        ({"version": 1}, "version 1; a file with a spread is of version 2"),
        ({"spread": {"a": 0.1}}, "spread is of other streams than weights"),
        ({"spread": None}, "version 2; a file with a spread"),
    ):
        (tmp_path / "weights.json").write_text(json.dumps(content | wrong))
        with pytest.raises(FormatError, match=message):
            read_weights(tmp_path / "weights.json")


def test_proxies_that_cannot_all_run_are_refused_before_the_first_trains(streams, tmp_path):
    models = {"small": RUN["model"], "trained": {"pretrained": str(tmp_path / "nowhere")}}
    with pytest.raises(RecipeError, match="^run 'trained-s1': model.pretrained .* no such folder"):
        run(tmp_path, proxies(streams, tmp_path / "out", models=models))
    assert not (tmp_path / "out").exists()
    run(tmp_path, proxies(streams, tmp_path / "out", models={"small": RUN["model"]}, seeds=[1]))
    changed = {"small": RUN["model"] | {"hidden_size": 32}}
    with pytest.raises(StateError, match="^run 'small-s1': .*model.hidden_size was 16, is 32"):
        run(tmp_path, proxies(streams, tmp_path / "out", models=changed, seeds=[1]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [1, 1]}, "seed 1 stands twice in seeds"),
        ({"seeds": []}, "seeds: .*at least 1 item"),
        ({"models": {}}, "models: .*at least 1 item"),
        ({"models": {"a/b": RUN["model"]}}, "models.*should match pattern"),
        ({"models": {"small": RUN["model"] | {"num_head": 1}}}, "unknown key .*num_head'; did you mean 'num_heads'"),
        ({"average": {"last": 0.5, "last_batches": 10}}, "expected one of last, last_batches, half_life_batches"),
        ({"average": "last"}, r"average: .*\(found 'last'\)"),
        ({"average_last": 0.5}, "expected one of average .* and average_last"),
        ({"average": None}, "expected one of average .* and average_last"),
    ],
)
def test_wrong_proxies_are_refused(streams, tmp_path, changes, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(save(tmp_path / "recipe.yaml", proxies(streams, tmp_path / "out", **changes)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": RUN["model"]}, "run.model is given, but each proxy has its own; leave it out, 'models' has them"),
        ({"seed": 3}, "run.seed is given, but each proxy has its own; leave it out, 'seeds' has them"),
        ({"method": None}, "'run' has no section 'method', with which proxies learn weights"),
    ],
)
def test_the_common_run_has_what_all_proxies_have(streams, tmp_path, changes, message):
    content = proxies(streams, tmp_path / "out")
    with pytest.raises(RecipeError, match=message):
        load_recipe(save(tmp_path / "recipe.yaml", content | {"run": content["run"] | changes}))


def test_a_chain_averages_in_the_same_ways(streams, tmp_path):
    content = chain(streams, tmp_path / "out")
    del content["average_last"]
    recipe = load_recipe(save(tmp_path / "recipe.yaml", content | {"average": {"half_life_batches": 100}}))
    assert recipe.averaging == AverageRecipe(half_life_batches=100)
    assert load_recipe(save(tmp_path / "recipe.yaml", chain(streams, tmp_path))).averaging == AverageRecipe(last=0.5)


def test_the_cache_of_proxies_can_be_given_from_outside(streams, tmp_path):
    path = save(tmp_path / "recipe.yaml", proxies(streams, tmp_path / "out"))
    recipe = load_recipe(path, cache_dir=tmp_path / "cache")
    assert {proxy.training.cache_dir for proxy in recipe.proxies.values()} == {str(tmp_path / "cache")}
