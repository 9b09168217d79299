"""`mixstream inspect`: streams, languages, some streams only."""

from __future__ import annotations

import json

import pytest
from conftest import SIZES, write_stream

from mixstream import Catalog
from mixstream.errors import StreamError


def test_languages_are_added_up(call, streams, tmp_path):
    for name in ("eu.web", "eu.tales", "ca.web"):
        write_stream(tmp_path / "streams", name, 0, 10)
    code, out, err = call("inspect", tmp_path / "streams")
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    place = rows.index(["language", "streams", "documents", "tokens", "of", "all", "tokens"])
    assert rows[place + 1 :] == [
        ["ca", "1", "10", "80", "33.33%"],
        ["eu", "2", "20", "160", "66.67%"],
        ["all", "languages", "3", "30", "240", "100.00%"],
    ]


def test_some_streams_only(call, streams):
    code, out, _ = call("inspect", streams, "--stream", "eu.tales", "--stream", "ca.tales", "--json")
    assert code == 0
    found = json.loads(out)["streams"]
    assert [own["name"] for own in found] == ["ca.tales", "eu.tales"]
    assert [own["num_samples"] for own in found] == [60, 23]
    for own in found:
        shards = (streams / own["name"]).glob("*.mds")
        assert own["stored_bytes"] == sum(shard.stat().st_size for shard in shards)
    code, out, _ = call("inspect", streams, "--stream", "eu.tales")
    assert "language " not in out
    code, out, err = call("inspect", streams, "--stream", "eu.tale")
    assert (code, out) == (2, "")
    assert err.endswith("holds no stream 'eu.tale'; did you mean 'eu.tales'?\n")


def test_a_catalog_of_some_streams(catalog):
    some = catalog.only(["gl.tales", "ca.tales"])
    assert isinstance(some, Catalog)
    assert some.sizes == {name: SIZES[name] for name in ("ca.tales", "gl.tales")}
    with pytest.raises(StreamError, match=r"holds no stream 'xx'"):
        catalog.only(["ca.tales", "xx"])
