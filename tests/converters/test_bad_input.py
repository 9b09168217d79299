"""What cannot be used: told with its file and place, or put into quarantine with its reason, and counted always."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstd
from converting import convert, files_of, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import run

from converters.config import OptionsConfig
from converters.corpus import Corpus, span_bytes_of
from converters.documents import Fields
from converters.readers import blocks
from converters.sources import SourceFile
from mixstream.errors import CorpusError, StreamError, TokenizerError
from mixstream.streams.manifest import read_manifest

GOOD = [{"text": f"{i} testua " * 9, "id": str(i)} for i in range(40)]
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in GOOD)
SMALL = {"span_bytes": 700, "shard_bytes": 2048, "holdout": 0.2}


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def parquet_of(path: Path, texts: list, field: str = "text") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({field: pa.array(texts)}), path, row_group_size=10)
    return path


TEXTS = [row["text"] for row in GOOD]
LONG = b'{"text": "' + b"x" * 3000 + b'"}'

# What the file eu.a.* holds, the place and the reason that are told, and how many documents are rejects.
CASES = {
    "broken JSON": ("jsonl", LINES + b'{"text": "ba\n' + LINES, "line 41", "JSON", 1),
    "wrong UTF-8": ("jsonl", LINES + b'{"text": "ba\xff"}\n' + LINES, "line 41", "UTF-8", 1),
    "no field": ("jsonl", LINES + b'{"body": "bai"}\n' + LINES, "line 41", "'text'", 1),
    "null": ("jsonl", LINES + b'{"text": null}\n' + LINES, "line 41", "'text' .*expected a text", 1),
    "empty": ("jsonl", LINES + b'{"text": " \\n"}\n' + LINES, "line 41", "the text is empty", 1),
    "a number": ("jsonl", LINES + b'{"text": 17}\n' + LINES, "line 41", "'text' .*17.*expected a text", 1),
    "no object": ("jsonl", LINES + b"17\n" + LINES, "line 41", "object", 1),
    "half a pair": ("jsonl", LINES + b'{"text": "ba \\ud800"}\n' + LINES, "line 41", "(Unicode|surrogate)", 1),
    "too long": ("jsonl", LINES + LONG + b"\n" + LINES, "line 41", "2,?048", 1),
    "a wrong id": ("jsonl", LINES + b'{"text": "bai", "id": [1]}\n' + LINES, "line 41", "'id' .*expected a string", 1),
    "two in a row": ("jsonl", b"{\n}\n" + LINES * 2, "line 1", "JSON", 2),
    "truncated gzip": ("jsonl.gz", gzip.compress(LINES * 9)[:-30], "", "(truncated|ends)", 1),
    "truncated zstd": ("jsonl.zst", zstd.compress(LINES * 900)[:-30], "", "(truncated|ends)", 1),
    "no gzip": ("jsonl.gz", LINES, "", "incorrect header", 1),
}
NEVER = {"truncated gzip", "truncated zstd", "no gzip"}  # what follows is not known


@pytest.mark.parametrize("case", CASES)
def test_a_run_stops_at_what_cannot_be_used(tmp_path, case):
    end, content, place, reason, _ = CASES[case]
    put(tmp_path / f"eu.a.{end}", content)
    with pytest.raises(CorpusError, match=rf"^eu.a.{end}.*{place}.*{reason}") as caught:
        convert([tmp_path], tmp_path / "out", **SMALL, max_document_bytes=2048)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert not (tmp_path / "out" / "eu.a").exists()


@pytest.mark.parametrize("case", CASES)
def test_quarantine_takes_it(tmp_path, case):
    """One line of rejects.jsonl each; the other documents are as they are without it; whatever the workers."""
    end, content, place, reason, count = CASES[case]
    put(tmp_path / "in" / "eu.a" / f"bad.{end}", content)
    put(tmp_path / "in" / "eu.a" / "good.jsonl", LINES)
    options = {**SMALL, "max_document_bytes": 2048, "on_error": "quarantine"}
    (converted,) = convert([tmp_path / "in"], tmp_path / "out", **options)
    train = read_manifest(tmp_path / "out" / "eu.a")
    assert train.rejected_documents == converted.counts["rejected"] == count
    if case not in NEVER:
        assert train.num_documents + train.heldout_documents == 120
    assert converted.rejects == (str(tmp_path / "out" / "eu.a" / "rejects.jsonl"),)
    rejects = [json.loads(line) for line in Path(converted.rejects[0]).read_text().splitlines()]
    assert len(rejects) == count
    for reject in rejects:
        assert list(reject) == ["file", "place", "stream", "reason", "content"]
        assert reject["file"] == f"eu.a/bad.{end}"
        assert reject["stream"] == "eu.a"
        assert len(reject["content"]) <= 203
    assert re.search(reason, rejects[0]["reason"])
    assert place in rejects[0]["place"]
    assert rejects[0]["content"] or place == "" or case in ("no field", "null")


def test_parquet_says_row_group_and_row(tmp_path):
    texts = [*TEXTS[:23], None, *TEXTS[24:]]
    parquet_of(tmp_path / "in" / "eu.a.parquet", texts)
    with pytest.raises(CorpusError, match=r"^eu.a.parquet, row group 2, row 3: .*expected a text"):
        convert([tmp_path / "in"], tmp_path / "out", **SMALL)
    (converted,) = convert([tmp_path / "in"], tmp_path / "out", **SMALL, on_error="quarantine")
    (line,) = Path(converted.rejects[0]).read_text().splitlines()
    assert json.loads(line)["place"] == "row group 2, row 3"
    with pytest.raises(CorpusError, match=r"eu.a.parquet.*'body'"):
        convert([tmp_path / "in"], tmp_path / "other", **SMALL, text_field="body")


def test_a_file_that_is_no_parquet(tmp_path):
    put(tmp_path / "in" / "eu.a" / "0.parquet", b"PAR1 or so")
    parquet_of(tmp_path / "in" / "eu.a" / "1.parquet", TEXTS)
    with pytest.raises(CorpusError, match=r"eu.a/0.parquet.*Parquet"):
        convert([tmp_path / "in"], tmp_path / "out", **SMALL)
    (converted,) = convert([tmp_path / "in"], tmp_path / "out", **SMALL, on_error="quarantine")
    assert converted.counts["rejected"] == 1
    (line,) = Path(converted.rejects[0]).read_text().splitlines()
    assert json.loads(line)["file"] == "eu.a/0.parquet"


def test_an_empty_file(tmp_path):
    put(tmp_path / "eu.a.jsonl", b"")
    with pytest.raises(CorpusError, match=r"eu.a.jsonl: empty; leave it out or fill it"):
        convert([tmp_path], tmp_path / "out", on_error="quarantine")


def test_a_tokenizer_without_an_end_of_documents(tmp_path):
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    put(tmp_path / "eu.a.jsonl", LINES)
    with pytest.raises(TokenizerError, match="has none of .* name its end-of-document token with --eod-token"):
        convert([tmp_path / "eu.a.jsonl"], tmp_path / "out", tokenizer=str(tmp_path / "tokenizer.json"))


def test_no_document_at_all_is_an_error_in_quarantine_too(tmp_path):
    """Where all have another field, say: no stream was made, and that is no success."""
    put(tmp_path / "in" / "all.jsonl", LINES)
    given = {"language_field": "lang", "domain": "web", "on_error": "quarantine"}
    with pytest.raises(CorpusError, match=r"0 tokens .* \(40 documents cannot be used, see (.*rejects)\)") as caught:
        convert([tmp_path / "in"], tmp_path / "out", **given)
    rejects = Path(str(caught.value).partition("see ")[2].partition(")")[0])
    assert "'lang'" in json.loads(rejects.read_text().splitlines()[0])["reason"]


def test_rejects_of_no_stream_lie_beside_the_streams(tmp_path):
    rows = [{**row, "lang": "eu"} for row in GOOD] + [{**GOOD[0], "lang": 7}]
    write_lines(tmp_path / "in" / "all.jsonl", rows)
    given = {"language_field": "lang", "domain": "web", "on_error": "quarantine"}
    (converted,) = convert([tmp_path / "in"], tmp_path / "out", **given)
    assert converted.rejects == (str(tmp_path / "out" / "all.web.rejects.jsonl"),)
    assert json.loads(Path(converted.rejects[0]).read_text())["stream"] is None
    write_lines(tmp_path / "in" / "all.jsonl", rows[:-1])
    convert([tmp_path / "in"], tmp_path / "out", **given, overwrite=True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["eu.web"]


@pytest.mark.parametrize("workers", [0, 2])
def test_so_many_rejects_and_no_more(tmp_path, workers):
    """In one task, and over tasks; by the command, whose last line counts them."""
    rows = [{"text": None} if i % 4 == 0 else row for i, row in enumerate(GOOD * 5)]
    write_lines(tmp_path / "in" / "eu.a.jsonl", rows)  # 50 of 200
    given = ["--holdout", 0.2, "--sequence-length", 32, "--on-error", "quarantine", "--workers", workers]
    for span_bytes in (1 << 20, 700):
        out = tmp_path / f"out-{span_bytes}"
        some = [tmp_path / "in", "--out", out, *given, "--span-bytes", span_bytes]
        done = run(*some, "--max-rejects", 49)
        assert done.returncode == 2
        assert "more than 49 documents cannot be used (--max-rejects)" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (out / "eu.a").exists()
        done = run(*some, "--max-rejects", 50)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].startswith("150 documents in 1 stream in ")
        assert done.stdout.splitlines()[-1].endswith(", 50 rejected")
        assert f"rejected documents: {out / 'eu.a' / 'rejects.jsonl'}" in done.stdout
        assert len((out / "eu.a" / "rejects.jsonl").read_text().splitlines()) == 50
        assert read_manifest(out / "eu.a").rejected_documents == 50
        assert [path.name for path in out.iterdir()] == ["eu.a"]


def test_rejects_and_streams_do_not_depend_on_workers(tmp_path):
    rows = [{"text": None, "id": str(i)} if i % 4 == 0 else row for i, row in enumerate(GOOD * 5)]
    write_lines(tmp_path / "in" / "eu.a.jsonl", rows)
    given = {**SMALL, "on_error": "quarantine", "deduplicate": True}
    for workers in (0, 2):
        convert([tmp_path / "in"], tmp_path / str(workers), workers=workers, **given)
    assert files_of(tmp_path / "0") == files_of(tmp_path / "2")
    places = [
        json.loads(line)["place"] for line in (tmp_path / "0" / "eu.a" / "rejects.jsonl").read_text().splitlines()
    ]
    assert places == [f"line {i + 1}" for i in range(200) if i % 4 == 0]


ROW = st.fixed_dictionaries(
    {"text": st.one_of(st.text("ab \ud800", max_size=30), st.none(), st.integers(0, 9))},
    optional={
        "id": st.one_of(st.integers(0, 30), st.floats(allow_nan=False)),
        "lang": st.sampled_from(["eu", "ca", 7]),
    },
)


@given(
    rows=st.lists(st.one_of(ROW, st.just(17)), max_size=40),
    subsample=st.sampled_from([None, 0.6]),
    deduplicate=st.booleans(),
    exclude=st.booleans(),
    by_field=st.booleans(),
    length=st.integers(2, 20),
)
@settings(max_examples=40)
def test_every_row_is_somewhere(tmp_path_factory, rows, subsample, deduplicate, exclude, by_field, length):
    """In a stream, held out, rejected, excluded, a duplicate, outside the subsample, or in a stream too small."""
    folder = tmp_path_factory.mktemp("rows")
    rows = [*rows, *({"text": f"{i} agur", "id": f"x{i}", "lang": "eu"} for i in range(30))]
    (folder / "in").mkdir()
    (folder / "in" / "eu.a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = {"span_bytes": 300, "holdout": 0.2, "sequence_length": length, "subsample": subsample, "shard_bytes": 2048}
    if exclude:
        (folder / "ids").write_text("x1\nx2\n7\n")
        given["exclude"] = str(folder / "ids")
    if by_field:
        given |= {"language_field": "lang", "domain": "web"}
    (converted,) = convert([folder / "in"], folder / "out", **given, deduplicate=deduplicate, on_error="quarantine")
    trains = [manifests["train"] for manifests in converted.manifests.values()]
    in_streams = sum(train.num_documents + train.heldout_documents for train in trains)
    assert in_streams + sum(converted.counts.values()) == len(rows)
    lines = [json.loads(line) for path in converted.rejects for line in Path(path).read_text().splitlines()]
    assert len(lines) == converted.counts["rejected"]
    if not by_field:
        of_streams = Counter({line["stream"]: 0 for line in lines})
        of_streams.update(line["stream"] for line in lines)
        assert {train.name: train.rejected_documents for train in trains} == {"eu.a": len(lines)}
        assert set(of_streams) <= {"eu.a"}


def test_two_corpora_of_one_run_do_not_replace_each_others_streams(tmp_path):
    for name in ("a", "b"):
        write_lines(tmp_path / name / "all.jsonl", ({"text": f"{name} {row['text']}", "lang": "eu"} for row in GOOD))
    config = tmp_path / "corpora.yaml"
    own = {"language_field": "lang", "domain": "web"}
    corpora = {name: {"sources": str(tmp_path / name), **own} for name in ("a", "b")}
    config.write_text(json.dumps({"options": {"sequence_length": 32}, "corpora": corpora}))
    for more in ([], ["--overwrite"]):
        done = run("--config", config, "--out", tmp_path / "out", "--workers", 0, *more)
        assert done.returncode == 2
        assert "eu.web: is made by two corpora, a and b; make them one corpus" in done.stderr
    assert [path.name for path in (tmp_path / "out").glob("[!.]*")] == ["eu.web"]


def test_ids_to_exclude_that_are_no_text(tmp_path):
    put(tmp_path / "in" / "eu.a.jsonl", LINES)
    put(tmp_path / "ids", b"1\n2\n\xff\n")
    with pytest.raises(CorpusError, match="ids: line 3 is not UTF-8; --exclude needs an id a line"):
        convert([tmp_path / "in"], tmp_path / "out", exclude=str(tmp_path / "ids"))
    with pytest.raises(
        CorpusError, match=r"none: cannot be read \(No such file or directory\); --exclude names a file"
    ):
        convert([tmp_path / "in"], tmp_path / "out", exclude=str(tmp_path / "none"))


def test_streams_of_an_output_that_is_a_file(tmp_path):
    put(tmp_path / "in" / "eu.a.jsonl", LINES)
    with pytest.raises(StreamError, match=r"cannot be written \(Not a directory\); mend that and run the same command"):
        convert([tmp_path / "in"], tmp_path / "in" / "eu.a.jsonl")


def test_a_file_name_that_is_no_text(tmp_path):
    put(tmp_path / "in" / "eu.a" / os.fsdecode(b"\xff.jsonl"), LINES)
    with pytest.raises(CorpusError, match=r"eu.a/.udcff.jsonl: its name is not UTF-8, .* rename it"):
        convert([tmp_path / "in"], tmp_path / "out")


@pytest.mark.parametrize("out", ["in", "in/streams"])
def test_streams_beside_their_corpus_are_no_corpus(tmp_path, out):
    put(tmp_path / "in" / "eu.a.jsonl", LINES)
    put(tmp_path / "in" / "eu.b" / "0.jsonl", LINES + LINES)
    given = {"span_bytes": 700, "holdout": 0.0}
    if out == "in":
        with pytest.raises(StreamError, match=r"eu.b/0.jsonl: is there already and is no part of a stream"):
            convert([tmp_path / "in"], tmp_path / out, **given)
        (tmp_path / "in" / "eu.b" / "0.jsonl").unlink()
        (tmp_path / "in" / "eu.b").rmdir()
    else:
        assert not any(one.kept for one in convert([tmp_path / "in"], tmp_path / out, **given))
    assert all(one.kept for one in convert([tmp_path / "in"], tmp_path / out, **given))


@pytest.mark.parametrize("on_error", ["stop", "quarantine"])
def test_a_line_of_a_gigabyte(tmp_path, on_error):
    """Is told as too long, and takes no more memory than other lines."""
    path = put(tmp_path / "in" / "eu.a.jsonl", LINES)
    with path.open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b'{"text": "')
        file.truncate(file.tell() + (1 << 30))  # of zeros, which take no room
        file.seek(0, os.SEEK_END)
        file.write(b'"}\n' + LINES)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from mixstream.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "finally:\n"
        "    print(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0], file=sys.stderr)\n"
    )
    arguments = ["convert", tmp_path / "in", "--out", tmp_path / "out", "--sequence-length", 32, "--workers", 0]
    command = [sys.executable, "-c", code, *map(str, arguments), "--on-error", on_error]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert int(done.stderr.split()[-1]) < 400_000  # kilobytes
    if on_error == "stop":
        assert done.returncode == 2
        assert "error: eu.a.jsonl, line 41: " in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("80 documents in 1 stream")
    assert done.stdout.splitlines()[-1].endswith(", 1 rejected")
    (line,) = (tmp_path / "out" / "eu.a" / "rejects.jsonl").read_text().splitlines()
    assert json.loads(line)["place"] == "line 41"
    assert len(line) < 2000


@pytest.mark.parametrize("on_error", ["stop", "quarantine"])
def test_what_is_no_fault_of_the_content_is_never_a_reject(tmp_path, monkeypatch, on_error):
    """A disk that fails: the next run may read it."""
    path = put(tmp_path / "in" / "eu.a.jsonl", LINES)

    class Failing:
        name = str(path)

        def read(self, size):
            raise OSError(5, "Input/output error")

    read = blocks.read_some
    with monkeypatch.context() as patch:
        patch.setattr("converters.readers.lines.read_some", lambda raw, size: read(Failing(), size))
        with pytest.raises(CorpusError, match=r"eu.a.jsonl: cannot be read \(Input/output error\); see to its disk"):
            convert([path], tmp_path / "out", on_error=on_error)
    assert not convert([path], tmp_path / "out", on_error=on_error)[0].counts.get("rejected")


def test_spans_stay_as_they_are_when_a_corpus_grows():
    def spans_of(gigabytes):
        file = SourceFile(Path("a.jsonl"), "a.jsonl", "jsonl", None, int(gigabytes * 1e9), "mtime:1")
        return span_bytes_of(Corpus("eu.web", (file,), Fields(language="eu", domain="web")), OptionsConfig().options())

    sizes = [spans_of(gigabytes) for gigabytes in (0.001, 10, 100, 101, 130, 500, 5000)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (16 << 20, 256 << 20)
    assert sizes[2] == sizes[3] == sizes[4] == 32 << 20
