"""`mixstream plan` and `mixstream plan diff` as they are typed."""

from __future__ import annotations

import json

import pytest

from mixstream import Plan
from mixstream.report.outlook import Outlook


@pytest.fixture
def planned(call, streams, tmp_path):
    """Return a function that plans: (the file, what was printed)."""

    def plan(name: str, *options: object):
        file = tmp_path / name
        code, out, err = call(
            "plan", streams, "--budget-tokens", 6400, "--batch-size", 8, "--out", file, "--weights", "uniform", *options
        )
        assert (code, err) == (0, "")
        return file, out

    return plan


def test_a_row_tells_all_of_a_stream(planned):
    file, out = planned("plan.json", "--max-repeats", "eu.tales=5", "--max-repeats", "30")
    lines = out.splitlines()
    assert lines[0].split("  ")[0] == "stream"
    for title in ("documents", "tokens to read", "repeats", "budget", "of budget", "download", "runs dry at batch"):
        assert title in lines[0]
    eu = next(line for line in lines if line.startswith("eu.tales")).split()
    entry = next(entry for entry in Plan.load(file).entries if entry.name == "eu.tales")
    assert eu[1:9] == ["23", "184", "0.2000", f"{entry.proportion:.4f}", f"{entry.tokens:,}", "5.00", "5", "100%"]
    assert eu[11] != "never"
    es = next(line for line in lines if line.startswith("es.tales")).split()
    assert es[-1] == "never"
    assert next(line for line in lines if line.startswith("all streams")).split()[2:4] == ["525", "4,200"]
    assert lines[-1] == f"100 batches of 8 samples; plan in {file}"


def test_json_is_all_that_is_printed_and_says_the_same(planned):
    file, out = planned("plan.json", "--max-repeats", 12, "--json")
    found = Outlook.model_validate_json(out, strict=True)
    plan = Plan.load(file)
    assert [(own.name, own.tokens_to_read, own.repeats) for own in found.streams] == [
        (entry.name, entry.tokens, entry.repeats) for entry in plan.entries
    ]
    assert json.loads(out)["format"] == "mixstream.outlook"


def test_json_and_the_simulation_exclude_each_other(call, streams, tmp_path):
    options = ["--budget-tokens", 6400, "--batch-size", 8, "--out", tmp_path / "plan.json", "--json", "--simulate"]
    code, _, err = call("plan", streams, *options)
    assert code == 2
    assert "choose one of them" in err
    assert not (tmp_path / "plan.json").exists()


def test_many_repeats_are_warned_of(planned):
    assert "warning" not in planned("plan.json", "--max-repeats", 16)[1]
    _, out = planned("plan.json", "--budget-tokens", 64_000, "--max-repeats", 20, "--max-repeats", "eu.tales=41")
    warnings = [line for line in out.splitlines() if line.startswith("warning: ")]
    assert [line.partition(":")[2].partition(" (")[0] for line in warnings] == [
        " 1 of 5 is read more than 40 times",
        " 2 of 5 are read more than 16 times",
    ]
    assert "(eu.tales 41)" in warnings[0]
    assert "(ca.tales 20, gl.tales 20)" in warnings[1]


def test_a_difference_exits_with_1_and_the_same_with_0(call, planned, tmp_path):
    one, _ = planned("one.json")
    other, _ = planned("other.json", "--max-repeats", "eu.tales=2", "--seed", 3)
    code, out, _ = call("plan", "diff", one, one)
    assert code == 0
    assert out.splitlines()[-1] == "runs of the two plans read the very same batches"
    code, out, _ = call("plan", "diff", one, other)
    assert code == 1
    lines = out.splitlines()
    assert lines[0].split() == ["setting", "before", "now"]
    assert lines[1].split() == ["seed", "17", "3"]
    eu = next(line for line in lines if line.startswith("eu.tales"))
    assert eu.split()[1:3] == ["0.2000", "0.2000"]
    assert eu.endswith("budget none, now 2")
    assert lines[-2] == "streams: 5 of the 5 that both have changed"
    code, out, _ = call("plan", "diff", one, other, "--json")
    assert code == 1
    assert json.loads(out)["reads_same"] is False
    run = tmp_path / "run"
    run.mkdir()
    (run / "plan.json").write_text(one.read_text())
    assert call("plan", "diff", run, one)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--max-repeats", "eu.tale=4"], "max_repeats names 'eu.tale', which is no stream; did you mean 'eu.tales'?"),
        (["--weights", "WEIGHTS"], "did you mean 'gl.tales'?"),
        (["--weights", "unifrom"], "did you mean 'uniform'?"),
        (["--schedule", "SCHEDULE"], "did you mean 'gl.tales'?"),
    ],
)
def test_unknown_names_get_the_nearest(call, streams, tmp_path, arguments, told):
    names = ["ca.tales", "en.tales", "es.tales", "eu.tales", "gl.tale"]
    (tmp_path / "weights.json").write_text(json.dumps(dict.fromkeys(names, 0.2)))
    (tmp_path / "schedule.json").write_text(json.dumps([{"at": "5ba", "weights": dict.fromkeys(names, 0.2)}]))
    places = {"WEIGHTS": tmp_path / "weights.json", "SCHEDULE": tmp_path / "schedule.json"}
    options = [places.get(argument, argument) for argument in arguments]
    code, _, err = call("plan", streams, "--budget-tokens", 6400, "--batch-size", 8, *options)
    assert code == 2
    assert told in err
