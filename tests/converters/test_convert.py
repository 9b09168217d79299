from __future__ import annotations

import time

import numpy as np
import pytest
from conftest import CORPORA, REPOSITORY, needs_corpora
from converting import convert, tokens_of, write_corpus, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.documents import Fields, is_held_out
from converters.readers import Asked, read_span, spans
from converters.sources import by_stream, find_files
from converters.tokens.tokenise import ByteTokenizer, HuggingFaceTokenizer, load_tokenizer
from mixstream import Catalog, build_plan
from mixstream.errors import CorpusError, ShardError, StreamError, TokenizerError
from mixstream.streams.manifest import read_manifest

BYTE = ByteTokenizer()


def documents_of(file, stream):
    """Read all documents of a source, span by span."""
    fields = Fields("text", None, *stream.split("."))
    asked = Asked(fields.asked, optional=fields.optional)
    return [fields.document(row.values) for span in spans(file, 1 << 16) for row in read_span(file, span, asked)]


texts = st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60).filter(str.strip), max_size=30)


@given(
    documents=texts,
    length=st.integers(2, 50),
    span_bytes=st.integers(1, 3000),
    shard_samples=st.integers(1, 9),
    holdout=st.sampled_from([0.0, 0.4]),
)
@settings(max_examples=40)
def test_no_token_is_lost(tmp_path_factory, documents, length, span_bytes, shard_samples, holdout):
    """However a corpus is cut into spans, samples and shards, they hold its documents' tokens, in order."""
    folder = tmp_path_factory.mktemp("packing")
    rows = [{"id": str(i), "text": text} for i, text in enumerate([*documents, "x" * 50])]
    path = write_lines(folder / "eu.a.jsonl", rows)
    sizes = {
        "sequence_length": length,
        "span_bytes": span_bytes,
        "shard_bytes": 1024 + shard_samples * (2 * length + 4),
    }
    rows = [row for row in rows if not is_held_out(row["id"], holdout)]
    joined = [token for row in rows for token in [*row["text"].encode(), 256]]
    if len(joined) < length:
        with pytest.raises(CorpusError, match=f"{len(joined)} tokens are fewer than one sample of {length}"):
            convert([path], folder / "out", holdout=holdout, **sizes)
        return
    (converted,) = convert([path], folder / "out", holdout=holdout, **sizes)
    found = tokens_of(folder / "out" / "eu.a")
    manifest = converted.manifests["eu.a"]["train"]
    assert found.ravel().tolist() == joined[: len(joined) // length * length]
    assert manifest.num_tokens + manifest.remainder_tokens == len(joined)
    assert manifest.num_documents == len(rows)


@given(st.text(st.characters(codec="utf-8")))
def test_bytes_decode_to_the_text(text):
    assert BYTE.decode(BYTE.encode([text])[0]) == text


def test_conversion_is_linear_in_a_documents_length(tmp_path):
    """Ten times the tokens take at most about ten times as long; where the rest is copied for every sample, a hundred."""

    def seconds(num_tokens):
        path = write_corpus(tmp_path / str(num_tokens) / "eu.a.jsonl", ["x" * num_tokens])
        started = time.process_time()
        convert([path], tmp_path / f"out-{num_tokens}", holdout=0.0, sequence_length=64)
        return time.process_time() - started

    seconds(1000)
    short = seconds(1_000_000)
    assert seconds(10_000_000) < 30 * short


@needs_corpora
def test_real_text_in_three_formats_round_trips(tmp_path):
    """Every document of a real corpus comes back from its stream, in order, held out or not."""
    for name in ("eu.spoken.txt.gz", "ca.commands.parquet", "gl.spoken.jsonl.zst"):
        (converted,) = convert([CORPORA / name], tmp_path, holdout=0.02)
        ((stream, manifests),) = converted.manifests.items()
        train, heldout = manifests["train"], manifests["heldout"]
        documents = documents_of(find_files([CORPORA / name]).files[0].file, stream)
        assert train.num_documents + heldout.num_documents == len(documents)
        assert train.num_bytes + heldout.num_bytes == sum(len(d.text.encode()) for d in documents)
        for split, directory in (("train", tmp_path / train.name), ("heldout", tmp_path / train.name / "heldout")):
            manifest = manifests[split]
            own = [d.text for d in documents if is_held_out(d.id, 0.02) == (split == "heldout")]
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
    assert converted.manifests == {"eu.wiki": {"train": train, "heldout": heldout}}
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
    assert all(is_held_out(str(i), 0.3) for i in range(999) if is_held_out(str(i), 0.2))


def test_files_of_a_folder_make_one_stream(tmp_path):
    for part in ("a", "b"):
        write_corpus(tmp_path / "in" / "eu.wiki" / f"{part}.jsonl", [f"{part} {i} " * 9 for i in range(20)])
    (converted,) = convert([tmp_path / "in"], tmp_path / "out")
    sources = converted.manifests["eu.wiki"]["train"].sources
    assert [source.name for source in sources] == ["eu.wiki/a.jsonl", "eu.wiki/b.jsonl"]
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


def test_the_end_of_documents_is_part_of_what_a_tokenizer_is(tmp_path, tokenizer_json):
    one, two = (load_tokenizer(str(tokenizer_json), token).info for token in ("<|endoftext|>", "<mask>"))
    assert one.fingerprint != two.fingerprint
    path = write_corpus(tmp_path / "eu.a.jsonl", ["kaixo mundua"] * 40)
    convert([path], tmp_path / "out", tokenizer=str(tokenizer_json))
    with pytest.raises(StreamError, match="made with another tokenizer"):
        convert([path], tmp_path / "out", tokenizer=str(tokenizer_json), eod_token="<mask>")
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


def test_ids_of_a_vocabulary_with_gaps_are_written_as_they_are(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"<eod>": 0, "[UNK]": 1, "kaixo": 70_000}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "gaps.json"))
    ours = load_tokenizer(str(tmp_path / "gaps.json"))
    assert ours.info.vocab_size == 70_001
    path = write_corpus(tmp_path / "eu.a.jsonl", ["kaixo kaixo"] * 20)
    convert([path], tmp_path / "out", tokenizer=str(tmp_path / "gaps.json"), holdout=0.0, sequence_length=3)
    assert tokens_of(tmp_path / "out" / "eu.a")[0].tolist() == [70_000, 70_000, 0]


def test_a_token_beyond_the_vocabulary_is_refused(tmp_path, tokenizer_json, monkeypatch):
    """A tokenizer whose library makes tokens that it does not list."""
    monkeypatch.setattr(HuggingFaceTokenizer, "encode", lambda self, texts: [np.array([300]) for _ in texts])
    path = write_corpus(tmp_path / "eu.a.jsonl", ["kaixo"] * 40)
    size = load_tokenizer(str(tokenizer_json)).info.vocab_size
    with pytest.raises(TokenizerError, match=f"made token 300, but its vocabulary ends at {size - 1}"):
        convert([path], tmp_path / "out", tokenizer=str(tokenizer_json))
    assert not (tmp_path / "out").exists()


def test_a_bad_line_leaves_nothing_behind(tmp_path):
    """Where no span was finished: there is nothing to go on with."""
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


def test_files_that_make_no_stream_name_are_refused(tmp_path):
    path = write_corpus(tmp_path / "euskara.jsonl", ["kaixo"])
    with pytest.raises(CorpusError, match=r"makes a stream named 'euskara', expected LANGUAGE.DOMAIN such as eu.wiki"):
        convert([tmp_path], tmp_path / "out")
    with pytest.raises(CorpusError, match=r"--name euskara: makes a stream named 'euskara', expected LANGUAGE.DOMAIN"):
        convert([path], tmp_path / "out", name="euskara")


def test_less_than_a_sample_is_refused(tmp_path):
    path = write_corpus(tmp_path / "eu.a.jsonl", ["labur"])
    with pytest.raises(CorpusError, match="6 tokens are fewer than one sample of 32"):
        convert([path], tmp_path / "out", holdout=0.0)
    convert([path], tmp_path / "out", holdout=0.0, sequence_length=3)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["eu.a"]


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


def test_a_hugging_face_tokenizer(tmp_path, tokenizer_json):
    ours = load_tokenizer(str(tokenizer_json))
    path = write_corpus(tmp_path / "eu.a.jsonl", ["kaixo mundua, zer moduz zaude gaur"] * 40)
    (converted,) = convert([path], tmp_path / "out", tokenizer=str(tokenizer_json), holdout=0.0)
    manifest = converted.manifests["eu.a"]["train"]
    tokens = tokens_of(tmp_path / "out" / "eu.a").ravel()
    one = [*ours.encode(["kaixo mundua, zer moduz zaude gaur"])[0], 0]
    assert tokens[: len(one)].tolist() == one
    assert manifest.num_tokens + manifest.remainder_tokens == 40 * len(one)
    convert([write_corpus(tmp_path / "ca.a.jsonl", ["hola " * 60])], tmp_path / "out", holdout=0.0)
    with pytest.raises(StreamError, match="'eu.a' was made with tokenizer"):
        build_plan(Catalog.open(tmp_path / "out"), "uniform", 320, 1)


def test_the_corpus_that_ships_is_what_it_says():
    """60 to 120 KB, six languages, about 8 : 4 : 1, no document twice."""
    found = find_files([REPOSITORY / "recipes" / "quickstart"])
    sizes: dict[str, int] = {}
    seen = set()
    for stream, (file,) in by_stream(found).items():
        language = stream.partition(".")[0]
        for document in documents_of(file, stream):
            sizes[language] = sizes.get(language, 0) + len(document.content)
            assert document.text not in seen
            seen.add(document.text)
    assert found.ignored == ()
    assert 60_000 <= sum(sizes.values()) <= 120_000
    low = (sizes["eu"] + sizes["gl"]) / 2
    assert [sizes[language] / low for language in ("en", "es", "pt", "ca")] == pytest.approx([8, 8, 4, 4], rel=0.05)
