"""`climb fit`, `climb solve` and `climb compare`, as users type them, on runs of a planted law."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from piloting import write_streams

from mixstream.cli import main
from mixstream.methods.climb.file import load
from mixstream.methods.planning.designs import climb_design, monolingual_design
from mixstream.methods.planning.table import RunTable, table_of
from mixstream.methods.planning.table_files import write_runs
from mixstream.mixture.build import build_plan
from mixstream.mixture.schedule import read_schedule
from mixstream.mixture.weights import read_weights
from mixstream.streams.catalog import Catalog

NAMES = ("ca", "eu")
BUDGETS = (40_000, 80_000, 160_000)


def planted() -> RunTable:
    """Return 18 runs of form F1, without noise: each language gives the other a tenth, and saturates."""
    mixed, alone = climb_design(NAMES, BUDGETS[1:]), monolingual_design(NAMES, BUDGETS)
    shares = np.vstack([mixed.proportions, alone.proportions])
    tokens = np.concatenate([mixed.tokens, alone.tokens]).astype(float)
    ratios = shares + 0.1 * -np.expm1(-3 * shares[:, ::-1])
    ratios[len(mixed) :] = np.maximum(shares[len(mixed) :], 1e-3)
    losses = np.array([1.2, 0.9]) + np.array([1.5, 2.0]) * (ratios * tokens[:, None] / 80_000) ** -0.3
    return table_of(NAMES, shares, tokens, losses, runs=[*mixed.runs, *alone.runs])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with streams, the table of runs, and the law that `climb fit` finds."""
    folder = tmp_path_factory.mktemp("law")
    write_streams(folder / "streams")
    write_runs(folder / "runs.parquet", planted())
    with pytest.raises(SystemExit) as stop:
        main(["climb", "fit", str(folder / "runs.parquet"), "--out", str(folder / "climb.json"), "--form", "F1"])
    assert stop.value.code == 0
    return folder


@pytest.fixture
def call(capsys):
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


def solve(call, place, *options: object, out: str = "weights.json") -> tuple[dict[str, float], str]:
    asked = ["--streams", place / "streams", "--tokens", "4k", "--out", place / out]
    code, printed, complaint = call("climb", "solve", place / "climb.json", *asked, *options)
    assert code == 0, complaint
    return dict(read_weights(place / out)), printed


def test_a_fit_tells_its_errors_on_runs_left_out(call, place):
    code, printed, _ = call(
        "climb", "fit", place / "runs.parquet", "--out", place / "again.json", "--form", "F1", "--folds", 4
    )
    assert code == 0
    assert "errors on 12 mixtures, each predicted without it (4 fits)" in printed
    (line,) = [line.split() for line in printed.splitlines() if line.startswith("all ")]
    law, mean = float(line[1].rstrip("%")), float(line[3].rstrip("%"))
    assert law < 0.1 < 2 < mean  # the law is the planted one; the mean of the others knows no mixture
    assert load(place / "again.json").fitted.languages == NAMES


def test_a_solution_is_dealt_to_the_streams_of_each_language(call, place):
    weights, printed = solve(call, place)
    assert sum(weights.values()) == pytest.approx(1, abs=1e-9)
    assert weights["ca.news"] == pytest.approx(3 * weights["ca.tales"])  # as they are large
    planner = load(place / "climb.json")
    expected = planner.allocate(4000, np.array([960.0, 480.0]), np.full(2, np.inf))
    assert [weights["ca.news"] + weights["ca.tales"], weights["eu.tales"]] == pytest.approx(expected, abs=1e-6)
    for name in ("natural", "uniform", "unimax"):
        assert name in printed.splitlines()[0]
    assert re.search(r"ca.news +0\.\d+", printed)
    assert "below the smallest of the pilots' budgets" in printed  # no extrapolation in silence
    by_sum, _ = solve(call, place, "--objective", "sum_loss", "--beside", place / "beside", out="sum.json")
    even = dict(read_weights(place / "beside" / "uniform.json"))  # of languages
    assert even == pytest.approx({"ca.news": 0.375, "ca.tales": 0.125, "eu.tales": 0.5})
    assert by_sum != weights
    build_plan(Catalog.open(place / "streams"), place / "weights.json", 4000, 10)


def test_a_solution_keeps_to_budgets_and_floor(call, place):
    held, _ = solve(call, place, "--max-repeats", "eu.tales=2", "--max-repeats", "10", out="held.json")
    assert held["eu.tales"] <= 2 * 480 / 4000 + 1e-9
    floored, _ = solve(call, place, "--floor", 0.45, out="floor.json")
    assert floored["eu.tales"] >= 0.45 - 1e-9
    code, _, complaint = call("climb", "solve", place / "climb.json", "--streams", place / "streams", "--tokens", "1T", "--max-repeats", 4)  # fmt: skip
    assert code == 2
    assert re.search(r"the run needs 1,000,000,000,000 tokens, but the repeat budgets .* supply 5,760", complaint)


def test_a_solution_tells_how_sure_it_is(call, place):
    _, printed = solve(call, place, "--runs", place / "runs.parquet", "--refits", 8, out="sure.json")
    assert re.search(r"ca +[\d,]+ +0\.\d+ +0\.\d+ - 0\.\d+", printed)
    assert re.search(r"8 refits; share of them in which it has less loss than .*uniform \d+%", printed)
    assert json.loads((place / "sure.json").read_text())["spread"].keys() == {"ca.news", "ca.tales", "eu.tales"}


def test_intervals_are_of_the_runs_that_the_law_was_fitted_to(call, place, tmp_path):
    """Of others the weights would follow another law than the file's, which a schedule follows."""
    write_runs(tmp_path / "other.csv", planted().rows(range(1, 18)))
    code, _, complaint = call("climb", "solve", place / "climb.json", "--streams", place / "streams", "--tokens", "4k", "--runs", tmp_path / "other.csv")  # fmt: skip
    assert code == 2
    assert re.search(
        r"not what .*climb.json was fitted to: run 'ca-0.2-80k' \(1 such\) is in one of the two", complaint
    )


def test_a_language_counts_as_it_is_told(call, place):
    only, _ = solve(call, place, "--objective", "sum_loss", "--target", "eu", out="eu.json")
    both, _ = solve(call, place, "--objective", "sum_loss", out="both.json")
    assert only["eu.tales"] > both["eu.tales"] + 0.1
    code, _, complaint = call("climb", "solve", place / "climb.json", "--streams", place / "streams", "--tokens", "4k", "--target", "ue")  # fmt: skip
    assert code == 2
    assert "target 'ue' is not in the table of runs" in complaint


def test_a_language_without_pilots_follows_its_neighbours(call, place, tmp_path):
    streams = write_streams(tmp_path / "streams")
    manifest = streams / "ca.tales" / "stream.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"language": "gl"}))
    asked = ["--streams", streams, "--tokens", "4k", "--out", tmp_path / "weights.json", "--objective", "sum_loss"]
    code, printed, complaint = call("climb", "solve", place / "climb.json", *asked, "--neighbour", "gl=ca,eu")
    assert code == 0, complaint
    assert "no pilot tells of gl: its law is the mean of ca, eu" in printed
    assert read_weights(tmp_path / "weights.json")["ca.tales"] > 0
    code, _, complaint = call("climb", "solve", place / "climb.json", *asked, "--neighbour", "gl")
    assert code == 2
    assert "expected each language once, as gl=pt,es" in complaint
    code, _, complaint = call("climb", "solve", place / "climb.json", *asked, "--neighbour", "eu=ca")
    assert code == 2
    assert "'eu' has runs of its own, and follows no neighbours" in complaint


def test_a_model_of_another_size_is_refused(call, place):
    code, _, complaint = call("climb", "solve", place / "climb.json", "--streams", place / "streams", "--tokens", "4k", "--parameters", "7B")  # fmt: skip
    assert code == 2
    assert "the pilots do not tell their size" in complaint


def test_a_schedule_can_be_planned(call, place):
    _, printed = solve(call, place, "--schedule", place / "schedule.yaml", "--floor", 0.05, out="first.json")
    assert "7 changes of proportions" in printed
    changes = read_schedule(place / "schedule.yaml")
    plan = build_plan(Catalog.open(place / "streams"), place / "first.json", 4000, 10, schedule=changes)
    best, _ = solve(call, place, "--floor", 0.05, out="best.json")
    assert plan.proportions == pytest.approx(list(best.values()), abs=0.08)  # over the run it comes to the same


def test_streams_of_other_languages_are_refused(call, place, tmp_path):
    other = write_streams(tmp_path / "streams")
    manifest = other / "eu.tales" / "stream.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"language": "gl"}))
    code, _, complaint = call("climb", "solve", place / "climb.json", "--streams", other, "--tokens", "4k")
    assert code == 2
    assert "stream 'eu.tales' (language 'gl') is none of the runs' sources ca, eu" in complaint
