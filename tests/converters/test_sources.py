"""What is found where, as which stream, under which name."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pyarrow as pa
import pytest

from converters.readers import Asked, read_span, spans
from converters.sources import FORMATS, by_stream, find_files, format_of, is_stream_name, sha256, stem_of
from converters.sources.finding import _pattern
from mixstream.errors import CorpusError, RemoteError, StreamError


def fill(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def names(found) -> list[tuple[str | None, str]]:
    return [(one.stream, one.file.name) for one in found.files]


CORPUS = (
    "eu.wiki.jsonl",
    "ca.wiki/b.txt.gz",
    "ca.wiki/a.parquet",
    "README.md",
    ".hidden.jsonl",
    ".git/x.txt",
    "ca.wiki/.x.txt",
)


def test_a_folder(tmp_path):
    fill(tmp_path, *CORPUS)
    found = find_files([tmp_path])
    expected = [("ca.wiki", "ca.wiki/a.parquet"), ("ca.wiki", "ca.wiki/b.txt.gz"), ("eu.wiki", "eu.wiki.jsonl")]
    assert names(found) == expected
    assert found.ignored == (str(tmp_path / "README.md"),)
    assert [(one.file.format, one.file.compression) for one in found.files] == [
        ("parquet", None),
        ("text", "gzip"),
        ("jsonl", None),
    ]
    file = found.files[2].file
    told = (tmp_path / "eu.wiki.jsonl").stat()
    assert (file.place, file.size_bytes, file.version) == (tmp_path / "eu.wiki.jsonl", 13, f"mtime:{told.st_mtime_ns}")
    assert sha256(file) == hashlib.sha256(b"eu.wiki.jsonl").hexdigest()
    assert {name: [file.name for file in files] for name, files in by_stream(found).items()} == {
        "ca.wiki": ["ca.wiki/a.parquet", "ca.wiki/b.txt.gz"],
        "eu.wiki": ["eu.wiki.jsonl"],
    }


def test_a_stream_is_named_by_its_file_or_its_folder(tmp_path, monkeypatch):
    fill(tmp_path, "eu.wiki/part-0.jsonl", "eu.wiki/part-1.jsonl", "corpus.v2/ca.wiki.txt")
    assert names(find_files([tmp_path / "eu.wiki"])) == [("eu.wiki", "part-0.jsonl"), ("eu.wiki", "part-1.jsonl")]
    assert names(find_files([tmp_path / "corpus.v2"])) == [("ca.wiki", "ca.wiki.txt")]
    assert names(find_files([tmp_path / "eu.wiki/part-0.jsonl"])) == [(None, "part-0.jsonl")]
    with pytest.raises(
        CorpusError, match=r"named 'part-0', expected LANGUAGE.DOMAIN .* or give --name, --language and"
    ):
        by_stream(find_files([tmp_path / "eu.wiki/part-0.jsonl"]))
    fill(tmp_path, "other/corpus/a.jsonl")
    with pytest.raises(CorpusError, match=r"other/corpus/a.jsonl: makes a stream named 'corpus', expected"):
        by_stream(find_files([tmp_path / "other"]))
    monkeypatch.chdir(tmp_path / "eu.wiki")
    (found,) = find_files(["part-0.jsonl"]).files
    assert found.file.place.is_absolute()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("data/*.jsonl.zst", ["a.jsonl.zst", "eu.wiki.jsonl.zst"]),
        ("data/**/*.parquet", ["x.parquet", "y/ca.wiki/z.parquet"]),
        ("data/[ab].jsonl.zst", ["a.jsonl.zst"]),
        ("data/?.parquet", ["x.parquet"]),
        ("data/y/*/*", ["ca.wiki/z.parquet"]),
        ("*/x.parquet", ["data/x.parquet"]),
    ],
)
def test_globs(tmp_path, pattern, expected):
    fill(tmp_path, "data/eu.wiki.jsonl.zst", "data/a.jsonl.zst", "data/.b.jsonl.zst", "data/x.parquet")
    fill(tmp_path, "data/y/ca.wiki/z.parquet", "data/y/ca.wiki/z.md")
    found = find_files([f"{tmp_path}/{pattern}"])
    assert [name for _, name in names(found)] == expected
    told = {name: stream for stream, name in names(found)}
    assert told.get("eu.wiki.jsonl.zst", "eu.wiki") == "eu.wiki"
    assert told.get("y/ca.wiki/z.parquet", "ca.wiki") == "ca.wiki"
    assert [Path(path).name for path in found.ignored] == (["z.md"] if pattern.endswith("*/*") else [])


def test_a_name_with_magic_letters_that_is_there_is_a_file(tmp_path):
    fill(tmp_path, "eu.[a]*.jsonl")
    assert [name for _, name in names(find_files([tmp_path / "eu.[a]*.jsonl"]))] == ["eu.[a]*.jsonl"]


@pytest.mark.parametrize("pattern", ["*", "a*", "**/*", "x/**", "x/**/b", "*/b", "[ab]", "[!a]", "?", "a.b", "**"])
def test_patterns_of_objects_are_those_of_files(tmp_path, pattern):
    """What `glob` finds among files, the same pattern finds among paths."""
    import glob

    paths = ["a", "b", "ab", "c/b", "c/d/b", "a.b", "axb", "x/a/b", "x/a/c/b", "-"]
    paths = [path for path in paths if not any(other.startswith(f"{path}/") for other in paths)]
    fill(tmp_path, *paths)
    theirs = {
        os.path.relpath(path, tmp_path)
        for path in glob.glob(f"{glob.escape(str(tmp_path))}/{pattern}", recursive=True)  # noqa: PTH207  what is compared
        if Path(path).is_file()
    }
    assert {path for path in paths if _pattern(pattern).fullmatch(path)} == theirs


def test_files_of_one_name_are_told_apart(tmp_path):
    fill(tmp_path, "a/x/eu.wiki.txt", "b/x/eu.wiki.txt", "c/ca.wiki.txt")
    found = find_files([tmp_path / "a/x", tmp_path / "b/x/eu.wiki.txt", tmp_path / "c"])
    assert [name for _, name in names(found)] == ["a/x/eu.wiki.txt", "b/x/eu.wiki.txt", "ca.wiki.txt"]
    assert list(by_stream(found)) == ["ca.wiki", "eu.wiki"]


def test_formats_are_told_by_the_end_of_a_name():
    for suffix in FORMATS:
        assert format_of(f"eu.wiki{suffix}") == suffix
        assert format_of(f"EU.WIKI{suffix.upper()}") == suffix
        assert stem_of(f"some/folder/eu.wiki{suffix}") == "eu.wiki"
    assert stem_of("CC-MAIN-0.warc.wet.gz") == "CC-MAIN-0"
    assert [format_of(name) for name in ("README.md", "jsonl", ".jsonl", "a.gz", "a.parquet.gz")] == [None] * 5
    assert FORMATS[".warc.gz"] == ("wet", "gzip")
    assert FORMATS[".json.xz"] == ("jsonl", "xz")


def test_names_of_streams():
    assert all(map(is_stream_name, ["eu.wiki", "eu.wiki.2024", "zh-Hant.web_1", "eus_Latn.fineweb"]))
    assert not any(map(is_stream_name, ["eu", ".wiki", "eu.", "", "eu.wi ki", "eu./x", "eu.*"]))


def test_what_is_not_found(tmp_path):
    fill(tmp_path, "notes.md", "deep/a/b/eu.x.jsonl")
    (tmp_path / "empty").mkdir()
    (tmp_path / "eu.none.jsonl").touch()
    for path, message in (
        ("nowhere", "nowhere: no such file or folder$"),
        ("nowhere/*.jsonl", "as a pattern it names none"),
        ("*.md", r"no corpus file in it \(known: \*\.jsonl, "),
        ("empty", r"empty: no corpus file in it \(known: \*\.jsonl, "),
        ("notes.md", r"notes.md: a file of no known format \(known: \*\.jsonl, "),
        ("deep", r"deep/a/b/eu.x.jsonl: lies two folders below .*deep; put a stream's files into one folder named"),
        ("eu.none.jsonl", "eu.none.jsonl: empty; leave it out or fill it"),
    ):
        with pytest.raises(CorpusError, match=message):
            find_files([tmp_path / path])
    fill(tmp_path, "eu.a.jsonl")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "eu.a.jsonl")
    for again in ("eu.a.jsonl", "link.jsonl", "./empty/../eu.a.jsonl", "eu.a*"):
        with pytest.raises(CorpusError, match=r"is given twice, and would be read twice; give it once"):
            find_files([tmp_path / "eu.a.jsonl", f"{tmp_path}/{again}"])
    with pytest.raises(StreamError, match="is a URL that lost a slash"):
        find_files([Path("s3://bucket/x.jsonl")])


def save(folder: Path, shards: list[list[str]], **state) -> None:
    """Write what `datasets.Dataset.save_to_disk` writes."""
    folder.mkdir(parents=True)
    files = [f"data-{number:05}-of-{len(shards):05}.arrow" for number in range(len(shards))]
    for file, texts in zip(files, shards, strict=True):
        table = pa.table({"text": texts})
        with pa.ipc.new_stream(folder / file, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    told = {"_data_files": [{"filename": file} for file in files], "_fingerprint": "x", "_split": None, **state}
    (folder / "state.json").write_text(json.dumps(told))
    (folder / "dataset_info.json").write_text("{}")
    (folder / "cache-1234.arrow").write_bytes(b"of a map")


def texts_of(found) -> list[str]:
    files = [one.file for one in found.files]
    asked = Asked(("text",))
    return [row.values[0] for file in files for span in spans(file, 1) for row in read_span(file, span, asked)]


def test_a_saved_dataset(tmp_path):
    save(tmp_path / "eu.wiki", [["a", "b", "c"], ["d"]])
    inner = find_files([tmp_path / "eu.wiki"])
    assert names(inner) == [("eu.wiki", f"data-0000{number}-of-00002.arrow") for number in (0, 1)]
    fill(tmp_path, "ca.wiki.jsonl")
    found = find_files([tmp_path])
    assert [stream for stream, _ in names(found)] == ["ca.wiki", "eu.wiki", "eu.wiki"]
    assert found.files[2].file.name == "eu.wiki/data-00001-of-00002.arrow"
    assert found.ignored == ()
    assert texts_of(inner) == ["a", "b", "c", "d"]


def test_a_saved_dataset_that_cannot_be_read_as_it_is(tmp_path):
    save(tmp_path / "dict" / "train", [["a"]])
    save(tmp_path / "dict" / "test", [["b"]])
    (tmp_path / "dict" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    for path in (tmp_path / "dict", tmp_path):
        with pytest.raises(CorpusError, match=r"splits train, test; give one of them, such as .*/dict/train"):
            find_files([path])
    assert names(find_files([tmp_path / "dict" / "test"])) == [(None, "data-00000-of-00001.arrow")]
    save(tmp_path / "picked", [["a"]], _indices_data_files=[{"filename": "indices.arrow"}])
    save(tmp_path / "none", [], _data_files=[])
    save(tmp_path / "lost", [["a"]], _data_files=[{"filename": "data-7.arrow"}])
    save(tmp_path / "list", [["a"]])
    (tmp_path / "list" / "state.json").write_text("[]")
    for path, message in (
        ("picked", r"picked: a saved dataset with an indices mapping, .* call flatten_indices\(\)"),
        ("none", "state.json: names no data files"),
        ("lost", "state.json: names 'data-7.arrow', which is not there"),
        ("list", "state.json: a JSON list, expected an object"),
    ):
        with pytest.raises(CorpusError, match=message):
            find_files([tmp_path / path])


@pytest.mark.parametrize("kind", ["s3", "file"])
def test_urls(tmp_path, bucket, kind):
    fill(
        tmp_path / "in",
        "data/eu.wiki.jsonl",
        "data/ca.wiki/b.txt",
        "data/.x.txt",
        "data/z.md",
        "data/out.parquet/a.parquet",
    )
    save(tmp_path / "in" / "data" / "gl.saved", [["a"], ["b"]])
    root = bucket.upload(tmp_path / "in") if kind == "s3" else (tmp_path / "in").as_uri()
    found = find_files([f"{root}/data"])
    assert names(found) == [
        ("ca.wiki", f"{root}/data/ca.wiki/b.txt"),
        ("eu.wiki", f"{root}/data/eu.wiki.jsonl"),
        ("gl.saved", f"{root}/data/gl.saved/data-00000-of-00002.arrow"),
        ("gl.saved", f"{root}/data/gl.saved/data-00001-of-00002.arrow"),
        ("out.parquet", f"{root}/data/out.parquet/a.parquet"),
    ]
    assert found.ignored == (f"{root}/data/z.md",)
    file = found.files[1].file
    assert (file.size_bytes, file.version[:5]) == (len("data/eu.wiki.jsonl"), "etag:")
    assert file.etag
    assert sha256(file) is None
    assert texts_of(find_files([f"{root}/data/gl.saved"])) == ["a", "b"]
    assert names(find_files([f"{root}/data/*.jsonl", f"{root}/data/c*/*.txt"])) == [
        ("eu.wiki", f"{root}/data/eu.wiki.jsonl"),
        ("ca.wiki", f"{root}/data/ca.wiki/b.txt"),
    ]
    assert len(find_files([f"{root}/**/*.arrow"]).files) == 3  # one of them is a cache's, but was asked for
    assert names(find_files([f"{root}/data/out.parquet/"])) == names(find_files([f"{root}/data/out.parquet"]))
    for url, message in (
        (f"{root}/data/eu.none.jsonl", "eu.none.jsonl: no such object, and no folder with one in it"),
        (f"{root}/data/*.csv", "the pattern names no object"),
        (root, "lies two folders below"),
    ):
        with pytest.raises(CorpusError, match=message):
            find_files([url])
    with pytest.raises(CorpusError, match="is given twice"):
        find_files([f"{root}/data", f"{root}/data/eu.*"])


def test_a_server_that_cannot_list(bucket, s3):
    bucket.put("eu.wiki.jsonl", b'{"text": "a"}\n')
    bucket.put("eu.none.jsonl", b"")
    root = f"{s3.endpoint}/{bucket.name}"
    found = find_files([f"{root}/eu.wiki.jsonl"])
    assert names(found) == [("eu.wiki", f"{root}/eu.wiki.jsonl")]
    assert texts_of(found) == ["a"]
    for url in (root, f"{root}/*.jsonl", f"{root}/x/"):
        with pytest.raises(CorpusError, match="http: cannot list what is in a folder; give the URL of each file"):
            find_files([url])
    with pytest.raises(CorpusError, match="eu.lost.jsonl: no such object"):
        find_files([f"{root}/eu.lost.jsonl"])
    with pytest.raises(CorpusError, match="eu.none.jsonl: empty; leave it out or fill it"):
        find_files([f"{root}/eu.none.jsonl"])
    with pytest.raises(RemoteError, match="holds a query"):
        find_files([f"{root}/eu.wiki.jsonl?x=y"])
