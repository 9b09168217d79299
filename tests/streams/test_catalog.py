from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import BYTE, SIZES, write_stream

from mixstream import Catalog
from mixstream.errors import FormatError, ShardError, StreamError


def test_a_catalog_tells_its_streams(catalog, streams):
    assert len(catalog) == 5
    assert catalog.names == tuple(SIZES)
    assert catalog.sizes == SIZES
    assert catalog.tokens == {name: 8 * size for name, size in SIZES.items()}
    assert catalog["eu.tales"].language == "eu"
    assert catalog["eu.tales"].domain == "tales"
    assert [stream.name for stream in catalog] == list(SIZES)
    assert catalog.root == streams


def test_held_out_splits_are_catalogs_too(streams):
    heldout = Catalog.open(streams, split="heldout")
    assert list(heldout.sizes.values()) == [3, 4, 5, 6, 7]


def test_a_single_stream_is_a_catalog_of_one(streams):
    one = Catalog.open(streams / "eu.tales")
    assert one.names == ("eu.tales",)
    assert one.root == streams


def test_a_plain_mds_directory_is_a_stream(tmp_path, streams):
    """Named after its folder, sized from index.json; what nobody wrote down is unknown."""
    shutil.copytree(streams / "eu.tales", tmp_path / "basque-web")
    (tmp_path / "basque-web" / "stream.json").unlink()
    (tmp_path / "notes").mkdir()
    (tmp_path / "README").write_text("not a stream")
    catalog = Catalog.open(tmp_path)
    assert catalog.sizes == {"basque-web": 23}
    stream = catalog["basque-web"]
    assert (stream.language, stream.domain, stream.tokenizer, stream.tokens_per_byte) == (None, None, None, None)


def test_an_unknown_stream_is_told_with_the_nearest(catalog):
    with pytest.raises(StreamError, match=r"holds no stream 'eu.tale'; did you mean 'eu.tales'"):
        catalog["eu.tale"]


def test_what_is_no_catalog_is_refused(tmp_path):
    with pytest.raises(StreamError, match="no such folder; `mixstream convert`"):
        Catalog.open(tmp_path / "nowhere")
    with pytest.raises(StreamError, match="holds no stream, that is no folder with an index.json"):
        Catalog.open(tmp_path)
    with pytest.raises(StreamError, match="holds no stream with a 'heldout' split"):
        write_stream(tmp_path, "eu.a", 0, 5)
        Catalog.open(tmp_path, split="heldout")
    write_stream(tmp_path / "data" / "streams", "eu.b", 0, 5)
    with pytest.raises(
        StreamError, match=r"data: holds no stream, but .*/streams/eu.b is one; open .*/data/streams, or"
    ):
        Catalog.open(tmp_path / "data")
    with pytest.raises(StreamError, match="is a URL that lost a slash, .*; write S3://bucket/streams"):
        Catalog.open(Path("S3://bucket/streams"))


def test_a_manifest_that_disagrees_with_the_index_is_refused(tmp_path, edit_json):
    write_stream(tmp_path, "eu.a", 0, 5)
    edit_json(tmp_path / "eu.a" / "stream.json", lambda m: m.update(num_samples=6))
    with pytest.raises(
        StreamError, match=r"stream.json says \(6, 8, 40, 'uint16'\), index.json \(5, 8, 40, 'uint16'\)"
    ):
        Catalog.open(tmp_path)
    edit_json(tmp_path / "eu.a" / "stream.json", lambda m: m.update(num_samples="5"))
    with pytest.raises(FormatError, match=r"num_samples: .*\(found '5'\)"):
        Catalog.open(tmp_path)
    edit_json(tmp_path / "eu.a" / "stream.json", lambda m: m.update(langauge="eu"))
    with pytest.raises(FormatError, match=r"unknown key 'langauge'; did you mean 'language'"):
        Catalog.open(tmp_path)


def test_a_stream_that_lost_its_index_is_not_left_out_in_silence(tmp_path):
    write_stream(tmp_path, "eu.a", 0, 5)
    write_stream(tmp_path, "eu.b", 0, 5)
    (tmp_path / "eu.b" / "index.json").unlink()
    with pytest.raises(StreamError, match="eu.b: holds parts of a stream but no index.json"):
        Catalog.open(tmp_path)
    write_stream(tmp_path, "eu.b", 0, 5, heldout=5)
    (tmp_path / "eu.b" / "heldout" / "index.json").unlink()
    with pytest.raises(StreamError, match="eu.b/heldout: holds parts of a stream but no index.json"):
        Catalog.open(tmp_path)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64"])
def test_a_manifest_can_be_given_to_what_others_wrote(tmp_path, dtype):
    """Of the keys, those that docs/formats.md shows in bold are enough; what was not written down is unknown."""
    from streaming import MDSWriter

    with MDSWriter(out=str(tmp_path / "eu.web"), columns={"input_ids": f"ndarray:{dtype}:8"}) as writer:
        for row in range(10):
            writer.write({"input_ids": np.full(8, row, dtype)})
    manifest = {
        "name": "eu.web",
        "language": "eu",
        "domain": "web",
        "num_samples": 10,
        "sequence_length": 8,
        "num_tokens": 80,
        "dtype": dtype,
        "tokenizer": BYTE.model_dump(),
    }
    (tmp_path / "eu.web" / "stream.json").write_text(json.dumps(manifest))
    write_stream(tmp_path, "eu.b", 0, 5)
    catalog = Catalog.open(tmp_path)
    catalog.check_alike()
    assert (catalog["eu.web"].tokenizer, catalog["eu.web"].tokens_per_byte) == (BYTE, None)
    assert catalog["eu.web"].column.name == "input_ids"


def test_streams_of_other_tokenizers_or_lengths_are_told_apart(tmp_path):
    write_stream(tmp_path, "eu.a", 0, 5, heldout=5)
    write_stream(tmp_path, "eu.b", 0, 5, tokenizer=BYTE.model_copy(update={"fingerprint": "byte-2"}))
    with pytest.raises(StreamError, match=r"'eu.b' was made with tokenizer 'byte' \(fingerprint byte-2\), 'eu.a' with"):
        Catalog.open(tmp_path).check_alike()
    (tmp_path / "eu.a" / "heldout" / "stream.json").unlink()
    with pytest.raises(StreamError, match=r"'eu.a/heldout' was made with tokenizer unknown \(no stream.json\), 'eu.a'"):
        Catalog.open(tmp_path).heldout()


def test_two_folders_that_claim_one_name_are_refused(tmp_path):
    write_stream(tmp_path, "eu.a", 0, 5)
    shutil.copytree(tmp_path / "eu.a", tmp_path / "eu.b")
    with pytest.raises(StreamError, match=r"eu.a and .*eu.b both claim the name 'eu.a'"):
        Catalog.open(tmp_path)
    shutil.rmtree(tmp_path / "eu.a")
    assert Catalog.open(tmp_path).names == ("eu.b",)  # renamed, and nobody else has the name
    write_stream(tmp_path, "eu.a", 0, 5)
    (tmp_path / "eu.a" / "stream.json").unlink()
    with pytest.raises(StreamError, match=r"eu.a and .*eu.b both claim the name 'eu.a'"):
        Catalog.open(tmp_path)


def test_held_out_splits_are_those_of_the_catalogs_streams(streams):
    one = Catalog.open(streams / "eu.tales")
    assert one.heldout().sizes == {"eu.tales": 6}
    assert Catalog.open(streams).heldout().sizes == Catalog.open(streams, split="heldout").sizes
    assert Catalog.open(streams, split="heldout").heldout() is None


def test_missing_and_truncated_shards_are_found_without_reading(tmp_path):
    write_stream(tmp_path, "eu.a", 0, 30)
    stream = Catalog.open(tmp_path)["eu.a"]
    stream.check_files()
    shard = tmp_path / "eu.a" / "shard.00003.mds"
    shard.write_bytes(shard.read_bytes() + b"x")
    with pytest.raises(ShardError, match=r"shard.00003.mds: \d+ bytes, index.json says"):
        stream.check_files()
