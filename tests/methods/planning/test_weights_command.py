"""`mixstream weights METHOD`: from streams and tables of runs to weights.json, as users type it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import typer
from bowls import random_table
from conftest import SIZES, write_stream
from hypothesis import given
from hypothesis import strategies as st

from mixstream import Catalog
from mixstream.cli import main
from mixstream.cli.amounts import parse_amount, parse_repeats, parse_weights
from mixstream.methods.planning.table import table_of
from mixstream.methods.planning.table_files import write_runs
from mixstream.mixture.build import build_plan
from mixstream.mixture.weights import read_weights, unimax

HEAVY = ("torch", "streaming", "composer", "transformers", "pyarrow", "vl_convert")
LANGUAGES = ("ca", "en", "es", "eu", "gl")


@pytest.fixture
def call(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


def out_of(out, err):
    return " ".join((out + err).replace("│", " ").split())


def law_table(num_runs=60, seed=0, noise=0.002, **options):
    """Runs of a log-linear law: every language helps itself, and eu and gl help no one else."""
    table = random_table(num_runs, LANGUAGES, seed=seed, tokens=4000.0, **options)
    own = np.diag([-1.0, -0.6, -0.8, -2.0, -1.5]) + np.where(np.array(LANGUAGES)[None] == "es", -0.2, 0)
    noisy = noise * np.random.default_rng(seed).standard_normal(table.losses.shape)
    return replace(table, losses=np.exp(1.5 + table.proportions @ own.T + noisy))


def test_a_rule_needs_streams_and_tokens_alone(call, streams, tmp_path):
    out = tmp_path / "weights.json"
    code, shown, err = call("weights", "unimax:4", "--streams", streams, "--tokens", "4K", "--out", out)
    assert code == 0, err
    told = json.loads(out.read_text())
    assert (told["version"], told["origin"]) == (1, "unimax:4, for a run of 4,000 tokens")
    sizes = np.array([8.0 * size for size in SIZES.values()])
    np.testing.assert_allclose(list(told["weights"].values()), unimax(sizes, 4, 4000), rtol=1e-6)
    assert list(told["weights"]) == list(SIZES)
    header, row = shown.splitlines()[0].split(), shown.splitlines()[4].split()
    assert header == [
        "source",
        "unique",
        "tokens",
        "unimax",
        "tokens",
        "repeats",
        "budget",
        "natural",
        "uniform",
        "unimax:4",
    ]
    assert row[:2] == ["eu.tales", "184"]
    assert float(row[4]) == pytest.approx(min(736 / 184, 800 / 184), rel=0.01)


def test_what_a_command_writes_a_plan_reads(call, streams, tmp_path):
    out = tmp_path / "weights.json"
    options = [
        "--streams",
        streams,
        "--tokens",
        4000,
        "--max-repeats",
        "3",
        "--max-repeats",
        "eu.tales=2",
        "--floor",
        0.02,
    ]
    code, shown, err = call("weights", "uniform", *options, "--out", out)
    assert code == 0, err
    assert (
        "uniform cannot be had: floor and repeat budgets hold eu.tales, gl.tales; shown is the nearest that can"
        in shown
    )
    plan = build_plan(Catalog.open(streams), str(out), 4000, 4, max_repeats={"eu.tales": 2, "*": 3}, floor=0.02)
    weights = read_weights(out)
    for entry in plan.entries:
        assert entry.proportion == pytest.approx(weights[entry.name], abs=1e-6)
    assert weights["eu.tales"] * 4000 / 184 == pytest.approx(2)


def test_a_law_is_fitted_and_its_answer_shown(call, streams, tmp_path):
    table = law_table()
    half = len(table) // 2
    paths = [tmp_path / "runs.csv", tmp_path / "more.parquet"]
    write_runs(paths[0], table.rows(range(half)))
    write_runs(paths[1], table.rows(range(half, len(table))))
    out = tmp_path / "weights.json"
    options = [
        "--streams",
        streams,
        "--tokens",
        "4K",
        "--max-repeats",
        8,
        "--kl",
        0,
        "--bootstrap",
        8,
        "--target",
        "eu=3",
        "--target",
        "ca",
    ]
    code, shown, err = call("weights", "log-linear", "--runs", paths[0], "--runs", paths[1], *options, "--out", out)
    assert code == 0, err
    told = json.loads(out.read_text())
    assert told["version"] == 2
    assert told["origin"].startswith("log-linear fitted to 60 runs of ")
    assert set(told["weights"]) == set(told["spread"]) == set(SIZES)
    assert told["weights"]["eu.tales"] == pytest.approx(
        8 * 184 / 4000, rel=1e-3
    )  # counts thrice, learns most, has a budget
    assert told["weights"]["eu.tales"] + told["weights"]["ca.tales"] > 0.6
    lines = shown.splitlines()
    assert "90% of refits" in lines[0]
    losses = lines.index(next(line for line in lines if line.startswith("expected loss of")))
    rows = {line.split()[0]: line.split() for line in lines[losses + 1 : losses + 7]}
    assert rows["eu"][1:3] == ["0.75", f"{float(rows['eu'][2]):.4f}"]
    mean = float(rows["mean"][1])
    assert mean == pytest.approx(0.75 * float(rows["eu"][2]) + 0.25 * float(rows["ca"][2]), abs=2e-4)
    assert all(mean < float(other) for other in rows["mean"][-3:])
    assert "median error of the law: 0." in shown
    assert "8 refits; share of them in which it has less loss than natural 100%, uniform 100%, unimax:4 100%" in shown
    assert "gl.tales" in shown  # streams, since languages are the sources
    assert "warning: 'ca', 'eu': repeated more than the pilots did" in shown or "repeated more than the pilots" in shown


def test_languages_are_dealt_to_their_streams(call, tmp_path):
    for number, (name, size) in enumerate({"ca.web": 90, "eu.web": 60, "eu.wiki": 20}.items()):
        write_stream(tmp_path / "streams", name, number, size)
    table = random_table(12, ("ca", "eu"), tokens=1000.0)
    table = replace(table, losses=np.exp(1 - table.proportions * [1.0, 2.0]))
    write_runs(tmp_path / "runs.csv", table)
    options = [
        "--runs",
        tmp_path / "runs.csv",
        "--streams",
        tmp_path / "streams",
        "--tokens",
        2000,
        "--max-repeats",
        "eu.wiki=2",
    ]
    code, _, err = call("weights", "mixing-law", *options, "--bootstrap", 4, "--out", tmp_path / "weights.json")
    assert code == 0, err
    told = json.loads((tmp_path / "weights.json").read_text())
    weights = told["weights"]
    assert list(weights) == ["ca.web", "eu.web", "eu.wiki"]
    assert weights["eu.web"] / weights["eu.wiki"] == pytest.approx(3)
    assert told["spread"]["eu.web"] / told["spread"]["eu.wiki"] == pytest.approx(3)
    assert weights["eu.wiki"] * 2000 / 160 <= 2 + 1e-9


def with_alone(table):
    """The same runs and each language alone at three budgets, as CLIMB wants them; losses fall with tokens."""
    alone = np.tile(np.eye(5), (3, 1))
    shares = np.concatenate([table.proportions, alone])
    tokens = np.concatenate([table.tokens, np.repeat([1000.0, 3000.0, 9000.0], 5)])
    tokens[:30] /= 2
    spill = np.eye(5) + 0.1 * (1 - np.eye(5))
    effective = np.minimum(np.array(shares @ spill), 1.0) * tokens[:, None]
    noise = np.exp(0.002 * np.random.default_rng(3).standard_normal(shares.shape))
    losses = (1.5 + np.array([1.0, 1.2, 1.4, 1.6, 1.8]) * (effective / 4000) ** -0.3) * noise
    return table_of(LANGUAGES, shares, tokens, np.where(shares > 0, losses, np.nan), unique=table.unique[0])


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("climb", ["--objective", "sum_loss", "--form", "F1", "--bootstrap", 3]),
        ("repetition", ["--saturation", 15, "--bootstrap", 3]),
        ("atlas", ["--saturation", 15, "--bootstrap", 3]),
        ("mixing-law", ["--kl", 0.1, "--pilot-tokens", "4K", "--prior", "PRIOR", "--bootstrap", 3, "--resample", "residuals"]),
        ("regmix", ["--pilot-tokens", "4K", "--bootstrap", 0, "--seed", 3]),
    ],
)  # fmt: skip
def test_every_planner_answers_from_streams_to_weights(call, streams, tmp_path, method, options):
    """Through the command alone: what it writes is a point that floor and budgets allow."""
    if method == "regmix":
        pytest.importorskip("lightgbm", reason="lightgbm is not there (extra regmix)")
    out, prior = tmp_path / "weights.json", tmp_path / "prior.json"
    prior.write_text(json.dumps(dict.fromkeys(LANGUAGES, 0.2)))
    table = with_alone(random_table(150 if method == "regmix" else 60, LANGUAGES, seed=1, tokens=4000.0))
    write_runs(tmp_path / "runs.parquet", table)
    given = [prior if option == "PRIOR" else option for option in options]
    bounds = ["--streams", streams, "--tokens", 4000, "--max-repeats", 6, "--floor", 0.03]
    code, shown, err = call("weights", method, "--runs", tmp_path / "runs.parquet", *bounds, *given, "--out", out)
    assert code == 0, err
    told = json.loads(out.read_text())
    assert told["origin"].startswith(f"{method} fitted to {len(table)} runs of ")
    weights = np.array(list(told["weights"].values()))
    sizes = np.array([8.0 * size for size in SIZES.values()])
    assert weights.sum() == pytest.approx(1, abs=1e-9)
    assert (weights >= 0.03 - 1e-6).all()
    assert (weights * 4000 <= 6 * sizes * (1 + 1e-6)).all()
    assert ("spread" in told) == (method != "regmix")
    assert "median error of the law: " in shown


def test_a_recommendation_without_runs_and_with_sizes_alone(call, streams):
    sizes = ["--size", "eu=2B", "--size", "en=500B"]
    code, shown, err = call("recommend", *sizes, "--tokens", "200B", "--parameters", "1.3B", "--max-repeats", "eu=10")
    assert code == 0, err
    assert shown.splitlines()[1].split()[:2] == ["eu", "2,000,000,000"]
    shares = [float(line.split()[2]) for line in shown.splitlines()[1:3]]
    assert sum(shares) == pytest.approx(1, abs=2e-4)
    assert shares[0] <= 10 * 2 / 200 + 1e-4
    assert "warning: no runs of yours were given" in shown
    code, shown, err = call("recommend", *sizes, "--tokens", "30T", "--parameters", "1B", "--max-repeats", "eu=10")
    assert code != 0  # en's budget is still 40
    assert "supply 20,020,000,000,000" in out_of(shown, err)
    code, shown, err = call("recommend", "--streams", streams, "--tokens", "4K", "--parameters", "1M")
    assert code == 0, err
    assert "eu.tales" in shown
    budget = ["--max-repeats", "eu.tales=1"]
    code, shown, err = call("recommend", "--streams", streams, "--tokens", "4K", "--parameters", "1M", *budget)
    assert code == 0, err
    assert next(line.split()[7] for line in shown.splitlines() if line.startswith("eu.tales")) == "1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "5"], "give --streams, or --size NAME=TOKENS"),
        (["--tokens", "5", "--size", "eu"], "'eu'; expected each source once, as NAME=TOKENS"),
        (["--tokens", "5", "--size", "eu=1", "--size", "eu=2"], "expected each source once"),
        (["--tokens", "5", "--size", "eu=x"], "--size eu 'x'; expected a whole number"),
        (["--tokens", "5", "--size", "eu=100"], "without runs the model's size is needed"),
    ],
)
def test_a_recommendation_that_cannot_be_is_refused(call, arguments, message):
    code, out, err = call("recommend", *arguments)
    assert code == 2
    assert message in out_of(out, err)


def test_an_answer_without_refits_has_no_spread(call, streams, tmp_path):
    write_runs(tmp_path / "runs.csv", law_table())
    options = [
        "--runs",
        tmp_path / "runs.csv",
        "--streams",
        streams,
        "--tokens",
        4000,
        "--out",
        tmp_path / "weights.json",
    ]
    code, shown, err = call("weights", "log-linear", *options, "--bootstrap", 0)
    assert code == 0, err
    assert "spread" not in json.loads((tmp_path / "weights.json").read_text())
    assert "of refits" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["weights", "clim"], "clim: neither a run's folder nor a method (natural, uniform"),
        (["weights", "unimx:4", "--streams", "S", "--tokens", "5"], "atlas); did you mean 'unimax'?"),
        (["weights", "climb:2", "--streams", "S", "--tokens", "5", "--runs", "R"], "method 'climb:2' is none of natural"),
        (["weights", "uniform", "--streams", "S", "--tokens", "1B", "--max-repeats", "4"], "raise the budgets by"),
        (["weights", "uniform", "--streams", "S", "--tokens", "5", "--floor", "0.5"], "adds up to 2.5"),
        (["weights", "uniform", "--streams", "S", "--tokens", "5", "--max-repeats", "xx=5"], "max_repeats names 'xx'"),
        (["weights", "unimax:x", "--streams", "S", "--tokens", "5"], "expected its name, a colon and a number"),
        (["weights", "log-linear", "--streams", "S", "--tokens", "5", "--runs", "nowhere.csv"], "nowhere.csv: no such file"),
        (["weights", "log-linear", "--streams", "S", "--tokens", "4K", "--runs", "R", "--target", "xx"], "target 'xx' is not in"),
        (["weights", "log-linear", "--streams", "S", "--tokens", "4K", "--runs", "R", "--resample", "rows"], "one of runs, residuals"),
        (["weights", "log-linear", "--streams", "S", "--tokens", "4K", "--runs", "R", "--resample", "rows", "--bootstrap", "0"], "one of runs, residuals"),
        (["weights", "atlas", "--streams", "S", "--tokens", "4K", "--runs", "R", "--transfer", "LIST"], "transfer is [0.1]; expected"),
        (["weights", "log-linear", "--streams", "S", "--tokens", "4K", "--runs", "FEW"], "more are missing"),
        (["weights", "log-linear", "--streams", "S", "--tokens", "4K", "--runs", "OTHER"], "is none of the runs' sources ca, eu"),
        (["weights", "climb", "--streams", "S", "--tokens", "4K", "--runs", "R", "--objective", "best"], "objective 'best' of CLIMB"),
    ],
)  # fmt: skip
def test_an_error_is_one_line_and_leaves_nothing(call, streams, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    write_runs(tmp_path / "runs.csv", law_table())
    write_runs(tmp_path / "few.csv", law_table(3))
    write_runs(tmp_path / "other.csv", random_table(12, ("ca", "eu")))
    (tmp_path / "list.json").write_text("[0.1]")
    places = {"S": streams, "R": "runs.csv", "FEW": "few.csv", "OTHER": "other.csv", "LIST": "list.json"}
    code, out, err = call(*(places.get(argument, argument) for argument in arguments))
    assert code == 2
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in out + err
    assert not (tmp_path / "weights.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["uniform"], "uniform needs --streams and --tokens"),
        (["uniform", "--streams", "x"], "needs --streams and --tokens"),
        (["uniform", "natural", "--streams", "x", "--tokens", "5"], "uniform natural; expected one METHOD, or folders"),
        (["uniform", "--streams", "x", "--tokens", "five"], "--tokens 'five'; expected a whole number above 0, such as"),
        (["uniform", "--streams", "x", "--tokens", "5", "--parameters", "7Q"], "--parameters '7Q'"),
        (["uniform", "--streams", "x", "--tokens", "5", "--runs", "r.csv"], "--runs is for methods that learn from runs"),
        (["natural", "--streams", "x", "--tokens", "5", "--bootstrap", "5"], "--bootstrap is for methods that learn"),
        (["natural", "--streams", "x", "--tokens", "5", "--target", "eu"], "--target is for methods that learn"),
        (["climb", "--streams", "x", "--tokens", "5"], "climb learns from runs; give --runs FILE"),
        (["climb", "--streams", "x", "--tokens", "5", "--runs", "r.csv", "--kl", "1"], "--kl is not for climb"),
        (["regmix", "--streams", "x", "--tokens", "5", "--runs", "r.csv", "--form", "F1"], "--form is not for regmix"),
        (["climb", "--streams", "x", "--tokens", "5", "--last", "0.5"], "--last is for the mean of runs, not for a METHOD"),
        ([".", "--tokens", "5"], "--tokens is for a METHOD; what runs learnt is averaged by"),
        ([".", "--seed", "5"], "--seed is for a METHOD"),
        (["uniform", "--streams", "x", "--tokens", "5", "--max-repeats", "4", "--max-repeats", "5"], "the budget of all streams is given twice"),
        ([], "Missing argument"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_refused(call, arguments, message):
    code, out, err = call("weights", *arguments)
    assert code == 2
    text = out_of(out, err)
    assert message in text


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1T", 10**12),
        ("20B", 20 * 10**9),
        ("300M", 3 * 10**8),
        ("1.5k", 1500),
        ("50_000_000", 5 * 10**7),
        ("7b", 7 * 10**9),
        ("0.5B", 5 * 10**8),
        ("1e12", 10**12),
        (" 17 ", 17),
        ("9007199254740993", 9007199254740993),
    ],
)
def test_amounts_are_read(text, amount):
    assert parse_amount(text, "--tokens") == amount


@pytest.mark.parametrize(
    "text", ["", "T", "-5", "0", "0.5", "1.2345K", "1 T", "1TB", "nan", "inf", "1e-3", "five", "1__0", "0x10", "1e999"]
)
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(typer.BadParameter, match="expected a whole number above 0"):
        parse_amount(text, "--tokens")


@given(st.integers(1, 10**15), st.sampled_from(["", "K", "M", "B", "T"]))
def test_an_amount_is_its_number_times_its_unit(number, unit):
    expected = number * {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}[unit]
    assert (
        parse_amount(f"{number}{unit}", "--tokens") == parse_amount(f"{number:_}{unit.lower()}", "--tokens") == expected
    )


def test_named_numbers_are_read():
    assert parse_repeats(None) is None
    assert parse_repeats(["4", "eu.wiki=20"]) == {"*": 4, "eu.wiki": 20}
    assert parse_weights(["eu=2", "ca"]) == {"eu": 2, "ca": 1}
    for wrong in (["eu=x"], ["eu", "eu=2"], ["=2"]):
        with pytest.raises(typer.BadParameter):
            parse_weights(wrong)


@pytest.mark.parametrize(("method", "unneeded"), [("uniform", ("scipy",)), ("log-linear", ())])
def test_a_command_does_not_load_what_it_does_not_need(streams, tmp_path, method, unneeded):
    write_runs(tmp_path / "runs.csv", law_table())
    more = ["--runs", str(tmp_path / "runs.csv"), "--bootstrap", "0"] if method == "log-linear" else []
    code = (
        "import sys\n"
        "from mixstream.cli import app\n"
        f"app(['weights', {method!r}, '--streams', {str(streams)!r}, '--tokens', '4K', '--out', 'w.json', *{more!r}],"
        " standalone_mode=False)\n"
        f"print([m for m in {(*HEAVY, 'lightgbm', *unneeded)} if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
