from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import CORPORA, REPOSITORY, needs_corpora
from converters.pack import Packer
from hypothesis import given
from hypothesis import strategies as st

from converters.documents import Document, is_held_out
from converters.run import Options, convert_corpus
from converters.sources import find_corpora
from converters.tokenise import ByteTokenizer, dtype_of, load_tokenizer
from mixstream import Catalog, build_plan
from mixstream.errors import CorpusError, ShardError, StreamError, TokenizerError
from mixstream.streams.manifest import TokenizerInfo, read_manifest

BYTE = ByteTokenizer()


def convert(paths, out, name=None, **options):
    options = {"tokenizer": BYTE, "sequence_length": 32, "holdout": 0.2} | options
    found = find_corpora([Path(path) for path in paths], name)
    return [convert_corpus(corpus, out, Options(**options), lambda n: None) for corpus in found.corpora]


def write_corpus(path, texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts))
    return path


def tokens_of(directory):
    from mixstream.streams.catalog import open_stream

    stream = open_stream(directory.name, directory)
    return np.concatenate([stream.open_shard(i).read(np.arange(n)) for i, n in enumerate(stream.index.shard_samples)])


texts = st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=30)


@given(texts, st.integers(1, 50))
def test_packing_loses_no_token(documents, length):
    packer = Packer(length, "uint16", 256)
    packed = [sample for text in documents for sample in packer.add(BYTE.encode([text])[0])]
    joined = np.concatenate([np.append(BYTE.encode([text])[0], 256) for text in documents])
    assert len(packed) * length + packer.filled == len(joined)
    assert np.concatenate([*packed, packer._sample[: packer.filled]]).tolist() == joined.tolist()


@given(st.text())
def test_bytes_decode_to_the_text(text):
    assert BYTE.decode(BYTE.encode([text])[0]) == text


def test_packing_is_linear_in_a_documents_length():
    """Ten times the tokens take about ten times as long; where the rest is copied for every sample, a hundred."""

    def seconds(num_tokens):
        document = np.zeros(num_tokens, np.uint16)
        packer = Packer(64, "uint16", 256)
        started = time.process_time()
        assert sum(1 for _ in packer.add(document)) == num_tokens // 64
        return time.process_time() - started

    short = min(seconds(200_000) for _ in range(3))
    assert seconds(2_000_000) < 35 * short


@needs_corpora
def test_real_text_in_three_formats_round_trips(tmp_path):
    """Every document of a real corpus comes back from its stream, in order, held out or not."""
    from converters.readers import read_documents

    for file in ("eu.spoken.txt.gz", "ca.commands.parquet", "gl.spoken.jsonl.zst"):
        (converted,) = convert([CORPORA / file], tmp_path, holdout=0.02)
        train, heldout = converted.manifests["train"], converted.manifests["heldout"]
        documents = list(read_documents(CORPORA / file, "text"))
        assert train.num_documents + heldout.num_documents == len(documents)
        assert train.num_bytes + heldout.num_bytes == sum(len(d.text.encode()) for d in documents)
        for split, directory in (("train", tmp_path / train.name), ("heldout", tmp_path / train.name / "heldout")):
            manifest = converted.manifests[split]
            own = [d.text for d in documents if is_held_out(d, 0.02) == (split == "heldout")]
            joined = "".join(text + "\x00" for text in own).encode()
            packed = np.where(tokens_of(directory) == 256, 0, tokens_of(directory)).astype(np.uint8).tobytes()
            assert manifest.num_tokens + manifest.remainder_tokens == len(joined)
            assert packed == joined[: manifest.num_tokens]


def test_streaming_reads_the_result_unchanged(tmp_path):
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    convert([REPOSITORY / "recipes" / "quickstart" / "eu.tales.jsonl"], tmp_path)
    clean_stale_shared_memory()
    for split, directory in ((None, tmp_path / "eu.tales"), ("heldout", tmp_path / "eu.tales" / "heldout")):
        dataset = StreamingDataset(local=str(tmp_path / "eu.tales"), split=split, batch_size=1, shuffle=False)
        theirs = np.stack([sample["tokens"] for sample in dataset])
        assert theirs.tolist() == tokens_of(directory).tolist()
        assert read_manifest(directory) is not None  # and it has deleted nothing of ours


def test_the_manifest_tells_what_the_stream_holds(tmp_path):
    path = write_corpus(tmp_path / "in" / "eu.wiki.jsonl", [f"dokumentua {i} {'x' * 40}" for i in range(50)])
    (converted,) = convert([path], tmp_path / "out")
    train = read_manifest(tmp_path / "out" / "eu.wiki")
    heldout = read_manifest(tmp_path / "out" / "eu.wiki" / "heldout")
    assert converted.manifests == {"train": train, "heldout": heldout}
    assert (train.name, train.language, train.domain, train.dtype) == ("eu.wiki", "eu", "wiki", "uint16")
    assert train.num_documents + heldout.num_documents == 50
    assert 0 < heldout.num_documents == train.heldout_documents < 25
    assert train.tokenizer == BYTE.info
    assert train.sources[0].name == "eu.wiki.jsonl"
    assert train.sources[0].size_bytes == path.stat().st_size
    # A byte is a token, and every document has one more.
    assert train.num_tokens + train.remainder_tokens == train.num_bytes + train.num_documents
    assert train.tokens_per_byte == 1 + train.num_documents / train.num_bytes


def test_a_document_is_held_out_whatever_else_there_is(tmp_path):
    """By its id alone: the same documents in another order, and with more beside them."""
    texts = [f"{i} agur {i}." for i in range(60)]
    write_corpus(tmp_path / "a" / "eu.a.jsonl", texts)
    write_corpus(tmp_path / "b" / "eu.a.jsonl", [*reversed(texts), "beste bat"])
    held_out = []
    for name in ("a", "b"):
        convert([tmp_path / name], tmp_path / f"out-{name}", sequence_length=2)
        packed = tokens_of(tmp_path / f"out-{name}" / "eu.a" / "heldout").ravel()
        held_out.append(set(BYTE.decode(packed).split("\n")[:-1]))  # the last may be cut
    assert 5 < len(held_out[0]) < 25
    assert len(held_out[0] ^ held_out[1] - {"beste bat"}) <= 2  # the last of each
    assert all(is_held_out(Document(str(i), ""), 0.3) for i in range(999) if is_held_out(Document(str(i), ""), 0.2))


def test_files_of_a_folder_make_one_stream(tmp_path):
    for part in ("a", "b"):
        write_corpus(tmp_path / "in" / "eu.wiki" / f"{part}.jsonl", [f"{part} {i} " * 9 for i in range(20)])
    (tmp_path / "in" / "README.md").write_text("# not a corpus")
    found = find_corpora([tmp_path / "in"])
    assert [path.name for path in found.ignored] == ["README.md"]
    assert [corpus.name for corpus in found.corpora] == ["eu.wiki"]
    (converted,) = convert([tmp_path / "in"], tmp_path / "out")
    assert [source.name for source in converted.manifests["train"].sources] == ["a.jsonl", "b.jsonl"]
    (named,) = convert([tmp_path / "in" / "eu.wiki" / "a.jsonl"], tmp_path / "out", name="eu.part-a")
    assert named.name == "eu.part-a"


def test_a_second_conversion_keeps_what_is_the_same_and_refuses_what_is_not(tmp_path):
    path = write_corpus(tmp_path / "eu.a.jsonl", [f"{i} testua " * 9 for i in range(20)])
    out = tmp_path / "out"
    (first,) = convert([path], out)
    stamp = (out / "eu.a" / "index.json").stat().st_mtime_ns
    (second,) = convert([path], out)
    assert second.kept
    assert second.manifests == first.manifests
    assert (out / "eu.a" / "index.json").stat().st_mtime_ns == stamp
    with pytest.raises(StreamError, match="made with another sequence length; choose another --out, or --overwrite"):
        convert([path], out, sequence_length=16)
    path.write_text(path.read_text().replace("testua", "textua"))
    with pytest.raises(StreamError, match="made with another sources"):
        convert([path], out)
    (third,) = convert([path], out, overwrite=True)
    assert not third.kept
    (out / "eu.a" / "stream.json").unlink()
    with pytest.raises(StreamError, match="is a stream already, not one that mixstream made whole; .* --overwrite"):
        convert([path], out)
    assert not convert([path], out, overwrite=True)[0].kept


def test_only_a_stream_is_ever_replaced(tmp_path):
    """Nothing that is no part of one: not a corpus, not a note beside the shards, not what a link leads to."""
    part = write_corpus(tmp_path / "eu.a" / "part.jsonl", ["kaixo " * 99])
    out = tmp_path / "out"
    for overwrite in (False, True):
        with pytest.raises(StreamError, match=r"part.jsonl: is there already and is no part of a stream; choose"):
            convert([tmp_path], tmp_path, overwrite=overwrite)
    (out / "eu.a").mkdir(parents=True)  # an empty folder is in nobody's way
    assert not convert([part], out, name="eu.a", holdout=0.0)[0].kept
    for place in ("notes.txt", "heldout/corpus.jsonl", "heldout/heldout/index.json", "shard.00000.mds.bak/x"):
        foreign = out / "eu.a" / place
        foreign.parent.mkdir(exist_ok=True, parents=True)
        foreign.write_text("precious")
        with pytest.raises(StreamError, match="no part of a stream"):
            convert([part], out, name="eu.a", overwrite=True)
        assert foreign.read_text() == "precious"
        foreign.unlink()
        for folder in (foreign.parent, foreign.parent.parent):
            if folder not in (out, out / "eu.a"):
                folder.rmdir()
    (out / "eu.b").symlink_to(out / "eu.a")
    with pytest.raises(StreamError, match=r"eu.b: is there already and is no part"):
        convert([part], out, name="eu.b", overwrite=True)
    (out / "eu.a" / "index.json").unlink()
    with pytest.raises(StreamError, match="--overwrite it"):
        convert([part], out, name="eu.a")
    assert not convert([part], out, name="eu.a", overwrite=True)[0].kept


def test_a_file_given_twice_is_refused(tmp_path):
    path = write_corpus(tmp_path / "eu.a.jsonl", ["kaixo"])
    with pytest.raises(CorpusError, match=r"eu.a.jsonl: is given twice"):
        find_corpora([tmp_path, path])


def test_the_end_of_documents_is_part_of_what_a_tokenizer_is(tmp_path, tokenizer_json):
    one, two = (load_tokenizer(str(tokenizer_json), token).info for token in ("<|endoftext|>", "<mask>"))
    assert one.fingerprint != two.fingerprint
    path = write_corpus(tmp_path / "eu.a.jsonl", ["kaixo mundua"] * 40)
    convert([path], tmp_path / "out", tokenizer=load_tokenizer(str(tokenizer_json)))
    with pytest.raises(StreamError, match="made with another tokenizer"):
        convert([path], tmp_path / "out", tokenizer=load_tokenizer(str(tokenizer_json), "<mask>"))
    with pytest.raises(TokenizerError, match="'byte' ends documents with token 256, not '<mask>'"):
        load_tokenizer("byte", "<mask>")
    with pytest.raises(TokenizerError, match="a folder without a tokenizer.json"):
        load_tokenizer(str(tmp_path))


def test_a_stream_that_is_damaged_is_not_kept(tmp_path):
    path = write_corpus(tmp_path / "eu.a.jsonl", [f"{i} testua " * 9 for i in range(40)])
    convert([path], tmp_path / "out")
    for shard in ("shard.00000.mds", "heldout/shard.00000.mds"):
        content = (tmp_path / "out" / "eu.a" / shard).read_bytes()
        (tmp_path / "out" / "eu.a" / shard).write_bytes(content[:-1])
        with pytest.raises(ShardError, match="shard.00000.mds"):
            convert([path], tmp_path / "out")
        (tmp_path / "out" / "eu.a" / shard).write_bytes(content)
    assert convert([path], tmp_path / "out")[0].kept
    with pytest.raises(StreamError, match="made with another text field"):
        convert([path], tmp_path / "out", text_field="body")


def test_files_that_lie_too_deep_are_refused(tmp_path):
    write_corpus(tmp_path / "eu.wiki" / "part-1" / "a.jsonl", ["kaixo"])
    with pytest.raises(CorpusError, match=r"a.jsonl: lies two folders below"):
        find_corpora([tmp_path])


def test_ids_of_a_vocabulary_with_gaps_are_written_as_they_are(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"<eod>": 0, "[UNK]": 1, "kaixo": 70_000}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "gaps.json"))
    ours = load_tokenizer(str(tmp_path / "gaps.json"))
    assert ours.info.vocab_size == 70_001
    path = write_corpus(tmp_path / "eu.a.jsonl", ["kaixo kaixo"] * 20)
    convert([path], tmp_path / "out", tokenizer=ours, holdout=0.0, sequence_length=3)
    assert tokens_of(tmp_path / "out" / "eu.a")[0].tolist() == [70_000, 70_000, 0]


def test_a_token_beyond_the_vocabulary_is_refused(tmp_path):
    class Broken(ByteTokenizer):
        def encode(self, texts):
            return [np.array([300]) for _ in texts]

    path = write_corpus(tmp_path / "eu.a.jsonl", ["kaixo"] * 40)
    with pytest.raises(TokenizerError, match="made token 300, but its vocabulary ends at 256"):
        convert([path], tmp_path / "out", tokenizer=Broken())


def test_a_bad_line_leaves_nothing_behind(tmp_path):
    path = write_corpus(tmp_path / "eu.a.jsonl", ["ona " * 30] * 600)
    path.write_text(path.read_text() + "{broken\n")
    with pytest.raises(CorpusError, match="line 601"):
        convert([path], tmp_path / "out")
    with pytest.raises(CorpusError, match="line 601"):
        convert([path], tmp_path / "out" / "deep")
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(CorpusError, match="line 601"):
        convert([path], tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("euskara.jsonl", r"makes a stream named 'euskara', expected LANGUAGE.DOMAIN such as eu.wiki"),
        (".jsonl", "no corpus file in it"),
        ("eu. wiki.jsonl", "expected LANGUAGE.DOMAIN"),
    ],
)
def test_files_that_make_no_stream_name_are_refused(tmp_path, name, message):
    write_corpus(tmp_path / name, ["kaixo"])
    with pytest.raises(CorpusError, match=message):
        find_corpora([tmp_path])


def test_missing_and_empty_corpora_are_refused(tmp_path):
    with pytest.raises(CorpusError, match="no such file or folder"):
        find_corpora([tmp_path / "nowhere"])
    with pytest.raises(CorpusError, match=r"no corpus file in it \(known: \*\.jsonl"):
        find_corpora([tmp_path])
    (tmp_path / "eu.a.jsonl").touch()
    with pytest.raises(CorpusError, match=r"eu.a.jsonl: empty; leave it out or fill it"):
        find_corpora([tmp_path])
    path = write_corpus(tmp_path / "eu.a.jsonl", ["labur"])
    with pytest.raises(CorpusError, match="6 tokens are fewer than one sample of 32"):
        convert([path], tmp_path / "out", holdout=0.0)


@pytest.fixture
def tokenizer_json(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|endoftext|>", "<mask>"], show_progress=False)
    tokenizer.train_from_iterator(["kaixo mundua, zer moduz zaude gaur"] * 20, trainer)
    path = tmp_path / "bpe" / "tokenizer.json"
    path.parent.mkdir()
    tokenizer.save(str(path))
    return path


def test_a_hugging_face_tokenizer_by_its_file_or_folder(tmp_path, tokenizer_json):
    ours = load_tokenizer(str(tokenizer_json))
    assert ours.info == load_tokenizer(str(tokenizer_json.parent)).info.model_copy(update={"name": ours.info.name})
    assert ours.info.eod_token_id == 0
    path = write_corpus(tmp_path / "eu.a.jsonl", ["kaixo mundua, zer moduz zaude gaur"] * 40)
    (converted,) = convert([path], tmp_path / "out", tokenizer=ours, holdout=0.0)
    manifest = converted.manifests["train"]
    tokens = tokens_of(tmp_path / "out" / "eu.a").ravel()
    one = [*ours._tokenizer.encode("kaixo mundua, zer moduz zaude gaur").ids, 0]
    assert tokens[: len(one)].tolist() == one
    assert manifest.num_tokens + manifest.remainder_tokens == 40 * len(one)
    convert([write_corpus(tmp_path / "ca.a.jsonl", ["hola " * 60])], tmp_path / "out", holdout=0.0)
    with pytest.raises(StreamError, match="'eu.a' was made with tokenizer"):
        build_plan(Catalog.open(tmp_path / "out"), "uniform", 320, 1)


def test_tokenizers_that_cannot_be_used_are_refused(tokenizer_json, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TokenizerError, match="'nobody/nothing': neither 'byte', nor a tokenizer.json, nor to be had"):
        load_tokenizer("nobody/nothing")
    with pytest.raises(TokenizerError, match="has none of <eot>; name its end-of-document token with --eod-token"):
        load_tokenizer(str(tokenizer_json), "<eot>")
    assert load_tokenizer(str(tokenizer_json), "<mask>").info.eod_token_id == 1
    tokenizer_json.write_text("{}")
    with pytest.raises(TokenizerError, match="not a tokenizer of the tokenizers library"):
        load_tokenizer(str(tokenizer_json))


def test_the_type_follows_the_vocabulary():
    info = {"name": "x", "fingerprint": "x", "eod_token_id": 0}
    assert dtype_of(TokenizerInfo(**info, vocab_size=65536)) == "uint16"
    assert dtype_of(TokenizerInfo(**info, vocab_size=65537)) == "uint32"


def test_the_corpus_that_ships_is_what_it_says():
    """60 to 120 KB, six languages, about 8 : 4 : 1, no document twice."""
    found = find_corpora([REPOSITORY / "recipes" / "quickstart"])
    from converters.readers import read_documents

    sizes: dict[str, int] = {}
    seen = set()
    for corpus in found.corpora:
        for document in read_documents(corpus.files[0], "text"):
            sizes[corpus.language] = sizes.get(corpus.language, 0) + len(document.text.encode())
            assert document.text not in seen
            seen.add(document.text)
    assert found.ignored == ()
    assert 60_000 <= sum(sizes.values()) <= 120_000
    low = (sizes["eu"] + sizes["gl"]) / 2
    assert [sizes[language] / low for language in ("en", "es", "pt", "ca")] == pytest.approx([8, 8, 4, 4], rel=0.05)
