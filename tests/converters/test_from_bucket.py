"""Corpora in object stores: the streams of a bucket's corpus are those of its files."""

from __future__ import annotations

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
from converting import files_of

from converters.config import FieldsConfig, OptionsConfig, corpora_of_paths
from converters.run import convert_corpus
from converters.tasks.executors import executor_of
from mixstream.errors import CorpusError
from mixstream.streams.manifest import read_manifest
from mixstream.streams.place import find_place

ROWS = [{"id": f"d{i}", "text": f"{i} kaixo mundua " * (1 + i % 7), "score": i / 4} for i in range(300)]
FIELDS = FieldsConfig(keep=("score",))


def write_corpus(folder):
    """Write it in all the ways that bytes are asked for: spans of lines, row groups, a whole file."""
    folder.mkdir()
    lines = [json.dumps(row) + "\n" for row in ROWS]
    (folder / "0.jsonl").write_text("".join(lines[:150]))
    (folder / "1.jsonl.gz").write_bytes(gzip.compress("".join(lines[150:220]).encode()))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS[220:]), folder / "2.parquet", row_group_size=25)


def convert(path, out, workers=0, **given):
    sizes = {"sequence_length": 32, "holdout": 0.1, "shard_bytes": 4096, "span_bytes": 1500}
    (corpus,) = corpora_of_paths([str(path)], FIELDS, "eu.web")[0]
    with executor_of(workers) as executor:
        return convert_corpus(corpus, out, OptionsConfig(**sizes | given).options(), executor)


@pytest.mark.parametrize("workers", [0, 2])
def test_streams_of_a_buckets_corpus_are_those_of_its_files(bucket, tmp_path, workers):
    write_corpus(tmp_path / "in")
    url = f"{bucket.url}/corpus"
    for path in (tmp_path / "in").iterdir():
        (find_place(url) / path.name).put(path)
    convert(tmp_path / "in", tmp_path / "here")
    converted = convert(f"{url}/*", tmp_path / "there", workers)
    here, there = (files_of(tmp_path / name) for name in ("here", "there"))
    assert here.keys() == there.keys()
    assert {name: content for name, content in here.items() if not name.endswith("stream.json")} == {
        name: content for name, content in there.items() if not name.endswith("stream.json")
    }
    train = converted.manifests["eu.web"]["train"]
    assert train == read_manifest(tmp_path / "there" / "eu.web")
    assert [(source.name.rpartition("/")[2], source.sha256) for source in train.sources] == [
        ("0.jsonl", None),
        ("1.jsonl.gz", None),
        ("2.parquet", None),
    ]
    assert all(source.etag for source in train.sources)
    assert convert(f"{url}/*", tmp_path / "there").kept


def test_an_object_that_is_replaced_while_it_is_read_ends_the_run(bucket, tmp_path):
    write_corpus(tmp_path / "in")
    url = f"{bucket.url}/corpus"
    for path in (tmp_path / "in").iterdir():
        (find_place(url) / path.name).put(path)
    (corpus,) = corpora_of_paths([url], FIELDS, "eu.web")[0]
    (find_place(url) / "0.jsonl").put((tmp_path / "in" / "0.jsonl").read_bytes().replace(b"kaixo", b"agurr"))
    with executor_of(0) as executor, pytest.raises((CorpusError, ValueError), match=r"0\.jsonl"):
        convert_corpus(corpus, tmp_path / "out", OptionsConfig(sequence_length=32).options(), executor)
    assert not (tmp_path / "out" / "eu.web").exists()
