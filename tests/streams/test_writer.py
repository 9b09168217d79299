"""Shards are MDSWriter's, byte for byte; and what they are not is refused."""

from __future__ import annotations

import json
import resource
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixstream.errors import StreamError
from mixstream.streams.index import read_index
from mixstream.streams.reader import MdsReader
from mixstream.streams.writer import RowFormat, write_index, write_shard

SCALARS = ("float64", "int64", "uint32", "int", "uint8")


def write_all(path, encodings, rows, size_limit, compression=None):
    """Write all rows with our writer, as many a shard as it says."""
    form, entries = RowFormat(tuple(encodings.items())), []
    step = form.samples_per_shard(size_limit, compression)
    for first in range(0, len(next(iter(rows.values()))), step):
        own = {name: values[first : first + step] for name, values in rows.items()}
        entries.append(write_shard(path, len(entries), own, form, size_limit, compression))
    write_index(path, entries)


def write_with_mds(path, encodings, rows, size_limit, compression=None):
    from streaming import MDSWriter

    with MDSWriter(
        out=str(path), columns=encodings, hashes=["xxh64"], size_limit=size_limit, compression=compression
    ) as writer:
        for row in range(len(next(iter(rows.values())))):
            values = {name: values[row] for name, values in rows.items()}
            writer.write({n: int(v) if encodings[n] == "int" else v for n, v in values.items()})


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=40)
@given(
    seed=st.integers(0, 99),
    count=st.integers(1, 60),
    length=st.integers(1, 40),
    dtype=st.sampled_from(["uint8", "uint16", "uint32", "int32", "int64"]),
    scalars=st.dictionaries(st.sampled_from("amzZt_"), st.sampled_from(SCALARS), max_size=3),
    samples=st.integers(1, 25),
    odd=st.integers(0, 3),
    compression=st.sampled_from([None, "zstd", "zstd:3", "zstd:7"]),
)
def test_shards_and_index_are_those_of_mds_writer(
    tmp_path_factory, seed, count, length, dtype, scalars, samples, odd, compression
):
    random, ours, theirs = np.random.default_rng(seed), *(tmp_path_factory.mktemp("mds") for _ in range(2))
    encodings = {"tokens": f"ndarray:{dtype}:{length}", **scalars}
    rows = {"tokens": random.integers(0, 200, (count, length)).astype(dtype)}
    for name, kind in scalars.items():
        rows[name] = (random.random(count) * 200).astype("int64" if kind == "int" else kind)
    form = RowFormat(tuple(encodings.items()))
    limit = 8 + len(form.described(1000, compression)) + samples * (form.row_bytes + 4) + odd
    write_all(ours, encodings, rows, limit, compression)
    write_with_mds(theirs, encodings, rows, limit, compression)
    assert files_of(ours) == files_of(theirs)


@pytest.mark.parametrize("compression", [None, "zstd:3"])
def test_streaming_dataset_and_our_reader_read_them(tmp_path, compression):
    from streaming import StreamingDataset

    rows = {"tokens": np.arange(400, dtype=np.uint16).reshape(50, 8), "quality": np.linspace(0, 1, 50)}
    encodings = {"tokens": "ndarray:uint16:8", "quality": "float64"}
    write_all(tmp_path, encodings, rows, 700, compression)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = StreamingDataset(local=str(tmp_path), batch_size=1, shuffle=False)
        found = [dataset[row] for row in range(len(dataset))]
    assert len(found) == 50
    assert len(read_index(tmp_path).files) > 2
    if compression is None:
        found += list(MdsReader.open(tmp_path))
    for row, sample in enumerate(found):
        np.testing.assert_array_equal(sample["tokens"], rows["tokens"][row % 50])
        assert sample["quality"] == rows["quality"][row % 50]


def test_a_shard_takes_little_memory_beside_its_rows(tmp_path):
    for more, copies in (({}, 0.2), ({"quality": "float64"}, 0.5)):
        form = RowFormat(tuple({"tokens": "ndarray:uint16:2048", **more}.items()))
        rows = {"tokens": np.ones((2000, 2048), np.uint16)} | {name: np.ones(2000) for name in more}
        tracemalloc.start()
        write_shard(tmp_path, 0, rows, form, 1 << 26)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < copies * rows["tokens"].nbytes


@pytest.mark.parametrize("compression", [None, "zstd"])
def test_a_shard_is_there_whole_or_not_at_all(tmp_path, compression):
    form = RowFormat((("tokens", "ndarray:uint16:8"), ("x", "float64")))
    rows = {"tokens": np.random.default_rng(0).integers(0, 1 << 16, (400, 8), np.uint16), "x": np.ones(400)}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # as a disk that is full in the midst of it
    try:
        with pytest.raises(StreamError, match=r"shard.00000.mds(.zstd)?: cannot be written \(.*\); make room there"):
            write_shard(tmp_path, 0, rows, form, 1 << 20, compression)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StreamError, match=r"nowhere/shard.00000.mds(.zstd)?: cannot be written \(No such file"):
        write_shard(tmp_path / "nowhere", 0, rows, form, 1 << 20, compression)


def test_formats_that_are_none_are_refused():
    for encoding in ("str", "ndarray", "ndarray:uint16", "ndarray:uint16:0", "ndarray:float:3", "int:3", "pkl"):
        with pytest.raises(StreamError, match=f"a column encoded as '{encoding}'; expected one of fixed size"):
            RowFormat((("tokens", encoding),))
    with pytest.raises(StreamError, match="expected one or more, each with a name of its own"):
        RowFormat(())
    with pytest.raises(StreamError, match=r"columns \['a', 'a'\]"):
        RowFormat((("a", "int"), ("a", "float64")))
    assert RowFormat((("b", "int"), ("a", "float64"))).columns == (("a", "float64"), ("b", "int"))


def test_a_shard_holds_a_sample_or_is_refused():
    form = RowFormat((("tokens", "ndarray:uint16:8"),))
    least = 8 + len(form.described(999, None)) + 20
    assert form.samples_per_shard(least) == 1
    with pytest.raises(
        StreamError, match=f"{least - 1} bytes cannot hold a sample of 16 bytes; .* least {least} bytes"
    ):
        form.samples_per_shard(least - 1)
    with pytest.raises(StreamError, match=r"shards of 4294967296 bytes; MDS shards end below 4294967296"):
        form.samples_per_shard(1 << 32)


def test_rows_that_are_not_the_formats_are_refused(tmp_path):
    form = RowFormat((("tokens", "ndarray:uint16:8"), ("x", "float64")))
    good = {"tokens": np.ones((5, 8), np.uint16), "x": np.ones(5)}

    def refused(match, size_limit=1000, compression=None, **rows):
        with pytest.raises(StreamError, match=match):
            write_shard(tmp_path, 0, rows, form, size_limit, compression)

    refused(r"columns \['tokens'\], expected \['tokens', 'x'\]", tokens=good["tokens"])
    refused(
        r"'tokens' has values of type int64 and shape \(8,\), expected uint16",
        **good | {"tokens": np.ones((5, 8), int)},
    )
    refused(r"and shape \(7,\), expected uint16 and \(8,\)", **good | {"tokens": np.ones((5, 7), np.uint16)})
    refused(r"columns have {'tokens': 5, 'x': 4} values", **good | {"x": np.ones(4)})
    refused("shard 0 of 0 samples; expected 1 to", **{name: values[:0] for name, values in good.items()})
    refused("shard 0 of 5 samples; expected 1 to [23] in", size_limit=300, **good)
    refused("compression 'gz'; shards are written with none, zstd", compression="gz", **good)
    with pytest.raises(StreamError, match="a stream without shards"):
        write_index(tmp_path, [])
    assert list(tmp_path.iterdir()) == []


def test_what_the_index_says_is_plain_json(tmp_path):
    form = RowFormat((("tokens", "ndarray:uint16:8"),))
    entry = write_shard(tmp_path, 3, {"tokens": np.ones((5, 8), np.uint16)}, form, 1000)
    assert json.loads(json.dumps(entry)) == entry
    assert entry["raw_data"]["basename"] == "shard.00003.mds"
