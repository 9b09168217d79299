"""Each format: what is read, what is a bad row, and what cannot be read at all."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import random
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.readers import MISSING, Asked, BadRow, Row, Span, locate, read_span, spans
from converters.sources import find_files
from mixstream.errors import CorpusError

TEXTS = ["Kaixo, mundua.", "Bigarren\nlerroa eta «gehiago».", "ñandú 🦙", "", "  "]
PACK = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def source(path, content: bytes | None = None):
    if content is not None:
        path.write_bytes(content)
    return find_files([path]).files[0].file


def read(file, *fields, span_bytes=1 << 26, document="line", **asked):
    wanted = Asked(fields or ("text",), document=document, **asked)
    return [row for span in spans(file, span_bytes, document) for row in read_span(file, span, wanted)]


def values(file, *fields, **asked):
    return [row.values for row in read(file, *fields, **asked)]


def jsonl(objects) -> bytes:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in objects).encode()


@pytest.mark.parametrize("packed", PACK)
def test_jsonl(tmp_path, packed):
    rows = [{"text": text, "id": number, "meta": {"lang": "eu"}} for number, text in enumerate(TEXTS)]
    file = source(tmp_path / f"eu.wiki.jsonl{packed}", PACK[packed](b"\xef\xbb\xbf\n" + jsonl(rows) + b"\n \n"))
    expected = [Row(number + 1, (number, text, "eu", MISSING)) for number, text in enumerate(TEXTS)]
    assert read(file, "id", "text", "meta.lang", "url") == expected
    assert locate(file, Span(0, file.size_bytes), 1) == "line 2"


def test_dotted_fields(tmp_path):
    file = source(
        tmp_path / "eu.a.jsonl", b'{"a": {"b": {"c": 1}, "d": null, "e": [1]}, "a.b": {"c": 2}, "a.b.c": 3}\n'
    )
    fields = ("a", "a.b.c", "a.b", "a.d", "a.d.x", "a.e", "a.e.x", "a.x", "x.y")
    (found,) = values(file, *fields)
    whole = {"b": {"c": 1}, "d": None, "e": [1]}
    assert found == (whole, 3, {"c": 2}, None, None, [1], MISSING, MISSING, MISSING)


LEAF = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5)


@given(LEAF)
def test_json_means_what_the_standard_library_says(tmp_path_factory, value):
    """NaN, whole numbers of any size, halves of surrogate pairs: whichever of two libraries reads them."""
    path = tmp_path_factory.mktemp("json") / "eu.a.jsonl"
    line = json.dumps({"text": value, "meta": {"text": value}})
    file = source(path, line.encode())
    (found,) = values(file, "text", "meta.text")
    assert repr(found) == repr((json.loads(line)["text"],) * 2)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (
            b"{broken",
            "not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)), expected",
        ),
        (b'["a"]', "a JSON list, expected an object"),
        (b"5", "a JSON number, expected an object"),
        (b"NaN", "a JSON number, expected an object"),
        (b'"a"', "a JSON string, expected"),
        (b"null", "a JSON null, expected"),
        (b"true", "a JSON boolean, expected"),
        (b'{"text": "\xf1"}', "not UTF-8 (invalid continuation byte at byte 10), expected JSON in UTF-8"),
        (b'{"text": "a"} x', "not JSON (Extra data"),
        (b"[" * 100_000, "not JSON (maximum recursion depth"),
        (b'{"text": "' + b"x" * 70_000 + b'"}', "a line of 70,012 bytes, expected at most 65,836"),
    ],
)
def test_a_bad_line_does_not_end_the_file(tmp_path, line, problem):
    most = 100 if len(line) < 100_000 else 1 << 20
    file = source(tmp_path / "eu.wiki.jsonl", jsonl([{"text": "a"}]) + line + b"\n" + jsonl([{"text": "b"}]))
    first, bad, last = read(file, max_document_bytes=most)
    assert (first, last) == (Row(0, ("a",)), Row(2, ("b",)))
    assert isinstance(bad, BadRow)
    assert bad.number == 1
    assert bad.problem.startswith(problem)
    assert bad.content == line.decode("utf-8", "backslashreplace")[:200]


def test_text_is_one_document_a_line(tmp_path):
    content = (
        "\ufefflehena\r\n\n  \nbigarrena\x0bjarraitzen du\u2028\n".encode()
        + b"\xf1\n"
        + b"x" * 101
        + b"\n"
        + b"y" * 100
    )
    file = source(tmp_path / "eu.wiki.txt", content)
    rows = read(file, "body", max_document_bytes=100)
    assert rows == [
        Row(0, ("lehena",)),
        Row(3, ("bigarrena\x0bjarraitzen du\u2028",)),
        BadRow(4, "not UTF-8 (unexpected end of data at byte 0), expected text in UTF-8", "\\xf1"),
        BadRow(5, "a line of 101 bytes, expected at most 100 (--max-document-bytes)", "x" * 101),
        Row(6, ("y" * 100,)),
    ]
    with pytest.raises(CorpusError, match=r"eu.wiki.txt: no field 'id' \(fields: text\); name one that is there"):
        read(file, "text", "id")
    assert read(file, "text", "id", optional=frozenset({"id"}))[0] == Row(0, ("lehena", MISSING))


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
def test_a_file_may_be_a_document(tmp_path, packed):
    text = "lehena\r\n\nbigarrena ñ\n"
    file = source(tmp_path / f"eu.a.txt{packed}", PACK[packed](b"\xef\xbb\xbf" + text.encode()))
    assert read(file, document="file", span_bytes=3) == [Row(0, (text,))]
    (bad,) = read(file, document="file", max_document_bytes=10)
    assert bad.problem == "a file of more than 10 bytes, expected at most as many in a document"
    wrong = source(tmp_path / f"eu.b.txt{packed}", PACK[packed](b"bat \xff"))
    assert [row.problem[:9] for row in read(wrong, document="file")] == ["not UTF-8"]


@pytest.mark.parametrize("packed", ["", ".gz", ".xz"])
def test_csv(tmp_path, packed):
    content = '\ufeffid,text\r\n1,"a ""b"", c"\r\n\r\n2,"two\r\nlines\n"\r\n3,ñ\n'
    file = source(tmp_path / f"eu.wiki.csv{packed}", PACK[packed](content.encode()))
    assert read(file, "text", "id") == [
        Row(1, ('a "b", c', "1")),
        Row(3, ("two\r\nlines\n", "2")),
        Row(6, ("ñ", "3")),
    ]
    assert locate(file, Span(0, 1), 6) == "line 7"
    with pytest.raises(CorpusError, match=r"no field 'txt'; did you mean 'text'\? \(fields: id, text\)"):
        read(file, "txt")
    tsv = source(tmp_path / f"eu.wiki.tsv{packed}", PACK[packed](b"id\ttext\n1\ta, b\n"))
    assert values(tsv, "text", "url", optional=frozenset({"url"})) == [("a, b", MISSING)]


def test_rows_of_csv_that_are_wrong_one_by_one(tmp_path):
    long = 65_536 + 300
    lines = [
        b"id,text",
        b"1,a,b",  # another number of fields
        b"2",
        b'3,"\xff',  # wrong UTF-8 in a text of two lines
        b'more"',
        b"4,nul\0",
        b"5," + b"x" * long,
        b'6,"' + b"x" * long,  # too long, and it opens a quote
        b'more",',
        b"7,good",
    ]
    rows = read(source(tmp_path / "eu.a.csv", b"\n".join(lines)), max_document_bytes=100)
    assert [(row.number, row.problem) for row in rows[:-1]] == [
        (1, "3 fields, expected 2 as in the header"),
        (2, "1 fields, expected 2 as in the header"),
        (3, "not UTF-8 (invalid start byte at byte 3), expected text in UTF-8"),
        (5, "a NUL byte, expected text"),
        (6, f"a line of {long + 2:,} bytes, expected at most {long - 0:,} (--max-document-bytes)"),
        (7, f"a line of {long + 3:,} bytes, expected at most {long - 0:,} (--max-document-bytes)"),
    ]
    assert rows[-1] == Row(9, ("good",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b'text\na\n"b\nc\nd\n',
            "eu.a.csv, line 3 to 5: a quote that is opened there is never closed; after that no row",
        ),
        (b'text\n"a"b\n', "eu.a.csv, line 2: ',' expected after '\"'"),
        (b'"text\na\n', "eu.a.csv, line 1.*: a quote that is opened there is never closed"),
        (b"text,text\na,b\n", "line 1: the header names 'text' 2 times; keep one"),
        (b"te\xffxt\na\n", "line 1: not UTF-8 .* in the header, which names the fields; mend it"),
        (b'text\n"' + b"x\n" * 100_000, "line 2 to .*: field larger than field limit"),
    ],
)
def test_a_table_in_which_no_row_is_sure(tmp_path, monkeypatch, content, message):
    import csv

    before = csv.field_size_limit(100)
    try:
        with pytest.raises(CorpusError, match=message):
            read(source(tmp_path / "eu.a.csv", content), max_document_bytes=10)
    finally:
        csv.field_size_limit(before)


def record(kind, text: bytes, **headers) -> bytes:
    given = {"WARC-Type": kind, "Content-Length": str(len(text)), "Content-Type": "text/plain", **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return b"WARC/1.0\r\n" + head.encode() + b"\r\n" + text + b"\r\n\r\n"


def wet() -> list[bytes]:
    told = {
        "WARC-Target-URI": "https://a.eus/",
        "WARC-Date": "2024-05-18T01:58:10Z",
        "WARC-Record-ID": "<urn:uuid:1>",
        "WARC-Identified-Content-Language": "eus,spa",
    }
    return [
        record("warcinfo", b"Software-Info: x\r\n", **{"WARC-Date": "2024-05-18T01:58:10Z"}),
        record("conversion", "Kaixo\nñ".encode(), **told),
        record("conversion", b"x" * 11),
        record("conversion", b"\xff"),
        record("conversion", b""),
    ]


@pytest.mark.parametrize("name", ["eu.a.wet", "eu.a.warc.wet", "eu.a.warc.wet.gz", "eu.a.warc.gz", "one.a.wet.gz"])
def test_wet(tmp_path, name):
    records = wet() if name.startswith("one") or not name.endswith("gz") else list(map(gzip.compress, wet()))
    content = b"".join(records)
    file = source(tmp_path / name, gzip.compress(content) if name.startswith("one") else content)
    found = read(file, "text", "id", "url", "language", "date", max_document_bytes=10)
    assert found == [
        Row(1, ("Kaixo\nñ", "<urn:uuid:1>", "https://a.eus/", "eus", "2024-05-18T01:58:10Z")),
        BadRow(2, "a text of 11 bytes, expected at most 10", "x" * 11),
        BadRow(3, "not UTF-8 (invalid start byte at byte 0), expected UTF-8", "\\xff"),
        Row(4, ("", MISSING, MISSING, MISSING, MISSING)),
    ]
    assert locate(file, Span(0, 1), 2) == "record 3"
    with pytest.raises(CorpusError, match=r"no field 'uri'; did you mean 'url'\? \(fields: text, id, url, lang"):
        read(file, "uri")


def test_wet_that_is_none(tmp_path):
    for content, message in (
        (record("response", b"HTTP/1.1 200 OK\r\n\r\n<p>"), r"no record of type conversion, .* \(types: response\)"),
        (b"hello\n", "cannot be read after record 0 .*hello"),
        (b"WARC/1.0\r\nWARC-Type: conversion\r\n\r\ntext", "Content-Length '', expected a number of bytes"),
        (record("conversion", b"abc").replace(b": 3", b": 2"), "record of 2 bytes has no end: .* follows"),
        (b"WARC/1.0\r\nX: " + b"x" * (1 << 21), "a header line of more than 1,048,576 bytes"),
    ):
        with pytest.raises(CorpusError, match=message):
            read(source(tmp_path / "eu.a.wet", content))


def test_wet_cut_anywhere_is_noticed(tmp_path):
    content = b"".join(wet()[:2])
    begins = {0, len(wet()[0])}  # cut there it is a whole file
    for stop in range(1, len(content)):
        if stop not in begins:
            with pytest.raises(CorpusError, match="cannot be read after record [01] "):
                read(source(tmp_path / "eu.a.wet", content[:stop]))


NESTED = {
    "text": TEXTS,
    "id": [1, None, 3, 4, 5],
    "meta": [{"lang": "eu", "deep": {"url": "u"}}, None, {"lang": None, "deep": None}, {"lang": "ca", "deep": {}}, {}],
    "a.b": [0, 1, 2, 3, 4],
    "a": [{"b": 9}] * 5,
    "kind": pa.array(["x", "y", "x", "y", None]).dictionary_encode(),
    "big": pa.array(TEXTS, pa.large_string()),
}


def write(path):
    table = pa.table(NESTED)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=2)
        return source(path)
    new = pa.ipc.new_file if "file" in path.name else pa.ipc.new_stream
    with new(path, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return source(path)


@pytest.mark.parametrize("name", ["eu.a.parquet", "eu.file.arrow", "eu.stream.arrow"])
def test_columns(tmp_path, name):
    file = write(tmp_path / name)
    fields = ("text", "id", "meta.lang", "meta.deep.url", "a.b", "kind", "big", "none")
    found = read(file, *fields, optional=frozenset({"none"}), span_bytes=1)
    expected = zip(
        TEXTS,
        NESTED["id"],
        ["eu", None, None, "ca", None],
        ["u", None, None, None, None],
        range(5),
        ["x", "y", "x", "y", None],
        TEXTS,
        [MISSING] * 5,
        strict=True,
    )
    assert [row.values for row in found] == list(expected)
    with pytest.raises(CorpusError, match=r"no column 'meta.lnag'; did you mean 'meta.lang'\? \(columns: text, id,"):
        read(file, "meta.lnag")
    with pytest.raises(CorpusError, match=r"no column 'id.x'"):
        read(file, "id.x")


@pytest.mark.parametrize("name", ["eu.a.parquet", "eu.file.arrow"])
def test_two_columns_of_one_name(tmp_path, name):
    table = pa.table([["a"], ["b"], ["c"]], names=["text", "x", "x"])
    if name.endswith("parquet"):
        pq.write_table(table, tmp_path / name)
    else:
        with pa.ipc.new_file(tmp_path / name, table.schema) as writer:
            writer.write_table(table)
    file = source(tmp_path / name)
    assert values(file) == [("a",)]
    with pytest.raises(CorpusError, match="has 2 columns 'x'; keep one of them"):
        read(file, "x")


def test_columns_that_are_not_asked_for_are_not_read(tmp_path):
    """A damaged one does not matter."""
    path = tmp_path / "eu.a.parquet"
    table = pa.table({"noise": random.Random(1).sample(range(1 << 40), 5000), "text": ["kaixo"] * 5000})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[100:2000] = b"\0" * 1900
    file = source(path, bytes(content))
    assert len(values(file)) == 5000
    with pytest.raises(CorpusError, match=r"eu.a.parquet, row group 0: cannot be read after row 0 \(.*copy it again"):
        values(file, "noise")


@pytest.mark.parametrize("name", ["eu.a.parquet", "eu.a.arrow"])
@pytest.mark.parametrize("content", [b"not that", b"PAR1", b"ARROW1\0\0", b"PAR1" + b"x" * 100 + b"PAR1", b"x" * 5000])
def test_what_is_no_parquet_or_arrow(tmp_path, name, content):
    with pytest.raises(CorpusError, match=rf"{name}: not an? (Parquet|Arrow) file that can be read"):
        read(source(tmp_path / name, content))


@pytest.mark.parametrize("name", ["eu.a.parquet", "eu.file.arrow", "eu.stream.arrow"])
def test_columns_cut_anywhere_are_noticed(tmp_path, name):
    content = (tmp_path / name).read_bytes() if write(tmp_path / name) else b""
    for stop in [*range(1, len(content), 97), *range(len(content) - 9, len(content))]:
        with pytest.raises(CorpusError, match=name):
            read(source(tmp_path / name, content[:stop]))


@pytest.mark.parametrize("packed", [".gz", ".zst", ".bz2", ".xz"])
@pytest.mark.parametrize("size", [3, 300_000])
def test_a_compressed_file_cut_anywhere_is_noticed(tmp_path, packed, size):
    content = jsonl({"text": random.Random(number).randbytes(40).hex()} for number in range(size // 100 + 1))
    whole = PACK[packed](content)
    stops = {*range(max(1, len(whole) - 40), len(whole)), *range(1, 40), *range(1, len(whole), 9973)}
    for stop in sorted(stop for stop in stops if stop < len(whole)):
        with pytest.raises(CorpusError, match=rf"eu.a.jsonl{packed}: cannot be read after line \d+ \(.*truncated"):
            read(source(tmp_path / f"eu.a.jsonl{packed}", whole[:stop]))


@pytest.mark.parametrize("packed", [".gz", ".zst", ".bz2", ".xz"])
def test_members_of_a_compressed_file_are_read_one_after_the_other(tmp_path, packed):
    pack = PACK[packed]
    content = jsonl({"text": str(number)} for number in range(1000))
    members = [pack(content[:7]), pack(b""), pack(content[7:3000]), pack(content[3000:])]
    name = f"eu.a.jsonl{packed}"
    assert len(values(source(tmp_path / name, b"".join(members)))) == 1000
    for rubbish in (b"x", b"rubbish at the end", members[2][:20], b"\0" * 20, members[2][:-1]):
        with pytest.raises(CorpusError, match=r"cannot be read after line \d+ \("):
            values(source(tmp_path / name, b"".join(members) + rubbish))


@pytest.mark.parametrize("packed", [".gz", ".zst", ".bz2", ".xz"])
def test_a_damaged_compressed_file_is_noticed(tmp_path, packed):
    """Where the format has a checksum; xz and gzip and bz2 have, and what is flipped in zstd's head is none."""
    whole = bytearray(PACK[packed](jsonl({"text": str(number)} for number in range(9000))))
    whole[2] ^= 0xFF
    with pytest.raises(CorpusError, match=r"cannot be read after line 0 \("):
        values(source(tmp_path / f"eu.a.jsonl{packed}", bytes(whole)))


LIMITED = """
import itertools, json, re, sys
from converters.readers import Asked, read_span, spans
from converters.sources import find_files

def read(path):
    file = find_files([path]).files[0].file
    asked = Asked(("text",), max_document_bytes=1 << 20)
    rows = (row for span in spans(file, 1 << 30) for row in read_span(file, span, asked))
    return [kind for kind, _ in itertools.groupby(type(row).__name__ for row in rows)]

def peak():  # in MiB, of this program: what `resource` tells goes back to the process that it was forked from
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) >> 10

read(sys.argv[1])  # all is imported
before = peak()
kinds = read(sys.argv[2])
print(json.dumps([peak() - before, kinds]))
"""


def grown(small, large) -> tuple[int, list[str]]:
    """Return by how many MiB a process grows that reads a file, and the kinds of its rows, once each in a row."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(small), str(large)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    size, kinds = json.loads(done.stdout)
    return size, kinds


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells a process' peak of memory")
HUGE = 200 << 20
OPEN = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file, mode="wb", compresslevel=1),
    ".xz": lambda file: lzma.LZMAFile(file, "wb", preset=0),  # noqa: SIM115  it is closed there
    ".zst": lambda file: pa.CompressedOutputStream(pa.PythonFile(file, mode="w"), "zstd"),
}


def around(name) -> tuple[bytes, bytes, bytes]:
    """Return a whole file's beginning, what follows it up to a huge document, and what follows that one."""
    if name.endswith(".wet"):
        good, huge = record("conversion", b"a"), record("conversion", b"").replace(b": 0", b": %d" % HUGE)
        return good, huge[:-4], b"\r\n\r\n" + good
    good = b'{"text": "a"}\n' if "jsonl" in name else b"a\n"
    return (b"text\n" if "csv" in name else b"") + good, b"", b"\n" + good


@needs_linux
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.csv", "a.jsonl.gz", "a.jsonl.zst", "a.txt.xz", "a.wet"])
def test_a_huge_line_is_not_held(tmp_path, name):
    """A line of 200 MB, plain or as a bomb of some kilobytes, between two good ones: memory grows by little."""
    path, small = tmp_path / name, tmp_path / f"small.{name}"
    good, begin, end = around(name)
    small.write_bytes(PACK[path.suffix if path.suffix in OPEN else ""](good))
    with path.open("wb") as raw:
        file = OPEN.get(path.suffix, lambda file: file)(raw)
        file.write(good + begin)
        for _ in range(HUGE >> 20):
            file.write(b"x" * (1 << 20))
        file.write(end)
        file.close()
    size, kinds = grown(small, path)
    assert kinds == ["Row", "BadRow", "Row"]
    assert size < 40


@needs_linux
@pytest.mark.parametrize("name", ["a.b.parquet", "a.b.stream.arrow", "a.b.file.arrow"])
def test_columns_are_not_held(tmp_path, name):
    """200 MB in one row group, or in record batches of 10 MB: memory grows by little."""
    texts = [random.Random(number).randbytes(5000).hex() for number in range(1000)]
    for path, count in ((tmp_path / f"small.{name}", 1), (tmp_path / name, 20)):
        table = pa.table({"text": pa.array(texts * count)})
        if name.endswith("parquet"):
            pq.write_table(table, path, row_group_size=1 << 20, use_dictionary=False, compression="none")
            continue
        new = pa.ipc.new_file if "file" in name else pa.ipc.new_stream
        with new(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=1000)
    size, kinds = grown(tmp_path / f"small.{name}", tmp_path / name)
    assert kinds == ["Row"]
    assert size < 80


def test_a_file_that_changed_meanwhile_is_told(tmp_path):
    file = source(tmp_path / "eu.a.jsonl", jsonl([{"text": "a"}]))
    (tmp_path / "eu.a.jsonl").write_bytes(jsonl([{"text": "bb"}]))
    with pytest.raises(CorpusError, match=r"eu.a.jsonl: was changed after it was found; leave it as it is"):
        read(file)
    (tmp_path / "eu.a.jsonl").unlink()
    with pytest.raises(CorpusError, match=r"eu.a.jsonl: cannot be opened \(No such file.*but was there"):
        read(file)
