"""The recipe's section `method`: each method by its name, its options, and what of it is refused before a run."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny import RUN, XDOGE, save, single

from mixstream.errors import BudgetError, FloorError, MixstreamError, MixtureError, RecipeError
from mixstream.methods.learning.history import read_history
from mixstream.mixture.plan import Plan
from mixstream.runs.chain import run_recipe
from mixstream.runs.recipe import load_recipe
from mixstream.runs.train import plan_run

OFTEN = {"interval_batches": 3}
MIXTURE = RUN["mixture"]


def run(tmp_path, content):
    return run_recipe(load_recipe(save(tmp_path / "recipe.yaml", content)), lambda name, run: None)


def learn(streams, tmp_path, method, name="run", **changes):
    """Run a proxy; return its weights.jsonl."""
    run(tmp_path, single(streams, tmp_path / name, method=method, **changes))
    return read_history(tmp_path / name / "weights.jsonl")


def planned(streams, tmp_path, method, **changes):
    recipe = load_recipe(save(tmp_path / "recipe.yaml", single(streams, tmp_path / "run", method=method, **changes)))
    return plan_run(recipe.run, recipe.streams, tmp_path / "run")


@pytest.mark.parametrize(
    "method",
    [
        XDOGE | {"scores": "jvp"},
        XDOGE | {"scores": "kbackward"},
        XDOGE | {"probe": "same_batch", "apply": "loss"},
        XDOGE | {"probe": "half_split", "ema": 0.5, "form": "normalised", "saturation": 1.0, "eta": 0.02},
        {"name": "odm", **OFTEN},
        {"name": "temperature", "start": 1.0, "end": 5.0, **OFTEN},
        {"name": "odm", "apply": "loss", **OFTEN},
    ],
    ids=lambda method: "-".join(str(value) for value in method.values() if isinstance(value, str)),
)
def test_each_method_moves_the_weights_and_keeps_the_floor(streams, tmp_path, method):
    history = learn(streams, tmp_path, method)
    assert [line.batch for line in history] == [0, 3, 6, 9, 12, 15, 18, 21]
    assert {line.method for line in history} == {method["name"]}
    assert history[-1].weights != history[0].weights
    for line in history:
        assert sum(line.weights.values()) == pytest.approx(1)
        assert min(line.weights.values()) >= 0.05 - 1e-12


def test_ways_to_measure_the_same_scores_learn_the_same(streams, tmp_path):
    """Forward mode, finite differences and K backward passes, from one and the same probes."""
    learnt = [learn(streams, tmp_path, XDOGE | {"scores": scores}, scores) for scores in ("kbackward", "fd", "jvp")]
    for other in learnt[1:]:
        for line, same in zip(learnt[0][1:], other[1:], strict=True):
            scores = np.array(list(line.scores.values()))
            apart = np.abs(scores - np.array(list(same.scores.values())))
            assert apart.max() < 0.02 * np.abs(scores).max()  # runs drift apart as their weights do
            assert list(same.weights.values()) == pytest.approx(list(line.weights.values()), abs=1e-3)


def test_doremi_learns_where_it_is_behind_a_reference(streams, tmp_path):
    run(tmp_path, single(streams, tmp_path / "uniform"))
    doremi = {"name": "doremi", "reference": str(tmp_path / "uniform"), "sequences_per_stream": 2, **OFTEN}
    history = learn(streams, tmp_path, doremi)
    assert len(history) == 8
    for line in history[1:]:
        assert min(line.scores.values()) >= 0
        assert max(line.scores.values()) > 0
    alpha = np.array(list(history[0].weights.values())) * np.exp(list(history[1].scores.values()))
    assert list(history[1].weights.values()) == pytest.approx(alpha / alpha.sum(), abs=1e-3)  # smoothing


def test_ado_learns_once_it_has_a_law(streams, tmp_path):
    ado = {"name": "ado", "interval_batches": 1, "ignore_batches": 2, "start_batches": 18, "refit_batches": 3}
    history = learn(streams, tmp_path, ado)
    moved = [line.batch for line in history if line.weights != history[0].weights]
    assert moved == [18, 19, 20, 21, 22, 23]


def test_weights_are_those_of_streams_that_can_be_read(streams, tmp_path):
    """Caps of the run that is to use them: alpha_i <= R_max U_i / D."""
    caps = {"budget_tokens": 10_000, "max_repeats": {"eu.tales": 5, "*": 1000}}
    history = learn(streams, tmp_path, XDOGE | {"caps": caps, "mu": 0.001, "floor": 0.01})
    plan = Plan.load(tmp_path / "run" / "plan.json")
    size = next(entry.num_samples for entry in plan.entries if entry.name == "eu.tales")
    cap = 5 * size * 8 / 10_000
    assert cap < 0.2  # uniform weights would exceed it
    assert history[-1].weights["eu.tales"] <= cap + 1e-12


def test_a_target_that_is_not_trained_on(streams, tmp_path):
    """Out-of-domain DoGE: eu.tales gives the gradient, the others are weighed by how they help it."""
    names = planned(streams, tmp_path, XDOGE).plan.streams
    others = [name for name in names if name != "eu.tales"]
    weights = {name: 1 / len(others) for name in others} | {"eu.tales": 0}
    mixture = MIXTURE | {"weights": weights, "floor": 0.0}
    history = learn(streams, tmp_path, XDOGE | {"targets": ["eu.tales"], "floor": 0.05, "mu": 0.001}, mixture=mixture)
    assert {line.weights["eu.tales"] for line in history} == {0.0}
    assert history[-1].weights != history[0].weights
    assert all(history[-1].weights[name] >= 0.05 - 1e-12 for name in others)
    assert history[-1].probe_losses["eu.tales"] > 0


def test_a_floor_of_languages_is_shared_by_their_streams(streams, tmp_path):
    mixture = MIXTURE | {"floor": 0.0}
    method = XDOGE | {"floor": 0.2, "floor_of": "language", "mu": 1e-4}
    history = learn(streams, tmp_path, method, mixture=mixture)
    by_language: dict[str, float] = {}
    for name, weight in history[-1].weights.items():
        by_language[name[:2]] = by_language.get(name[:2], 0) + weight
    assert min(by_language.values()) >= 0.2 - 1e-9


def test_stages_begin_without_those_that_join_later(streams, tmp_path):
    stages = [{"streams": ["eu.tales"], "at": 0.4, "ramp": 0.2}]
    mixture = MIXTURE | {"floor": 0.0}
    history = learn(streams, tmp_path, XDOGE | {"stages": stages, "floor": 0.02}, mixture=mixture)
    plan = Plan.load(tmp_path / "run" / "plan.json")
    assert plan.weights[plan.streams.index("eu.tales")] == 0
    at = {line.batch: line.weights["eu.tales"] for line in history}
    assert at[0] == at[9] == 0
    assert 0 < at[12] < at[15]
    assert at[15] >= 0.02
    read = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    shares = {
        one["batch"]: one["metrics"]["mixture/read/eu.tales"]
        for one in read
        if "mixture/read/eu.tales" in one["metrics"]
    }
    assert shares[8] == 0
    assert shares[24] > 0


def test_a_family_prior_pulls_the_weights(streams, tmp_path):
    """eu has no relatives here: it gets half."""
    families = {"romance": ["ca", "es", "gl"], "germanic": ["en"], "isolate": ["eu"]}
    history = learn(streams, tmp_path, XDOGE | {"families": families, "prior_strength": 1e6})
    assert history[-1].weights["eu.tales"] == pytest.approx(1 / 3, abs=1e-3)


@pytest.mark.parametrize(
    ("method", "changes", "error", "message"),
    [
        (XDOGE | {"floor": 0.3}, {}, FloorError, r"floor=?.*0\.3.* for 5 streams adds up to 1\.5"),
        (
            XDOGE | {"floor": 0.1, "caps": {"budget_tokens": 10**9, "max_repeats": {"eu.tales": 1, "*": 10**9}}},
            {},
            FloorError,
            "eu.tales",
        ),
        (XDOGE | {"floor": 0.0, "caps": {"budget_tokens": 10**9, "max_repeats": 1}}, {}, BudgetError, "caps"),
        (XDOGE | {"targets": ["eu.tale"]}, {}, RecipeError, "method.targets names 'eu.tale', .* did you mean 'eu.tales'"),
        (XDOGE | {"families": {"a": ["eu"]}, "prior_strength": 1.0}, {}, MixtureError, "ca"),
        (
            XDOGE | {"stages": [{"streams": ["eu.tales"], "at": 0.5}], "floor": 0.02},
            {},
            RecipeError,
            r"mixture.floor 0.05 is read of streams that method.stages hold back; give it as method.floor",
        ),
        (
            XDOGE | {"stages": [{"streams": ["eu.tail"], "at": 0.5}]},
            {"mixture": MIXTURE | {"floor": 0.0}},
            MixtureError,
            "'eu.tail', which is no stream",
        ),
        (
            XDOGE | {"stages": [{"streams": ["eu.tales"], "at": 0.5}], "apply": "loss"},
            {"mixture": MIXTURE | {"floor": 0.0}},
            RecipeError,
            "with apply: loss what is read never changes, so they would never join",
        ),
        (
            XDOGE | {"stages": [{"streams": ["eu.tales"], "at": 0.9}]},
            {"mixture": MIXTURE | {"floor": 0.0}},
            RecipeError,
            r"eu.tales join at batch 22, and so be read from batch 26 .* the run's batches are 0 to 23",
        ),
        (
            XDOGE | {"stages": [{"streams": ["eu.tales"], "at": 0.01}]},
            {"mixture": MIXTURE | {"floor": 0.0}},
            RecipeError,
            "join at batch 0, .* expected one of them, after 0",
        ),
        (
            {"name": "ado", "ignore_batches": 2, "start_batches": 5, "least": 0.5, **OFTEN},
            {},
            FloorError,
            "floor=0.5 for 5 streams adds up to 2.5",
        ),
        (XDOGE | {"floor": 0.6, "floor_of": "language"}, {}, FloorError, "for 5 languages adds up to 3"),
        (
            XDOGE | {"sequences_per_stream": 12},
            {},
            RecipeError,
            "eu.tales has 23 samples, but an update takes 24 of each stream: some would be on both sides",
        ),
        (
            {"name": "odm", "mu": 0.1, **OFTEN},
            {},
            RecipeError,
            r"unknown key 'method.mu' \(known: .*reward_scale",
        ),
        ({"name": "doremi", "reference": "nowhere/run/model", **OFTEN}, {}, RecipeError, "method.reference 'nowhere/run/model': no such folder"),
        (XDOGE | {"sequences_per_stream": 3, "probe": "half_split"}, {}, RecipeError, "3 has no halves; give an even"),
        (XDOGE | {"prior_strength": 0.5}, {}, RecipeError, "families and prior_strength go together"),
        ({"name": "ado", **OFTEN}, {}, RecipeError, "after method.start_batches 1,000, but the run has 24 batches; lower"),
        (XDOGE | {"name": "xdogue"}, {}, RecipeError, "xdogue"),
        ({"interval_batches": 3, "mu": 1.0}, {}, RecipeError, "name"),
    ],
    ids=lambda value: None if isinstance(value, type) else "",
)  # fmt: skip
def test_what_cannot_be_is_refused_before_the_run(streams, tmp_path, method, changes, error, message):
    with pytest.raises(error, match=message) as told:
        planned(streams, tmp_path, method, **changes)
    assert isinstance(told.value, MixstreamError)
    assert not (tmp_path / "run").exists()


def test_a_floor_that_may_be_broken_is_told(streams, tmp_path):
    with pytest.warns(UserWarning, match="'clip' renormalises once"):
        planned(streams, tmp_path, XDOGE | {"floor_form": "clip"})


def test_the_old_name_of_the_section_is_told(streams, tmp_path):
    content = single(streams, tmp_path / "run", method=XDOGE)
    content["xdoge"] = content.pop("method")
    with pytest.raises(RecipeError, match="the section 'xdoge' is now 'method', with the key name: xdoge"):
        load_recipe(save(tmp_path / "recipe.yaml", content))
