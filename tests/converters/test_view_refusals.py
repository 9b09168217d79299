"""Views that cannot be, and views that are there already: stopped, begun again, beside others, of other machines' files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import typer
from conftest import BYTE, compress, write_split
from converting import convert, files_of, write_lines

from converters.view import proxy_view, share_of
from mixstream.cli import app
from mixstream.errors import FormatError, MixtureError, ShardError, StreamError
from mixstream.streams.catalog import Catalog
from mixstream.streams.manifest import StreamManifest, read_manifest
from mixstream.streams.verify import verify_streams


def write_rows(path, count=400, language="eu"):
    return write_lines(path, ({"id": f"{language}{n}", "text": f"{n} " + "bai " * (n % 9)} for n in range(count)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Streams eu.a and gl.a, in a folder that no test changes."""
    root = tmp_path_factory.mktemp("made")
    for language in ("eu", "gl"):
        source = write_rows(root / f"{language}.jsonl", language=language)
        convert([source], root / "streams", f"{language}.a", shard_bytes=2048)
    return root / "streams"


@pytest.fixture
def streams(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "streams"))


def plain(root, name="eu.b", manifest=True, **columns):
    """Write an MDS directory whose documents nobody wrote down."""
    rows = {"tokens": np.arange(8000, dtype=np.uint16).reshape(500, 16) % 256} | columns
    length = rows["tokens"].shape[1] if "tokens" in rows else 16
    about = {"name": name, "language": name[:2], "domain": name[3:], "num_samples": 500, "num_tokens": 500 * length}
    told = StreamManifest.model_validate(about | {"sequence_length": length, "dtype": "uint16", "tokenizer": BYTE})
    write_split(root / name, rows, told if manifest else None, 4096)


@pytest.mark.parametrize("share", [0, -0.1, 1.0001, float("nan"), float("inf")])
def test_a_share_that_is_none(made, tmp_path, share):
    with pytest.raises(MixtureError, match="expected a number above 0, and at most 1"):
        proxy_view(made, tmp_path / "view", share, 1)
    assert not (tmp_path / "view").exists()


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"seed": -1}, "seed -1; expected a whole number from 0"),
        ({"seed": 1 << 63}, "below 2\\^63"),
        ({"min_samples": 0}, "at least 0 samples; expected at least 1"),
        ({"by": "token"}, "by 'token'; expected 'document' or 'sample'"),
    ],
)
def test_options_that_are_none(made, tmp_path, options, found):
    with pytest.raises(MixtureError, match=found):
        proxy_view(made, tmp_path / "view", 0.5, **({"seed": 1} | options))


def test_the_share_that_budgets_ask_for():
    assert share_of(1e9, 16e9) == 0.0625
    assert share_of(5, 5) == 1
    for wrong in ((0, 1), (2, 1), (-1, 1), (1, float("inf")), (float("nan"), 1)):
        with pytest.raises(MixtureError, match="at most as many as the target's"):
            share_of(*wrong)


def test_streams_without_documents_are_cut_by_sample_if_that_is_asked_for(streams, tmp_path):
    plain(streams)
    with pytest.raises(StreamError, match=r"eu.b: has no documents.parquet.*choose samples instead \(--by sample\)"):
        proxy_view(streams, tmp_path / "view", 0.5, 1)
    assert not (tmp_path / "view").exists()
    view = proxy_view(streams, tmp_path / "view", 0.5, 1, by="sample", streams_named=["eu.b"])
    assert view.manifests["eu.b"].view.by == "sample"
    with pytest.raises(StreamError, match="is a view by sample itself.*cut the view out of stream 'eu.b'"):
        proxy_view(tmp_path / "view", tmp_path / "again", 0.2, 1, by="sample")


def test_what_a_view_cannot_be_told_of_or_made_of(tmp_path):
    plain(tmp_path / "untold", manifest=False)
    with pytest.raises(StreamError, match="eu.b: has no stream.json, in which a view says what it is"):
        proxy_view(tmp_path / "untold", tmp_path / "view", 0.5, 1, by="sample")
    convert([write_rows(tmp_path / "rows.jsonl")], tmp_path / "more", "eu.a", keep=[])
    rows = {"tokens": np.zeros((500, 16), np.uint16), "extra": np.zeros(500)}
    plain(tmp_path / "extra", **rows)
    shutil.copy(tmp_path / "more" / "eu.a" / "documents.parquet", tmp_path / "extra" / "eu.b")
    with pytest.raises(StreamError, match="columns extra, which are no fields of its documents"):
        proxy_view(tmp_path / "extra", tmp_path / "view", 0.5, 1)
    made = proxy_view(tmp_path / "extra", tmp_path / "view", 0.5, 1, by="sample").manifests["eu.b"]
    assert 150 < made.num_samples < 350
    assert Catalog.open(tmp_path / "view")["eu.b"].index.column_names == ("extra", "tokens")


def test_columns_of_no_fixed_size(tmp_path):
    streaming = pytest.importorskip("streaming")
    columns = {"tokens": "ndarray:uint16:4", "text": "str"}
    with streaming.MDSWriter(out=str(tmp_path / "s" / "eu.b"), columns=columns) as writer:
        writer.write({"tokens": np.zeros(4, np.uint16), "text": "bai"})
    about = {"name": "eu.b", "language": "eu", "domain": "b", "num_samples": 1, "num_tokens": 4, "sequence_length": 4}
    told = {"format": "mixstream.stream", "version": 1, "dtype": "uint16", "tokenizer": BYTE.model_dump()}
    (tmp_path / "s" / "eu.b" / "stream.json").write_text(json.dumps(about | told))
    with pytest.raises(StreamError, match="column encoded as 'str'.*no view can be cut out of it"):
        proxy_view(tmp_path / "s", tmp_path / "view", 0.5, 1, by="sample")


def test_tokens_of_one_length_that_each_sample_brings_are_written_at_that_length(tmp_path):
    streaming = pytest.importorskip("streaming")
    with streaming.MDSWriter(out=str(tmp_path / "s" / "eu.b"), columns={"input_ids": "ndarray:int32"}) as writer:
        for number in range(200):
            writer.write({"input_ids": np.full(4, number, np.int32)})
    about = {"name": "eu.b", "language": "eu", "domain": "b", "num_samples": 200, "num_tokens": 800, "dtype": "int32"}
    told = {"format": "mixstream.stream", "version": 1, "sequence_length": 4, "tokenizer": BYTE.model_dump()}
    (tmp_path / "s" / "eu.b" / "stream.json").write_text(json.dumps(about | told))
    proxy_view(tmp_path / "s", tmp_path / "view", 0.5, 1, by="sample")
    stream = Catalog.open(tmp_path / "view")["eu.b"]
    assert stream.index.column_encodings == ("ndarray:int32:4",)
    assert verify_streams(tmp_path / "view")[0].problems == ()


def test_a_view_too_small_is_refused_with_a_share_that_would_do(made, tmp_path):
    """For each stream: with it the view is made, and with a share well below it is not."""
    with pytest.raises(StreamError) as refused:
        proxy_view(made, tmp_path / "view", 0.05, 9, min_samples=60)
    told = str(refused.value)
    assert "a view of share 0.05: eu.a keeps" in told and "expected at least 60 of each (--min-samples)" in told
    shares = {
        part.split()[0]: float(part.split("a share of ")[1].split()[0]) for part in told.split(": ")[1].split("; ")[:2]
    }
    assert shares.keys() == {"eu.a", "gl.a"}
    for name, share in shares.items():
        made_so = proxy_view(made, tmp_path / name, share, 9, min_samples=60, streams_named=[name])
        assert 60 <= made_so.manifests[name].num_samples <= 62
        with pytest.raises(StreamError, match="keeps 5[0-9] of"):
            proxy_view(made, tmp_path / f"{name}-less", share * 0.98, 9, min_samples=60, streams_named=[name])
    with pytest.raises(StreamError, match="eu.a keeps .* samples \\(not even the whole has them\\)"):
        proxy_view(made, tmp_path / "view", 0.5, 9, min_samples=10_000)
    with pytest.raises(StreamError, match="keeps .* of .* samples \\(a share of 0.* has them\\)"):
        proxy_view(made, tmp_path / "view", 0.01, 9, min_samples=150, by="sample")
    assert not (tmp_path / "view").exists()


def test_a_view_of_a_view(made, tmp_path):
    proxy_view(made, tmp_path / "half", 0.5, 4)
    with pytest.raises(
        StreamError, match=r"has a share of 0.5 by seed 4 itself.*give --seed 4, or cut out of the whole"
    ):
        proxy_view(tmp_path / "half", tmp_path / "view", 0.25, 5)
    with pytest.raises(
        StreamError, match=r"has a share of 0.5 of the whole itself; expected .* at most that, found 0.6"
    ):
        proxy_view(tmp_path / "half", tmp_path / "view", 0.6, 4)
    found = proxy_view(tmp_path / "half", tmp_path / "view", 0.25, 4).manifests["eu.a"]
    assert found.view.fingerprint == Catalog.open(tmp_path / "half")["eu.a"].fingerprint
    assert found.subsample.share == 0.25


def test_an_unknown_stream_is_told_with_the_nearest(made, tmp_path):
    with pytest.raises(StreamError, match="holds no stream 'eu.aa'.*eu.a"):
        proxy_view(made, tmp_path / "view", 0.5, 4, streams_named=["eu.aa"])
    with pytest.raises(StreamError, match="no stream was named"):
        proxy_view(made, tmp_path / "view", 0.5, 4, streams_named=[])


def test_an_output_folder_with_other_streams(streams, tmp_path):
    before = files_of(streams)
    for overwrite in (False, True):
        with pytest.raises(StreamError, match="cannot take the place of the stream that it is cut out of"):
            proxy_view(streams, streams, 0.5, 1, overwrite=overwrite)
    with pytest.raises(StreamError, match="gl.a: is another stream, and a folder of views"):
        proxy_view(streams, streams, 0.5, 1, streams_named=["eu.a"], overwrite=True)
    assert files_of(streams) == before
    out = tmp_path / "view"
    proxy_view(streams, out, 0.5, 1, streams_named=["eu.a"])
    one = files_of(out)
    with pytest.raises(
        StreamError, match="is there already and is not this view; choose another --out, or --overwrite"
    ):
        proxy_view(streams, out, 0.5, 2)
    with pytest.raises(StreamError, match="eu.a: is a view of share 0.5 by seed 1"):
        proxy_view(streams, out, 0.4, 1, streams_named=["gl.a"])
    (out / "gl.a").mkdir()
    (out / "gl.a" / "notes.txt").write_text("mine")
    with pytest.raises(StreamError, match=r"notes.txt: is there already and is no part of a stream"):
        proxy_view(streams, out, 0.5, 1, overwrite=True)
    shutil.rmtree(out / "gl.a")
    assert files_of(out) == one
    again = proxy_view(streams, out, 0.5, 1)
    assert again.kept == {"eu.a"} and set(again.manifests) == {"eu.a", "gl.a"}
    proxy_view(streams, out, 0.25, 1, overwrite=True)
    proxy_view(streams, tmp_path / "other", 0.25, 1)
    assert files_of(out) == files_of(tmp_path / "other")


def test_a_view_that_lost_a_shard_is_not_kept(made, tmp_path):
    out = tmp_path / "view"
    proxy_view(made, out, 0.5, 1)
    whole = files_of(out)
    (out / "eu.a" / "shard.00001.mds").unlink()
    with pytest.raises(ShardError, match="shard.00001.mds: no such file"):
        proxy_view(made, out, 0.5, 1)
    proxy_view(made, out, 0.5, 1, overwrite=True)
    assert files_of(out) == whole


@pytest.mark.parametrize("damage", ["shard", "documents", "other documents"])
def test_a_stream_that_is_damaged_is_no_view(streams, tmp_path, damage):
    if damage == "shard":
        path = streams / "gl.a" / "shard.00001.mds"
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)
    elif damage == "documents":
        (streams / "gl.a" / "documents.parquet").write_bytes(b"PAR1")
    else:
        shutil.copy(streams / "gl.a" / "heldout" / "documents.parquet", streams / "gl.a")
    told = {
        "shard": "shard.00001.mds: its xxh64 is",
        "documents": "documents.parquet: cannot be read",
        "other documents": "documents.parquet: .*it is damaged or of another conversion",
    }
    with pytest.raises(StreamError, match=told[damage]):
        proxy_view(streams, tmp_path / "view", 0.5, 1)
    assert not (tmp_path / "view" / "gl.a").exists()
    assert not list(tmp_path.glob("view/.mixstream-*"))


def test_the_held_out_split_is_the_same_files_or_copies_of_them(made, tmp_path):
    proxy_view(made, tmp_path / "view", 0.3, 1)
    for name in ("eu.a", "gl.a"):
        own, view = made / name / "heldout", tmp_path / "view" / name / "heldout"
        assert files_of(own) == files_of(view) and files_of(own)
        assert all((own / file).samefile(view / file) for file in files_of(own))
    before = files_of(made)
    shutil.rmtree(tmp_path / "view")
    assert files_of(made) == before
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no other file system to copy to: /dev/shm")
    out = elsewhere / f"mixstream-{os.getpid()}"
    try:
        proxy_view(made, out, 0.3, 1)
        assert files_of(out / "eu.a" / "heldout") == files_of(made / "eu.a" / "heldout")
    finally:
        shutil.rmtree(out, ignore_errors=True)


def test_compressed_streams_and_urls_and_processes_give_the_same_documents(streams, tmp_path):
    asked = proxy_view(streams, tmp_path / "view", 0.5, 1)
    proxy_view(streams, tmp_path / "two", 0.5, 1, workers=2)
    assert files_of(tmp_path / "two") == files_of(tmp_path / "view")
    compress(streams)
    compressed = proxy_view(streams, tmp_path / "compressed", 0.5, 1)
    for name, manifest in compressed.manifests.items():
        assert manifest.num_samples == asked.manifests[name].num_samples
    assert list((tmp_path / "compressed" / "eu.a").glob("shard.00000.mds.zstd"))
    assert all(not verdict.problems for verdict in verify_streams(tmp_path / "compressed"))
    pytest.importorskip("obstore")
    proxy_view(streams.as_uri(), tmp_path / "url", 0.5, 1)
    assert files_of(tmp_path / "url") == files_of(tmp_path / "compressed")


def test_the_pieces_that_are_read_at_a_time_change_nothing(made, tmp_path, monkeypatch):
    proxy_view(made, tmp_path / "view", 0.5, 1)
    monkeypatch.setattr("converters.tasks.repacking.STEP", 37)
    proxy_view(made, tmp_path / "other", 0.5, 1)
    assert files_of(tmp_path / "view") == files_of(tmp_path / "other")


def test_killed_and_begun_again_it_gives_the_same_bytes(tmp_path):
    """Killed when some streams are in place and others not; what is there is whole."""
    for number in range(8):
        source = write_rows(tmp_path / f"{number}.jsonl", 2000)
        convert([source], tmp_path / "streams", f"eu.{number:02}", shard_bytes=4096, holdout=0.01)
    out = tmp_path / "view"
    arguments = ["view", str(tmp_path / "streams"), "--share", "0.5", "--seed", "3", "--out", str(out)]
    stopped = 0
    for wanted in (1, 3):
        with subprocess.Popen(
            [sys.executable, "-m", "mixstream.cli", *arguments], stderr=subprocess.DEVNULL
        ) as process:
            deadline = time.monotonic() + 30
            while process.poll() is None and len(list(out.glob("eu.*/index.json"))) < wanted:
                assert time.monotonic() < deadline
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        stopped += process.returncode == -signal.SIGKILL
        assert all(not verdict.problems for verdict in verify_streams(out))
    assert stopped == 2
    there = len(list(out.glob("eu.*/index.json")))
    assert 3 <= there < 8
    view = proxy_view(tmp_path / "streams", out, 0.5, 3)
    assert len(view.kept) == there and len(view.manifests) == 8
    proxy_view(tmp_path / "streams", tmp_path / "at once", 0.5, 3)
    assert files_of(out) == files_of(tmp_path / "at once")


def test_a_view_is_of_version_2_and_other_streams_of_version_1(made, tmp_path):
    proxy_view(made, tmp_path / "view", 0.5, 1)
    whole, view = (json.loads((root / "eu.a" / "stream.json").read_text()) for root in (made, tmp_path / "view"))
    assert whole["version"] == 1 and "view" not in whole
    assert view["version"] == 2 and view["view"]["fingerprint"] == Catalog.open(made)["eu.a"].fingerprint
    for wrong in (view | {"version": 1}, whole | {"version": 2}):
        (tmp_path / "view" / "eu.a" / "stream.json").write_text(json.dumps(wrong))
        with pytest.raises(FormatError, match="a view is of version 2, any other stream of version 1"):
            read_manifest(tmp_path / "view" / "eu.a")


def test_a_conversion_does_not_take_a_view_for_its_own(made, tmp_path):
    proxy_view(made, tmp_path / "view", 1.0, 1, streams_named=["eu.a"])
    source = made.parent / "eu.jsonl"
    with pytest.raises(StreamError, match="is there already, made with another way \\(a view\\), subsample"):
        convert([source], tmp_path / "view", "eu.a", shard_bytes=2048)
    convert([source], tmp_path / "view", "eu.a", shard_bytes=2048, overwrite=True)
    assert files_of(tmp_path / "view" / "eu.a") == files_of(made / "eu.a")


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--out", "view"], "give --share, or both --tokens and --target-tokens"),
        (["--out", "view", "--share", "0.5", "--tokens", "1M"], "give --share, or both"),
        (["--out", "view", "--tokens", "1M"], "give --share, or both"),
        (
            ["--out", "view", "--tokens", "many", "--target-tokens", "1T"],
            "--tokens 'many'; expected a whole number above 0",
        ),
        (["--out", "view", "--tokens", "2B", "--target-tokens", "1B"], "at most as many as the target's"),
        (["--out", "s3://bucket/view", "--share", "0.5"], "views are cut to a folder; give one, then copy it there"),
        (["--out", "view", "--share", "0.5", "--by", "token"], "by 'token'; expected 'document' or 'sample'"),
    ],
)
def test_the_command_refuses(made, tmp_path, monkeypatch, arguments, found):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((typer.BadParameter, MixtureError, StreamError), match=found):
        app(["view", str(made), *arguments], standalone_mode=False)
    assert list(tmp_path.iterdir()) == []


def test_the_command_tells_what_it_left_out(made, tmp_path, capsys):
    for seed in range(6):
        out = tmp_path / f"{seed}"
        app(
            ["view", str(made), "--tokens", "0.5M", "--target-tokens", "1e6", "--seed", f"{seed}", "--out", str(out)],
            standalone_mode=False,
        )
        told = capsys.readouterr().out
        cut = {name: read_manifest(out / name).view.cut_documents for name in ("eu.a", "gl.a")}
        assert f"views of share 0.5 by seed {seed} of 2 streams in {out}" in told
        for name, count in cut.items():
            assert (f"{name}: {count:,} documents at its end are left out" in told) == (count > 0)
