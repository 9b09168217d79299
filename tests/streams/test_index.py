"""index.json by column equals the obvious reading, entry by entry, at any number of shards."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import StreamError
from mixstream.streams.index import read_index

PART = st.text("abc012_-é ", min_size=1, max_size=4)
NAMES = st.lists(PART, min_size=1, max_size=3).map("/".join)
HASHES = st.dictionaries(st.sampled_from(["md5", "xxh64"]), st.text("0123456789abcdef", min_size=1, max_size=16))


def files(names):
    return st.fixed_dictionaries({"basename": st.just(names), "bytes": st.integers(0, 2**32 - 1), "hashes": HASHES})


@st.composite
def indexes(draw):
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    compression = draw(st.sampled_from([None, "zstd", "gz:3"]))
    columns = draw(st.lists(PART, min_size=1, max_size=3, unique=True))
    alike = {
        "version": 2,
        "format": "mds",
        "compression": compression,
        "hashes": [],
        "size_limit": 5,
        "column_names": columns,
        "column_encodings": ["str"] * len(columns),
        "column_sizes": draw(st.lists(st.none() | st.integers(0, 99), min_size=len(columns), max_size=len(columns))),
    }
    shards = [
        {
            **alike,
            "samples": draw(st.integers(1, 2**40)),
            "raw_data": draw(files(name)),
            "zip_data": draw(files(f"{name}.packed")) if compression else None,
        }
        for name in names
    ]
    return {"version": 2, "shards": shards}


@given(index=indexes())
def test_an_index_is_read_as_it_stands(tmp_path_factory, index):
    directory = tmp_path_factory.mktemp("index")
    (directory / "index.json").write_text(json.dumps(index))
    found, shards = read_index(directory), index["shards"]
    first = shards[0]
    assert found.files == tuple(shard["raw_data"]["basename"] for shard in shards)
    assert found.file_bytes.tolist() == [shard["raw_data"]["bytes"] for shard in shards]
    assert found.shard_samples.tolist() == [shard["samples"] for shard in shards]
    assert found.num_samples == sum(shard["samples"] for shard in shards)
    assert found.column_names == tuple(first["column_names"])
    assert found.column_encodings == tuple(first["column_encodings"])
    assert found.column_sizes == tuple(size or None for size in first["column_sizes"])
    assert found.compression == first["compression"]
    for kind, noted in (("raw_data", found.hashes), ("zip_data", found.compressed_hashes)):
        entries = [shard[kind] or {"hashes": {}} for shard in shards]
        assert set(noted) == {algorithm for entry in entries for algorithm in entry["hashes"]}
        for algorithm, digests in noted.items():
            assert [d.decode() for d in digests] == [entry["hashes"].get(algorithm, "") for entry in entries]
    if found.compression:
        assert found.compressed_files == tuple(shard["zip_data"]["basename"] for shard in shards)
        assert found.compressed_bytes.tolist() == [shard["zip_data"]["bytes"] for shard in shards]


@given(index=indexes(), data=st.data())
def test_whatever_tells_shards_apart_is_in_the_fingerprint(tmp_path_factory, index, data):
    directory = tmp_path_factory.mktemp("index")
    path = directory / "index.json"
    path.write_text(json.dumps(index))
    before = read_index(directory)
    shard = data.draw(st.sampled_from(index["shards"]))
    what = data.draw(st.sampled_from(["samples", "bytes", "basename", "hashes", "columns"]))
    if what == "samples":
        shard["samples"] += 1
    elif what == "bytes":
        shard["raw_data"]["bytes"] ^= 1
    elif what == "basename":
        shard["raw_data"]["basename"] += "x"
    elif what == "hashes":
        shard["raw_data"]["hashes"]["sha1"] = "0"
    else:
        for each in index["shards"]:
            each["column_names"] = [*each["column_names"][:-1], "another"]
    path.write_text(json.dumps(index))
    assert read_index(directory).fingerprint != before.fingerprint


@given(index=indexes(), data=st.data())
def test_any_value_of_another_type_is_refused_or_read_by_no_other_error(tmp_path_factory, index, data):
    """One place of the index is replaced: an index, or an error of ours."""
    directory = tmp_path_factory.mktemp("index")
    shard = data.draw(st.sampled_from(index["shards"]))
    place = data.draw(st.sampled_from([shard, shard["raw_data"], shard["zip_data"] or shard, index]))
    key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(
        st.sampled_from([None, -1, 1.5, True, "", "x", [], {}, [None], [-1], {"basename": 1}, {"raw_data": 1}, 10**30])
    )
    (directory / "index.json").write_text(json.dumps(index))
    try:
        found = read_index(directory)
    except StreamError:
        return
    assert len(found.files) == len(found.file_bytes) == len(found.shard_samples) == len(index["shards"])
    assert np.all(found.shard_samples >= 1)
    assert np.all(found.file_bytes >= 0)


def test_json_of_too_many_levels_is_refused(tmp_path):
    (tmp_path / "index.json").write_text('{"shards": ' + "[" * 100_000)
    with pytest.raises(StreamError, match="not JSON"):
        read_index(tmp_path)
