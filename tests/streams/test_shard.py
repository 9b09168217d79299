"""The shard reader equals streaming's, and refuses what is not what index.json says."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from mixstream.errors import ShardError, StreamError
from mixstream.streams.catalog import open_stream
from mixstream.streams.index import read_index
from mixstream.streams.shard import OpenFiles
from mixstream.streams.tokens import find_token_column

RNG = np.random.default_rng(0)


def rows(dtype, count=40, length=16):
    return RNG.integers(0, 120, (count, length)).astype(dtype)


LAYOUTS = {
    "fixed uint16": ({"tokens": "ndarray:uint16:16"}, lambda i, t: {"tokens": t}),
    "fixed int64": ({"input_ids": "ndarray:int64:16"}, lambda i, t: {"input_ids": t}),
    "dynamic shape": ({"tokens": "ndarray:int32"}, lambda i, t: {"tokens": t}),
    "fixed among variable": (
        {"a_text": "str", "tokens": "ndarray:uint32:16", "z": "json"},
        lambda i, t: {"a_text": "x" * i, "tokens": t, "z": {"i": i}},
    ),
    "fixed after fixed": ({"n": "int", "tokens": "ndarray:uint16:16"}, lambda i, t: {"n": i, "tokens": t}),
    "dynamic among variable": (
        {"a": "bytes", "tokens": "ndarray:uint16", "u": "int"},
        lambda i, t: {"a": b"y" * (i % 5), "tokens": t, "u": i},
    ),
}


@pytest.fixture(params=LAYOUTS)
def plain(request, tmp_path):
    """A plain MDS directory as others write it, in several layouts; with the tokens that went in."""
    from streaming import MDSWriter

    columns, sample_of = LAYOUTS[request.param]
    encoding = next(e for name, e in columns.items() if name in ("tokens", "input_ids"))
    tokens = rows(encoding.split(":")[1])
    with MDSWriter(out=str(tmp_path / "c4"), columns=columns, size_limit=700) as writer:
        for i, row in enumerate(tokens):
            writer.write(sample_of(i, row))
    return tmp_path / "c4", tokens


def test_every_layout_is_read_as_streaming_reads_it(plain):
    from streaming.base.format import reader_from_json

    directory, tokens = plain
    stream = open_stream("c4", directory)
    entries = json.loads((directory / "index.json").read_text())["shards"]
    assert stream.num_samples == len(tokens)
    assert stream.sequence_length == 16
    assert len(stream.index.files) > 2
    row = 0
    for number, count in enumerate(stream.index.shard_samples):
        theirs = reader_from_json(str(directory), "", entries[number])
        shard = stream.open_shard(number)
        found = shard.read(np.arange(count))
        assert shard.num_samples == count
        assert shard.length(int(count) - 1) == 16
        np.testing.assert_array_equal(shard.read(np.arange(count)[::-2]), found[::-2])
        mapped = shard._file
        assert [mapped.bounds_of(i) for i in range(count)] == mapped.bounds(np.arange(count)).tolist()
        if shard.rows is not None:
            assert not shard.rows.flags.owndata
            np.testing.assert_array_equal(shard.rows, found)
        for i in range(count):
            assert found[i].tolist() == tokens[row].tolist() == theirs[i][stream.column.name].tolist()
            row += 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tokens_that_lie_evenly_are_one_view_of_the_file(tmp_path, layout):
    """Those of dynamic shape too, as other tools write them: equal samples have their sizes at equal places."""
    from streaming import MDSWriter

    columns, sample_of = LAYOUTS[layout]
    dtype = next(e for n, e in columns.items() if n in ("tokens", "input_ids")).split(":")[1]
    with MDSWriter(out=str(tmp_path / "c4"), columns=columns) as writer:
        for i, row in enumerate(rows(dtype)):
            writer.write(sample_of(i, row))
    evenly = layout in ("fixed uint16", "fixed int64", "dynamic shape", "fixed after fixed")
    assert (open_stream("c4", tmp_path / "c4").open_shard(0).rows is not None) == evenly


def test_a_shape_of_its_own_is_no_row_of_tokens_though_its_sample_is_of_the_same_size(tmp_path):
    from streaming import MDSWriter

    with MDSWriter(out=str(tmp_path / "c4"), columns={"tokens": "ndarray:uint8"}) as writer:
        writer.write({"tokens": np.zeros(16, np.uint8)})  # 2 bytes of shape, 16 of values
        writer.write({"tokens": np.zeros((3, 5), np.uint8)})  # 3 and 15
    shard = open_stream("c4", tmp_path / "c4").open_shard(0)
    assert shard.rows is None
    assert shard.length(0) == 16
    with pytest.raises(ShardError, match="row 1 is not one row of uint8: 2 dimensions"):
        shard.read(np.arange(2))


def test_a_length_that_is_not_that_of_the_values_is_told(tmp_path):
    from streaming import MDSWriter

    with MDSWriter(out=str(tmp_path / "c4"), columns={"tokens": "ndarray:uint16"}) as writer:
        for _ in range(3):
            writer.write({"tokens": np.zeros(16, np.uint16)})

    def lengthen(content):
        second = int.from_bytes(content[8:12], "little")
        assert content[second + 4 : second + 6] == bytes([4, 16])  # after its size: one dimension, 16 long
        content[second + 5] = 17

    damaged(tmp_path / "c4", 0, lengthen)
    shard = open_stream("c4", tmp_path / "c4").open_shard(0)
    with pytest.raises(ShardError, match="row 1 is not one row of uint16: 1 dimensions, 17 long, in 34 bytes"):
        shard.read(np.arange(3))


def test_columns_that_trade_bytes_within_equal_samples_are_not_taken_for_even(tmp_path):
    from streaming import MDSWriter

    with MDSWriter(out=str(tmp_path / "c4"), columns={"a": "str", "tokens": "ndarray:uint8:4", "z": "str"}) as writer:
        for i in range(4):
            writer.write({"a": "x" * i, "tokens": np.full(4, i, np.uint8), "z": "y" * (3 - i)})
    shard = open_stream("c4", tmp_path / "c4").open_shard(0)
    assert shard.rows is None
    assert shard.read(np.array([2, 0, 3]))[:, 0].tolist() == [2, 0, 3]


def test_samples_of_several_lengths_are_refused(tmp_path):
    from streaming import MDSWriter

    with MDSWriter(out=str(tmp_path / "c4"), columns={"tokens": "ndarray:int32"}) as writer:
        for length in (5, 6):
            writer.write({"tokens": np.arange(length, dtype=np.int32)})
    shard = open_stream("c4", tmp_path / "c4").open_shard(0)
    with pytest.raises(ShardError, match=r"samples have \[5, 6\] tokens"):
        shard.read(np.arange(2))


def damaged(directory, number, change):
    """Change the bytes of one shard, its size kept."""
    path = directory / f"shard.{number:05}.mds"
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


@pytest.mark.parametrize("layout", ["dynamic shape", "fixed among variable", "dynamic among variable"])
def test_damage_in_samples_of_varying_size_is_told_or_harmless(tmp_path, layout):
    """Every single-byte change in the region of the samples: an error of ours, or rows of the right length."""
    from streaming import MDSWriter

    columns, sample_of = LAYOUTS[layout]
    dtype = next(e for n, e in columns.items() if n == "tokens").split(":")[1]
    with MDSWriter(out=str(tmp_path / "c4"), columns=columns) as writer:
        for i, row in enumerate(rows(dtype, count=3)):
            writer.write(sample_of(i, row))
    stream = open_stream("c4", tmp_path / "c4")
    path = tmp_path / "c4" / "shard.00000.mds"
    content = path.read_bytes()
    told = 0
    for place in range(8, len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x41]) + content[place + 1 :])
        try:
            assert stream.open_shard(0).read(np.arange(3)).shape == (3, 16)
        except ShardError:
            told += 1
    assert told >= 12  # sizes, shapes and offsets of three samples


def test_a_size_that_does_not_fit_its_sample_is_told(tmp_path):
    """In a stream of variable columns, where an iterator that runs dry once looked like the end of the run."""
    from streaming import MDSWriter

    with MDSWriter(out=str(tmp_path / "c4"), columns={"tokens": "ndarray:int32"}) as writer:
        for _ in range(3):
            writer.write({"tokens": np.arange(4, dtype=np.int32)})

    def empty_the_second(content):
        content[12:16] = content[8:12]

    damaged(tmp_path / "c4", 0, empty_the_second)
    shard = open_stream("c4", tmp_path / "c4").open_shard(0)
    with pytest.raises(ShardError, match="row 1 has 0 bytes, its columns add up to 4; the shard is damaged"):
        shard.read(np.arange(1, 2))


def test_only_so_many_shards_are_open_at_a_time(streams):
    """Over all streams of a dataset; the one not read for longest is closed."""
    opened = []

    def open_one(name):
        stream = open_stream(name, streams / name)

        def open_shard(number):
            opened.append((name, number))
            return stream.open_shard(number)

        return open_shard

    shards = OpenFiles(limit=3)
    for name, number in [("eu.tales", 0), ("gl.tales", 0), ("eu.tales", 1), ("eu.tales", 0), ("gl.tales", 1)]:
        shards.get(name, number, open_one(name))
    assert len(shards) == 3
    shards.get("eu.tales", 0, open_one("eu.tales"))  # still open
    shards.get("gl.tales", 0, open_one("gl.tales"))  # closed for gl.tales 1
    assert opened == [("eu.tales", 0), ("gl.tales", 0), ("eu.tales", 1), ("gl.tales", 1), ("gl.tales", 0)]


@pytest.fixture
def copied(streams, tmp_path):
    shutil.copytree(streams / "eu.tales", tmp_path / "eu.tales")
    return tmp_path / "eu.tales"


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + b"x", lambda c: b""])
def test_a_shard_of_another_size_is_refused(copied, change):
    shard = copied / "shard.00001.mds"
    content = shard.read_bytes()
    shard.write_bytes(change(content))
    with pytest.raises(
        ShardError, match=rf"shard.00001.mds: {len(change(content))} bytes, index.json says {len(content)}"
    ):
        open_stream("eu.tales", copied).open_shard(1)
    shard.unlink()
    with pytest.raises(ShardError, match="shard.00001.mds: no such file, but index.json lists it"):
        open_stream("eu.tales", copied).open_shard(1)


def test_an_empty_shard_that_index_json_calls_empty_is_refused(copied, edit_json):
    (copied / "shard.00000.mds").write_bytes(b"")
    edit_json(copied / "index.json", change_first(("raw_data", "bytes"), 0))
    with pytest.raises(ShardError, match="shard.00000.mds: cannot be mapped"):
        open_stream("eu.tales", copied).open_shard(0)


def test_a_shard_with_another_number_of_samples_in_its_header_is_refused(copied):
    shard = copied / "shard.00001.mds"
    content = bytearray(shard.read_bytes())
    content[0] += 1
    shard.write_bytes(content)
    with pytest.raises(ShardError, match=r"header says 8 samples, index.json says 7"):
        open_stream("eu.tales", copied).open_shard(1)


def test_a_shard_with_offsets_that_do_not_fit_is_refused(copied):
    shard = copied / "shard.00001.mds"
    content = bytearray(shard.read_bytes())
    content[8:12] = (2**31).to_bytes(4, "little")
    shard.write_bytes(content)
    with pytest.raises(ShardError, match="offsets do not fit"):
        open_stream("eu.tales", copied).open_shard(1)


def test_offsets_that_run_backwards_are_refused(tmp_path):
    """Within the file, in a stream whose samples may be of any size."""
    from streaming import MDSWriter

    with MDSWriter(out=str(tmp_path / "c4"), columns={"a": "str", "tokens": "ndarray:uint8:4"}) as writer:
        for _ in range(4):
            writer.write({"a": "x", "tokens": np.zeros(4, np.uint8)})

    def swap(content):
        content[8:12], content[12:16] = content[12:16], content[8:12]

    damaged(tmp_path / "c4", 0, swap)
    with pytest.raises(ShardError, match="its sample offsets do not fit the file"):
        open_stream("c4", tmp_path / "c4").open_shard(0)


def test_samples_that_are_not_of_one_size_are_refused(copied):
    shard = copied / "shard.00001.mds"
    content = bytearray(shard.read_bytes())
    second = int.from_bytes(content[8:12], "little")
    content[8:12] = (second + 2).to_bytes(4, "little")
    shard.write_bytes(content)
    with pytest.raises(ShardError, match="samples are not of 16 bytes each"):
        open_stream("eu.tales", copied).open_shard(1)


def test_a_shard_too_short_for_its_header_is_refused(copied, edit_json):
    shard = copied / "shard.00000.mds"
    shard.write_bytes(shard.read_bytes()[:20])

    def shorten(index):
        index["shards"][0]["raw_data"]["bytes"] = 20

    edit_json(copied / "index.json", shorten)
    with pytest.raises(ShardError, match="20 bytes cannot hold the header of 7 samples"):
        open_stream("eu.tales", copied).open_shard(0)


def change_first(key, value):
    def change(index):
        shard = index["shards"][0]
        if isinstance(key, tuple):
            shard[key[0]][key[1]] = value
        else:
            shard[key] = value

    return change


def change_all(key, value):
    return lambda index: [shard.update({key: value}) for shard in index["shards"]]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda i: i.update(version=1), StreamError, "MDS version 1, expected 2"),
        (lambda i: i.update(shards=[]), StreamError, "lists no shard"),
        (lambda i: i.pop("shards"), StreamError, "has no list of shards"),
        (lambda i: i["shards"][0].pop("raw_data"), StreamError, "entry is not MDS"),
        (change_first("format", "csv"), StreamError, "version 2 and format 'csv', expected 2 and 'mds'"),
        (change_first("version", 1), StreamError, "version 1 and format 'mds', expected 2 and 'mds'"),
        (change_first("compression", "zstd:3"), StreamError, "entry is not MDS"),
        (change_first("column_names", ["other"]), StreamError, "shards disagree in their columns"),
        (lambda i: i["shards"].append(5), StreamError, "entry is not MDS"),
        (change_first("samples", "x"), StreamError, "entry is not MDS"),
        (change_first("samples", 10**30), StreamError, "entry is not MDS"),
        (change_first("column_encodings", []), StreamError, "shards disagree in their columns"),
        (change_all("column_encodings", []), StreamError, "entry is not MDS"),
        (change_all("column_names", [5]), StreamError, "entry is not MDS"),
        (change_all("column_sizes", [-16]), StreamError, "entry is not MDS.*a column of -16 bytes"),
        (change_all("column_sizes", [1.5]), StreamError, "entry is not MDS.*a column of 1.5 bytes"),
        (
            change_all("compression", "rar"),
            StreamError,
            "entry is not MDS|compressed with 'rar', expected one of br, bz2",
        ),
        (change_first("samples", 3.5), StreamError, "3.5 is no whole number"),
        (change_first("samples", True), StreamError, "True is no whole number"),
        (change_first("raw_data", "abc"), StreamError, "entry is not MDS"),
        (change_first("zip_data", {"basename": "x", "bytes": 1, "hashes": {}}), StreamError, "entry is not MDS"),
        (lambda i: i["shards"].insert(0, 0), StreamError, "entry is not MDS"),
        (lambda i: i.update(more={"raw_data": i["shards"].pop()}), StreamError, "entry is not MDS"),
        (change_first(("raw_data", "bytes"), 1 << 32), ShardError, "a shard of 4294967296 bytes; MDS shards end below"),
        (change_first(("raw_data", "basename"), "a\\b"), ShardError, "leaves the stream's directory"),
        (change_first(("raw_data", "basename"), ""), ShardError, "leaves the stream's directory"),
        (change_first(("raw_data", "basename"), "a/../../b"), ShardError, "leaves the stream's directory"),
        (change_first(("raw_data", "basename"), "./shard.00001.mds"), ShardError, "or is hidden; refused"),
        (change_first(("raw_data", "basename"), "a\0b"), ShardError, "leaves the stream's directory"),
        (change_first(("raw_data", "basename"), 5), StreamError, "entry is not MDS"),
        (change_first(("raw_data", "hashes"), {"xxh64": "ñ"}), StreamError, "entry is not MDS"),
        (change_first(("raw_data", "hashes"), {"xxh64": 5}), StreamError, "entry is not MDS"),
        (change_first(("raw_data", "hashes"), "xxh64"), StreamError, "entry is not MDS"),
        (change_first("samples", -3), ShardError, "claims -3 samples"),
        (change_first("samples", 0), ShardError, "claims 0 samples"),
        (change_first(("raw_data", "bytes"), -1), ShardError, "in -1 bytes"),
        (change_first(("raw_data", "basename"), "/etc/passwd"), ShardError, "leaves the stream's directory"),
        (change_first(("raw_data", "basename"), "../x"), ShardError, "leaves the stream's directory"),
        (change_first(("raw_data", "basename"), "shard.00001.mds"), ShardError, "names a shard file twice"),
    ],
)
def test_an_index_that_is_wrong_is_refused(copied, edit_json, change, error, message):
    edit_json(copied / "index.json", change)
    with pytest.raises(error, match=message):
        read_index(copied)


def test_an_index_that_is_missing_or_truncated_is_refused(copied):
    path = copied / "index.json"
    path.write_text(path.read_text()[:-9])
    with pytest.raises(StreamError, match="not JSON .* truncated"):
        read_index(copied)
    path.unlink()
    with pytest.raises(StreamError, match="is not an MDS directory"):
        read_index(copied)


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("bytes", "encoded as 'bytes' of 16 bytes; expected ndarray:DTYPE:LENGTH"),
        ("ndarray:uint16:4", "encoded as 'ndarray:uint16:4' of 16 bytes"),
        ("ndarray:uint16:x", "encoded as 'ndarray:uint16:x' of 16 bytes"),
        ("", "encoded as '' of 16 bytes"),
        ("ndarray:uint16:4,4", "expected ndarray:DTYPE:LENGTH"),
        ("ndarray:float32:16", "expected ndarray:DTYPE:LENGTH"),
        ("ndarray", "expected ndarray:DTYPE:LENGTH"),
    ],
)
def test_a_column_that_holds_no_row_of_integers_is_refused(copied, edit_json, encoding, message):
    edit_json(copied / "index.json", lambda i: [s.update(column_encodings=[encoding]) for s in i["shards"]])
    with pytest.raises(StreamError, match=message):
        find_token_column(read_index(copied), "eu.tales")


def test_the_token_column_is_told_apart(copied, edit_json):
    names = {"column_names": ["input_ids", "tokens"], "column_encodings": ["ndarray:uint16:8"] * 2}
    edit_json(copied / "index.json", lambda i: [s.update(names, column_sizes=[16, 16]) for s in i["shards"]])
    index = read_index(copied)
    with pytest.raises(StreamError, match="2 of the token columns tokens, input_ids .*; name the one"):
        find_token_column(index, "eu.tales")
    assert find_token_column(index, "eu.tales", "tokens").position == 1
    with pytest.raises(StreamError, match="0 of the token columns ids"):
        find_token_column(index, "eu.tales", "ids")


def test_hashes_are_part_of_the_fingerprint(copied, edit_json):
    before = read_index(copied).fingerprint
    assert json.loads((copied / "index.json").read_text())["shards"][0]["raw_data"]["hashes"].keys() == {"xxh64"}
    edit_json(copied / "index.json", change_first(("raw_data", "hashes"), {"xxh64": "0"}))
    assert read_index(copied).fingerprint != before
