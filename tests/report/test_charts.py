"""Figures say what the runs' files say."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from made_runs import CATALOG, add_metrics, add_running, make_run, small_plan

from mixstream import build_plan
from mixstream.report.charts.bars import Dot, Part, dots, stacked
from mixstream.report.charts.compared import compared_figures, cost_of
from mixstream.report.charts.figure import COLOURS, short
from mixstream.report.charts.lines import POINTS, Axes, Line, line_panels, lines_table, not_drawn
from mixstream.report.charts.losses import heldout_languages, loss_figures
from mixstream.report.charts.mixture import mixture_figures
from mixstream.report.charts.running import StreamTraffic, running_figures, traffic_of, waited_share, waiting_over_time
from mixstream.report.images import drawn
from mixstream.report.read import read_run, read_runs
from mixstream.report.series import Series


def by_name(figures):
    return {figure.name: figure for figure in figures}


def test_a_learning_run_shows_its_mixture(tmp_path):
    figures = by_name(mixture_figures(read_run(make_run(tmp_path / "proxy", learnt=True))))
    assert list(figures) == ["weights-proxy", "shares-proxy", "repeats-proxy", "scores-proxy"]
    (weights,) = figures["weights-proxy"].panels
    rows = {row["name"]: row for row in weights["data"]["values"]}
    assert rows["eu.a"]["batch"] == [0, 5, 10, 15, 20]
    assert rows["eu.a"]["value"] == [0.25, 0.35, 0.45, 0.55, 0.55], "the last holds until the run's end"
    assert (rows["eu.a"]["colour"], rows["eu.a"]["dash"]) == ("eu", "a")
    assert "3 updates by xdoge" in figures["weights-proxy"].caption
    assert figures["repeats-proxy"].table.rows[2] == ["eu.b", "2.000", "9", "22.2%", "20", "0.0625", "0.3333"]
    assert figures["repeats-proxy"].panels[0]["data"]["values"][2]["told"] == "2.00 of 9"
    (scores,) = figures["scores-proxy"].panels
    assert {row["name"]: row["value"] for row in scores["data"]["values"]} == {"ca.a": [-1, -2, -3], "eu.a": [1, 2, 3]}


def test_weights_of_a_run_that_goes_on_end_where_it_is(tmp_path):
    folder = make_run(tmp_path / "proxy", learnt=True, ended=False)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["batch"] <= 17))
    weights = by_name(mixture_figures(read_run(folder)))["weights-proxy"].panels[0]["data"]["values"]
    assert [row["batch"] for row in weights] == [[0, 5, 10, 15, 17]] * 3


def test_what_was_asked_is_below_what_was_read(tmp_path):
    shares = by_name(mixture_figures(read_run(make_run(tmp_path / "base"))))["shares-base"]
    (panel,) = shares.panels
    assert [(row["name"], row["pale"], row["value"][0]) for row in panel["data"]["values"]] == [
        (name, pale, 0.33333 if pale else 0.3) for pale in (True, False) for name in ("ca.a", "eu.a", "eu.b")
    ]
    assert shares.table.rows[0] == ["ca.a", *["0.3000"] * 6, "0.3333"]


def test_languages_are_means_of_their_streams(tmp_path):
    """By what was read of each in training; by tokens, and bytes, of held-out text."""
    folder = make_run(tmp_path / "base")
    add_metrics(folder, 21, {"mixture/loss/eu.a": 2.0, "mixture/loss/eu.b": 4.0})
    add_metrics(folder, 21, {"mixture/read/eu.a": 0.3, "mixture/read/eu.b": 0.1})
    nats, bits = {"eu.a": 2.0, "eu.b": 4.0}, {"eu.a": 1.5, "eu.b": 6.0}
    told = {f"heldout/nats_per_token/{name}": value for name, value in nats.items()}
    add_metrics(folder, 21, told | {f"heldout/bits_per_byte/{name}": value for name, value in bits.items()})
    run = read_run(folder)
    (languages,) = by_name(loss_figures(run))["loss-languages-base"].panels
    eu = next(row for row in languages["data"]["values"] if row["name"] == "eu")
    assert (eu["batch"][-1], eu["value"][-1]) == (21, 2.5)
    by_nats, by_bits = heldout_languages(run)
    assert by_nats["eu"].last == pytest.approx((60 * 2 + 20 * 4) / 80)
    sizes = {name: tokens * nats[name] / (bits[name] * math.log(2)) for name, tokens in (("eu.a", 60), ("eu.b", 20))}
    together = (60 * 2 + 20 * 4) / math.log(2) / sum(sizes.values())
    assert by_bits["eu"].last == pytest.approx(together)
    (folder / "result.json").unlink()
    assert heldout_languages(read_run(folder))[0]["eu"].last == 3.0
    goes_on = by_name(loss_figures(read_run(folder)))["heldout-languages-base"]
    assert "plain mean of its streams" in goes_on.caption


def test_held_out_losses_have_both_units(tmp_path):
    figure = by_name(loss_figures(read_run(make_run(tmp_path / "base"))))["heldout-streams-base"]
    titles = [panel["layer"][0]["encoding"]["y"]["title"] for panel in figure.panels]
    assert titles == ["held-out loss, nats/token", "held-out loss, bits/byte"]
    assert [row[:2] for row in figure.table.rows] == [
        [name, unit] for unit in ("nats/token", "bits/byte") for name in ("ca.a", "eu.a", "eu.b")
    ]
    assert figure.table.rows[0][2:] == ["2.7500", "2.5000", "2.2500", "2.0000", "2.0000", "2.7500"]


def test_waiting_throughput_and_the_store_are_shown(tmp_path):
    folder = make_run(tmp_path / "base")
    assert list(running_figures(read_run(folder))) == []
    add_running(folder)
    run = read_run(folder)
    *streams, total = traffic_of(run)
    assert [row.name for row in streams] == list(run.plan.streams)
    assert total == StreamTraffic("all streams", 3 * 1_234_567, 120, 9, 21, 15)
    assert waited_share(run) == (3, 0.075)
    assert waiting_over_time(run).values.tolist() == [0.075, 0.075]
    figures = by_name(running_figures(run))
    assert list(figures) == ["throughput-base", "waiting-base", "store-base"]
    assert "3.0 s in all, 7.5% of the run's time" in figures["waiting-base"].caption
    assert figures["store-base"].table.rows[-1] == ["all streams", "3,703,701", "120", "9", "21", "15"]
    assert figures["store-base"].panels[0]["data"]["values"][0]["value"] == [1851900, 3703700]


def test_runs_are_compared_over_tokens(tmp_path):
    runs = read_runs([make_run(tmp_path / "proxy", learnt=True), make_run(tmp_path / "base", loss=1.5)])
    figures = by_name(compared_figures(runs))
    assert list(figures) == ["heldout", "heldout-runs", "loss-runs", "cost"]
    nats, bits = figures["heldout"].panels
    assert {(row["row"], row["run"]): row["value"] for row in nats["data"]["values"]} == {
        ("ca", "proxy"): 2.0, ("eu", "proxy"): 3.0, ("ca", "base"): 1.5, ("eu", "base"): 2.5,
    }  # fmt: skip
    assert {row["row"] for row in bits["data"]["values"]} == {"ca"}
    (means,) = figures["heldout-runs"].panels
    assert means["data"]["values"][0]["batch"] == [5 * 80, 10 * 80, 15 * 80, 20 * 80]
    assert means["data"]["values"][1]["value"] == [2.25, 2.0, 1.75, 1.5]


def test_what_learning_cost_is_told(tmp_path):
    folder = make_run(tmp_path / "proxy", learnt=True)
    add_metrics(folder, 20, {"xdoge/seconds": 0.25})
    assert cost_of(read_run(folder)) == {
        "training and measuring": 2.75, "learning the weights": 0.75, "waiting for data": 0.0,
    }  # fmt: skip
    add_metrics(folder, 20, {"loader/wait_seconds": 4, "loader/seconds": 40})
    assert list(cost_of(read_run(folder)).values()) == [35.25, 0.75, 4]
    running = make_run(tmp_path / "running", ended=False)
    assert cost_of(read_run(running)) is None


def line(name, colour="ca", values=(1.0, 2.0)):
    return Line(name, colour, "", Series(np.arange(len(values), dtype=float), np.array(values, dtype=float)))


def test_a_panel_has_no_more_languages_than_colours():
    lines = [line(f"l{i:02}.a", f"l{i:02}", (float(i), 1.0)) for i in range(25)]
    panels = line_panels(lines, Axes("loss"))
    counts = [len({row["colour"] for row in panel["data"]["values"]}) for panel in panels]
    assert counts == [7, 6, 6, 6]
    assert max(counts) <= len(COLOURS)
    scales = [panel["layer"][0]["encoding"]["y"]["scale"]["domain"] for panel in panels]
    assert scales == [[0.0, 24.0]] * 4, "panels of one figure can be compared"
    colours = panels[1]["layer"][0]["encoding"]["color"]["scale"]
    assert colours["domain"] == [f"l{i:02}" for i in range(7, 13)]
    assert len(set(colours["range"])) == 6


def test_many_points_are_thinned_and_pale_lines_with_their_own():
    """A pale line has the points of the line above it: it differs from it where what was read did, and only there."""
    rng = np.random.default_rng(1)
    batches = np.arange(50_000.0)
    read = [Line(f"s{i}", "ca", "", Series(batches, rng.random(50_000))) for i in range(100)]
    asked = [one._replace(pale=True) for one in read]
    (panel,) = line_panels([*asked, *read], Axes("share"))
    rows = panel["data"]["values"]
    assert sum(len(row["value"]) for row in rows) <= POINTS
    pale = {row["name"]: row["value"] for row in rows if row["pale"]}
    assert pale == {row["name"]: row["value"] for row in rows if not row["pale"]}
    assert panel["usermeta"]["embedOptions"]["renderer"] == "canvas"


def test_what_is_not_finite_leaves_a_gap():
    lines = [line("a", values=(1.0, math.nan, math.inf, 3.0)), line("b", values=(math.nan, math.nan))]
    (panel,) = line_panels(lines, Axes("loss"))
    assert panel["data"]["values"][0]["value"] == [1.0, None, None, 3.0]
    table = lines_table(lines, Axes("loss"))
    assert table.rows[0] == ["a", "1", "nan", "inf", "3", "1", "3"]
    assert table.rows[1][-2:] == ["", ""]
    assert not_drawn(lines, Axes("loss")) == (
        " Values that are not finite are not drawn: of a first at batch 1, of b first at batch 0."
    )
    many = [line(name, values=(math.inf, 1.0)) for name in "abcde"]
    assert not_drawn(many, Axes("loss")).endswith("of c first at batch 0, and of 2 more.")
    assert not_drawn([line("c", values=(1.0, 2.0))], Axes("loss")) == ""


def test_lines_of_which_nothing_can_be_drawn_have_axes():
    (panel,) = line_panels([line("a", values=(math.nan, math.inf))], Axes("loss"))
    assert panel["layer"][0]["encoding"]["y"]["scale"]["domain"] == [0.0, 1.0]
    assert panel["layer"][0]["encoding"]["x"]["scale"]["domain"] == [0.0, 1.0]


@pytest.mark.parametrize(
    ("spec", "labels"),
    [
        (dots([Dot("eu", "base", 1.6038)], "loss", ["base"]), {"1.6038"}),
        (
            line_panels([Line("a", "a", "", Series(np.array([0.0, 1.0]), np.array([2.0, 40.0])))], Axes("loss"))[0],
            {"10", "40"},
        ),
        (
            line_panels([Line("a", "a", "", Series(np.array([0.0, 1.0]), np.array([0.0, 4e-7])))], Axes("score"))[0],
            {"1e-7"},
        ),
        (stacked([Part("base", "training", 70.0)], "seconds"), {"20", "60"}),
    ],
)
def test_axes_tell_numbers_as_they_are(spec, labels):
    """Neither ten as 1e+1, nor a lone tick at 1.6 as 2."""
    drawn_texts = set(re.findall(r">([^<>]+)</text>", drawn(spec, "svg").decode()))
    assert labels <= drawn_texts


def test_a_run_without_budgets_is_not_told_of_marks(tmp_path):
    folder = make_run(tmp_path / "base")
    assert "A black mark" in by_name(mixture_figures(read_run(folder)))["repeats-base"].caption
    build_plan(CATALOG, "uniform", 8 * 10 * 20, 10).save(folder / "plan.json")
    repeats = by_name(mixture_figures(read_run(folder)))["repeats-base"]
    assert repeats.caption.endswith("up to batch 20. No stream has a budget.")
    assert repeats.panels[0]["encoding"]["x"]["title"] == "repeats"


def test_large_numbers_are_short():
    assert [short(value) for value in (0.5, 1234, 3.7e6, 2e9, 5e13)] == ["0.5", "1.234 k", "3.7 M", "2 G", "50 T"]


def colours_of(figures):
    """Return the colours that each name has in the charts of some figures."""
    found = {}
    for panel in (panel for figure in figures for panel in figure.panels):
        encodings = [layer.get("encoding", {}) for layer in panel.get("layer", [panel])]
        for colour in (encoding["color"] for encoding in encodings if "color" in encoding):
            pairs = zip(colour["scale"]["domain"], colour["scale"]["range"], strict=True)
            shown = (colour["legend"] or {}).get("values", colour["scale"]["domain"])
            for name, value in pairs:
                if name in shown:
                    found.setdefault(name, set()).add(value)
    return found


def test_a_language_has_one_colour_in_all_figures_of_a_run(tmp_path):
    folder = make_run(tmp_path / "base", learnt=True)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:  # of ca there is no held-out split
        kept = {name for name in line["metrics"] if not (name.startswith("heldout/") and name.endswith("/ca.a"))}
        line["metrics"] = {name: line["metrics"][name] for name in kept}
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plan = small_plan()
    plan.model_copy(update={"entries": plan.entries[::-1]}).save(folder / "plan.json")  # not in the alphabet's order
    run = read_run(folder)
    assert "ca.a" not in run.by_stream("heldout/nats_per_token")
    assert {name: len(own) for name, own in colours_of([*mixture_figures(run), *loss_figures(run)]).items()} == {
        "ca": 1, "eu": 1,
    }  # fmt: skip


def test_a_run_has_one_colour_in_all_figures_of_several(tmp_path):
    folders = [make_run(tmp_path / "a", ended=False), make_run(tmp_path / "b"), make_run(tmp_path / "c")]
    (folders[0] / "metrics.jsonl").write_text('{"batch": 1, "metrics": {"loss/train/total": 2.0}}\n')
    found = colours_of(figure for figure in compared_figures(read_runs(folders)) if figure.name != "cost")
    assert {name: len(own) for name, own in found.items()} == {"a": 1, "b": 1, "c": 1}


def test_seconds_of_a_run_that_goes_on_are_of_one_process_too(tmp_path):
    folder = make_run(tmp_path / "proxy", learnt=True, ended=False)  # updates of 0.5 s
    for batch in (10, 20):  # two batches a second on eight ranks
        counts = {"loader/wait_seconds": 0.4 * batch, "loader/seconds": 4.1 * batch}
        add_metrics(folder, batch, counts | {"throughput/batches_per_second": 2.0})
    cost = cost_of(read_run(folder))
    assert sum(cost.values()) == pytest.approx(4.1 * 20 / 8)
    assert cost["waiting for data"] == pytest.approx(1.0)
    assert cost["learning the weights"] == 0.5
