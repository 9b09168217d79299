from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import fake_catalog

from mixstream import build_plan
from mixstream.errors import FormatError
from mixstream.report.html import heldout_table, pairs, write_report
from mixstream.report.read import StreamTraffic, read_run, read_runs, traffic_of, waited_share

CATALOG = fake_catalog({"ca.a": [100], "eu.a": [50], "eu.b": [10]})


def make_run(folder, learnt=False, ended=True, loss=2.0):
    folder.mkdir()
    build_plan(CATALOG, "uniform", 8 * 10 * 20, 10, max_repeats={"eu.b": 9}).save(folder / "plan.json")
    names = CATALOG.names
    lines = []
    for batch in range(1, 21):
        lines.append({"batch": batch, "metrics": {"loss/train/total": 5 - batch / 10}})
        if batch % 5 == 0:
            columns = {"asked": 1 / 3, "read": 0.3, "repeats": batch / 10, "loss": 3.0}
            lines.append(
                {"batch": batch, "metrics": {f"exposure/{k}/{n}": v for k, v in columns.items() for n in names}}
            )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if learnt:
        updates = [
            {
                "format": "mixstream.weights_update",
                "version": 1,
                "update": i,
                "batch": 5 * i,
                "at_batch": 5 * i,
                "weights": {"ca.a": 0.5 - i / 10, "eu.a": 0.25 + i / 10, "eu.b": 0.25},
                "scores": None,
                "probe_losses": None,
                "eta": None,
                "mu": None,
            }
            for i in range(4)
        ]
        (folder / "weights.jsonl").write_text("".join(json.dumps(update) + "\n" for update in updates))
    if ended:
        losses = {
            language: {"num_tokens": 80, "nats_per_token": loss + i, "bits_per_byte": None if i else loss}
            for i, language in enumerate(("ca", "eu"))
        }
        result = {"format": "mixstream.result", "version": 1, "batches": 20, "tokens": 1600, "seconds": 3.5, "ranks": 1}
        (folder / "result.json").write_text(json.dumps(result | {"heldout": {}, "languages": losses}))
    return folder


def test_the_report_is_one_file_with_every_picture_in_it(tmp_path):
    runs = [make_run(tmp_path / "proxy", learnt=True), make_run(tmp_path / "base", loss=1.5)]
    write_report(runs, tmp_path / "out" / "report.html")
    page = (tmp_path / "out" / "report.html").read_text()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    pngs = sorted(path.name for path in (tmp_path / "out" / "report").iterdir())
    assert pngs == sorted(
        ["weights-proxy.png", "heldout.png"]
        + [f"{what}-{run}.png" for what in ("shares", "repeats", "loss") for run in ("proxy", "base")]
    )
    assert len(pictures) == len(pngs)
    assert {base64.b64decode(picture) for picture in pictures} == {
        (tmp_path / "out" / "report" / name).read_bytes() for name in pngs
    }
    assert not re.findall(r'(?:src|href)="(?!data:)', page), "something is loaded from elsewhere"
    assert "uniform, then learnt online in 3 updates" in page
    assert "1,600" in page
    assert "eu.b" in page


def test_what_was_fetched_is_shown_where_something_was(tmp_path):
    folder = make_run(tmp_path / "base")
    write_report([folder], tmp_path / "local.html")
    assert "What was fetched" not in (tmp_path / "local.html").read_text()
    counts = {"bytes": 1_234_567, "requests": 40, "faults": 3, "hits": 7, "evicted": 5}
    with (folder / "metrics.jsonl").open("a") as file:
        for batch, part in ((10, 0.5), (20, 1)):
            metrics = {f"store/{what}/{name}": part * n for what, n in counts.items() for name in CATALOG.names}
            metrics |= {"store/waited_seconds": 3 * part, "store/seconds": 40 * part}
            file.write(json.dumps({"batch": batch, "metrics": metrics}) + "\n")
    run = read_run(folder)
    *streams, total = traffic_of(run)
    assert [row.name for row in streams] == list(run.plan.streams)
    assert total == StreamTraffic("all streams", 3 * 1_234_567, 120, 9, 21, 15)
    assert waited_share(run) == (3, 0.075)
    write_report([folder, make_run(tmp_path / "other")], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert page.count("<td>3,703,701</td><td>120</td><td>9</td><td>21</td><td>15</td>") == 1
    assert "base waited 3.0 s for shards, 7.5% of its time" in page
    assert [path.name for path in (tmp_path / "report").glob("store-*")] == ["store-base.png"]
    assert "base: bytes fetched, and seconds waited for shards" in page


def test_held_out_losses_are_compared_where_only_the_weights_differ(tmp_path):
    folders = [
        make_run(tmp_path / "proxy", learnt=True),
        make_run(tmp_path / "base", loss=1.5),
        make_run(tmp_path / "uniform", loss=1.75),
    ]
    runs = read_runs(folders)
    assert [(one.name, other.name) for one, other in pairs(runs)] == [("base", "uniform")]
    ca, eu, mean = heldout_table(runs)
    assert (ca["language"], eu["language"], mean["language"]) == ("ca", "eu", "mean of languages")
    assert (ca["tokens"], mean["tokens"]) == (80, 160)
    assert [cell["nats"] for cell in ca["cells"]] == [2.0, 1.5, 1.75]
    assert [cell["bits"] for cell in eu["cells"]] == [None] * 3
    assert [cell["nats"] for cell in mean["cells"]] == [2.5, 2.0, 2.25]
    assert [cell["bits"] for cell in mean["cells"]] == [None] * 3
    assert [row["differences"] for row in (ca, eu, mean)] == [[-0.25]] * 3


def test_runs_of_one_name_are_told_apart(tmp_path):
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
    folders = [make_run(tmp_path / "one" / "base"), make_run(tmp_path / "two" / "base"), make_run(tmp_path / "proxy")]
    assert [run.name for run in read_runs(folders)] == ["one/base", "two/base", "proxy"]
    write_report(folders, tmp_path / "report.html")
    assert len(list((tmp_path / "report").iterdir())) == 1 + 3 * 3
    with pytest.raises(FormatError, match="a run is named twice"):
        read_runs([folders[0], folders[0]])


def test_a_run_that_goes_on_can_be_looked_at(tmp_path):
    """Not ended, and its last line half written."""
    folder = make_run(tmp_path / "base", ended=False)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"batch": 21, "metr')
    write_report([folder], tmp_path / "report.html")
    assert "not ended" in (tmp_path / "report.html").read_text()
    assert read_run(folder).batches == 20


def test_a_run_that_has_not_begun_to_log_can_be_looked_at(tmp_path):
    folder = make_run(tmp_path / "base", ended=False)
    (folder / "metrics.jsonl").unlink()
    write_report([folder], tmp_path / "report.html")
    assert "Plan of base" in (tmp_path / "report.html").read_text()


def test_names_are_escaped(tmp_path):
    write_report([make_run(tmp_path / "<b>bold"), make_run(tmp_path / "r$\\x$")], tmp_path / "report.html")
    assert "<b>bold" not in (tmp_path / "report.html").read_text()


def test_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="not a run's folder, it holds no plan.json; `mixstream train` makes one"):
        write_report([tmp_path / "empty"], tmp_path / "report.html")
    folder = make_run(tmp_path / "base")
    for line, message in (
        (b"nonsense", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"batch": "x", "metrics": {}}', r"batch: .*\(found 'x'\); remove the line"),
        (b'{"batch": 1, "metrics": []}', "metrics: Input should be an object"),
    ):
        (folder / "metrics.jsonl").write_bytes(line + b'\n{"batch": 1, "metrics": {}}\n')
        with pytest.raises(FormatError, match="metrics.jsonl, line 1: " + message):
            read_run(folder)
    (folder / "metrics.jsonl").unlink()
    (folder / "result.json").write_text('{"format": "mixs')
    with pytest.raises(FormatError, match="result.json: not JSON"):
        read_run(folder)
    (folder / "result.json").write_text('{"format": "mixstream.result", "version": 9}')
    with pytest.raises(
        FormatError, match=r"version: .*\(found 9\); .*remove it, and `mixstream train` ends the run again"
    ):
        read_run(folder)
    assert not (tmp_path / "report.html").exists()
    for out in (tmp_path / "report", tmp_path / "plan.json", Path(), Path("/")):
        with pytest.raises(FormatError, match=r"give a name such as (report|plan)\.html"):
            write_report([folder], out)
    (folder / "result.json").unlink()
    (tmp_path / "report.html").mkdir()
    with pytest.raises(FormatError, match="is there and is not a file"):
        write_report([folder], tmp_path / "report.html")
    assert not (tmp_path / "report").exists()


def test_the_report_loads_no_torch():
    code = (
        "import sys, mixstream.report.html; sys.exit(any(m in sys.modules for m in ('torch', 'composer', 'streaming')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
