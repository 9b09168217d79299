from __future__ import annotations

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from converters.readers import READERS, format_of, read_documents
from mixstream.errors import CorpusError

TEXTS = ["Kaixo, mundua.", "Bigarren\nlerroa eta «gehiago».", "ñandú 🦙"]


def jsonl(texts=TEXTS):
    return "".join(json.dumps({"id": f"d{i}", "text": t}, ensure_ascii=False) + "\n" for i, t in enumerate(texts))


def compressed(path, data: bytes):
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(data))
    elif path.suffix == ".zst":
        path.write_bytes(pa.Codec("zstd").compress(data, asbytes=True))
    else:
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst"])
def test_jsonl(tmp_path, suffix):
    path = compressed(tmp_path / f"eu.wiki{suffix}", (jsonl() + "\n").encode())
    assert [(d.id, d.text) for d in read_documents(path, "text")] == [(f"d{i}", t) for i, t in enumerate(TEXTS)]


@pytest.mark.parametrize("suffix", [".txt", ".txt.gz"])
def test_text_is_one_document_a_line(tmp_path, suffix):
    path = compressed(tmp_path / f"eu.wiki{suffix}", b"lehena\r\n\n  \nbigarrena\nlehena")
    documents = list(read_documents(path, "text"))
    assert [d.text for d in documents] == ["lehena", "bigarrena", "lehena"]
    assert documents[0].id == documents[2].id != documents[1].id


def test_parquet(tmp_path):
    path = tmp_path / "eu.wiki.parquet"
    pq.write_table(pa.table({"body": TEXTS, "id": [1, 2, 3]}), path, row_group_size=2)
    assert [(d.id, d.text) for d in read_documents(path, "body")] == [(str(i + 1), t) for i, t in enumerate(TEXTS)]
    with pytest.raises(CorpusError, match=r"no column 'text' \(columns: body, id; --text-field names it\)"):
        list(read_documents(path, "text"))


def test_members_of_a_compressed_file_are_read_one_after_the_other(tmp_path):
    half = len(jsonl()) // 2
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(jsonl().encode()[:half]) + gzip.compress(jsonl().encode()[half:]))
    assert [d.text for d in read_documents(path, "text")] == TEXTS


def test_formats_are_told_by_the_name(tmp_path):
    assert {suffix: format_of(tmp_path / f"eu.wiki{suffix}") for suffix in READERS} == {s: s for s in READERS}
    assert format_of(tmp_path / "README.md") is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{broken", "line 2: not JSON"),
        ('["a"]', "line 2: a JSON list, expected an object with 'text'"),
        ('{"txt": "a"}', "line 2: field 'text' holds nothing, expected a text"),
        ('{"text": null}', "line 2: field 'text' holds nothing"),
        ('{"text": 5}', "line 2: field 'text' holds int"),
        ('{"text": "  "}', "line 2: the text is empty"),
        ('{"text": "a\\ud800"}', "line 2: the text is not Unicode"),
        ("[" * 100_000, "line 2: not JSON"),
    ],
)
def test_a_bad_line_is_told_with_its_number(tmp_path, line, message):
    path = tmp_path / "eu.wiki.jsonl"
    path.write_text(jsonl(["a"]) + line + "\n")
    with pytest.raises(CorpusError, match=f"eu.wiki.jsonl, {message}"):
        list(read_documents(path, "text"))


def test_text_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "eu.wiki.txt"
    path.write_bytes("bat\nñ".encode("latin-1"))
    with pytest.raises(CorpusError, match="line 2: not UTF-8"):
        list(read_documents(path, "text"))


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl.zst"])
def test_a_truncated_file_is_refused(tmp_path, suffix):
    path = compressed(tmp_path / f"a{suffix}", (jsonl() * 500).encode())
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CorpusError, match=r"cannot be read after line \d+ .*truncated"):
        list(read_documents(path, "text"))


def test_what_is_no_parquet_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_text("not parquet")
    with pytest.raises(CorpusError, match="not a Parquet file"):
        list(read_documents(path, "text"))
