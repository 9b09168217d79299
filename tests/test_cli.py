"""The commands as users type them: what they print, what they write, how they fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from mixstream import Catalog

QUICKSTART = str(REPOSITORY / "recipes" / "quickstart")


def test_from_text_to_a_plan(call, tmp_path):
    streams = tmp_path / "streams"
    code, out, _ = call("convert", QUICKSTART, "--out", streams, "--sequence-length", 128, "--holdout", 0.15)
    assert code == 0
    assert "eu.tales" in out
    assert f"documents in 10 streams in {streams}" in out
    code, out, _ = call("convert", QUICKSTART, "--out", streams, "--sequence-length", 128, "--holdout", 0.15)
    assert code == 0
    assert out.count("kept") == 10
    code, out, _ = call("inspect", streams)
    assert code == 0
    assert "byte" in out
    plan = tmp_path / "plan.json"
    options = ["--budget-tokens", 100_000, "--batch-size", 16, "--weights", "temperature:0.3", "--out", plan]
    code, out, _ = call("plan", streams, *options, "--max-repeats", "eu.tales=4", "--max-repeats", "10")
    assert code == 0
    assert "48 batches of 16 samples" in out
    entries = {entry["name"]: entry for entry in json.loads(plan.read_text())["entries"]}
    assert entries["eu.tales"]["max_repeats"] == 4
    assert entries["gl.tales"]["max_repeats"] == 10


def test_a_budget_of_what_the_corpora_make(call, streams, tmp_path):
    """XDoGE's rescaling: as many tokens as there are, as repeat nothing, as repeat budgets allow."""
    sizes = Catalog.open(streams).tokens
    expected = {
        "keep_total": sum(sizes.values()),
        "keep_largest": len(sizes) * min(sizes.values()),
        "cap": len(sizes) * min(7 * size if name == "eu.tales" else 50 * size for name, size in sizes.items()),
    }
    for mode, tokens in expected.items():
        plan = tmp_path / f"{mode}.json"
        repeats = ["--max-repeats", 50, "--max-repeats", "eu.tales=7"] if mode != "keep_largest" else []
        asked = ["--budget-tokens", mode, "--batch-size", 1, "--weights", "uniform", "--out", plan]
        code, _, err = call("plan", streams, *asked, *repeats)
        assert code == 0, err
        assert json.loads(plan.read_text())["budget_tokens"] == tokens


def test_a_schedule_and_its_simulation(call, streams, tmp_path):
    plan, schedule = tmp_path / "plan.json", tmp_path / "schedule.yaml"
    schedule.write_text("- {at: 0.5dur, ramp: 10ba, weights: uniform}\n")
    options = ["--budget-tokens", 8 * 803, "--batch-size", 8, "--max-repeats", 4, "--out", plan]
    more = ["--schedule", schedule, "--lanes", 2, "--sequence-length", 4, "--window-samples", 10, "--simulate"]
    code, out, _ = call("plan", streams, *options, *more)
    assert code == 0
    assert "first weight  mean proportion" in out
    assert "weights change at batch 100, over 10 batches" in out
    assert "all streams" in out
    assert "the run ends with batch 199 after 6,400 tokens, 24 below its token budget; 1 repeat budgets are" in out
    content = json.loads(plan.read_text())
    assert (content["lanes"], content["sequence_length"], content["stored_sequence_length"]) == (2, 4, 8)
    assert [change["ramp_batches"] for change in content["schedule"]] == [10]
    code, _, err = call("plan", streams, *options, "--schedule", tmp_path / "none.yaml")
    assert code == 2
    assert "none.yaml: no such file; write a list of changes" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["convert", "nowhere", "--out", "OUT"], "nowhere: no such file or folder"),
        (["convert", "EMPTY", "--out", "OUT"], "no corpus file in it"),
        (["inspect", "nowhere"], "nowhere: no such folder"),
        (["plan", "STREAMS", "--budget-tokens", "10", "--batch-size", "2"], "does not pay one batch"),
        (
            ["plan", "STREAMS", "--budget-tokens", "999999", "--batch-size", "2", "--max-repeats", "1"],
            "raise max_repeats",
        ),
        (["plan", "STREAMS", "--budget-tokens", "999", "--batch-size", "2", "--floor", "0.5"], "adds up to 2.5"),
        (
            ["plan", "STREAMS", "--budget-tokens", "999", "--batch-size", "2", "--weights", "x"],
            "neither a file nor one",
        ),
        (["train", "nowhere.yaml"], "no such file; write one"),
        (["weights", "EMPTY"], "holds no run that has ended"),
        (["convert", QUICKSTART, "--out", "/dev/null/x"], "Not a directory"),
        (["plan", "STREAMS", "--budget-tokens", "999", "--batch-size", "2", "--out", "EMPTY"], "is not a file"),
        (["plan", "STREAMS", "--budget-tokens", "999", "--batch-size", "2", "--out", "/dev/null"], "is not a file"),
        (["report", "EMPTY"], "not a run's folder"),
    ],
)
def test_an_error_is_one_line_and_leaves_nothing(call, streams, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {"OUT": tmp_path / "out", "EMPTY": tmp_path / "empty", "STREAMS": streams}
    code, out, err = call(*(places.get(argument, argument) for argument in arguments))
    assert code == 2
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in out + err
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "x", "--budget-tokens", "-5", "--batch-size", "2"],
        ["plan", "x", "--budget-tokens", "keep_all", "--batch-size", "2"],
        ["plan", "x", "--budget-tokens", "5", "--batch-size", "2", "--max-repeats", "many"],
        ["nonsense"],
        ["plan"],
    ],
)
def test_a_wrong_option_exits_with_2(call, arguments):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    first, second = err.splitlines()
    assert first.startswith("error: ")
    assert second.startswith("mixstream ")
    assert second.endswith("--help tells what it takes")


def test_a_missing_extra_is_told(tmp_path):
    """In a process where torch cannot be imported."""
    recipe = Path(__file__).parent.parent / "recipes" / "demo.yaml"
    code = (
        "import sys\n"
        "sys.modules['composer'] = None\n"
        "from mixstream.cli import main\n"
        f"main(['train', {str(recipe)!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("install it with pip install 'mixstream-llm[train]'")


def test_help_is_quick_and_names_every_command():
    done = subprocess.run(
        [Path(sys.executable).parent / "mixstream", "--help"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0
    for command in ("convert", "upload", "inspect", "verify", "plan", "weights", "recommend", "train", "report"):
        assert command in done.stdout
