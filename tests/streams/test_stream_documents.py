"""documents.parquet: where every document is, against slow references."""

from __future__ import annotations

import math
import tracemalloc
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import StreamError
from mixstream.streams import documents
from mixstream.streams.documents import (
    DocumentsWriter,
    documents_of_sample,
    read_documents,
    read_documents_table,
    sample_means,
)
from mixstream.streams.place import find_place


def table_of(num_tokens, quality=None, first=0):
    """Return the documents as an encoder tells them, a column too many."""
    count = len(num_tokens)
    columns = {
        "id": [f"id-{first + number}" for number in range(count)],
        "num_tokens": pa.array(num_tokens, pa.int64()),
        "num_bytes": pa.array(num_tokens, pa.int64()),
        "split": ["train"] * count,
    }
    return pa.table(columns | ({} if quality is None else {"quality": pa.array(quality, pa.float64())}))


def write(directory, *tables, columns=(), sequence_length=None):
    with DocumentsWriter(directory, columns, sequence_length) as writer:
        for table in tables:
            writer.append(table)
    return (directory / "documents.parquet").read_bytes()


def test_where_documents_begin_follows_from_their_tokens(tmp_path):
    write(tmp_path, table_of([3, 1, 9]), table_of([2], first=3))
    expected = {
        "id": ["id-0", "id-1", "id-2", "id-3"],
        "begin": [0, 3, 4, 13],
        "num_tokens": [3, 1, 9, 2],
        "num_bytes": [3, 1, 9, 2],
    }
    assert read_documents_table(tmp_path).to_pydict() == expected
    assert pa.Table.from_batches(read_documents(tmp_path)).to_pydict() == expected
    write(tmp_path, table_of([3, 1], [0.5, None]), table_of([9], [2.0]), columns=["quality"], sequence_length=8)
    found = read_documents_table(tmp_path).to_pydict()
    assert (found["begin"], found["quality"]) == ([0, 8, 16], [0.5, None, 2.0])
    assert [path.name for path in tmp_path.iterdir()] == ["documents.parquet"]


@given(cuts=st.lists(st.integers(0, 200), max_size=6), seed=st.integers(0, 9))
def test_bytes_are_the_same_however_they_are_appended(tmp_path_factory, cuts, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "_STEP", 8)
        patch.setattr(documents, "GROUP_ROWS", 64)
        patch.setattr(documents, "GROUP_BYTES", 1500)
        path = tmp_path_factory.mktemp("documents")
        table = table_of(np.random.default_rng(seed).integers(1, 50, 200))
        places = [0, *sorted(cuts), 200]
        parts = [table.slice(start, stop - start) for start, stop in pairwise(places)]
        assert write(path, *parts) == write(path, table)
        assert pq.ParquetFile(path / "documents.parquet").num_row_groups > 3


def test_memory_does_not_grow_with_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "GROUP_ROWS", 1 << 13)
    table, peaks = table_of(np.full(1 << 13, 7)), []
    for times in (2, 20):
        before = pa.total_allocated_bytes()
        tracemalloc.start()
        with DocumentsWriter(tmp_path) as writer:
            for _ in range(times):
                writer.append(table)
            held = pa.total_allocated_bytes() - before
        peaks.append(held + tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
    assert writer.num_documents == 20 << 13


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="power cut"), DocumentsWriter(tmp_path) as writer:
        writer.append(table_of([1]))
        raise RuntimeError("power cut")
    with pytest.raises(StreamError, match="documents without num_tokens; they have"), DocumentsWriter(tmp_path) as w:
        w.append(table_of([1]).drop_columns("num_tokens"))
    with pytest.raises(StreamError, match="a document without id"), DocumentsWriter(tmp_path) as writer:
        writer.append(table_of([1]).set_column(0, "id", pa.array([None], pa.string())))
    with pytest.raises(StreamError, match="a document without num_tokens"), DocumentsWriter(tmp_path) as writer:
        writer.append(table_of([1, None]))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "documents.parquet").mkdir()
    with pytest.raises(StreamError, match=r"documents.parquet: cannot be written"), DocumentsWriter(tmp_path) as writer:
        writer.append(table_of([1]))
    with pytest.raises(StreamError, match=r"nowhere/documents.parquet: cannot be written"):
        write(tmp_path / "nowhere", table_of([1]))


def test_what_is_no_table_is_told(tmp_path):
    with pytest.raises(StreamError, match=r"documents.parquet: there is none; copy it, or convert"):
        read_documents_table(tmp_path)
    (tmp_path / "documents.parquet").write_bytes(b"not Parquet, but long enough")
    with pytest.raises(StreamError, match=r"documents.parquet: cannot be read \(.*\); it is damaged"):
        list(read_documents(tmp_path))


def test_tables_of_object_stores_are_read_too(tmp_path, bucket):
    content = write(tmp_path, table_of([3, 1, 9]))
    place = find_place(f"{bucket.url}/eu.a")
    with pytest.raises(StreamError, match=r"s3://.*documents.parquet: there is none"):
        read_documents_table(place)
    (place / "documents.parquet").put(content)
    assert read_documents_table(place) == read_documents_table(tmp_path)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30), st.integers(1, 16))
def test_the_documents_of_a_sample_are_those_of_its_tokens(tmp_path_factory, num_tokens, length):
    path = tmp_path_factory.mktemp("documents")
    write(path, table_of(num_tokens))
    tokens = [(number, place) for number, count in enumerate(num_tokens) for place in range(count)]
    table = read_documents_table(path)
    for sample in range(len(tokens) // length):
        own, found = tokens[sample * length : (sample + 1) * length], []
        for part in documents_of_sample(table, sample, length):
            assert (part.id, part.num_tokens) == (f"id-{part.document}", num_tokens[part.document])
            assert part.start == len(found)
            found += [(part.document, part.offset + place) for place in range(part.stop - part.start)]
        assert found == own
    for wrong in (-1, -(-len(tokens) // length)):
        with pytest.raises(StreamError, match=f"sample {wrong}: none of the {len(num_tokens)} documents reaches there"):
            documents_of_sample(table, wrong, length)


def test_the_document_of_a_padded_sample_is_one(tmp_path):
    write(tmp_path, table_of([3, 12, 8]), sequence_length=8)
    table = read_documents_table(tmp_path)
    found = [documents_of_sample(table, sample, 8) for sample in range(3)]
    assert [(part.id, part.start, part.stop, part.offset) for (part,) in found] == [
        ("id-0", 0, 3, 0),
        ("id-1", 0, 8, 0),
        ("id-2", 0, 8, 0),
    ]


@given(
    st.lists(st.tuples(st.integers(1, 20), st.none() | st.floats(-9, 9)), min_size=1, max_size=30),
    st.integers(1, 16),
    st.data(),
)
def test_means_are_those_of_a_loop_over_tokens(drawn, length, data):
    num_tokens = np.array([count for count, _ in drawn])
    values = np.array([math.nan if value is None else value for _, value in drawn])
    per_token = np.repeat(values, num_tokens)
    count = len(per_token) // length
    start = data.draw(st.integers(0, count))
    samples = range(start, data.draw(st.integers(start, count)))
    found = sample_means(np.cumsum(num_tokens) - num_tokens, num_tokens, values, samples, length)
    assert len(found) == len(samples)
    for sample, mean in zip(samples, found, strict=True):
        own = per_token[sample * length : (sample + 1) * length]
        own = own[~np.isnan(own)]
        if len(own):
            assert mean == pytest.approx(own.mean(), rel=1e-12, abs=1e-12)
        else:
            assert math.isnan(mean)
