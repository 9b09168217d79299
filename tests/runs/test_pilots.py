"""Recipes of pilots, and the files that they become."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from piloting import BATCH, MIXTURE, cut, pilots_recipe, write_streams
from tiny import RUN, chain, save, single

from mixstream.cli import main
from mixstream.errors import BudgetError, MixtureError, RecipeError, StateError, StreamError
from mixstream.mixture.build import build_plan
from mixstream.runs.pilots.groups import Groups, groups_of
from mixstream.runs.pilots.recipe import load_pilots
from mixstream.runs.pilots.views import check_view
from mixstream.runs.pilots.writing import write_pilots
from mixstream.runs.pilots.written import PilotsFolder
from mixstream.runs.recipe import SingleRecipe, load_recipe
from mixstream.streams.catalog import Catalog


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return write_streams(tmp_path_factory.mktemp("pair"))


def write(tmp_path, content):
    return write_pilots(load_pilots(save(tmp_path / "pilots.yaml", content)), cut)


def test_each_pilot_becomes_a_recipe_that_can_be_planned(streams, tmp_path):
    """Five languages: 3 x 5 x 2 mixed pilots and 5 x 3 alone, with two seeds."""
    changes = {"ratios": None, "alone": [4 * BATCH, 6 * BATCH, 8 * BATCH], "seeds": [1, 2]}
    written = write(tmp_path, pilots_recipe(streams, tmp_path / "out", **changes))
    assert len(written.pilots) == (3 * 5 * 2 + 5 * 3) * 2
    assert written.sources == ("ca", "en", "es", "eu", "gl")
    folder = PilotsFolder(tmp_path / "out")
    assert folder.read() == written
    catalog = Catalog.open(streams)
    for pilot in written.pilots:
        recipe = load_recipe(folder.recipe(pilot.name))
        assert isinstance(recipe, SingleRecipe)
        assert (recipe.kind, recipe.seed, recipe.streams) == ("base", pilot.seed, str(streams))
        assert recipe.out == str(tmp_path / "out" / "runs" / pilot.name)
        asked = recipe.mixture
        plan = build_plan(catalog, asked.weights, asked.budget_tokens, asked.batch_size)
        assert plan.num_batches * BATCH == pilot.budget_tokens
        assert plan.proportions == pytest.approx(list(pilot.proportions.values()), abs=1e-9)
        assert (max(pilot.proportions.values()) == 1) == (pilot.kind == "alone")
    assert len({own.name for own in written.pilots}) == len(written.pilots)


def test_a_language_is_shared_out_to_its_streams_as_they_are_large(pair, tmp_path):
    written = write(tmp_path, pilots_recipe(pair, tmp_path / "out"))
    assert [own.name for own in written.pilots] == [
        "ca-0.25-320-s5", "eu-0.25-320-s5", "ca-0.25-480-s5", "eu-0.25-480-s5",
    ]  # fmt: skip
    recipe = load_recipe(tmp_path / "out" / "recipes" / "eu-0.25-480-s5.yaml")
    assert recipe.mixture.weights == pytest.approx({"ca.news": 0.5625, "ca.tales": 0.1875, "eu.tales": 0.25})
    by_stream = write(tmp_path, pilots_recipe(pair, tmp_path / "streams", by="stream"))
    assert by_stream.sources == ("ca.news", "ca.tales", "eu.tales")
    assert len(by_stream.pilots) == 6


def test_groups(pair):
    groups = groups_of(Catalog.open(pair), "language")
    assert groups.names == ("ca", "eu")
    assert groups.sizes.tolist() == [120 * 8, 60 * 8]
    weights = groups.spread([0.3, 0.7])
    assert groups.sums(weights) == pytest.approx([0.3, 0.7])
    assert sum(weights.values()) == pytest.approx(1, abs=1e-12)
    assert Groups({"a": "x"}, {"a": 3}).spread([1.0]) == {"a": 1.0}


def test_a_cheaper_choice_of_runs(streams, tmp_path):
    changes = {"ratios": None, "choose": {"runs": 12, "candidates": 20}}
    written = write(tmp_path, pilots_recipe(streams, tmp_path / "out", **changes))
    assert len(written.pilots) == 12
    again = write(tmp_path, pilots_recipe(streams, tmp_path / "again", **changes))
    assert [own.proportions for own in again.pilots] == [own.proportions for own in written.pilots]
    with pytest.raises(MixtureError, match="8 runs are fewer than the 9 parameters"):
        write(tmp_path, pilots_recipe(streams, tmp_path / "few", ratios=None, choose={"runs": 8}))


def mixture_of(**changes) -> dict:
    return {"run": pilots_recipe(Path(), Path())["run"] | {"mixture": MIXTURE | changes}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"kind": "base"}, "kind is 'base', expected 'pilots'; `mixstream train` runs others"),
        ({"budget": [1]}, "unknown key 'budget'; did you mean 'budgets'"),
        ({"run": {**RUN, "mixture": MIXTURE}}, "run.seed is given, but each pilot has its own, from seeds"),
        (mixture_of(weights="natural"), "run.mixture.weights is given, .* from the design; leave it out"),
        (mixture_of(budget_tokens=7), "run.mixture.budget_tokens is given, .* from budgets; leave it out"),
        (mixture_of(floor=0.1), "run.mixture.floor is given"),
        ({"seeds": [3, 3]}, "seed 3 stands twice"),
        ({"choose": {"runs": 9}}, "ratios are those of the whole design, choose has candidates of its own"),
        ({"target_tokens": 400}, "a pilot of 480 tokens is longer than the run it is for, of target_tokens 400"),
    ],
)
def test_what_is_no_recipe_of_pilots_is_refused(pair, tmp_path, changes, told):
    path = save(tmp_path / "pilots.yaml", pilots_recipe(pair, tmp_path / "out", **changes))
    with pytest.raises(RecipeError, match=told):
        load_pilots(path)


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"budgets": [480]}, MixtureError, "budgets of mixed pilots are 480; expected at least 2"),
        ({"alone": [480]}, MixtureError, "budgets of monolingual pilots are 480; expected at least 3"),
        ({"budgets": [60, 480]}, BudgetError, "pilot 'ca-0.25-60-s5': budget_tokens=60 does not pay one batch"),
        ({"budgets": [160, 480]}, RecipeError, "pilot .*: training.warmup_batches is 2, but it has 2 batches"),
        (mixture_of(max_repeats=0.3), BudgetError, "pilot 'ca-0.25-480-s5': the run needs 480 tokens"),
    ],
)
def test_pilots_that_cannot_be_are_refused_before_anything_is_written(pair, tmp_path, changes, error, told):
    with pytest.raises(error, match=told):
        write(tmp_path, pilots_recipe(pair, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_streams_without_a_language_are_mixed_by_stream_alone(pair, tmp_path):
    plain = shutil.copytree(pair, tmp_path / "plain")
    (plain / "eu.tales" / "stream.json").unlink()
    with pytest.raises(StreamError, match="'eu.tales' does not say its language .* or mix by: stream"):
        groups_of(Catalog.open(plain), "language")


def test_pilots_stay_apart_from_the_streams(pair, tmp_path):
    with pytest.raises(StateError, match="lies in the streams' folder"):
        write(tmp_path, pilots_recipe(pair, pair / "out"))


def test_more_pilots_may_come_but_none_that_has_begun_changes(pair, tmp_path):
    write(tmp_path, pilots_recipe(pair, tmp_path / "out"))
    begun = tmp_path / "out" / "runs" / "ca-0.25-320-s5" / "recipe.yaml"
    begun.parent.mkdir(parents=True)
    begun.write_text("begun")
    more = write(tmp_path, pilots_recipe(pair, tmp_path / "out", ratios=[0.25, 0.4]))
    assert len(more.pilots) == 8
    other = mixture_of(batch_size=5)
    with pytest.raises(StateError, match=r"pilot 'ca-0.25-320-s5' has begun \(1 such\), .* would change or drop it"):
        write(tmp_path, pilots_recipe(pair, tmp_path / "out", **other))
    fewer = write(tmp_path, pilots_recipe(pair, tmp_path / "out"))
    assert sorted(path.stem for path in (tmp_path / "out" / "recipes").iterdir()) == sorted(
        own.name for own in fewer.pilots
    )


def test_a_view_that_is_too_small_is_refused():
    whole = {"ca": 5000, "eu": 800}
    check_view({"ca": 312, "eu": 50}, 50, 10**6, 16 * 10**6, whole)
    with pytest.raises(BudgetError, match="reads 0.0625 of every stream, which is 50 samples of 'eu' of its 800 "
                       r"\(fewer than min_samples 60; 1 such streams\); give it about 1,200,000 tokens or more"):  # fmt: skip
        check_view({"ca": 312, "eu": 50}, 60, 10**6, 16 * 10**6, whole)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Streams of three languages with documents, as views are cut from them."""
    out = tmp_path_factory.mktemp("converted")
    corpora = [str(REPOSITORY / "recipes" / "quickstart" / f"{name}.tales.jsonl") for name in ("ca", "en", "es")]
    with pytest.raises(SystemExit) as stop:
        main(["convert", *corpora, "--out", str(out), "--sequence-length", "32", "--holdout", "0.15", "--workers", "0"])
    assert stop.value.code == 0
    return out


def test_repeats_are_those_of_the_target(converted, tmp_path):
    """Of every stream, at every proportion: as far as documents, which are whole, allow."""
    target = 200 * 320
    changes = {"budgets": [40 * 320, 100 * 320], "target_tokens": target, "min_samples": 20, "alone": [40 * 320, 100 * 320, target]}  # fmt: skip
    written = write(tmp_path, pilots_recipe(converted, tmp_path / "out", **changes))
    whole = Catalog.open(converted)
    assert {Path(own.streams).name for own in written.pilots} == {"12800", "32k", converted.name}
    for pilot in written.pilots:
        recipe = load_recipe(tmp_path / "out" / "recipes" / f"{pilot.name}.yaml")
        catalog = Catalog.open(pilot.streams)
        share = pilot.budget_tokens / target
        for name, size in whole.sizes.items():
            assert catalog.sizes[name] == pytest.approx(size * share, rel=0.25)  # of 50 to 90 documents
        pilots_plan = build_plan(catalog, recipe.mixture.weights, pilot.budget_tokens, 10)
        target_plan = build_plan(whole, recipe.mixture.weights, target, 10)
        for own, other in zip(pilots_plan.entries, target_plan.entries, strict=True):
            assert own.repeats == pytest.approx(other.repeats, rel=0.35)
        assert catalog.heldout().sizes == whole.heldout().sizes
    again = write(tmp_path, pilots_recipe(converted, tmp_path / "out", **changes))
    assert again == written


def test_views_that_would_be_too_small_are_refused_before_one_is_cut(converted, tmp_path):
    changes = {"budgets": [20 * 320, 100 * 320], "target_tokens": 2000 * 320, "min_samples": 30}
    told = "a pilot of 6,400 tokens for a run of 640,000 reads 0.01 of every stream, which is 2 samples of 'ca.tales'"
    with pytest.raises(BudgetError, match=told):
        write(tmp_path, pilots_recipe(converted, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()
    changes["target_tokens"] = 130 * 320  # what whole documents make of it can be told only when they are looked at
    size = Catalog.open(converted).sizes["ca.tales"]
    with pytest.raises(StreamError, match="for pilots of 6,400 of 41,600 tokens: a view of share 0.15.*ca.tales keeps"):
        write(tmp_path, pilots_recipe(converted, tmp_path / "out", **changes | {"min_samples": size * 20 // 130}))


def test_the_slurm_script_trains_the_pilot_of_its_number(pair, tmp_path):
    """Run by bash, as SLURM's node would; in place of Python something that notes how it is called."""
    out = tmp_path / "a folder"
    written = write(tmp_path, pilots_recipe(pair, out))
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/bash\necho "$@" >> "{tmp_path}/called"\necho "$OMP_NUM_THREADS"\n')
    fake.chmod(0o755)
    script = tmp_path / "copied.sh"  # SLURM runs a copy
    script.write_bytes((out / "slurm.sh").read_bytes())
    assert "#SBATCH --array=0-3\n" in script.read_text()
    assert f'#SBATCH --output="{out}/logs/%a.log"\n' in script.read_text()  # which has a space
    done = out / "runs" / written.pilots[0].name / "result.json"
    done.parent.mkdir(parents=True)
    done.write_text("{}")

    def task(number: int | None, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHON": str(fake), "OMP_NUM_THREADS": "", **more} | ({"SLURM_ARRAY_TASK_ID": str(number)} if number is not None else {})  # fmt: skip
        return subprocess.run(
            ["bash", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )

    assert "complete" in task(0).stdout
    assert all(task(number).returncode == 0 for number in (1, 2, 3))
    called = (tmp_path / "called").read_text().splitlines()
    assert called == [f"-m mixstream.cli train {out}/recipes/{own.name}.yaml" for own in written.pilots[1:]]
    assert task(1, SLURM_CPUS_ON_NODE="6").stdout == "6\n"  # as many threads as cores that are its own
    assert task(1, SLURM_CPUS_ON_NODE="6", OMP_NUM_THREADS="3").stdout == "3\n"
    assert task(4).returncode != 0
    assert "send this file with sbatch" in task(None).stderr


def test_a_run_reads_by_the_weights_of_the_command_line(pair, tmp_path):
    """So that a recipe can be trained by what was planned, and by what that is compared with."""
    path = save(tmp_path / "base.yaml", single(pair, tmp_path / "out"))
    assert load_recipe(path, weights="natural").mixture.weights == "natural"
    with pytest.raises(RecipeError, match="kind 'chain' has several runs; say in it which has weights 'natural'"):
        load_recipe(save(tmp_path / "chain.yaml", chain(pair, tmp_path / "out")), weights="natural")
    with pytest.raises(RecipeError, match="kind is 'pilots', whose runs `mixstream climb pilots` writes"):
        load_recipe(save(tmp_path / "pilots.yaml", pilots_recipe(pair, tmp_path / "out")))


def test_the_command_tells_the_pilots(pair, tmp_path, capsys):
    recipe = save(tmp_path / "pilots.yaml", pilots_recipe(pair, tmp_path / "elsewhere"))
    with pytest.raises(SystemExit) as stop:
        main(["climb", "pilots", str(recipe), "--out", str(tmp_path / "out")])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "4 pilots of 1,600 tokens together" in printed
    assert "eu-0.25-480-s5" in printed
    assert json.loads((tmp_path / "out" / "pilots.json").read_text())["version"] == 1
    assert yaml.safe_load((tmp_path / "out" / "recipes" / "eu-0.25-480-s5.yaml").read_text())["kind"] == "base"
