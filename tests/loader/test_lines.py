"""Logs that are looked up by halving, against reading them line by line."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import FormatError
from mixstream.loader.trace.lines import SortedLines


def by_batch(line):
    return line["batch"]


@given(
    batches=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 40)), max_size=30),
    bound=st.integers(-1, 10),
    cut=st.integers(0, 12),
)
def test_lines_are_found(batches, bound, cut, tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    lines = [json.dumps({"batch": batch, "more": "x" * size}) for batch, size in sorted(batches)]
    text = "".join(f"{line}\n" for line in lines)
    path.write_text(text + '{"batch": 99, '[:cut])  # a line that is being written
    log = SortedLines(path)
    read = [line["batch"] for _, line in log.from_(0)]
    assert read == sorted(batch for batch, _ in batches)
    end = log.count_up_to(by_batch, bound)
    assert [line["batch"] for _, line in log.from_(end)] == [batch for batch in read if batch > bound]
    last = log.last_up_to(by_batch, bound)
    up_to = [batch for batch in read if batch <= bound]
    assert (last is None) == (not up_to)
    if last is not None:
        assert log.read(last)["batch"] == up_to[-1]
        assert log.after(last) == end
    for number, (start, _) in enumerate(log.from_(0), start=1):
        assert log.where(start) == f"{path}, line {number}"


def test_a_log_that_is_not_there_has_no_lines(tmp_path):
    log = SortedLines(tmp_path / "log.jsonl")
    assert (list(log.from_(0)), log.last_up_to(by_batch, 7)) == ([], None)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[1]", "not a JSON object"),
        ('{"batch": 1', "not JSON"),
        ('{"other": 1}', "not a line of such a log"),
        ('{"batch": "one"}', "not a line of such a log"),
    ],
)
def test_other_lines_are_refused_by_their_number(tmp_path, line, told):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"batch": 0}}\n{line}\n')
    with pytest.raises(FormatError, match=f"log.jsonl, line 2: {told}.*bring the file back"):
        SortedLines(path).last_up_to(by_batch, 3)


def test_a_folder_in_its_place_is_refused(tmp_path):
    with pytest.raises(FormatError, match="cannot be read .*; it is a log of a run"):
        SortedLines(tmp_path)


@pytest.mark.parametrize("value", ["null", "1e999", "NaN", '"x"', "[1]"])
def test_a_key_that_is_no_number_is_refused(tmp_path, value):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"batch": {value}}}\n')
    with pytest.raises(FormatError, match=r"log.jsonl, line 1: not a line of such a log"):
        SortedLines(path).key(0, lambda line: int(line["batch"]))
