"""A stream is put in its place whole, or not at all, whatever is killed when."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_stream

from mixstream import Catalog
from mixstream.errors import ShardError, StreamError
from mixstream.streams.placing import foreign_entry, is_part, put_in_place
from mixstream.streams.upload import local_stream


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def made(tmp_path):
    write_stream(tmp_path / "work", "eu.a", 1, 30, heldout=9)
    for split in ("", "heldout"):
        (tmp_path / "work" / "eu.a" / split / "documents.parquet").write_bytes(b"")
        (tmp_path / "work" / "eu.a" / split / "rejects.jsonl").write_bytes(b"")
    return tmp_path / "work" / "eu.a"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out" / "streams"


def test_a_stream_comes_into_its_place_and_another_goes(made, out):
    write_stream(out, "eu.a", 2, 90)
    whole = files_of(made)
    (made / ".shard.00003.mds.tmp-17-abcd").write_bytes(b"of a writer that was killed")
    (made / "heldout" / ".shard.00000.mds.tmp-17-abcd").write_bytes(b"")
    put_in_place(made, out / "eu.a")
    assert files_of(out) == {f"eu.a/{path}": content for path, content in whole.items()}
    assert list(made.parent.iterdir()) == []
    assert foreign_entry(out / "eu.a") is None
    assert all(is_part(path) for path in whole)


def test_what_is_not_whole_stays_where_it_is(made, out):
    def refused(error, match):
        with pytest.raises(error, match=match):
            put_in_place(made, out / "eu.a")
        assert not out.exists()

    shard = made / "heldout" / "shard.00001.mds"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    refused(ShardError, r"heldout/shard.00001.mds: \d+ bytes, index.json says")
    shard.write_bytes(content)
    (made / "notes.txt").write_text("")
    refused(StreamError, r"notes.txt: is there already and is no part of a stream")
    (made / "notes.txt").unlink()
    (made / "index.json").unlink()
    refused(StreamError, r"eu.a: is no finished stream, it has no index.json")


def test_what_is_no_stream_is_not_replaced(made, out):
    (out / "eu.a").mkdir(parents=True)
    corpus = out / "eu.a" / "documents.parquet"
    corpus.write_bytes(b"somebody's corpus")
    with pytest.raises(StreamError, match=r"documents.parquet: is there already and is no part of a stream"):
        put_in_place(made, out / "eu.a")
    assert files_of(out) == {"eu.a/documents.parquet": b"somebody's corpus"}
    corpus.unlink()
    (out / "eu.a").rmdir()
    (out / "eu.a").write_text("a file")
    with pytest.raises(StreamError, match=r"eu.a: is there already and is no part of a stream"):
        put_in_place(made, out / "eu.a")


def test_another_file_system_is_told(made, out):
    elsewhere = Path("/dev/shm/mixstream-test-placing")
    if not elsewhere.parent.is_dir() or elsewhere.parent.stat().st_dev == made.stat().st_dev:
        pytest.skip("there is no second file system")
    try:
        with pytest.raises(
            StreamError, match=r"eu.a: cannot be put there \(.*cross-device.*\); the finished stream is"
        ):
            put_in_place(made, elsewhere / "eu.a")
    finally:
        shutil.rmtree(elsewhere, ignore_errors=True)
    assert local_stream(made).shards


# Ends the process by a signal that it cannot catch, at the n-th change that it makes to the disk's names.
KILLED = """
import os, signal, sys
from pathlib import Path
from mixstream.streams.placing import put_in_place
left = int(sys.argv[3])
def count(event, args):
    global left
    if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir"):
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
made, final = map(Path, sys.argv[1:3])
sys.addaudithook(count)
put_in_place(made, final)
"""


def test_killed_at_any_change_it_is_the_old_stream_or_none_or_the_new_one(made, out, tmp_path):
    """And where the new one did not come into its place, it does so when that is done again."""
    write_stream(tmp_path / "old", "eu.a", 2, 20)
    old, new, found = files_of(tmp_path / "old" / "eu.a"), files_of(made), []
    keep = shutil.copytree(made, tmp_path / "keep")
    for number in range(100):
        for folder, of in ((made, keep), (out / "eu.a", tmp_path / "old" / "eu.a")):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(of, folder)
        process = subprocess.run([sys.executable, "-c", KILLED, made, out / "eu.a", str(number)], check=False)
        there = files_of(out / "eu.a") if (out / "eu.a").exists() else None
        assert there in (None, old, new)
        found.append("none" if there is None else "old" if there == old else "new")
        if there is not None:
            assert Catalog.open(out).names == ("eu.a",)
        if there != new:
            put_in_place(made, out / "eu.a")
            assert files_of(out / "eu.a") == new
        if process.returncode == 0:
            break
        assert process.returncode == -9
    assert list(dict.fromkeys(found)) == ["old", "none", "new"]
    assert number > 5
