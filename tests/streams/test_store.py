"""The shard store: raw files in their place, compressed ones once into a cache, whole whatever dies."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mixstream import Catalog
from mixstream.errors import CacheError, MissingExtraError, ShardError, StreamError
from mixstream.streams.cache import crew, making
from mixstream.streams.cache.locks import NamedLocks
from mixstream.streams.catalog import open_stream
from mixstream.streams.index import read_index
from mixstream.streams.needs import Need
from mixstream.streams.placing import foreign_entry
from mixstream.streams.reader import MdsReader
from mixstream.streams.store import ShardStore

COMPRESSIONS = ("br", "br:3", "bz2", "bz2:1", "gz", "gz:1", "snappy", "zstd", "zstd:7")
TOKENS = np.random.default_rng(0).integers(0, 200, (60, 16)).astype(np.uint16)


class Needed:
    """A future of one stream: these shards, a batch each."""

    def __init__(self, shards: list[int]) -> None:
        self.shards = shards

    def upcoming(self):
        return (Need(0, shard, batch, batch + 1) for batch, shard in enumerate(self.shards))

    def next_use(self, stream):
        raise AssertionError("a cache without a limit removes nothing")


def write(directory, compression="zstd", encoding="ndarray:uint16:16", hashes=("sha256", "xxh64"), rows=TOKENS):
    from streaming import MDSWriter

    options = {"columns": {"tokens": encoding}, "compression": compression, "hashes": list(hashes)}
    with MDSWriter(out=str(directory), size_limit=900, **options) as writer:
        for row in rows:
            writer.write({"tokens": row})
    return open_stream(directory.name, directory)


def all_rows(stream, store):
    shards = [store.open_shard(stream, number) for number in range(len(stream.index.files))]
    return np.concatenate([shard.read(np.arange(shard.num_samples)) for shard in shards])


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_mdswriter_compresses_is_read_and_kept_raw(tmp_path, compression):
    stream = write(tmp_path / "eu.a", compression)
    store = ShardStore(tmp_path / "cache", verify_hashes=True)
    assert stream.index.compression == compression
    store.check(stream)
    np.testing.assert_array_equal(all_rows(stream, store), TOKENS)
    cached = sorted((tmp_path / "cache" / f"eu.a-{stream.fingerprint}").iterdir())
    assert [path.name for path in cached] == list(stream.index.files)
    times = [path.stat().st_mtime_ns for path in cached]
    shutil.rmtree(tmp_path / "eu.a")  # from now on it is only mapped
    np.testing.assert_array_equal(all_rows(stream, ShardStore(tmp_path / "cache")), TOKENS)
    assert times == [path.stat().st_mtime_ns for path in cached]


def test_raw_streams_are_mapped_in_their_place(tmp_path):
    stream = write(tmp_path / "eu.a", None)
    np.testing.assert_array_equal(all_rows(stream, ShardStore(tmp_path / "cache", verify_hashes=True)), TOKENS)
    assert not (tmp_path / "cache").exists()


def test_a_raw_file_beside_its_compressed_one_is_mapped(tmp_path):
    """As StreamingDataset leaves them with keep_zip."""
    stream = write(tmp_path / "eu.a")
    raw = ShardStore(tmp_path / "cache")
    all_rows(stream, raw)
    for path in (tmp_path / "cache" / f"eu.a-{stream.fingerprint}").iterdir():
        path.rename(tmp_path / "eu.a" / path.name)
    store = ShardStore()
    store.check(stream)
    np.testing.assert_array_equal(all_rows(stream, store), TOKENS)


def test_without_a_cache_compressed_streams_are_refused_with_what_they_need(tmp_path):
    stream = write(tmp_path / "eu.a")
    needed = f"{stream.index.file_bytes.sum():,}"
    told = rf"stream 'eu.a': its shards are compressed \(zstd\) .* {needed} bytes in all; give a cache_dir"
    with pytest.raises(StreamError, match=told):
        ShardStore().check(stream)
    with pytest.raises(StreamError, match=told):
        stream.open_shard(0)
    stream.check_files()


def test_lengths_of_compressed_shards_of_dynamic_shape_are_found_without_a_cache(tmp_path):
    write(tmp_path / "eu.a", encoding="ndarray:uint16")
    assert Catalog.open(tmp_path)["eu.a"].sequence_length == 16


def test_a_store_goes_to_other_processes(tmp_path):
    stream = write(tmp_path / "eu.a")
    store = ShardStore(tmp_path / "cache", verify_hashes=True)
    store.open_shard(stream, 0)
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(all_rows(stream, again), TOKENS)


def test_all_columns_of_compressed_streams_are_read(tmp_path):
    write(tmp_path / "eu.a")
    reader = MdsReader.open(tmp_path / "eu.a", store=ShardStore(tmp_path / "cache"))
    np.testing.assert_array_equal([row["tokens"] for row in reader], TOKENS)


@pytest.mark.parametrize("compression", ["zstd:9", "gz"])
def test_compressing_a_streams_files_keeps_its_fingerprint(tmp_path, edit_json, compression):
    from streaming.base.compression import compress, get_compression_extension

    raw = write(tmp_path / "eu.a", None)

    def pack(index):
        for shard in index["shards"]:
            path = tmp_path / "eu.a" / shard["raw_data"]["basename"]
            packed = compress(compression, path.read_bytes())
            path.unlink()
            name = f"{path.name}.{get_compression_extension(compression)}"
            path.with_name(name).write_bytes(packed)
            shard.update(compression=compression, zip_data={"basename": name, "bytes": len(packed), "hashes": {}})

    edit_json(tmp_path / "eu.a" / "index.json", pack)
    stream = open_stream("eu.a", tmp_path / "eu.a")
    assert (stream.fingerprint, stream.index.compression) == (raw.fingerprint, compression)
    np.testing.assert_array_equal(all_rows(stream, ShardStore(tmp_path / "cache", verify_hashes=True)), TOKENS)


def test_a_prefix_has_the_fingerprint_of_the_stream_before_it_grew(tmp_path):
    grown = write(tmp_path / "eu.a").index
    path = tmp_path / "eu.a" / "index.json"
    content = json.loads(path.read_text())
    for count in range(1, len(grown.files) + 1):
        path.write_text(json.dumps({**content, "shards": content["shards"][:count]}))
        assert read_index(tmp_path / "eu.a").fingerprint == grown.prefix_fingerprint(count)
    assert grown.prefix_fingerprint(len(grown.files)) == grown.fingerprint
    assert len({grown.prefix_fingerprint(count) for count in range(1, 5)}) == 4
    with pytest.raises(StreamError, match="a prefix of 0 shards was asked of an index of"):
        grown.prefix_fingerprint(0)


def test_hashes_that_only_later_shards_note_do_not_change_a_prefix(tmp_path, edit_json):
    before = write(tmp_path / "eu.a", hashes=["xxh64"]).index
    edit_json(
        tmp_path / "eu.a" / "index.json",
        lambda index: index["shards"][3]["raw_data"]["hashes"].update(sha256="0a"),
    )
    after = read_index(tmp_path / "eu.a")
    assert after.fingerprint != before.fingerprint
    assert after.prefix_fingerprint(3) == before.prefix_fingerprint(3)
    assert after.prefix_fingerprint(4) != before.prefix_fingerprint(4)


def test_compressions_that_differ_are_refused(tmp_path, edit_json):
    write(tmp_path / "eu.a")
    edit_json(tmp_path / "eu.a" / "index.json", lambda index: index["shards"][2].update(compression="gz"))
    with pytest.raises(StreamError, match=r"compressed in different ways \(zstd, gz\)"):
        read_index(tmp_path / "eu.a")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", ".hidden"])
def test_compressed_files_may_not_leave_the_directory_either(tmp_path, edit_json, name):
    write(tmp_path / "eu.a")
    edit_json(tmp_path / "eu.a" / "index.json", lambda index: index["shards"][2]["zip_data"].update(basename=name))
    with pytest.raises(ShardError, match="leaves the stream's directory or is hidden"):
        read_index(tmp_path / "eu.a")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_damaged_compressed_file_is_told_and_nothing_is_left(tmp_path, compression):
    stream = write(tmp_path / "eu.a", compression, hashes=[])
    path = tmp_path / "eu.a" / stream.index.compressed_files[1]
    whole = path.read_bytes()
    store = ShardStore(tmp_path / "cache")
    for content in (whole[:-7] + bytes(7), b"garbage" + whole[7:], bytes(len(whole))):
        path.write_bytes(content)
        try:  # damage in the values themselves needs hashes to be seen
            found = store.open_shard(stream, 1).num_samples
        except ShardError as problem:
            assert path.name in str(problem) or stream.index.files[1] in str(problem)
        else:
            assert found == stream.index.shard_samples[1]
            (tmp_path / "cache" / f"eu.a-{stream.fingerprint}" / stream.index.files[1]).unlink()
    path.write_bytes(whole[:-1])
    with pytest.raises(ShardError, match=rf"{path.name}: {len(whole) - 1} bytes, index.json says {len(whole)}"):
        store.open_shard(stream, 1)
    with pytest.raises(ShardError, match=rf"{path.name}: {len(whole) - 1} bytes, index.json says {len(whole)} bytes"):
        stream.check_files()
    path.unlink()
    with pytest.raises(ShardError, match=rf"{path.name}: no such file"):
        store.check(stream)
    assert list((tmp_path / "cache").rglob("*.part")) == list((tmp_path / "cache").rglob("*.mds")) == []


def test_what_failed_is_tried_again_only_by_who_demands_it(tmp_path, monkeypatch):
    """A look ahead that comes after the failure was told left a part file for a moment, and a warning."""
    stream = write(tmp_path / "eu.a")
    path = tmp_path / "eu.a" / stream.index.compressed_files[1]
    whole = path.read_bytes()
    path.write_bytes(bytes(len(whole)))
    tries: list[str] = []
    begin = making.Making._begin
    monkeypatch.setattr(making.Making, "_begin", lambda one: (tries.append(one.job.entry[1]), begin(one)))
    store = ShardStore(tmp_path / "cache")
    with pytest.raises(ShardError, match=path.name):
        store.open_shard(stream, 1)
    assert len(tries) == 1
    for _ in range(3):
        store.foresee([stream], Needed([1, 0]))
        store.open_shard(stream, 0)  # is brought after what is needed before it
    assert tries.count(stream.index.files[1]) == 1
    path.write_bytes(whole)
    assert store.open_shard(stream, 1).num_samples == stream.index.shard_samples[1]
    store.close()


@pytest.mark.parametrize("compression", ["br", "bz2", "gz", "snappy", "zstd"])
@pytest.mark.parametrize("content", [b"", TOKENS.tobytes()[:300], TOKENS.tobytes() * 2])
def test_a_shard_that_decompresses_to_another_size_is_refused(tmp_path, edit_json, compression, content):
    from streaming.base.compression import compress

    stream = write(tmp_path / "eu.a", compression, hashes=[])
    packed = compress(compression, content)
    (tmp_path / "eu.a" / stream.index.compressed_files[1]).write_bytes(packed)
    edit_json(tmp_path / "eu.a" / "index.json", lambda index: index["shards"][1]["zip_data"].update(bytes=len(packed)))
    stream = open_stream("eu.a", tmp_path / "eu.a")
    raw_bytes = stream.index.file_bytes[1]
    told = rf"decompresses to (more than )?\d+ bytes, index.json says {raw_bytes}|snappy tells {len(content)} bytes"
    with pytest.raises(ShardError, match=told):
        ShardStore(tmp_path / "cache").open_shard(stream, 1)


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("hashes", [["xxh64"], ["sha256"], ["md5"], ["sha3_512"], ["xxh3_128"], ["md5", "xxh32"]])
def test_hashes_find_a_flipped_bit(tmp_path, compression, hashes):
    stream = write(tmp_path / "eu.a", compression, hashes=hashes)
    store = ShardStore(tmp_path / "cache", verify_hashes=True)
    np.testing.assert_array_equal(all_rows(stream, store), TOKENS)
    name = (stream.index.compressed_files if compression else stream.index.files)[2]
    path = tmp_path / "eu.a" / name
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    algorithm = "xxh32" if "xxh32" in hashes else hashes[0]
    with pytest.raises(ShardError, match=rf"{name}: its {algorithm} is \w+, index.json says \w+"):
        ShardStore(tmp_path / "cache", verify_hashes=True).open_shard(stream, 2)
    assert path.exists()  # the only copy


def test_swapped_shards_of_one_size_are_found_by_their_hashes(tmp_path):
    stream = write(tmp_path / "eu.a", None)
    first, second = (tmp_path / "eu.a" / name for name in stream.index.files[:2])
    first.rename(tmp_path / "x")
    second.rename(first)
    (tmp_path / "x").rename(second)
    ShardStore().open_shard(stream, 0)
    with pytest.raises(
        ShardError, match=r"shard.00000.mds: its xxh64 is \w+, index.json says \w+; .* or another one's"
    ):
        ShardStore(verify_hashes=True).open_shard(stream, 0)


def test_a_bad_copy_in_the_cache_is_removed_and_made_anew(tmp_path):
    stream = write(tmp_path / "eu.a")
    all_rows(stream, ShardStore(tmp_path / "cache"))
    copy = tmp_path / "cache" / f"eu.a-{stream.fingerprint}" / "shard.00001.mds"
    whole = copy.read_bytes()
    damaged = bytearray(whole)
    damaged[-1] ^= 1
    for content in (bytes(damaged), bytes(len(whole)), b"short", b""):  # zeros: what a power cut may leave
        copy.write_bytes(content)
        np.testing.assert_array_equal(all_rows(stream, ShardStore(tmp_path / "cache", verify_hashes=True)), TOKENS)
        assert copy.read_bytes() == whole


def test_a_shard_that_is_bad_again_when_made_anew_is_refused(tmp_path, edit_json):
    write(tmp_path / "eu.a", hashes=[])
    edit_json(tmp_path / "eu.a" / "index.json", lambda index: index["shards"][1].update(samples=1))
    stream = open_stream("eu.a", tmp_path / "eu.a")
    with pytest.raises(
        ShardError, match=r"header says \d+ samples, index.json says 1; so it is in .*shard.00001.mds.zstd"
    ):
        ShardStore(tmp_path / "cache").open_shard(stream, 1)
    assert not list((tmp_path / "cache").rglob("*.mds"))


def test_each_shard_is_hashed_once_a_process(tmp_path, monkeypatch):
    from mixstream.streams import files

    stream = write(tmp_path / "eu.a", None)
    hashed = []
    check = files.check_hash
    monkeypatch.setattr(files, "check_hash", lambda path, *rest: (hashed.append(path.name), check(path, *rest)))
    store = ShardStore(verify_hashes=True)
    for _ in range(3):
        all_rows(stream, store)
    assert hashed == list(stream.index.files)


def test_a_stream_that_notes_no_hash_is_told_once(tmp_path):
    stream = write(tmp_path / "eu.a", None, hashes=[])
    store = ShardStore(verify_hashes=True)
    with pytest.warns(UserWarning, match="stream 'eu.a': index.json notes no hash .* that is known") as told:
        np.testing.assert_array_equal(all_rows(stream, store), TOKENS)
    assert len(told) == 1


def test_a_cache_that_cannot_be_written_is_told_with_what_it_needs(tmp_path):
    stream = write(tmp_path / "eu.a")
    (tmp_path / "cache").write_text("a file")
    told = r"cache .*/cache: cannot be written \(File exists\); choose a cache_dir that can be written"
    with pytest.raises(CacheError, match=told):
        ShardStore(tmp_path / "cache").open_shard(stream, 0)


FULL = """
import resource, sys
from pathlib import Path
from mixstream.streams.catalog import open_stream
from mixstream.streams.store import ShardStore

stream = open_stream("eu.a", Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
ShardStore(sys.argv[2]).open_shard(stream, 0)
"""


def test_a_disk_that_is_full_is_told_and_nothing_half_made_is_left(tmp_path):
    write(tmp_path / "eu.a")
    done = subprocess.run(
        [sys.executable, "-c", FULL, tmp_path / "eu.a", tmp_path / "cache"], capture_output=True, text=True, timeout=60
    )
    assert "CacheError" in done.stderr.splitlines()[-1]
    assert re.search(r"cannot be written \d+ bytes more \(File too large\); choose .* with more room", done.stderr)
    assert not [path for path in (tmp_path / "cache").rglob("*.mds*") if path.is_file()]


@pytest.mark.parametrize(("package", "compression"), [("pyarrow", "zstd"), ("xxhash", None)])
def test_a_missing_package_is_told(tmp_path, monkeypatch, package, compression):
    stream = write(tmp_path / "eu.a", compression, hashes=["xxh64"])
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"'{package}'; install it with pip install 'mixstream-llm\[loader\]'"):
        ShardStore(tmp_path / "cache", verify_hashes=True).open_shard(stream, 0)


def test_threads_and_processes_share_a_cache_and_make_each_shard_once(tmp_path, monkeypatch):
    stream = write(tmp_path / "eu.a")
    made = []
    read_raw = making.read_raw

    def slow(shards, number, verify):
        made.append(number)
        time.sleep(0.02)
        return read_raw(shards, number, verify)

    monkeypatch.setattr(making, "read_raw", slow)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: all_rows(stream, ShardStore(tmp_path / "cache")), range(4)))
    assert all(np.array_equal(rows, TOKENS) for rows in found)
    assert sorted(made) == list(range(len(stream.index.files)))


def _read_all(directory, cache, queue):
    stream = open_stream("eu.a", directory)
    store = ShardStore(cache)
    inodes = []
    for number in range(len(stream.index.files)):
        store.open_shard(stream, number)
        inodes.append((cache / f"eu.a-{stream.fingerprint}" / stream.index.files[number]).stat().st_ino)
    queue.put((all_rows(stream, store).tolist(), inodes))


def test_two_processes_at_once_on_one_cache(tmp_path):
    write(tmp_path / "eu.a")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    readers = [context.Process(target=_read_all, args=(tmp_path / "eu.a", tmp_path / "cache", queue)) for _ in range(2)]
    for reader in readers:
        reader.start()
    found = [queue.get(timeout=60) for _ in readers]
    for reader in readers:
        reader.join()
    assert found[0] == found[1]  # the same files, none made twice
    assert found[0][0] == TOKENS.tolist()


DIES = """
import os, signal, sys
from pathlib import Path
from mixstream.streams.cache.folder import CacheFolder, Entry

cache, entry = CacheFolder(Path(sys.argv[1])), Entry(sys.argv[2], sys.argv[3])
assert cache.begin(entry)
cache.reserve_part(entry, 900, iter(())).write_bytes(b"half")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_removed_and_the_shard_made(tmp_path):
    stream = write(tmp_path / "eu.a")
    name, cache = f"eu.a-{stream.fingerprint}", tmp_path / "cache"

    def die(file):
        done = subprocess.run([sys.executable, "-c", DIES, cache, name, file], timeout=60)
        assert done.returncode == -signal.SIGKILL
        assert (cache / name / f".{file}.part").read_bytes() == b"half"

    for file in stream.index.files[:2]:
        die(file)
    other = NamedLocks(cache / ".cache")
    assert other.seize(f"{name}/shard.00003.mds")  # this one is being made
    (cache / name / ".shard.00003.mds.part").write_bytes(b"")
    store = ShardStore(cache)
    store.open_shard(stream, 0)
    assert [path.name for path in (cache / name).glob(".*")] == [".shard.00003.mds.part"]
    other.close()
    die(stream.index.files[1])  # since then
    np.testing.assert_array_equal(all_rows(stream, store), TOKENS)
    assert not list((cache / name).glob(".*"))


def test_who_waited_for_a_process_that_gave_up_makes_the_shard(tmp_path):
    stream = write(tmp_path / "eu.a")
    all_rows(stream, ShardStore(tmp_path / "cache"))
    shutil.rmtree(tmp_path / "cache" / f"eu.a-{stream.fingerprint}")
    other = NamedLocks(tmp_path / "cache" / ".cache")
    assert other.seize(f"eu.a-{stream.fingerprint}/shard.00000.mds")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ShardStore(tmp_path / "cache").open_shard, stream, 0)
        time.sleep(0.1)
        assert not waiting.done()
        other.close()
        np.testing.assert_array_equal(waiting.result(timeout=30).read(np.arange(3)), TOKENS[:3])


def test_a_process_that_holds_a_shard_for_ever_does_not_hang_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "GIVE_UP_SECONDS", 0.05)
    stream = write(tmp_path / "eu.a")
    store = ShardStore(tmp_path / "cache")
    store.open_shard(stream, 1)
    other = NamedLocks(tmp_path / "cache" / ".cache")
    assert other.seize(f"eu.a-{stream.fingerprint}/shard.00000.mds")
    with pytest.raises(CacheError, match=r"shard.00000.mds.zstd: gave up after \d+ s; another process makes it"):
        store.open_shard(stream, 0)
    other.close()
    np.testing.assert_array_equal(all_rows(stream, store), TOKENS)  # and may be asked again


def test_killed_at_any_time_the_cache_holds_whole_shards_or_none(tmp_path):
    rows = np.random.default_rng(0).integers(0, 9, (64, 1 << 16)).astype(np.uint16)
    from streaming import MDSWriter

    columns = {"tokens": "ndarray:uint16:65536"}
    with MDSWriter(out=str(tmp_path / "eu.a"), columns=columns, compression="zstd", size_limit=1 << 18) as writer:
        for row in rows:
            writer.write({"tokens": row})
    stream = open_stream("eu.a", tmp_path / "eu.a")
    code = (
        "import sys; from pathlib import Path; from mixstream.streams.catalog import open_stream;"
        "from mixstream.streams.store import ShardStore; import pyarrow; print('ready', flush=True);"
        "stream = open_stream('eu.a', Path(sys.argv[1])); store = ShardStore(sys.argv[2]);"
        "[store.open_shard(stream, n) for n in range(len(stream.index.files))]"
    )
    for delay in (0.0, 0.01, 0.03):
        process = subprocess.Popen(
            [sys.executable, "-c", code, tmp_path / "eu.a", tmp_path / "cache"], stdout=subprocess.PIPE
        )
        with process:
            process.stdout.readline()
            time.sleep(delay)
            os.kill(process.pid, signal.SIGKILL)
        for path in (tmp_path / "cache").rglob("shard.*.mds"):
            number = stream.index.files.index(path.name)
            assert path.stat().st_size == stream.index.file_bytes[number]
    np.testing.assert_array_equal(all_rows(stream, ShardStore(tmp_path / "cache")), rows)
    assert list((tmp_path / "cache").rglob(".*.part")) == []


def test_compressed_shards_are_parts_of_a_stream_to_the_writer(tmp_path):
    write(tmp_path / "eu.a")
    assert foreign_entry(tmp_path / "eu.a") is None
    (tmp_path / "eu.a" / "index.json").unlink()
    with pytest.raises(StreamError, match=r"eu.a: holds parts of a stream but no index.json"):
        Catalog.open(tmp_path)
