"""However a file is cut into spans, every row is read once: the spans' rows together are the whole file's."""

from __future__ import annotations

import json
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from converters.readers import Asked, BadRow, Row, Span, locate, read_span, spans
from converters.readers.blocks import BLOCK_BYTES
from converters.readers.lines import LongLine, split_lines
from converters.sources import find_files

MOST = 40


def source(path, content: bytes | None = None):
    if content is not None:
        path.write_bytes(content)
    return find_files([path]).files[0].file


def reference(content: bytes) -> list[tuple[int, object]]:
    """Return (line from 1, text or the beginning of what is wrong), by splitting everything at once."""
    rows: list[tuple[int, object]] = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text = None
        if len(line) > MOST or text is None:
            rows.append((number, line.decode("utf-8", "backslashreplace")[:200]))
        elif text.strip():
            rows.append((number, (text.rstrip("\r"),)))
    return rows


pieces = st.sampled_from(
    [b"\n", b"\n", b"\r\n", b"\n\n", b"a", b"bat ", "ñ🦙".encode(), b"\xff", b"\r", b"\xef\xbb\xbf", b"x" * 30, b" \t"]
)
contents = st.lists(pieces, min_size=1, max_size=30).map(b"".join)


@given(contents, st.integers(1, 60))
@example(b"a\nb\n", 2)
@example(b"a\nb", 1)
@example(b"\n\n\n", 1)
@example(b"x" * 100 + b"\ny", 7)
def test_lines_of_all_spans_are_those_of_the_file(tmp_path_factory, content, span_bytes):
    file = source(tmp_path_factory.mktemp("spans") / "eu.a.txt", content)
    cut = spans(file, span_bytes)
    assert [span.start for span in cut] == list(range(0, len(content), span_bytes))
    assert cut[-1].stop == len(content)
    asked = Asked(("text",), max_document_bytes=MOST)
    found = []
    for span in cut:
        for row in read_span(file, span, asked):
            place = locate(file, span, row.number)
            assert place.startswith("line ")
            found.append((int(place[5:]), row.values if isinstance(row, Row) else row.content))
    assert found == reference(content)


@given(st.data())
def test_a_cut_between_any_two_bytes_is_right(tmp_path_factory, data):
    """Two spans, cut anywhere: in a letter, before a line's end, behind it, within CR LF."""
    content = data.draw(contents)
    file = source(tmp_path_factory.mktemp("spans") / "eu.a.txt", content)
    cut = data.draw(st.integers(0, len(content)))
    asked = Asked(("text",), max_document_bytes=1000)
    both = [
        row[1:]
        for span in (Span(0, cut), Span(cut, len(content)))
        if span.start < span.stop
        for row in read_span(file, span, asked)
    ]
    assert both == [row[1:] for row in read_span(file, Span(0, len(content)), asked)]


def test_spans_over_several_blocks(tmp_path):
    """Lines of up to some blocks, and spans whose ends lie in the middle of them."""
    chance = random.Random(5)
    texts = [f"{number} " + "ñ" * chance.choice([3, 100, 5000, BLOCK_BYTES]) for number in range(60)]
    content = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()
    file = source(tmp_path / "eu.a.jsonl", content)
    for span_bytes in (BLOCK_BYTES - 1, 3 * BLOCK_BYTES, 100_000):
        cut = spans(file, span_bytes)
        rows = [(span, row) for span in cut for row in read_span(file, span, Asked(("text",)))]
        assert [row.values for _, row in rows] == [(text,) for text in texts]
        assert [locate(file, *at(rows[i])) for i in (0, 31, 59)] == ["line 1", "line 32", "line 60"]


def at(found):
    span, row = found
    return span, row.number


@given(st.lists(st.binary(max_size=12) | st.just(b"\n") | st.just(b'"\n"')), st.integers(0, 20))
def test_lines_do_not_depend_on_blocks(blocks, most):
    content = b"".join(blocks)
    lines = content.split(b"\n")
    expected = [
        line if len(line) <= most else LongLine(line[:1000], len(line), line.count(b'"'))
        for line in (lines if lines[-1] else lines[:-1])
    ]
    assert [line for some in split_lines(blocks, most) for line in some] == expected


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.integers(1, 3000))
def test_row_groups_of_all_spans_are_those_of_the_file(tmp_path_factory, groups, span_bytes):
    path = tmp_path_factory.mktemp("spans") / "eu.a.parquet"
    texts = [[f"{group} {row}" for row in range(count)] for group, count in enumerate(groups)]
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
        for group in texts:
            writer.write_table(pa.table({"text": group}))
    file = source(path)
    found = [
        (locate(file, span, row.number), row.values[0])
        for span in spans(file, span_bytes)
        for row in read_span(file, span, Asked(("text",)))
    ]
    assert found == [
        (f"row group {group}, row {row}", text) for group, some in enumerate(texts) for row, text in enumerate(some)
    ]


@pytest.mark.parametrize(("share", "count"), [(0.01, 5), (0.4, 3), (1, 1)])
def test_record_batches_of_all_spans_are_those_of_the_file(tmp_path, share, count):
    path = tmp_path / "eu.a.arrow"
    table = pa.table({"text": [str(number) for number in range(90)]})
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=20)
    file = source(path)
    cut = spans(file, int(share * file.size_bytes) + 1)
    assert len(cut) == count
    found = [(span, row) for span in cut for row in read_span(file, span, Asked(("text",)))]
    assert [row.values for _, row in found] == [(str(number),) for number in range(90)]
    assert locate(file, *at(found[45])) == "record batch 2, row 5"


def test_what_cannot_be_cut_is_one_span(tmp_path):
    plain = source(tmp_path / "eu.a.txt", b"a\n" * 50)
    assert spans(plain, 10, document="file") == [Span(0, 1)]
    for name in ("eu.b.csv", "eu.b.tsv", "eu.b.wet", "eu.b.jsonl.gz", "eu.b.txt.xz"):
        assert spans(source(tmp_path / name, b"a\n" * 50), 10) == [Span(0, 1)]


def test_a_bad_row_tells_a_little_of_itself(tmp_path):
    file = source(tmp_path / "eu.a.jsonl", b"x" * 5000 + b"\n")
    (row,) = read_span(file, Span(0, 5001), Asked(("text",)))
    assert isinstance(row, BadRow)
    assert row.content == "x" * 200
