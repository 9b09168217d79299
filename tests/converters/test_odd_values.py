"""Values, names and folders that are legal somewhere and odd here: told, or taken for what they are, never a traceback."""

from __future__ import annotations

import fcntl
import math
import os
import tracemalloc
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from converting import convert, write_lines

from converters.corpora import _staged
from converters.documents import Documents, Fields, UnfitError, ids_of
from converters.sources import find_files
from converters.tasks.cut import Samples, ShardTask, _packed
from converters.tasks.packing import sequences
from converters.tasks.parts import PartWriter, documents_of
from converters.work import locked, work_folder
from mixstream.errors import CorpusError, StreamError
from mixstream.streams.documents import read_documents_table
from mixstream.streams.place import find_place

KEY = "0123456789abcdef01234567"


def not_utf8() -> pa.Array:
    """Return the texts abc, two bytes that are no UTF-8, and def, as a Parquet writer may have them."""
    offsets = b"".join(end.to_bytes(4, "little") for end in (0, 4, 6, 10))
    return pa.Array.from_buffers(pa.string(), 3, [None, pa.py_buffer(offsets), pa.py_buffer(b"abcd\xff\xfedefg")])


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_text_in_a_column_that_is_not_utf8(tmp_path, name):
    (tmp_path / "eu.a").mkdir()
    table = pa.table({"text": not_utf8()})
    if name.endswith("parquet"):
        pq.write_table(table, tmp_path / "eu.a" / name)
    else:
        with pa.ipc.new_file(tmp_path / "eu.a" / name, table.schema) as writer:
            writer.write_table(table)
    where = {"a.parquet": "row group 0, row 1", "a.arrow": "record batch 0, row 1"}[name]
    with pytest.raises(CorpusError, match=rf"{where}: a value that cannot be read \('utf-8' .*expected text in UTF-8"):
        convert([tmp_path / "eu.a"], tmp_path / "out", sequence_length=4, holdout=0.0)
    (converted,) = convert([tmp_path / "eu.a"], tmp_path / "out", sequence_length=4, holdout=0.0, on_error="quarantine")
    train = converted.manifests["eu.a"]["train"]
    assert (train.num_documents, train.num_bytes, train.rejected_documents) == (2, 8, 1)


def test_a_time_that_python_cannot_tell(tmp_path):
    (tmp_path / "eu.a").mkdir()
    pq.write_table(pa.table({"text": ["kaixo"], "id": pa.array([1], pa.timestamp("ns"))}), tmp_path / "eu.a/a.parquet")
    with pytest.raises(
        CorpusError, match=r"row group 0, row 0: (a value that cannot be read|field 'id' is a Timestamp)"
    ):
        convert([tmp_path / "eu.a"], tmp_path / "out")


def test_empty_ids_are_none(tmp_path):
    """A table cannot say that there is none: all such documents would be held out together, or taken together."""
    (tmp_path / "eu.a.csv").write_text("id,text\n" + "".join(f",testua {number}\n" for number in range(200)))
    (converted,) = convert([tmp_path / "eu.a.csv"], tmp_path / "out", sequence_length=8, subsample=0.5)
    assert 0 < converted.counts["outside"] < 160
    ids = read_documents_table(tmp_path / "out" / "eu.a")["id"].to_pylist()
    assert Counter(map(len, ids)) == {32: len(ids)}
    with pytest.raises(UnfitError, match=r"field 'id' is empty, expected an id of its own .*\(--id-field\)"):
        Fields(id="id", language="eu", domain="a").document(("kaixo", ""))


def test_what_is_rejected_belongs_to_the_stream_of_its_fields_and_no_other(tmp_path):
    rows = [{"text": "kaixo " * 9, "lang": "eu", "kind": "web", "score": 1}] * 5
    rows += [
        {"text": "", "lang": "eu", "kind": "web", "score": 1},
        {"text": "bai", "lang": "eu", "kind": "web", "score": "x"},
    ]
    path = write_lines(tmp_path / "all.jsonl", rows)
    (converted,) = convert(
        [path], tmp_path / "out", language_field="lang", domain_field="kind", keep=("score",), on_error="quarantine"
    )
    assert converted.manifests["eu.web"]["train"].rejected_documents == 2
    assert converted.rejects == (str(tmp_path / "out/eu.web/rejects.jsonl"),)


def test_names_that_no_folder_can_have_are_told_of_their_document():
    fields = Fields(language_field="lang", domain_field="kind")
    for kind in ("x" * 65, "a/b", "..", "", "x\n"):
        with pytest.raises(UnfitError, match=r"field 'kind' holds .*expected a name of at most 64 letters, digits"):
            fields.document(("kaixo", "1", "eu", kind))
    with pytest.raises(UnfitError, match="expected a name of at most 128 bytes"):
        fields.document(("kaixo", "1", "a" + "ж" * 63, "b"))
    assert fields.document(("kaixo", "1", "eu", "x" * 64)).stream == "eu." + "x" * 64


def test_a_mark_before_the_ids_to_leave_out_is_none_of_them(tmp_path):
    (tmp_path / "ids").write_bytes(b"\xef\xbb\xbfone\r\ntwo\n\n")
    assert ids_of(tmp_path / "ids") == {"one", "two"}


def test_a_file_whose_name_cannot_be_written_down(tmp_path):
    (tmp_path / "eu.a").mkdir()
    (tmp_path / "eu.a" / os.fsdecode(b"\xff.txt")).write_text("kaixo\n")
    with pytest.raises(CorpusError, match=r"eu.a/\\udcff.txt: its name is not UTF-8, .*; rename it"):
        find_files([tmp_path / "eu.a"])


def test_a_work_folder_that_is_a_link_is_refused_and_nothing_of_others_is_removed(tmp_path):
    precious = tmp_path / "precious" / "papers"
    precious.mkdir(parents=True)
    (tmp_path / "out").mkdir()
    link = tmp_path / "out" / ".mixstream-eu.a"
    link.symlink_to(tmp_path / "precious")
    with (
        pytest.raises(StreamError, match="is a link, and what is in it would be removed"),
        work_folder(tmp_path / "out", "eu.a", KEY),
    ):
        pass
    link.unlink()
    (link / "papers").mkdir(parents=True)
    (link / KEY[::-1]).mkdir()
    with work_folder(tmp_path / "out", "eu.a", KEY) as work:
        assert sorted(path.name for path in link.iterdir()) == [KEY, "lock", "papers"]
        assert work == link / KEY
    assert [path.name for path in link.iterdir()] == ["papers"]
    assert precious.exists()


def test_a_work_folder_whose_content_stays_busy(tmp_path, monkeypatch):
    def refuse(path):
        raise OSError(39, "Directory not empty")

    with (
        pytest.raises(StreamError, match=r"cannot be removed \(Directory not empty\); the streams are whole"),
        work_folder(tmp_path / "out", "eu.a", KEY),
    ):
        monkeypatch.setattr("converters.work.shutil.rmtree", refuse)


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StreamError, match=r"cannot be locked \(Function not implemented\)"), locked(tmp_path / "a", ""):
        pass


def test_two_runs_do_not_stage_in_one_folder(tmp_path, monkeypatch):
    pytest.importorskip("obstore", reason="obstore is not installed; it needs Python 3.11")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")  # nothing is asked of the bucket
    out = find_place("s3://bucket/streams")
    with _staged(tmp_path, out) as folder:
        with (
            pytest.raises(StreamError, match="another process converts to s3://bucket/streams by way of there"),
            _staged(tmp_path, out),
        ):
            pass
        (folder / "eu.a").mkdir()
    assert (folder / "eu.a").exists()  # to be uploaded yet
    (folder / "eu.a").rmdir()
    with _staged(tmp_path, out):
        pass
    assert not list(tmp_path.iterdir())


def test_a_kept_field_is_the_mean_over_a_samples_tokens_and_takes_no_memory_by_the_token(tmp_path):
    """Of a shard of 2 million tokens; expanded to them, each field would take 16 MB several times."""
    rng = np.random.default_rng(5)
    with PartWriter(str(tmp_path / "part"), "uint16", 256, ("score",), False) as writer:
        for first in range(0, 2000, 100):
            scores = [(math.nan if number % 7 == 0 else rng.random(),) for number in range(100)]
            ids = [str(first + number) for number in range(100)]
            texts = [b"x" * int(size) for size in rng.integers(0, 2000, 100)]
            writer.add(["train"] * 100, Documents(ids, ["eu.a"] * 100, ids, texts, scores), None, range(100))
        part = writer.finish()
    samples = Samples(64, "uint16", "uint8", 256, "packed", 0, ("score",), 1 << 24, None)
    found = sequences([part])["eu.a", "train"]
    table = documents_of(part.path)
    by_token = np.repeat(table["score"].to_numpy(), table["num_tokens"].to_numpy())
    first, last = 3, samples.count(found)
    task = ShardTask(str(tmp_path), "", 0, samples, tuple(found.between(first * 64, last * 64, "packed")))
    tracemalloc.start()
    rows = _packed(task)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2 * rows["tokens"].nbytes + (1 << 20)  # its bytes are read beside it
    of_sample = by_token[first * 64 : last * 64].reshape(-1, 64)
    known = ~np.isnan(of_sample)
    expected = np.where(known, of_sample, 0).sum(axis=1) / np.where(known.any(axis=1), known.sum(axis=1), np.nan)
    np.testing.assert_allclose(rows["score"], expected, rtol=1e-12)
