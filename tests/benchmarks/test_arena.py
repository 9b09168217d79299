import math
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from mixstream.runs.recipe import SingleRecipe, load_recipe

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import arena
from arena_figures import Ended, lines_of, over_seeds, tables
from arena_recipes import DEVICES, METHODS, ONLINE, REFERENCE, Setting, Task, tasks_of


def ended(**losses):
    return Ended(losses, dict.fromkeys(losses, 0.5), dict.fromkeys(losses, 2.0), seconds=10.0, tokens=100)


def test_figures_are_over_seeds_and_differences_within_a_seed():
    uniform = {1: ended(eu=3.0, gl=2.0), 2: ended(eu=3.4, gl=2.2)}
    learnt = {1: ended(eu=2.5, gl=2.3), 2: ended(eu=2.7, gl=2.7), 3: ended(eu=9.0, gl=9.0)}
    reference, line = lines_of({"uniform": uniform, "learnt": learnt}, "uniform")
    assert line.seeds == [1, 2, 3]
    assert line.figures["mean"].mean == pytest.approx((2.4 + 2.7 + 9.0) / 3)
    assert line.figures["worst"].deviation == pytest.approx(statistics.stdev([2.5, 2.7, 9.0]))
    assert line.differences["mean"].count == 2  # of seed 3 there is no uniform run
    assert line.differences["mean"].mean == pytest.approx(((2.4 - 2.5) + (2.7 - 2.8)) / 2)
    assert line.differences["worst"].error == pytest.approx(statistics.stdev([-0.5, -0.7]) / math.sqrt(2))
    assert reference.differences["eu"].mean == 0


def test_one_seed_has_no_error():
    assert math.isnan(over_seeds([2.0]).error)
    text = tables(
        lines_of({"uniform": {1: ended(eu=3.0)}, "natural": {1: ended(eu=3.5)}}, "uniform"), {"eu": 7}, "uniform"
    )
    assert "+0.5000" in text
    assert "nan" not in text


@pytest.mark.parametrize("setting", [replace(own, device="cpu") for own in DEVICES.values()], ids=list(DEVICES))
def test_every_run_is_a_recipe(setting, tmp_path):
    for task in tasks_of(setting, tmp_path, METHODS, (1,)):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(task.recipe))
        recipe = load_recipe(path)
        assert isinstance(recipe, SingleRecipe)
        assert (recipe.kind == "proxy") == (task.average_last is not None)


def test_base_runs_of_a_seed_differ_in_weights_alone(tmp_path):
    tasks = tasks_of(Setting(), tmp_path, METHODS, (1, 2))
    for seed in (1, 2):
        bases = [task.recipe for task in tasks if task.recipe["kind"] == "base" and task.recipe["seed"] == seed]
        assert len(bases) == len(METHODS)
        assert len({recipe["mixture"].pop("weights") for recipe in bases}) == len(METHODS)
        assert len({recipe.pop("out") for recipe in bases}) == len(METHODS)
        assert all(recipe == bases[0] for recipe in bases)


def test_runs_wait_for_what_they_need(tmp_path):
    tasks = tasks_of(Setting(), tmp_path, ("doremi",), (3,))
    assert [task.name for task in tasks] == [f"seed-3/{REFERENCE}", "seed-3/doremi-proxy", "seed-3/doremi"]
    assert tasks[1].needs == ("seed-3/uniform",)
    assert tasks[1].recipe["method"]["reference"] == tasks[0].recipe["out"]
    assert tasks[2].needs == ("seed-3/doremi-proxy",)
    proxies = [task for task in tasks_of(Setting(), tmp_path, ONLINE, (3,)) if task.average_last is not None]
    assert {task.recipe["seed"] for task in proxies} == {1003}


def test_a_stream_s_share_counts_before_its_language_s(tmp_path):
    for name in ("eu.wiki.jsonl.zst", "eu.spoken.txt.gz", "en.wiki.parquet", "README.md"):
        (tmp_path / name).touch()
    (tmp_path / "gl.web").mkdir()
    shares = arena.by_share(tmp_path, "eu=0.1,eu.wiki=0.2")
    assert {share: [Path(file).name for file in files] for share, files in shares.items()} == {
        0.1: ["eu.spoken.txt.gz"],
        0.2: ["eu.wiki.jsonl.zst"],
        1.0: ["en.wiki.parquet", "gl.web"],
    }
    with pytest.raises(arena.ArenaError, match=r"no file such as eu\.wiki\.jsonl\.zst"):
        arena.by_share(tmp_path / "gl.web", "")


def test_what_needs_a_run_that_failed_is_not_run(tmp_path):
    tasks = [Task("seed-1/bad", {"kind": "nothing"}), Task("seed-1/next", {}, needs=("seed-1/bad",))]
    failed = arena.run_all(tasks, tmp_path, at_once=1, threads=1)
    assert "kind is 'nothing'" in failed[0]
    assert failed[1] == "seed-1/next: not run, since seed-1/bad failed"


def test_a_run_of_other_settings_is_refused(tmp_path):
    (task,) = tasks_of(Setting(), tmp_path, ("uniform",), (1,))
    assert not arena.has_ended(task, tmp_path)
    out = tmp_path / task.name
    out.mkdir(parents=True)
    (out / "result.json").write_text("{}")
    (tmp_path / f"{task.name}.yaml").write_text(yaml.safe_dump(task.recipe, sort_keys=False))
    assert arena.has_ended(task, tmp_path)
    (other,) = tasks_of(replace(Setting(), mu=1.0, tokens=1_000_000), tmp_path, ("uniform",), (1,))
    with pytest.raises(arena.ArenaError, match="a run of other settings; choose another --work"):
        arena.has_ended(other, tmp_path)
