"""`verify` compares documents, manifest and shards; every check has what breaks it."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import BYTE
from documented import EOD, PAD, Text, texts, write_documented

from mixstream.streams import documents
from mixstream.streams.place import find_place
from mixstream.streams.upload import upload_streams
from mixstream.streams.verify import verify_streams

LAYOUTS = pytest.mark.parametrize("layout", ["packed", "documents"])


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(documents, "BATCH_ROWS", 16)


def problems(root):
    return [problem for verdict in verify_streams(root) for problem in verdict.problems]


def problem(root):
    (only,) = problems(root)
    return only


@pytest.fixture
def made(tmp_path):
    """Return a function that writes the stream eu.a, and returns its folder."""

    def make(layout="packed", count=90, **options):
        write_documented(tmp_path / "eu.a", texts(count), layout=layout, quality=True, **options)
        return tmp_path / "eu.a"

    return make


def change_row(stream, row, column, value):
    """Change a token of one row in the shards, without their hashes."""
    index = json.loads((stream / "index.json").read_text())
    for entry in index["shards"]:
        entry["raw_data"]["hashes"] = {}
    (stream / "index.json").write_text(json.dumps(index))
    for entry in index["shards"]:
        if row < entry["samples"]:
            path = stream / entry["raw_data"]["basename"]
            content = bytearray(path.read_bytes())
            begin = int.from_bytes(content[4 + 4 * row : 8 + 4 * row], "little")
            if column == "quality":  # before the tokens
                content[begin : begin + 8] = np.float64(value).tobytes()
            else:
                content[begin + 8 + 2 * column : begin + 10 + 2 * column] = np.uint16(value).tobytes()
            path.write_bytes(content)
            return path.name
        row -= entry["samples"]
    raise AssertionError("no such row")


def change_documents(stream, change):
    path = stream / "documents.parquet"
    columns = pq.read_table(path)
    changed = change(columns)
    pq.write_table(columns if changed is None else changed, path)


def with_value(table, name, row, value):
    values = table.column(name).to_pylist()
    values[row] = value
    place = table.schema.get_field_index(name)
    import pyarrow as pa

    return table.set_column(place, name, pa.array(values, table.schema.field(name).type))


@LAYOUTS
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_whole_stream_has_no_problem(made, tmp_path, layout, compression):
    stream = made(layout, compression=compression)
    write_documented(stream / "heldout", texts(9, seed=1), layout=layout, quality=True, split="heldout")
    assert [(v.name, v.problems, v.documents) for v in verify_streams(tmp_path)] == [
        ("eu.a", (), 90),
        ("eu.a/heldout", (), 9),
    ]


def test_a_document_may_be_longer_than_shards_and_lie_in_the_remainder(tmp_path):
    long = [Text("a" * 3000, 1.0), Text("b" * 3, None), Text("", 2.0), Text("c" * 900, None), Text("dd"), Text("")]
    write_documented(tmp_path / "eu.a", long, length=8, quality=True)
    assert problems(tmp_path) == []


def test_an_object_store_is_verified_as_well(made, bucket):
    stream = made()
    url = f"{bucket.url}/streams"
    upload_streams(stream.parent, url)
    assert [v.documents for v in verify_streams(url)] == [90]
    change_documents(stream, lambda table: table.slice(0, 89))
    (find_place(url) / "eu.a" / "documents.parquet").put((stream / "documents.parquet").read_bytes())
    assert "documents.parquet: its 89 documents end at token" in problem(url)


@LAYOUTS
def test_documents_that_do_not_follow_each_other_are_told(made, layout):
    stream = made(layout)
    table = pq.read_table(stream / "documents.parquet").to_pydict()
    change_documents(stream, lambda table: with_value(table, "begin", 50, 3))
    length = table["num_tokens"][50]
    assert f"document 50 has {length} tokens from 3, expected one or more from {table['begin'][50]}" in problem(stream)


@pytest.mark.parametrize("name", ["num_tokens", "num_bytes"])
def test_counts_below_what_can_be_are_told(made, name):
    stream = made()
    change_documents(stream, lambda table: with_value(table, name, 0, -1))
    assert "document 0 has" in problem(stream)


@LAYOUTS
def test_sums_that_stream_json_does_not_have_are_told(made, layout, edit_json):
    stream = made(layout, count=60)
    whole = json.loads((stream / "stream.json").read_text())

    def told(**changes):
        edit_json(stream / "stream.json", lambda content: content.update(changes))
        found = problem(stream)
        (stream / "stream.json").write_text(json.dumps(whole))
        return found

    assert f"{whole['num_bytes']} bytes of text, 7;" in told(num_bytes=7)
    if layout == "packed":
        assert "60 documents, 61;" in told(num_documents=61)
        remainder = (whole["remainder_tokens"] + 1) % 8
        assert "documents.parquet: tells and stream.json says: " in told(remainder_tokens=remainder)
    else:
        assert f"{whole['padding_tokens']} tokens of padding, 5" in told(padding_tokens=5)
        assert f"{whole['truncated_tokens']} tokens cut off, 5" in told(truncated_tokens=5)
    change_documents(stream, lambda table: with_value(table, "num_bytes", 59, 1000))
    assert "bytes of text" in problem(stream)


@LAYOUTS
def test_fewer_documents_than_samples_are_told(made, layout):
    stream = made(layout)
    change_documents(stream, lambda table: table.slice(0, 40))
    assert "documents.parquet: its 40 documents end at token" in problem(stream)


def test_an_end_that_is_none_and_one_too_many_are_told(made):
    stream = made()
    rows = [t for text in texts(90) for t in text.tokens]
    row, column = divmod(rows.index(EOD, 300), 8)
    name = change_row(stream, row, column, 97)
    assert f"{name}: row " in problem(stream)
    assert f"has token 97 at {column}, where document " in problem(stream)
    change_row(stream, row, column, EOD)
    place = next(p for p in range(400, 600) if rows[p] != EOD and rows[p + 1] != EOD)
    row, column = divmod(place, 8)
    change_row(stream, row, column, EOD)
    assert f"has token {EOD} at {column}, an end-of-document token, but document " in problem(stream)


def test_padding_that_is_none_and_ends_in_padded_rows_are_told(made):
    stream = made("documents")
    sizes = [len(text.tokens) for text in texts(90)]
    short = next(number for number in range(40, 90) if 2 <= sizes[number] < 8)
    long = next(number for number in range(40, 90) if sizes[number] > 8)
    change_row(stream, short, 7, 98)
    assert f"has token 98 at 7, behind the {sizes[short]} tokens of its document; expected the padding, 0" in problem(
        stream
    )
    change_row(stream, short, 7, PAD)
    change_row(stream, short, sizes[short] - 1, 98)
    assert f"has token 98 at {sizes[short] - 1}, where document {short} ends" in problem(stream)
    change_row(stream, short, sizes[short] - 1, EOD)
    change_row(stream, long, 7, EOD)
    assert f"has token {EOD} at 7, an end-of-document token, but document {long} does not end there" in problem(stream)


@LAYOUTS
@pytest.mark.parametrize("value", [0.123, np.nan, np.inf])
def test_kept_fields_of_samples_are_those_of_documents(made, layout, value):
    stream = made(layout, count=60)
    row = 30
    assert texts(60)[row].quality is not None
    name = change_row(stream, row, "quality", value)
    assert f"{name}: row " in problem(stream)
    assert f"has quality {value}, its documents " in problem(stream)


def test_columns_that_samples_have_not_are_told(made, edit_json):
    stream = made()
    edit_json(stream / "stream.json", lambda content: content.update(columns=["quality", "toxicity"]))
    assert "stream.json says that samples have a column 'toxicity', index.json has" in problem(stream)
    edit_json(stream / "stream.json", lambda content: content.update(columns=[]))
    assert "documents.parquet: has columns" in problem(stream)


def test_a_table_that_is_none_is_told(made, edit_json):
    stream = made()
    change_documents(stream, lambda table: with_value(table, "id", 3, None))
    assert "documents.parquet: a document without id, begin, num_tokens or num_bytes" in problem(stream)
    (stream / "documents.parquet").write_bytes(b"not Parquet, but long enough")
    assert "documents.parquet: cannot be read" in problem(stream)
    (stream / "documents.parquet").unlink()
    assert "documents.parquet: there is none; copy the stream again" in problem(stream)
    edit_json(stream / "stream.json", lambda content: content.update(conversion=None))
    assert problems(stream) == []  # of before documents were written down


def test_splits_that_were_exchanged_are_told(made):
    stream = made()
    write_documented(stream / "heldout", texts(9, seed=1), quality=True)
    assert "heldout: stream.json says that it is the split 'train', expected 'heldout'" in problem(stream)


def test_a_held_out_split_of_another_conversion_is_told(made, edit_json):
    stream = made(heldout_documents=9)
    write_documented(stream / "heldout", texts(9, seed=1), quality=True, split="heldout")
    assert problems(stream) == []
    edit_json(stream / "stream.json", lambda content: content.update(heldout_documents=8))
    assert "heldout: has 9 documents of the conversion f, the stream's stream.json tells of 8 of f" in problem(stream)
    edit_json(stream / "stream.json", lambda content: content.update(heldout_documents=9))
    edit_json(stream / "heldout" / "stream.json", lambda content: content["conversion"].update(fingerprint="g"))
    assert "heldout: has 9 documents of the conversion g" in problem(stream)


def test_a_token_column_that_is_not_there_is_told(made, edit_json):
    stream = made()
    edit_json(stream / "stream.json", lambda content: content.update(token_column="ids"))
    assert "0 of the token columns ids among its columns quality, tokens" in problem(stream)


def test_memory_does_not_grow_with_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "BATCH_ROWS", 256)
    peaks = []
    for times in (1, 8):
        folder = tmp_path / str(times)
        write_documented(folder / "eu.a", [Text("abcdefg")] * 2000 * times, shard_bytes=4000)
        verify_streams(folder)
        tracemalloc.start()
        assert [v.documents for v in verify_streams(folder)] == [2000 * times]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]
    assert BYTE.eod_token_id == EOD
