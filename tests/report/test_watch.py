"""What is seen of a run while it goes on, whatever its files are like just then."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import math
import os
import re
import subprocess
import sys
import time

import pytest
from conftest import fake_catalog
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from mixstream import build_plan
from mixstream.cli import app, main
from mixstream.errors import FormatError
from mixstream.mixture.plan import Plan
from mixstream.report.history import BLOCKS, MOST, History
from mixstream.report.tail import Tail
from mixstream.report.watch import Watch, Watched
from mixstream.report.watch_frame import Canvas, clock, frame

CATALOG = fake_catalog({"ca.a": [100], "eu.a": [50], "eu.b": [10]})
RESULT = {"format": "mixstream.result", "version": 1, "batches": 20, "tokens": 1600, "seconds": 3.5, "ranks": 1}


def lines(batch, **more):
    by_stream = {"proportion": 1 / 3, "read": 0.25, "repeat": batch / 10, "loss": 4 - batch / 10}
    metrics = {f"mixture/{what}/{name}": value for what, value in by_stream.items() for name in CATALOG.names}
    metrics |= {"loader/wait_seconds": 0.1 * batch, "loader/seconds": 2.0 * batch, "throughput/batches_per_second": 0.5}
    metrics |= {"throughput/tokens_per_second": 40.0}
    return [
        {"batch": batch, "metrics": {"loss/train/total": 5 - batch / 10}},
        {"batch": batch, "metrics": metrics | more},
    ]


def write(path, entries, mode="w"):
    with path.open(mode) as file:
        file.writelines(json.dumps(entry) + "\n" for entry in entries)


def update(number, **more):
    weights = {"ca.a": 0.5, "eu.a": 0.25 + number / 100, "eu.b": 0.25 - number / 100}
    return {"method": "doremi", "update": number, "batch": number, "weights": weights, "refused": None} | more


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "base"
    path.mkdir()
    build_plan(CATALOG, "uniform", 8 * 10 * 20, 10, max_repeats={"eu.b": 9}).save(path / "plan.json")
    return path


def told(sights, width=200, height=None, is_ascii=False):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(frame(sights, Canvas(width, height, is_ascii)))
    return console.file.getvalue()


@given(st.data())
@settings(max_examples=150)
def test_a_tail_tells_what_a_whole_read_would(tmp_path_factory, data):
    """Against reading it all again: however the file grows, is cut, spoilt, replaced or taken away between looks."""
    path = tmp_path_factory.mktemp("tail") / "log.jsonl"
    tail, known, number = Tail(path), [], 0
    for _ in range(data.draw(st.integers(1, 8))):
        what = data.draw(
            st.sampled_from(["grow", "grow", "half", "cut", "cut and grow", "damage", "remove", "nothing"])
        )
        content = path.read_bytes() if path.exists() else b""
        whole = content.splitlines(keepends=True)
        if what.startswith("cut"):
            content = b"".join(whole[: data.draw(st.integers(0, len(whole)))])
        if what == "half":
            content += b'{"n": '
        if what == "damage":
            content += b"nonsense\n"
        if what in ("grow", "cut and grow"):
            for _ in range(data.draw(st.integers(1, 60))):
                number += 1  # no two lines are alike
                content += json.dumps({"n": number}).encode() + b"\n"
        path.unlink(missing_ok=True)
        if what != "remove":
            path.write_bytes(content)
        is_anew, new = tail.read()
        known = new if is_anew else known + new
        expected = []
        for line in (content if what != "remove" else b"").splitlines(keepends=True):
            with contextlib.suppress(ValueError):
                expected += [json.loads(line)] if line.endswith(b"\n") else []
        assert known == expected


def test_only_what_is_new_is_read(tmp_path):
    path = tmp_path / "log.jsonl"
    write(path, [{"n": n} for n in range(100_000)])
    tail = Tail(path)
    assert len(tail.read()[1]) == 100_000
    write(path, [{"n": 1}], "a")
    begun = time.perf_counter()
    assert tail.read() == (False, [{"n": 1}])
    assert tail.read() == (False, [])
    assert time.perf_counter() - begun < 0.02


@given(st.lists(st.floats(-1e6, 1e6), max_size=1000))
def test_a_history_keeps_few_means_that_tell_all(values):
    history = History()
    for batch, value in enumerate(values):
        history.add(batch, value)
    assert len(history.means) < MOST
    for place, mean in enumerate(history.means):
        own = values[place * history.each : (place + 1) * history.each]
        assert mean == pytest.approx(sum(own) / len(own), abs=1e-6)
    assert len(values) - len(history.means) * history.each < history.each
    assert len(history.spark(14)) == min(14, len(history.means))
    assert set(history.spark(14)) <= set(BLOCKS)


def test_a_spark_goes_from_the_least_to_the_greatest():
    history = History()
    for value in (1.0, 2.0, math.nan, 8.0, 4.5):
        history.add(0, value)
    assert history.spark(10) == "▁▂█▅"
    assert history.spark(2) == "▁█"
    assert history.spark(10, "01") == "0010" or history.spark(10, "01") == "0011"
    history.add(1, math.inf)
    assert history.last == math.inf


def test_a_run_from_before_it_begins_to_its_end(folder, tmp_path):
    watched = Watched(tmp_path / "later")
    assert (watched.look().state, watched.look().plan) == ("has not begun", None)
    assert "later  has not begun" in told([watched.look()])
    folder.rename(tmp_path / "later")
    folder = tmp_path / "later"
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert (watched.look().state, watched.look().batch) == ("running", 0)
        assert "batch 0 of 20 (0.0%)" in told([watched.look()])
        write(folder / "metrics.jsonl", lines(4))
        sight = watched.look()
        assert (sight.state, sight.batch, sight.eta_seconds) == ("running", 4, 32)
        write(folder / "metrics.jsonl", [{"batch": 5, "metrics": {"heldout/nats_per_token/eu.b": 2.125}}], "a")
        page = told([watched.look()])
        for expected in ("running", "4 of 20 (20.0%)", "320 tokens", "32 s to go", "40 tokens/s", "2.1250", "3.6000"):
            assert expected in page
        assert "waited for data 5.0% of the time" in page
        (row,) = [line for line in page.splitlines() if line.startswith("eu.b")]
        assert row.split()[-3:] == ["0.40", "9", "█" + "░" * 11]
        # Languages: read together, and each stream's loss by what was read of it.
        (row,) = [line for line in page.splitlines() if line.startswith("eu ")]
        assert row.split() == ["eu", "0.5000", "3.6000", "2.1250"]
    (folder / ".lock").unlink()
    assert watched.look().state == "stopped; the same command goes on"
    losses = {language: {"num_tokens": 8, "nats_per_token": 1.5, "bits_per_byte": 0.75} for language in ("ca", "eu")}
    (folder / "result.json").write_text(json.dumps(RESULT | {"heldout": {}, "languages": losses}))
    sight = watched.look()
    assert (sight.state, sight.has_ended, sight.batch, sight.eta_seconds) == ("ended", True, 20, None)
    assert "0.7500" in told([sight])


def test_a_run_that_was_killed_is_told_from_one_that_is_busy(folder):
    """kill -9 leaves the lock's file behind, which nobody holds; a machine elsewhere may still be at it."""
    (folder / ".lock").write_text("12345")
    write(folder / "metrics.jsonl", lines(4))
    watched = Watched(folder)
    assert watched.look().state == "running"
    for path in (folder / "metrics.jsonl", folder / "plan.json"):
        os.utime(path, (time.time() - 500, time.time() - 500))
    assert watched.look().state.startswith("silent for 500 s: killed, or in a long step on another machine")
    with (folder / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert watched.look().state == "running"  # a long step, here


def test_logs_that_a_resume_cuts_back_are_told_as_they_are(folder):
    write(folder / "metrics.jsonl", [line for batch in (1, 2, 3, 4, 5) for line in lines(batch)])
    write(folder / "weights.jsonl", [update(n) for n in range(5)])
    watched = Watched(folder)
    sight = watched.look()
    assert (sight.batch, len(sight.metrics["mixture/read/eu.a"].means), sight.learning.updates) == (5, 5, 4)
    write(folder / "metrics.jsonl", [line for batch in (1, 2) for line in lines(batch)])
    write(folder / "weights.jsonl", [update(n) for n in range(2)] + [update(2, refused="scores are not finite")])
    sight = watched.look()
    assert (sight.batch, len(sight.metrics["mixture/read/eu.a"].means), sight.learning.updates) == (2, 2, 2)
    assert sight.learning.weights["eu.a"] == 0.27
    page = told([sight])
    assert "doremi: 2 updates, 1 refused (scores are not finite)" in page
    write(folder / "metrics.jsonl", [{"batch": 3, "metrics": {"doremi/refused_in_a_row": 3.0}}], "a")
    assert "1 refused, the last 3 in a row" in told([watched.look()])


def test_a_migrated_run_has_its_new_streams(folder):
    write(folder / "metrics.jsonl", lines(4))
    watched = Watched(folder)
    watched.look()
    (folder / "plan.json").rename(folder / "plan-to-ba4.json")
    grown = fake_catalog({"ca.a": [100], "eu.c": [50]})
    build_plan(grown, "uniform", 8 * 10 * 30, 10).save(folder / "plan.json")
    sight = watched.look()
    assert (sight.plan.num_batches, sight.plan.streams, sight.carried) == (30, ("ca.a", "eu.c"), (4,))
    page = told([sight])
    assert "carried over to another plan at batch 4" in page
    assert "eu.b" not in page


def test_older_runs_and_odd_lines_are_read(folder):
    odd = [{"batch": "x", "metrics": {}}, {"batch": 1}, {"batch": 1, "metrics": {"a": "text", "b": True, "c": None}}]
    old = {"exposure/read/eu.b": 0.125, "exposure/repeats/eu.b": 4.5, "store/waited_seconds": 1.0, "store/seconds": 4.0}
    write(folder / "metrics.jsonl", [*odd, {"batch": 2, "metrics": old}])
    write(folder / "weights.jsonl", [{"weights": None}, {"update": 0, "weights": {"eu.b": "x"}}])
    page = told([Watched(folder).look()])
    assert "waited for data 25.0% of the time" in page
    (row,) = [line for line in page.splitlines() if line.startswith("eu.b")]
    assert "0.1250" in row
    assert "4.50" in row


def test_a_chains_folder_shows_its_runs_as_they_begin(folder, tmp_path):
    watch = Watch([tmp_path])
    assert [sight.name for sight in watch.look()] == ["base"]
    assert watch.may_grow
    (tmp_path / "uniform").mkdir()
    build_plan(CATALOG, "uniform", 8 * 10 * 20, 10).save(tmp_path / "uniform" / "plan.json")
    os.utime(tmp_path / "base" / "plan.json", (1, 1))
    assert [sight.name for sight in watch.look()] == ["base", "uniform"]
    assert not Watch([folder, folder]).may_grow
    assert len(Watch([folder, folder]).look()) == 1


def test_few_lines_show_the_streams_that_are_read_most(folder):
    catalog = fake_catalog({f"a{n:02}.x": [10 + n] for n in range(60)})
    build_plan(catalog, "natural", 8 * 10 * 40, 10).save(folder / "plan.json")
    sight = Watched(folder).look()
    page = told([sight], height=40)
    assert len(page.splitlines()) <= 40
    assert "a59.x" in page
    assert "a00.x" not in page
    assert "more (--once shows all)" in page
    assert len(told([sight, sight], height=40).splitlines()) <= 40
    whole = told([sight])
    assert "more" not in whole
    assert all(name in whole for name in catalog.names)
    assert told([sight], is_ascii=True).isascii()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59, "59 s"), (725, "12:05"), (11525, "3:12:05"), (184320, "2 d 03:12"), (math.inf, "unknown")],
)
def test_times_are_told_as_people_read_them(seconds, text):
    assert clock(seconds) == text


def test_what_is_no_run_is_refused(folder, tmp_path, capsys):
    (tmp_path / "other").mkdir()
    assert "has not begun" in told(Watch([tmp_path / "other"]).look())  # a run may begin there
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(FormatError, match="not a run's folder, it holds no plan.json, but notes.txt; give the folder"):
        Watch([tmp_path / "other"]).look()
    for absent in (tmp_path / "no" / "run", folder / "plan.json"):
        with pytest.raises(FormatError, match="no such folder; give the folder of a run, or of a chain of runs"):
            Watch([absent]).look()
    (folder / "plan.json").write_text('{"format": "mixstream.plan", "version": 7}')
    with pytest.raises(SystemExit, match="2"):
        main(["watch", str(folder)])
    assert "plan.json: " in capsys.readouterr().err


def test_a_chain_whose_first_run_has_no_plan_yet_has_not_begun(tmp_path):
    (tmp_path / "proxy").mkdir()
    for name in (".lock", ".plan.json.tmp-1", "recipe.yaml"):
        (tmp_path / "proxy" / name).touch()
        assert "has not begun" in told(Watch([tmp_path]).look())
        assert "begins" in told(Watch([tmp_path / "proxy"]).look())


def test_names_are_no_markup_and_numbers_are_whole_or_left_out(folder):
    names = ("[red]eu.a", "[/b]ca.a", "long." + "x" * 300)
    plan = build_plan(fake_catalog({name: [50] for name in names}), "uniform", 8 * 10 * 20, 10, max_repeats=30)
    entries = [
        entry.model_copy(update={"language": language})
        for entry, language in zip(plan.entries, ("[i]eu", "[/i]ca", "[i]eu"), strict=True)
    ]
    plan.model_copy(update={"entries": tuple(entries)}).save(folder / "plan.json")
    by_stream = {"mixture/proportion": 0.3333, "mixture/read": 0.25, "mixture/loss": 3.25, "mixture/repeat": 12.5}
    by_stream |= {"heldout/nats_per_token": 2.75, "heldout/bits_per_byte": 1.75}
    metrics = {f"{what}/{name}": value for what, value in by_stream.items() for name in names}
    write(folder / "metrics.jsonl", [{"batch": 8, "metrics": metrics}])
    sight = Watched(folder).look()
    whole = told([sight], width=10_000)
    assert all(name in whole for name in (*names, "[i]eu", "[/i]ca"))
    for width in (40, 60, 80, 100, 120, 200):
        page = told([sight], width=width)
        rows = [line.split() for line in page.splitlines() if line.startswith(("[red]", "[/b]ca", "long.x"))]
        assert len(rows) == 3
        assert all({"3.2500", "12.50"} <= set(row) for row in rows), page
        assert ("1.7500" in rows[0]) == (width > 80)
        assert "…" not in "".join(cell for row in rows for cell in row[1:]), page
        assert all(len(line) <= width for line in page.splitlines())
    done = CliRunner().invoke(app, ["watch", str(folder)])
    assert all(name in done.output for name in names)


def test_a_run_without_budgets_has_no_columns_of_them(folder):
    write(folder / "metrics.jsonl", [line for batch in range(1, 9) for line in lines(batch)])
    (with_budgets,) = re.findall(r"repeats.*", told([Watched(folder).look()], width=200))
    assert with_budgets.split() == ["repeats", "of", "budget"]
    plan = Plan.load(folder / "plan.json")
    entries = tuple(entry.model_copy(update={"max_repeats": None}) for entry in plan.entries)
    plan.model_copy(update={"entries": entries}).save(folder / "plan.json")
    (without,) = re.findall(r"repeats.*", told([Watched(folder).look()], width=200))
    assert without.split() == ["repeats"]


def test_once_and_no_terminal_print_one_plain_frame(folder):
    write(folder / "metrics.jsonl", [line for batch in range(1, 9) for line in lines(batch)])
    for arguments in (["watch", str(folder)], ["watch", "--once", str(folder)]):
        done = CliRunner().invoke(app, arguments)
        assert done.exit_code == 0
        assert "\x1b" not in done.output
        assert done.output.count("batch 8 of 20") == 1
        assert "█▇▆▅▄▃▂▁" in done.output


@pytest.mark.parametrize("every", ["0", "nan", "inf", "1e10"])
def test_looks_that_cannot_be_waited_for_are_refused(folder, every, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["watch", str(folder), "--every", every])
    assert stop.value.code == 2
    assert "error: Invalid value for '--every': Input should be" in capsys.readouterr().err


LIVE = """
import sys
from mixstream.cli import main
import rich.console
rich.console.Console.is_terminal = property(lambda self: True)
main(["watch", sys.argv[1], "--every", "0.1"])
"""


def test_on_a_terminal_it_goes_on_until_the_run_ends(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", LIVE, str(folder)],
        stdout=subprocess.PIPE,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40", "PYTHONIOENCODING": "utf-8"},
    )
    output = ""

    def wait_for(text):
        nonlocal output
        while text not in output:
            more = process.stdout.read1()
            assert more, "it ended"
            output += more.decode(errors="replace")

    try:
        wait_for("batch 0 of 20")
        write(folder / "metrics.jsonl", lines(7))
        wait_for("batch 7 of 20")
        (folder / "result.json").write_text(json.dumps(RESULT | {"heldout": {}, "languages": {}}))
        output += process.communicate(timeout=30)[0].decode(errors="replace")
    finally:
        process.kill()
    assert process.returncode == 0
    assert "batch 20 of 20" in output.rpartition("\x1b[?1049l")[2]  # what was seen last stays on the screen


def test_watching_loads_no_torch():
    code = "import sys, mixstream.report.watch_frame; sys.exit(any(m in sys.modules for m in ('torch', 'composer')))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
