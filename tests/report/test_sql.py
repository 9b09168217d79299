"""Questions in SQL about a run's folder: what they read, what they may not do, and what they are told."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import fake_catalog

from mixstream import build_plan
from mixstream.errors import FormatError, MissingExtraError, QueryError
from mixstream.mixture.exposure import ExposureNote, Rows, encode, table_of
from mixstream.report.sql import query

STREAMS = [("ca.a", ("shard.00000.mds", "shard.00001.mds")), ("eu.b", ("shard.00000.mds",))]


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    plan = build_plan(fake_catalog({"ca.a": [10, 20], "eu.b": [5]}), "uniform", 8 * 10 * 4, 10, max_repeats={"eu.b": 9})
    plan.save(folder / "plan.json")
    columns = ([0, 1, 2, 2], [0, 0, 0, 1], [8, 12, 5, 15], [0, 1, 0, 1], [3, 3, 1, 3])
    rows = Rows(*(np.array(column) for column in columns))
    note = ExposureNote(batch=4, batch_size=10, sequence_length=8, samples=40)
    (folder / "exposure.parquet").write_bytes(encode(table_of(rows, STREAMS, 10), note))
    metrics = [{"batch": b, "metrics": {"loss/train/total": 5.0 - b, "what": "words"}} for b in (1, 2)]
    metrics.append({"batch": 3, "metrics": {"loss/train/total": float("nan")}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics) + '{"batch": 4, "met')
    update = {"format": "mixstream.weights_update", "version": 1, "update": 0, "batch": 0, "at_batch": 0}
    update |= dict.fromkeys(("scores", "probe_losses", "eta", "mu"))
    (folder / "weights.jsonl").write_text(json.dumps(update | {"weights": {"ca.a": 0.25, "eu.b": 0.75}}) + "\n")
    return folder


def test_it_answers_from_each_file_of_a_run(run):
    columns, rows = query(
        run, "SELECT stream, sum(samples) AS n, max(repeat) FROM exposure GROUP BY stream ORDER BY stream"
    )
    assert columns == ["stream", "n", "max(repeat)"]
    assert rows == [("ca.a", 20, 0), ("eu.b", 20, 1)]
    assert query(run, "select batch, value from metrics where name = 'loss/train/total' and value < 4.5")[1] == [
        (1, 4.0),
        (2, 3.0),
    ]
    assert query(run, "SELECT stream, weight FROM weights")[1] == [("ca.a", 0.25), ("eu.b", 0.75)]
    together = (
        "SELECT e.stream, sum(e.samples) / any_value(num_samples), any_value(max_repeats) "
        "FROM exposure e JOIN streams s USING (stream) GROUP BY ALL ORDER BY ALL"
    )
    assert query(run, together)[1] == [("ca.a", 20 / 30, None), ("eu.b", 4.0, 9.0)]
    assert query(run, "SHOW TABLES")[1] == [("exposure",), ("metrics",), ("streams",), ("weights",)]
    assert query(run, "SELECT count(*) FROM exposure WHERE batch_size <> 10;") == (["count_star()"], [(0,)])


def test_a_table_whose_file_is_not_there_is_missed_only_where_it_is_asked(run):
    (run / "exposure.parquet").unlink()
    (run / "weights.jsonl").unlink()
    assert query(run, "SELECT 7 AS exposure") == (["exposure"], [(7,)])
    assert query(run, "SELECT count(*) FROM weights")[1] == [(0,)]
    with pytest.raises(FormatError, match=r"exposure.parquet: no such file; a run writes it as it begins"):
        query(run, "SELECT * FROM exposure")
    (run / "metrics.jsonl").unlink()
    assert query(run, "SELECT count(*) FROM metrics")[1] == [(0,)]
    (run / "plan.json").unlink()
    with pytest.raises(FormatError, match=r"not a run's folder, it holds no plan.json"):
        query(run, "SELECT * FROM metrics")


def test_what_is_not_a_ledger_is_told(run):
    path = run / "exposure.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        FormatError, match=r"exposure.parquet: damaged, or no Parquet file \(.*\); remove it, and the run"
    ):
        query(run, "SELECT * FROM exposure")
    path.unlink()
    path.mkdir()
    with pytest.raises(FormatError, match=r"exposure.parquet: cannot be read \(Is a directory\)"):
        query(run, "SELECT * FROM exposure")
    with pytest.raises(FormatError, match=r"nowhere: no such folder; name a run's"):
        query(run / "nowhere", "SELECT 1")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEC 1", r"'SELEC 1': Parser Error: syntax error at or near \"SELEC\"; tables are exposure \(stream, shard"),
        ("SELECT * FROM exposur", r"Table with name exposur does not exist! Did you mean \"exposure\"\?; tables are"),
        ("SELECT strm FROM exposure", r"\"strm\" not found in FROM clause! .*exposure \(stream, shard, .*\), metrics,"),
        ("SELECT 'a'::INT", r"Could not convert string 'a' to INT32"),
        ("SELECT * FROM exposure WHERE stream = ?", r"Values were not provided"),
        ("", r"'': expected one SELECT"),
        ("-- nothing", r"expected one SELECT"),
        ("SELECT 1; SELECT 2", r"expected one SELECT"),
        ("DROP VIEW exposure", r"expected one SELECT"),
        ("DELETE FROM exposure", r"expected one SELECT"),
        ("SELECT '\ud800'", r"surrogates not allowed"),
        ("COPY (SELECT 1) TO 'made.csv'", r"expected one SELECT"),
        ("SET enable_external_access = true", r"expected one SELECT"),
        ("SELECT * FROM read_csv('/etc/passwd')", r"file system operations are disabled"),
        ("SELECT * FROM '/etc/passwd'", r"(disabled|does not exist)"),
        ("SELECT * FROM tables", r"Table with name tables does not exist"),
        ("EXPLAIN ANALYZE COPY (SELECT 1) TO 'made.csv'", r"file system operations are disabled"),
    ],
)
def test_a_question_that_cannot_be_answered_is_told_in_one_line(run, sql, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(QueryError, match=message) as raised:
        query(run, sql)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600
    assert not (tmp_path / "made.csv").exists()


def test_without_duckdb_the_extra_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'duckdb'; .*mixstream-llm\[sql\]"):
        query(run, "SELECT 1")


def test_asking_loads_neither_torch_nor_composer(run):
    code = (
        "import sys; from pathlib import Path; from mixstream.report.sql import query\n"
        f"assert query(Path({str(run)!r}), 'SELECT count(*) FROM exposure, metrics, streams, weights')[1] == [(4 * 3 * 2 * 2,)]\n"
        "print([m for m in ('torch', 'streaming', 'composer', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
