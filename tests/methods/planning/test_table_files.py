from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from bowls import random_table, tables
from conftest import REPOSITORY
from hypothesis import given, settings
from test_run_table import alike

from mixstream.errors import FormatError, RunTableError
from mixstream.methods.planning.table_files import read_all, read_runs, write_runs

GOOD = "run,tokens,proportion.a,proportion.b,loss.a,loss.b\nx,10,0.5,0.5,2,\ny,1e1,1,0,2,3\n"


@given(tables())
@settings(max_examples=40)
def test_a_table_comes_back_as_it_was(table):
    """Bit for bit, names of any letters included; Parquet and CSV."""
    with tempfile.TemporaryDirectory() as folder:
        for ending in ("parquet", "csv"):
            path = Path(folder) / f"runs.{ending}"
            write_runs(path, table)
            alike(read_runs(path), table.rows(range(len(table))))  # divided by sums of nearly 1 once more
            assert [one.name for one in Path(folder).iterdir()].count(path.name) == 1
        columns = pyarrow.parquet.ParquetFile(Path(folder) / "runs.parquet").schema_arrow
        assert columns.metadata == {b"mixstream.format": b"mixstream.runs", b"mixstream.version": b"1"}
        assert ("parameters" in columns.names) == bool(np.isfinite(table.parameters).any())
        assert (f"unique.{table.sources[0]}" in columns.names) == bool(np.isfinite(table.unique[:, 0]).any())


def test_a_table_written_by_hand_is_read(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("\ufeffrun, loss.a ,tokens,proportion.a,unique.a\n\nx,2.5,1_000,1,\n", encoding="utf-8")
    table = read_runs(path)
    assert (table.sources, table.runs, table.tokens.tolist()) == (("a",), ("x",), [1000.0])
    assert np.isinf(table.unique).all()


def test_parquet_of_other_hands_is_read(tmp_path):
    """Integers, numbers as names, a column of nothing; no metadata of ours."""
    path = tmp_path / "runs.parquet"
    columns = {
        "run": [1, 2],
        "tokens": [10, 20],
        "proportion.a": [1, 1],
        "loss.a": [2.0, None],
        "parameters": [None] * 2,
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    table = read_runs(path)
    assert table.runs == ("1", "2")
    assert np.isnan(table.losses[1, 0])
    assert np.isnan(table.parameters).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "runs.csv: is empty; `mixstream climb collect` writes one"),
        ("\n\n", "runs.csv: is empty"),
        (GOOD.splitlines()[0], "runs.csv: holds no run"),
        (GOOD.replace("x,10", "x,ten"), "runs.csv: line 2, column 'tokens': found 'ten', expected a number"),
        (GOOD.replace("y,1e1,1", "\ny,1e1,"), "line 4, column 'proportion.a': is empty, expected a number"),
        (GOOD.replace("x,10", "x,"), "line 2, column 'tokens': is empty"),
        (GOOD.replace("y,", ","), "line 3, column 'run': is empty; give every run a name"),
        (GOOD.replace("2,3", "2"), "line 3 has 5 cells, expected 6"),
        (GOOD.replace("tokens", "token"), r"unknown column 'token'; did you mean 'tokens'\? \(known: run, tokens, param"),
        (GOOD.replace("loss.a", "losses.a"), r"unknown column 'losses.a'; did you mean 'loss'"),
        (GOOD.replace("loss.a", "loss."), r"unknown column 'loss.'"),
        (GOOD.replace("loss.a", "loss.b"), "column 'loss.b' stands twice"),
        (GOOD.replace("loss.", "unique."), r"no column 'loss.NAME' \(found run, tokens"),
        (GOOD.replace("proportion.", "loss.x"), r"no column 'proportion.NAME'"),
        (GOOD.replace("loss.b", "unique.c"), "column 'unique.c', but no 'proportion.c'"),
        (GOOD.replace("run,tokens", "run,parameters"), "no column 'tokens'"),
        (GOOD.replace("y,", "x,"), "runs.csv: run 'x' stands twice"),
        (GOOD.replace("0.5,0.5", "0.5,0.4"), "runs.csv: run 'x': its proportions sum to 0.9"),
        (GOOD.replace("2,3", "2,-3"), "runs.csv: run 'y': losses of 'b': found -3"),
        ('run,tokens\n"x', "runs.csv: no column 'proportion.NAME'"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused(tmp_path, text, message):
    (tmp_path / "runs.csv").write_text(text)
    with pytest.raises(RunTableError, match=message):
        read_runs(tmp_path / "runs.csv")


def test_rounded_proportions_are_normalised_where_that_is_asked(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text(GOOD.replace("0.5,0.5", "0.5,0.48"))
    with pytest.raises(RunTableError, match=r"sum to 0.98 \(1 of 2 runs\)"):
        read_runs(path)
    np.testing.assert_allclose(read_runs(path, normalise=True).proportions[0], [0.5 / 0.98, 0.48 / 0.98])
    path.write_text(GOOD.replace("0.5,0.5", "0.5,0.4"))
    with pytest.raises(
        RunTableError, match="runs.csv: run 'x': its proportions sum to 0.9, which no rounding explains"
    ):
        read_runs(path, normalise=True)


def test_a_file_that_is_no_table_is_refused(tmp_path):
    for name, content, message in (
        ("none.csv", None, "none.csv: no such file; `mixstream climb collect` writes one"),
        ("runs.json", b"{}", "a table of runs is a .parquet or a .csv file"),
        ("bytes.csv", b"run,tokens\n\xff", "not a CSV file"),
        ("empty.parquet", b"", "not a Parquet file .*may be truncated"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(RunTableError, match=message):
            read_runs(tmp_path / name)
    with pytest.raises(RunTableError, match=r"choose one of these endings"):
        write_runs(tmp_path / "runs.txt", random_table())
    with pytest.raises(FormatError, match="is there and is not a file"):
        (tmp_path / "folder.csv").mkdir()
        write_runs(tmp_path / "folder.csv", random_table())


def test_a_truncated_parquet_is_refused_wherever_it_ends(tmp_path):
    whole, cut = tmp_path / "whole.parquet", tmp_path / "cut.parquet"
    write_runs(whole, random_table(3))
    content = whole.read_bytes()
    for length in range(0, len(content), 97):
        cut.write_bytes(content[:length])
        with pytest.raises(RunTableError, match=r"cut.parquet: not a Parquet file .* it may be truncated"):
            read_runs(cut)


def test_columns_that_are_not_numbers_and_other_formats_are_refused(tmp_path):
    path = tmp_path / "runs.parquet"
    good = {"run": ["x"], "tokens": [1.0], "proportion.a": [1.0], "loss.a": [2.0]}

    def write(columns, metadata=None):
        pyarrow.parquet.write_table(pyarrow.table(columns).replace_schema_metadata(metadata), path)

    for change, message in (
        ({"loss.a": ["two"]}, r"row 1, column 'loss.a': found 'two', expected a number"),
        ({"loss.a": [True]}, "found True, expected a number"),
        ({"loss.a": [[1.0]]}, r"found \[1.0\], expected a number"),
        ({"tokens": [None]}, "row 1, column 'tokens': is empty"),
        ({"los.a": [1.0]}, "unknown column 'los.a'; did you mean 'loss'"),
    ):
        write(good | change)
        with pytest.raises(RunTableError, match=message):
            read_runs(path)
    for metadata, message in (
        (
            {"mixstream.format": "mixstream.runs", "mixstream.version": "2"},
            "is mixstream.runs version 2, expected mixst",
        ),
        ({"mixstream.format": "mixstream.plan", "mixstream.version": "1"}, "is mixstream.plan version 1"),
    ):
        write(good, metadata)
        with pytest.raises(RunTableError, match=message):
            read_runs(path)


def test_several_files_are_one_table(tmp_path):
    first, other = random_table(2, runs=("a", "b")), random_table(2, runs=("c", "d"), seed=1)
    paths = [tmp_path / "first.csv", tmp_path / "other.parquet"]
    for path, table in zip(paths, (first, other), strict=True):
        write_runs(path, table)
    assert read_all(paths).runs == ("a", "b", "c", "d")
    with pytest.raises(RunTableError, match=r"run 'a' is in .*first.csv and in .*copy.csv"):
        write_runs(tmp_path / "copy.csv", first)
        read_all([paths[0], tmp_path / "copy.csv"])
    with pytest.raises(RunTableError, match=r"sources xx \(1\) are in .*else.csv, not in .*first.csv"):
        write_runs(tmp_path / "else.csv", random_table(names=("ca", "eu", "xx")))
        read_all([paths[0], tmp_path / "else.csv"])


def test_csv_needs_no_pyarrow(tmp_path):
    (tmp_path / "runs.csv").write_text(GOOD)
    code = (
        "import sys\n"
        "from mixstream.methods.planning.table_files import read_runs, write_runs\n"
        "write_runs('other.csv', read_runs('runs.csv'))\n"
        "assert 'pyarrow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60, cwd=tmp_path)


def test_the_example_of_the_guide_is_a_table(tmp_path):
    text = (REPOSITORY / "docs" / "formats.md").read_text()
    blocks = (block.removeprefix("text\n") for block in text.split("```")[1::2])
    example = next(block for block in blocks if block.startswith("run,tokens"))
    (tmp_path / "runs.csv").write_text(example.lstrip())
    table = read_runs(tmp_path / "runs.csv")
    assert (table.sources, table.runs) == (("ca", "eu"), ("even", "eu-alone"))
    assert np.isnan(table.losses[1, 0])
    assert table.tokens.tolist() == [25e6, 25e6]
