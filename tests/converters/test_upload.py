"""Streams in object stores: there whole or not at all, whatever is there already and whatever stops it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import compress
from converting import files_of, write_corpus

from converters.config import FieldsConfig, OptionsConfig, corpora_of_paths
from converters.corpora import convert_corpora
from converters.encoding import Progress
from converters.tasks.executors import executor_of
from mixstream import Catalog
from mixstream.errors import FormatError, RemoteError, ShardError, StreamError
from mixstream.streams.place import find_place
from mixstream.streams.upload import LocalStream, local_stream, upload_stream, upload_streams
from mixstream.streams.verify import verify_streams

TEXTS = [f"{i} testua " * 9 for i in range(60)]


def convert(path, url, staging=None, progress=Progress(), **given):  # noqa: B008  it is frozen
    overwrite = given.pop("overwrite", False)
    sizes = {"sequence_length": 32, "holdout": 0.2, "shard_bytes": 1024}
    options = OptionsConfig(**sizes | given).options(overwrite)
    corpora, _ = corpora_of_paths([str(path)], FieldsConfig(), None)
    with executor_of(0) as executor:
        return list(convert_corpora(corpora, find_place(str(url)), options, executor, staging, progress))


def keys_of(bucket) -> list[str]:
    return sorted(bucket.keys())


def objects(bucket, prefix="") -> dict[str, bytes]:
    client = bucket.server.client
    return {
        key.removeprefix(prefix): client.get_object(Bucket=bucket.name, Key=key)["Body"].read()
        for key in keys_of(bucket)
        if key.startswith(prefix)
    }


def puts(proxy, suffix="") -> list[str]:
    return [record.path for record in proxy.log() if record.method == "PUT" and record.path.endswith(suffix)]


def test_a_conversion_to_a_bucket_is_that_to_a_folder(bucket, proxy, tmp_path):
    for name in ("eu.a", "ca.a"):
        write_corpus(tmp_path / "in" / f"{name}.jsonl", TEXTS)
    here = convert(tmp_path / "in", tmp_path / "out")
    there = convert(tmp_path / "in", f"{bucket.url}/of/streams", tmp_path / "staging")
    assert there == here
    found = objects(bucket, "of/streams/")
    catalog = json.loads(found.pop("catalog.json"))
    assert catalog == {"format": "mixstream.catalog", "version": 1, "streams": ["ca.a", "eu.a"]}
    assert found == files_of(tmp_path / "out")
    assert len(found) > 40
    assert not list((tmp_path / "staging").iterdir())
    # The index comes last, after the held-out split's: until then there is no stream.
    order = [path.removeprefix(f"/{bucket.name}/of/streams/ca.a/") for path in puts(proxy) if "/ca.a/" in path]
    assert order[-4:] == ["heldout/stream.json", "heldout/index.json", "stream.json", "index.json"]
    assert verify_streams(f"{bucket.url}/of/streams") == verify_streams(tmp_path / "out")
    # Once more: it is kept, and but for the list of streams nothing is written.
    proxy.clear()
    assert all(one.kept for one in convert(tmp_path / "in", f"{bucket.url}/of/streams"))
    assert puts(proxy) == [f"/{bucket.name}/of/streams/catalog.json"]


def test_what_is_there_is_kept_refused_or_replaced_as_in_a_folder(bucket, tmp_path):
    url = f"{bucket.url}/streams"
    path = write_corpus(tmp_path / "eu.a.jsonl", TEXTS)
    convert(path, url)
    before = objects(bucket)
    with pytest.raises(StreamError, match="eu.a: is there already, made with another sequence length; choose another"):
        convert(path, url, sequence_length=16)
    bucket.put("streams/eu.a/notes.txt", b"precious")
    with pytest.raises(StreamError, match=r"eu.a/notes.txt: is there already and is no part of a stream"):
        convert(path, url, sequence_length=16, overwrite=True)
    assert objects(bucket) == before | {"streams/eu.a/notes.txt": b"precious"}
    find_place(f"{url}/eu.a/notes.txt").delete()
    # A shorter one without held-out documents leaves nothing of the longer one.
    write_corpus(path, TEXTS[:20])
    with pytest.raises(StreamError, match="made with another sources, holdout"):
        convert(path, url, holdout=0.0)
    assert not convert(path, url, holdout=0.0, overwrite=True)[0].kept
    convert(path, tmp_path / "out", holdout=0.0)
    assert {key: body for key, body in objects(bucket, "streams/").items() if key != "catalog.json"} == files_of(
        tmp_path / "out"
    )
    find_place(f"{url}/eu.a/stream.json").delete()
    with pytest.raises(StreamError, match="is a stream already, not one that mixstream made whole"):
        convert(path, url, holdout=0.0)
    find_place(f"{url}/eu.a/index.json").delete()  # parts of a stream that never was whole
    assert not convert(path, url, holdout=0.0)[0].kept
    shard = find_place(f"{url}/eu.a/shard.00001.mds")
    shard.put(shard.read_bytes()[:-1])
    with pytest.raises(ShardError, match=r"s3://.*shard.00001.mds: "):
        convert(path, url, holdout=0.0)


def test_a_stream_that_is_replaced_is_none_while_it_is(bucket, proxy, tmp_path):
    """Refused in its midst: the old index is gone, so that nobody mixes old shards with new ones."""
    url = f"{bucket.url}/streams"
    path = write_corpus(tmp_path / "eu.a.jsonl", TEXTS)
    convert(path, url)
    write_corpus(path, [text.upper() for text in TEXTS])
    proxy.set(deny="shard.00003.mds")
    with pytest.raises(RemoteError, match=r"eu.a/.*shard.00003.mds.*403"):
        convert(path, url, overwrite=True)
    proxy.set(deny=None)
    assert not [key for key in keys_of(bucket) if key.endswith("index.json")]
    with pytest.raises(StreamError, match="holds parts of a stream but no index.json"):
        Catalog.open(url)
    assert not convert(path, url)[0].kept  # the same command, without --overwrite too: there is no stream
    convert(path, tmp_path / "out")
    assert files_of(tmp_path / "out").items() <= objects(bucket, "streams/").items()


def test_a_conversion_that_is_killed_goes_on_where_it_was(bucket, proxy, tmp_path):
    """kill -9 in the midst of an upload: what was converted is not converted again, only uploaded."""
    write_corpus(tmp_path / "in" / "eu.a.jsonl", TEXTS)
    url, staging = f"{bucket.url}/streams", tmp_path / "staging"
    proxy.set(
        fault_share=1.0, fault_kinds=("latency",), fault_latency_seconds=20.0, match="heldout/index", methods=("PUT",)
    )
    options = ["--sequence-length", "32", "--holdout", "0.2", "--shard-bytes", "1024", "--staging", str(staging)]
    command = [sys.executable, "-m", "mixstream.cli", "convert", str(tmp_path / "in"), "--out", url, *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ})
    try:
        deadline = time.monotonic() + 60
        while "streams/eu.a/heldout/stream.json" not in keys_of(bucket):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=10)
    proxy.set(fault_share=0.0)
    (staged,) = staging.glob(".mixstream-*/eu.a")
    stamps = {path: path.stat().st_mtime_ns for path in staged.rglob("*")}
    seen = {}
    copy = shutil.copytree(staging, tmp_path / "other")  # for the second half
    documents: list[int] = []
    (one,) = convert(
        tmp_path / "in",
        url,
        staging,
        Progress(documents=documents.append, uploaded=lambda size: seen.update({len(seen): size})),
    )
    assert not one.kept
    assert documents == []
    assert stamps
    assert sum(seen.values()) == sum(size for key, size in bucket.keys().items() if "/eu.a/" in key)
    assert len(Catalog.open(url)) == 1
    assert not list(staging.iterdir())
    # What was staged of another corpus is not uploaded.
    write_corpus(tmp_path / "in" / "eu.a.jsonl", TEXTS[:30])
    other = f"{bucket.url}/streams"
    convert(tmp_path / "in", other, copy, overwrite=True)
    convert(tmp_path / "in", tmp_path / "out")
    assert files_of(tmp_path / "out").items() <= objects(bucket, "streams/").items()
    with pytest.raises(StreamError, match="--staging .*: is for streams on their way to a URL; .* is a folder"):
        convert(tmp_path / "in", tmp_path / "out", staging)


def test_streams_are_uploaded_whole_and_once(call, streams, bucket, proxy, tmp_path):
    url = f"{bucket.url}/streams"
    code, out, _ = call("upload", streams, url)
    assert code == 0
    assert out.count("sent") == 5
    assert f"5 streams in {url}" in out
    assert files_of(streams).items() <= objects(bucket, "streams/").items()
    assert len(objects(bucket, "streams/")) == len(files_of(streams)) + 1
    assert json.loads(objects(bucket)["streams/catalog.json"])["streams"] == sorted(Catalog.open(streams).names)
    proxy.clear()
    code, out, _ = call("upload", streams, url)
    assert out.count("kept") == 5
    assert puts(proxy) == [f"/{bucket.name}/streams/catalog.json"]
    # One stream by its folder; what has lost a shard there is mended; the others stay in the list.
    find_place(f"{url}/eu.tales/shard.00001.mds").delete()
    code, out, _ = call("upload", streams / "eu.tales", url)
    assert "sent" in out
    assert len(Catalog.open(url)) == 5
    assert len(json.loads(objects(bucket)["streams/catalog.json"])["streams"]) == 5
    # Another one of the same name.
    shutil.copytree(streams / "ca.tales", tmp_path / "s" / "eu.tales")
    manifest = tmp_path / "s" / "eu.tales" / "stream.json"
    manifest.write_text(manifest.read_text().replace("ca.tales", "eu.tales"))
    code, _, err = call("upload", tmp_path / "s", url)
    assert code == 2
    assert "eu.tales: is there already, with another heldout/stream.json, heldout/index.json, stream.json" in err
    assert call("upload", tmp_path / "s", url, "--overwrite")[0] == 0
    assert Catalog.open(url)["eu.tales"].fingerprint == Catalog.open(streams)["ca.tales"].fingerprint


def test_compressed_streams_are_uploaded_as_they_are(streams, bucket, tmp_path):
    shutil.copytree(streams, tmp_path / "streams")
    compress(tmp_path / "streams")
    upload_streams(tmp_path / "streams", f"{bucket.url}/packed")
    assert files_of(tmp_path / "streams").items() <= objects(bucket, "packed/").items()
    assert not any(verdict.problems for verdict in verify_streams(f"{bucket.url}/packed"))


def test_faults_on_the_way_leave_every_byte_right(streams, bucket, proxy):
    proxy.set(fault_share=0.2, fault_kinds=("503", "429", "reset_early"), methods=("PUT", "GET", "HEAD"), listings=True)
    upload_streams(streams, f"{bucket.url}/streams")
    assert any(record.fault for record in proxy.log())
    assert files_of(streams).items() <= objects(bucket, "streams/").items()


def test_what_cannot_be_uploaded_is_refused_before_a_byte_is(streams, bucket, tmp_path):
    shutil.copytree(streams, tmp_path / "streams")
    url = f"{bucket.url}/streams"
    shard = tmp_path / "streams" / "gl.tales" / "heldout" / "shard.00000.mds"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(ShardError, match=r"heldout/shard.00000.mds: \d+ bytes, index.json says \d+ bytes; only whole"):
        upload_streams(tmp_path / "streams", url)
    shard.unlink()
    with pytest.raises(ShardError, match=r"heldout/shard.00000.mds: no such file, index.json says"):
        upload_streams(tmp_path / "streams", url)
    shard.write_bytes(content)
    (tmp_path / "streams" / "gl.tales").rename(tmp_path / "streams" / "gl tales")
    with pytest.raises(StreamError, match="stream 'gl tales': a store's streams have names without spaces"):
        upload_streams(tmp_path / "streams", url)
    with pytest.raises(StreamError, match="only streams of this machine are uploaded; name their folder"):
        upload_streams(url, url)
    with pytest.raises(StreamError, match="is no URL; give one such as s3://bucket/streams"):
        upload_streams(streams, str(tmp_path / "there"))
    with pytest.raises(StreamError, match="http: cannot list, so what is there cannot be seen; upload to s3:"):
        upload_streams(streams, f"{bucket.server.endpoint}/{bucket.name}/streams")
    assert not bucket.keys()
    bucket.put("streams/catalog.json", b'{"mine": true}')
    with pytest.raises(FormatError, match="catalog.json: .*unknown key 'mine'.* it is no list of streams, choose"):
        upload_streams(streams, url)
    bucket.put("one/index.json", b"{}")
    with pytest.raises(StreamError, match="one: is a stream itself; give the folder above it"):
        upload_streams(streams, f"{bucket.url}/one")


def test_a_stream_that_others_write_meanwhile_is_not_taken_for_whole(streams, bucket, tmp_path):
    """Its shards are looked at once more before its index.json is written."""
    shutil.copytree(streams / "eu.tales", tmp_path / "eu.tales")
    local = local_stream(tmp_path / "eu.tales")
    wrong = LocalStream(
        local.directory, {path: size + (path == "shard.00000.mds") for path, size in local.data.items()}, local.small
    )
    with pytest.raises(StreamError, match=r"shard.00000.mds: has \d+ bytes after its upload, expected \d+; somebody"):
        upload_stream(wrong, find_place(f"{bucket.url}/eu.tales"))
    assert "eu.tales/index.json" not in keys_of(bucket)


def test_plain_http_finds_streams_by_their_list_and_says_that_it_cannot_look(call, streams, bucket):
    upload_streams(streams, f"{bucket.url}/streams")
    for key in keys_of(bucket):
        bucket.server.client.put_object_acl(Bucket=bucket.name, Key=key, ACL="public-read")
    url = f"{bucket.server.endpoint}/{bucket.name}/streams"
    code, out, _ = call("inspect", url)
    assert code == 0
    assert "http: cannot list what is there, so that no size of a shard was checked" in out
    assert sum(line.startswith(tuple(Catalog.open(streams).names)) for line in out.splitlines()) == 5
    code, out, _ = call("inspect", f"{bucket.url}/streams")
    assert "cannot list" not in out
    code, out, _ = call("verify", f"{bucket.url}/streams")
    assert code == 0
    assert out.count("none") == 10
    assert np.all([stream.num_samples for stream in Catalog.open(url)])
