"""`inspect`: what streams hold, and some of their texts; the same each time, here and in an object store."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from conftest import compress, save_manifest, write_stream
from documented import Text, texts, write_documented

from mixstream import Catalog
from mixstream.cli import main
from mixstream.cli.texts import find_decoder
from mixstream.errors import ShardError, TokenizerError
from mixstream.streams.manifest import TokenizerInfo
from mixstream.streams.place import find_place
from mixstream.streams.survey import sample_tokens, survey_streams
from mixstream.streams.upload import upload_streams


@pytest.fixture
def call(capsys):
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def root(tmp_path):
    counts = {"rejected_documents": 3, "duplicate_documents": 0, "excluded_documents": 1234}
    write_documented(tmp_path / "eu.a", texts(90), quality=True, **counts)
    write_documented(tmp_path / "eu.a" / "heldout", texts(20, seed=1), quality=True, split="heldout")
    write_documented(tmp_path / "eu.b", texts(30), layout="documents")
    return tmp_path


def all_tokens(documents):
    return [token for document in documents for token in document.tokens]


def test_all_that_is_known_is_told(root):
    write_stream(root, "eu.plain", 0, 30)
    (root / "eu.plain" / "stream.json").unlink()
    packed, padded, plain = survey_streams(Catalog.open(root), 0, find_decoder).streams
    tokens = all_tokens(texts(90))
    assert (packed.name, packed.language, packed.domain, packed.layout) == ("eu.a", "eu", "a", "packed")
    assert (packed.num_documents, packed.num_bytes, packed.num_samples) == (90, len(tokens) - 90, len(tokens) // 8)
    assert packed.tokens_per_byte == len(tokens) / (len(tokens) - 90)
    assert packed.heldout_samples == len(all_tokens(texts(20, seed=1))) // 8
    assert (packed.rejected_documents, packed.excluded_documents, packed.texts) == (3, 1234, ())
    own = all_tokens(texts(30))
    assert (padded.num_samples, padded.num_tokens, padded.layout) == (30, 240, "documents")
    assert padded.tokens_per_byte == len(own) / (len(own) - 30)
    assert padded.heldout_samples == 0
    assert (plain.num_documents, plain.tokens_per_byte, plain.tokenizer, plain.language) == (None, None, None, None)


def test_texts_are_spread_over_the_stream_and_the_same_each_time(root):
    write_stream(root, "eu.plain", 0, 30)
    (root / "eu.plain" / "stream.json").unlink()
    packed, padded, plain = survey_streams(Catalog.open(root), 3, find_decoder).streams
    assert survey_streams(Catalog.open(root), 3, find_decoder).streams == (packed, padded, plain)
    tokens, count = all_tokens(texts(90)), packed.num_samples
    assert [text.sample for text in packed.texts] == [count // 6, count // 2, 5 * count // 6]
    for shown in packed.texts:
        row = tokens[8 * shown.sample : 8 * shown.sample + 8]
        assert shown.text == "".join("\n" if token == 256 else chr(token) for token in row)
    for shown in padded.texts:
        assert shown.text == texts(30)[shown.sample].text[:8]  # without the padding
    assert plain.texts == ()
    assert "nobody wrote down which tokenizer" in plain.no_texts
    many = survey_streams(Catalog.open(root), 1000, find_decoder).streams[1]
    assert [text.sample for text in many.texts] == list(range(30))


def test_an_object_store_is_shown_the_same_and_only_rows_are_fetched(root, bucket, proxy):
    url = f"{bucket.url}/streams"
    upload_streams(root, url)
    proxy.clear()
    found = survey_streams(Catalog.open(url), 2, find_decoder)
    asked = {
        record.path.rpartition("/")[2] for record in proxy.log() if record.method == "GET" and ".mds" in record.path
    }
    assert len(asked) == 4  # of 10 and 3 shards: two texts a stream
    assert found.streams == survey_streams(Catalog.open(root), 2, find_decoder).streams
    stream = Catalog.open(url)["eu.a"]
    shard = find_place(f"{url}/eu.a/shard.00000.mds")
    content = shard.read_bytes()
    shard.put(content[:4] + b"\xff\xff\xff\x7f" + content[8:])
    with pytest.raises(ShardError, match=r"shard.00000.mds: row 0 ends behind the object; upload the stream again"):
        sample_tokens(stream, 0)
    shard.delete()
    with pytest.raises(ShardError, match=r"shard.00000.mds: no such object, but index.json lists it"):
        sample_tokens(stream, 0)


def test_compressed_shards_are_shown_too(root, bucket):
    raw = survey_streams(Catalog.open(root), 2, find_decoder)
    compress(root)
    upload_streams(root, f"{bucket.url}/streams")
    for place in (root, f"{bucket.url}/streams"):
        found = survey_streams(Catalog.open(place), 2, find_decoder).streams
        for own, was in zip(found, raw.streams, strict=True):
            assert own.stored_bytes != was.stored_bytes  # of the files as they are
            assert own == was.model_copy(update={"stored_bytes": own.stored_bytes})


def test_the_command_prints_a_table_and_what_was_left_out(root, call):
    code, out, _ = call("inspect", root, "--texts", 1)
    assert code == 0
    tokens = all_tokens(texts(90))
    lines = [line.split() for line in out.splitlines()]
    assert lines[1][:5] == ["eu.a", "90", f"{len(tokens) // 8 * 8:,}", f"{len(tokens) - 90:,}", f"{len(tokens) // 8:,}"]
    assert "eu.a: left out 3 rejected, 1,234 excluded documents" in out
    assert f"--- eu.b, sample 15\n{texts(30)[15].text[:8]}\n" in out


def test_the_command_prints_json_for_machines(root, call):
    code, out, err = call("inspect", root, "--json", "--texts", 2)
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["format"], told["version"], told["root"]) == ("mixstream.survey", 1, str(root))
    assert [own["name"] for own in told["streams"]] == ["eu.a", "eu.b"]
    assert told["streams"][0]["num_documents"] == 90
    assert len(told["streams"][1]["texts"]) == 2


def test_texts_of_a_tokenizer_json_are_told_while_it_is_the_same(tmp_path, call):
    from converters.tokens.tokenise import load_tokenizer

    path = tmp_path / "tokenizer.json"
    _word_level(["kaixo", "mundua", "<mine>"]).save(str(path))
    loaded = load_tokenizer(str(path), "<mine>")
    made = write_documented(tmp_path / "streams" / "eu.a", [Text("a" * 7)], length=8)
    save_manifest(tmp_path / "streams" / "eu.a", made.model_copy(update={"tokenizer": loaded.info}))
    decode = find_decoder(loaded.info)
    assert decode(np.array([0, 1])).replace(" ", "") == "kaixomundua"
    other = shutil.copy(path, tmp_path / "other.json")
    _word_level(["kaixo", "mendia", "<mine>"]).save(str(path))
    with pytest.raises(TokenizerError, match=r"has fingerprint .*, the stream was made with .*: it has changed since"):
        find_decoder(loaded.info)
    path.write_text("{}")
    with pytest.raises(TokenizerError, match="cannot be read"):
        find_decoder(loaded.info)
    path.unlink()
    code, out, _ = call("inspect", tmp_path / "streams", "--texts", 1)
    assert code == 0
    assert f"eu.a: no texts: there is no tokenizer '{path}' here" in out
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.move(other, folder / "tokenizer.json")
    info = load_tokenizer(str(folder), "<mine>").info
    assert find_decoder(info)(np.array([1])) == "mundua"
    with pytest.raises(TokenizerError, match="there is no tokenizer 'hub/name' here"):
        find_decoder(TokenizerInfo(name="hub/name", fingerprint="x", vocab_size=3, eod_token_id=2))


def _word_level(words):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([words[-1]])
    return tokenizer
