"""Corpora of many small files and many streams: what is handed out together, noted once, and kept apart."""

from __future__ import annotations

import json
import resource

import numpy as np
import pytest
from converting import convert, files_of, write_lines
from hypothesis import given
from hypothesis import strategies as st

from converters.tasks.duplicates import _FOUND, _rows
from converters.tasks.executors import BUNDLE_BYTES, BUNDLE_TASKS, bundles
from converters.tasks.packing import sequences
from converters.tasks.parts import Part, Run
from mixstream.streams.manifest import read_manifest
from mixstream.streams.verify import verify_streams

FIELDS = {"language_field": "lang", "domain": "web"}


@given(st.lists(st.integers(0, 2 * BUNDLE_BYTES) | st.integers(0, 9), max_size=200))
def test_small_tasks_are_handed_out_together(sizes):
    found = list(bundles(iter(enumerate(sizes)), lambda task: task[1]))
    assert [task for bundle in found for task in bundle] == list(enumerate(sizes))
    for bundle in found:
        assert 1 <= len(bundle) <= BUNDLE_TASKS
        assert sum(size for _, size in bundle[:-1]) < BUNDLE_BYTES
    for bundle in found[:-1]:
        assert len(bundle) == BUNDLE_TASKS or sum(size for _, size in bundle) >= BUNDLE_BYTES


def write_many(folder, count, languages=("eu", "ca", "gl")):
    for number in range(count):
        own = [
            {"text": f"{number} {line} testua " * 3, "lang": languages[number % len(languages)]} for line in range(5)
        ]
        write_lines(folder / f"{number:04}.jsonl", own)
    return folder


def test_bytes_do_not_depend_on_what_is_handed_out_together(tmp_path, monkeypatch):
    folder = write_many(tmp_path / "in", 90)
    convert([folder], tmp_path / "a", **FIELDS, deduplicate=True)
    monkeypatch.setattr("converters.tasks.executors.BUNDLE_TASKS", 1)
    convert([folder], tmp_path / "b", **FIELDS, deduplicate=True)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert all(not verdict.problems for verdict in verify_streams(tmp_path / "a"))


def test_parts_stay_when_a_corpus_grows(tmp_path, monkeypatch):
    """The files that were there are not encoded again, whatever the format of the new one."""
    import converters.tasks.encode

    folder = write_many(tmp_path / "in", 5)
    encoded: list[str] = []
    encode = converters.tasks.encode._encode

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(
        "converters.tasks.encode._encode", lambda task, own: (encoded.append(task.file.name), encode(task, own))[1]
    )
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("converters.writing.put_in_place", interrupt)
        convert([folder], tmp_path / "out", **FIELDS)
    assert len(encoded) == 5
    encoded.clear()
    (folder / "new.csv").write_text("text,lang\n" + "testu berria,eu\n" * 9)
    convert([folder], tmp_path / "out", **FIELDS)
    assert encoded == ["new.csv"]
    convert([folder], tmp_path / "one-go", **FIELDS)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "one-go")


def test_a_stream_names_the_files_that_have_documents_of_it(tmp_path):
    """Or else the manifests of many streams of many files would be larger than the streams."""
    folder = write_many(tmp_path / "in", 9)
    write_lines(folder / "bad.jsonl", [{"text": "", "lang": "eu"}])
    (converted,) = convert([folder], tmp_path / "out", **FIELDS, on_error="quarantine")
    manifests = {name: read_manifest(tmp_path / "out" / name) for name in ("eu.web", "ca.web")}
    assert [own.name for own in manifests["eu.web"].sources] == ["0000.jsonl", "0003.jsonl", "0006.jsonl", "bad.jsonl"]
    assert [own.name for own in manifests["ca.web"].sources] == ["0001.jsonl", "0004.jsonl", "0007.jsonl"]
    assert manifests["eu.web"].conversion == manifests["ca.web"].conversion
    (again,) = convert([folder], tmp_path / "out", **FIELDS, on_error="quarantine")
    assert again.kept
    assert again.manifests == converted.manifests
    write_lines(folder / "0001.jsonl", [{"text": "beste bat " * 9, "lang": "ca"}] * 5)  # of another stream
    (after,) = convert([folder], tmp_path / "out", **FIELDS, on_error="quarantine", overwrite=True)
    assert not after.kept


def test_streams_with_rejects_may_be_more_than_files_that_can_be_open(tmp_path):
    languages = [f"l{number}" for number in range(120)]
    folder = write_many(tmp_path / "in", 120, languages)
    write_lines(folder / "bad.jsonl", [{"text": "", "lang": own} for own in 2 * languages])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        (converted,) = convert([folder], tmp_path / "out", **FIELDS, on_error="quarantine", holdout=0.0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(converted.rejects) == 120
    told = [json.loads(line) for line in (tmp_path / "out/l7.web/rejects.jsonl").read_text().splitlines()]
    assert [(own["place"], own["stream"]) for own in told] == [("line 8", "l7.web"), ("line 128", "l7.web")]


def test_runs_know_the_parts_of_their_stream_alone():
    runs = {name: Run(name, "train", 1, 2, 3) for name in ("eu.a", "eu.b")}
    parts = [Part("p0", (runs["eu.a"],)), Part("p1", (runs["eu.b"], runs["eu.a"], runs["eu.b"]))]
    found = sequences(parts)
    assert found["eu.b", "train"].paths == ["p1"]
    assert [(piece.path, piece.token) for piece in found["eu.b", "train"].between(0, 4, "packed")] == [
        ("p1", 0),
        ("p1", 4),
    ]
    assert [(piece.path, piece.token) for piece in found["eu.a", "train"].between(1, 4, "packed")] == [
        ("p0", 0),
        ("p1", 2),
    ]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 99)), max_size=30), st.integers(0, 6))
def test_the_duplicates_of_one_part(tmp_path_factory, found, number):
    path = tmp_path_factory.mktemp("found") / "0.found"
    path.write_bytes(np.array(sorted(found), _FOUND).tobytes())
    assert _rows(str(path), number).tolist() == [row for part, row in sorted(found) if part == number]


def test_a_span_of_many_streams_has_one_run_of_each(tmp_path, monkeypatch):
    """Whatever the blocks: with 40 streams in 50 blocks there would be 2,000, and so of every span."""
    rows = [{"text": f"{number} testua " * 5, "lang": f"l{number * number % 40}"} for number in range(3000)]
    rows += rows[:500]
    folder = write_lines(tmp_path / "in" / "all.jsonl", rows).parent
    told: list[Part] = []
    monkeypatch.setattr("converters.run.sequences", lambda parts: (told.extend(parts), sequences(parts))[1])
    convert([folder], tmp_path / "a", **FIELDS, deduplicate=True)
    monkeypatch.setattr("converters.tasks.parts.BLOCK_BYTES", 4096)
    convert([folder], tmp_path / "b", **FIELDS, deduplicate=True)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert len(told) == 2
    for part in told:
        assert len({run[:2] for run in part.runs}) == len(part.runs) > 10
