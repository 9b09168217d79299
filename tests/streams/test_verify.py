"""`verify` reads every byte, and tells every problem."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from conftest import save_manifest, write_stream

from mixstream.cli import main
from mixstream.errors import StreamError
from mixstream.streams.manifest import read_manifest
from mixstream.streams.verify import verify_streams


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(("ca.a", "eu.a", "gl.a")):
        write_stream(tmp_path, name, number, 30, heldout=9)
    return tmp_path


def problems(root, **options):
    return {verdict.name: verdict.problems for verdict in verify_streams(root, **options) if verdict.problems}


def change(path, place, value):
    content = bytearray(path.read_bytes())
    content[place] = value
    path.write_bytes(content)


def test_whole_streams_have_no_problem(root):
    seen, total = [], []
    verdicts = verify_streams(root, announce=total.append, advance=seen.append)
    assert [verdict.name for verdict in verdicts] == [f"{n}.a{s}" for n in ("ca", "eu", "gl") for s in ("", "/heldout")]
    assert all(verdict.problems == () and verdict.hashed == verdict.num_shards for verdict in verdicts)
    assert total == [sum(seen)] == [sum(verdict.num_shards for verdict in verdicts)]
    assert verify_streams(root / "eu.a")[0] == verdicts[2]


def test_every_problem_of_every_stream_is_told(root, edit_json):
    change(root / "ca.a" / "shard.00001.mds", -1, 0xFF)
    (root / "ca.a" / "shard.00003.mds").unlink()
    (root / "ca.a" / "heldout" / "shard.00000.mds").write_bytes(b"")
    (root / "eu.a" / "index.json").write_text("{")
    edit_json(root / "gl.a" / "index.json", lambda index: index["shards"][2].update(samples=6))
    edit_json(root / "gl.a" / "stream.json", lambda manifest: manifest.update(num_samples=29, num_tokens=29 * 8))
    found = problems(root)
    assert set(found) == {"ca.a", "ca.a/heldout", "eu.a", "gl.a"}
    assert len(found["ca.a"]) == 2
    assert "shard.00001.mds: its xxh64 is" in found["ca.a"][0]
    assert "shard.00003.mds: no such file" in found["ca.a"][1]
    assert "shard.00000.mds: 0 bytes, index.json says" in found["ca.a/heldout"][0]
    assert "not JSON" in found["eu.a"][0]
    assert "shard.00002.mds: header says 7 samples, index.json says 6" in found["gl.a"][0]


def test_tokens_of_no_tokenizer_are_found_without_hashes(root, edit_json):
    edit_json(root / "eu.a" / "index.json", lambda index: [s["raw_data"].update(hashes={}) for s in index["shards"]])
    change(root / "eu.a" / "shard.00002.mds", -1, 0x20)
    (told,) = problems(root)["eu.a"]
    assert "shard.00002.mds: row 6 has token 8196 at 7, expected one from 0; the tokenizer 'byte' has 257" in told
    assert next(v for v in verify_streams(root) if v.name == "eu.a").hashed == 0


def test_negative_tokens_and_odd_lengths_are_found(tmp_path):
    from streaming import MDSWriter

    for name, value, length in (("eu.a", -1, 4), ("eu.b", 1, 5), ("eu.d", -5, 4)):
        with MDSWriter(out=str(tmp_path / name), columns={"tokens": "ndarray:int32"}, size_limit=220) as writer:
            writer.write({"tokens": np.full(4, 3, np.int32)})
            writer.write({"tokens": np.full(length, value, np.int32)})
    write_stream(tmp_path, "eu.c", 0, 5)
    told = {"name": "eu.a", "num_samples": 2, "sequence_length": 4, "num_tokens": 8, "dtype": "int32"}
    save_manifest(tmp_path / "eu.a", read_manifest(tmp_path / "eu.c").model_copy(update=told))
    found = problems(tmp_path)
    assert "has token -1 at 0, expected one from 0; the tokenizer 'byte' has 257" in found["eu.a"][0]
    assert "has samples of 5 tokens, expected 4" in found["eu.b"][0]
    assert "has token -5 at 0, expected one from 0; the shard is damaged" in found["eu.d"][0]  # of no known tokenizer


def test_compressed_streams_are_verified_without_a_cache(tmp_path):
    from streaming import MDSWriter

    with MDSWriter(
        out=str(tmp_path / "eu.a"),
        columns={"ids": "ndarray:uint16:8"},
        compression="zstd",
        hashes=["xxh64"],
        size_limit=400,
    ) as writer:
        for row in range(40):
            writer.write({"ids": np.full(8, row, np.uint16)})
    before = sorted(tmp_path.rglob("*"))
    assert problems(tmp_path, token_column="ids") == {}
    assert sorted(tmp_path.rglob("*")) == before
    change(tmp_path / "eu.a" / "shard.00001.mds.zstd", -1, 0xFF)
    assert "shard.00001.mds.zstd: its xxh64" in problems(tmp_path, token_column="ids")["eu.a"][0]


def test_names_claimed_twice_and_empty_folders_are_told(root):
    shutil.copytree(root / "eu.a", root / "eu.b")
    assert "both claim the name 'eu.a'" in problems(root)["(names)"][0]
    (root / "nothing").mkdir()
    with pytest.raises(StreamError, match="holds no stream"):
        verify_streams(root / "nothing")


def test_the_command_tells_a_row_a_stream_and_exits_1_on_problems(root, capsys):
    def call():
        with pytest.raises(SystemExit) as stop:
            main(["verify", str(root)])
        return stop.value.code, capsys.readouterr()

    code, told = call()
    assert code == 0
    assert [line.split() for line in told.out.splitlines()][1:3] == [
        ["ca.a", "5", "30", "5", "unknown", "none"],
        ["ca.a/heldout", "2", "9", "2", "unknown", "none"],
    ]
    change(root / "ca.a" / "shard.00001.mds", -1, 0xFF)
    change(root / "gl.a" / "shard.00001.mds", -1, 0xFF)
    code, told = call()
    assert code == 1
    errors = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2
    assert str(root / "ca.a" / "shard.00001.mds") in errors[0]
