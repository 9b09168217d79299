"""Documents looked up in parts of documents.parquet, against the whole table."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import StreamError
from mixstream.streams import documents
from mixstream.streams.document_search import documents_of_samples, find_document, like_document
from mixstream.streams.documents import DocumentsWriter, documents_of_sample, read_documents_table

GROUP = 4


@pytest.fixture(scope="module")
def small_groups():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents, "GROUP_ROWS", GROUP)
        patch.setattr(documents, "_STEP", 2)
        yield


def write(folder, num_tokens, ids=None):
    sizes = np.array(num_tokens)
    ids = ids or [f"doc-{number % 7}" for number in range(len(sizes))]
    with DocumentsWriter(folder) as writer:
        writer.write(ids, np.cumsum(sizes) - sizes, sizes, sizes)


@given(num_tokens=st.lists(st.integers(1, 12), min_size=1, max_size=30), length=st.integers(1, 9), data=st.data())
@pytest.mark.usefixtures("small_groups")
def test_samples_have_the_documents_that_the_whole_table_tells(num_tokens, length, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    write(folder, num_tokens)
    assert pq.ParquetFile(folder / "documents.parquet").num_row_groups == -(-len(num_tokens) // GROUP)
    table = read_documents_table(folder)
    count = -(-sum(num_tokens) // length)
    samples = data.draw(st.lists(st.integers(0, count - 1), max_size=8))
    expected = {sample: documents_of_sample(table, sample, length) for sample in samples}
    assert documents_of_samples(folder, samples, length) == expected
    with pytest.raises(StreamError, match=f"sample {count}: none of the .* documents reaches there"):
        documents_of_samples(folder, [count], length)


@given(num_tokens=st.lists(st.integers(1, 12), min_size=1, max_size=30))
@pytest.mark.usefixtures("small_groups")
def test_documents_are_found_wherever_they_are(num_tokens, tmp_path_factory):
    folder = tmp_path_factory.mktemp("split")
    write(folder, num_tokens)
    rows = read_documents_table(folder).to_pylist()
    for number in range(8):
        found = [(one.document, one.begin, one.num_tokens) for one in find_document(folder, f"doc-{number}")]
        same = [(i, row["begin"], row["num_tokens"]) for i, row in enumerate(rows) if row["id"] == f"doc-{number}"]
        assert found == same


def test_an_id_that_is_not_there_is_compared_with_those_that_begin_as_it_does(tmp_path):
    write(tmp_path, [3, 3, 3], ["eu-tales-001", "eu-tales-020", "other"])
    assert like_document(tmp_path, "eu-tales-02") == ["eu-tales-020"]
    assert like_document(tmp_path, "othr") == ["other"]
    assert like_document(tmp_path, "zzzz") == []


def test_a_table_without_statistics_is_read_whole(tmp_path):
    write(tmp_path, [3, 5, 2, 7, 1, 9])
    table = read_documents_table(tmp_path)
    pq.write_table(table, tmp_path / "documents.parquet", row_group_size=2, write_statistics=False)
    assert documents_of_samples(tmp_path, [3, 5], 4) == {n: documents_of_sample(table, n, 4) for n in (3, 5)}


def test_a_table_that_is_not_there_or_empty_is_refused(tmp_path):
    with pytest.raises(StreamError, match=r"documents.parquet: there is none; copy it"):
        documents_of_samples(tmp_path, [0], 4)
    with pytest.raises(StreamError, match=r"documents.parquet: there is none; copy it"):
        find_document(tmp_path, "x")
    with DocumentsWriter(tmp_path):
        pass
    with pytest.raises(StreamError, match=r"has no documents"):
        documents_of_samples(tmp_path, [0], 4)


def test_a_suggestion_costs_no_more_comparisons_than_were_asked_for(tmp_path):
    write(tmp_path, [1] * 30, [f"page-{number:02}" for number in range(30)])
    assert like_document(tmp_path, "page-2x") == ["page-29"]
    assert like_document(tmp_path, "page-2x", 21) == ["page-20"]
    assert like_document(tmp_path, "page-2x", 0) == []
