"""A tokenizer trained on several languages, and how fair it is to each."""

from __future__ import annotations

import json
import random

import pytest
from conftest import REPOSITORY
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from converters.config import FieldsConfig, corpora_of_paths
from converters.documents import Document, is_held_out
from converters.tokens.fertility import Fertility, count_words, measure, rows_of
from converters.tokens.reading import Reading
from converters.tokens.tokenise import ByteTokenizer, load_tokenizer
from converters.tokens.training import Training, allocate, is_sampled, train
from mixstream.cli import main
from mixstream.errors import CorpusError, TokenizerError

QUICKSTART = REPOSITORY / "recipes" / "quickstart"
SIZES = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 10**12), min_size=1)


def documents(count=400, languages=("eu", "ca")):
    """Return made-up texts; those of the second language are a tenth of the first's."""
    chance = random.Random(3)
    found = []
    for rank, language in enumerate(languages):
        words = ["".join(chance.choices("aeioukztrnx", k=chance.randint(2, 8))) for _ in range(300)]
        for number in range(count // 10**rank):
            text = " ".join(chance.choices(words, k=30)) + f" {language} {number}."
            found.append(Document(f"{language}{number}", f"{language}.wiki", text, text.encode(), ()))
    return found


@given(sizes=SIZES, temperature=st.floats(0, 1), total=st.integers(1, 10**13))
def test_the_sample_is_proportional_to_powers_of_sizes_and_what_is_full_gives_to_the_others(sizes, temperature, total):
    taken = allocate(sizes, temperature, total)
    assert taken.keys() == sizes.keys()
    assert all(0 <= taken[name] <= size for name, size in sizes.items())
    assert sum(taken.values()) == pytest.approx(min(total, sum(sizes.values())), rel=1e-9)
    ratios = {name: taken[name] / size**temperature for name, size in sizes.items()}
    level = max(ratios.values())
    for name, size in sizes.items():  # at the level of the others, or full below it
        assert ratios[name] == pytest.approx(level, rel=1e-6) or taken[name] == pytest.approx(size, rel=1e-6)


@given(share=st.floats(0, 1), more=st.floats(0, 1), seed=st.integers(0, 2**63 - 1), name=st.text())
def test_a_larger_share_holds_the_smaller_one(share, more, seed, name):
    if is_sampled(name, min(share, more), seed):
        assert is_sampled(name, max(share, more), seed)
    assert is_sampled(name, 1.0, seed)
    assert not is_sampled(name, 0.0, seed)


def test_the_same_documents_give_the_same_bytes_in_any_order():
    found = documents()
    shuffled = random.Random(5).sample(found, len(found))
    training = Training(vocab_size=400, sample_bytes=20_000)
    one, two = train(lambda: found, training), train(lambda: shuffled, training)
    assert one.json == two.json
    assert one.sample_bytes == two.sample_bytes
    assert sum(one.sample_bytes.values()) == pytest.approx(20_000, rel=0.2)
    assert one.sample_bytes["ca"] / one.size_bytes["ca"] > 2 * one.sample_bytes["eu"] / one.size_bytes["eu"]
    other = train(lambda: found, Training(vocab_size=400, sample_bytes=20_000, seed=18))
    assert other.json != one.json


def test_held_out_documents_are_never_trained_on():
    found = documents()
    held_out = [document for document in found if is_held_out(document.id, 0.1)]
    assert 20 < len(held_out) < 80
    secret = [
        document._replace(text="Ξ" * 50, content=("Ξ" * 50).encode()) if document in held_out else document
        for document in found
    ]
    training = Training(vocab_size=400, holdout=0.1)
    trained = train(lambda: secret, training)
    assert trained.json == train(lambda: [own for own in found if own not in held_out], training).json
    assert sum(trained.sample_bytes.values()) == sum(len(own.content) for own in found if own not in held_out)


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(CorpusError, match=r"no document to train on: all there are, if any, are held out \(0.02\)"):
        train(lambda: [], Training())
    with pytest.raises(TokenizerError, match=r"bytes of text make \d,?\d+ tokens, --vocab-size asks for 32,000"):
        train(documents, Training())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "tokenizer.json"
    path.write_text(train(documents, Training(vocab_size=400)).json, encoding="utf-8")
    return load_tokenizer(str(path))


@given(text=st.text())
def test_every_text_comes_back(trained, text):
    tokens = trained.encode([text])[0]
    assert trained.decode(tokens) == text
    assert len(tokens) <= len(text.encode())


def test_words_keep_their_marks_and_digits_stand_alone(trained):
    split = Tokenizer.from_str(trained.json).pre_tokenizer.pre_tokenize_str
    assert [end - start for _, (start, end) in split("नमस्ते दुनिया e\u0301te\u0301")] == [6, 7, 6]
    assert [piece for piece, _ in split("x 123")] == ["x", "Ġ", "1", "2", "3"]
    assert trained.info.vocab_size == 400
    assert (trained.info.eod_token_id, trained.pad_token_id) == (0, 1)
    assert trained._chunks is not None  # it is fast
    assert trained._locality is not None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("Kaixo, mundua!", 2),
        ("l'aigua de l’estany", 3),
        ("नमस्ते दुनिया", 2),
        ("日本語です。Hello", 6),
        ("ภาษาไทย", 7),
        ("ที่นี่", 2),
        ("안녕하세요 세계", 2),
    ],
)
def test_words(text, words):
    assert count_words(text) == words


def test_fertility_by_language_and_stream(trained):
    found = documents() + [
        own._replace(id=own.id + "b", stream="eu.books") for own in documents(40) if own.stream == "eu.wiki"
    ]
    streams = measure(found, trained, 0.0, 10**9)
    eu = [own for own in found if own.stream == "eu.wiki"]
    tokens = sum(len(part) for part in trained.encode([own.text for own in eu]))
    assert streams["eu.wiki"] == Fertility(len(eu), sum(len(own.content) for own in eu), 32 * len(eu), tokens)
    rows = rows_of(streams)
    assert [(row.language, row.stream) for row in rows] == [
        ("ca", None),
        ("ca", "ca.wiki"),
        ("eu", None),
        ("eu", "eu.books"),
        ("eu", "eu.wiki"),
    ]
    assert rows[2].fertility == streams["eu.wiki"] + streams["eu.books"]
    assert min(row.premium for row in rows if row.stream is None) == 1
    assert rows[0].premium == pytest.approx(rows[0].fertility.tokens_per_byte / rows[2].fertility.tokens_per_byte)
    bytewise = rows_of(measure(found, ByteTokenizer(), 0.0, 10**9))
    assert {row.premium for row in bytewise} == {1.0}
    assert bytewise[0].fertility.tokens_per_word == bytewise[0].fertility.bytes_per_word


def test_fertility_is_of_held_out_documents_and_no_more_than_asked_for():
    found = documents()
    held_out = [own for own in found if is_held_out(own.id, 0.1)]
    assert sum(own.documents for own in measure(found, ByteTokenizer(), 0.1, 10**9).values()) == len(held_out)
    few = measure(found, ByteTokenizer(), 0.0, 1000)
    assert all(1000 <= own.size_bytes < 1400 for own in few.values())
    with pytest.raises(
        CorpusError, match="no document is held out at --holdout 1e-09; give more text, or 0 to measure all"
    ):
        measure(found, ByteTokenizer(), 1e-9, 1000)


def test_documents_that_cannot_be_used_stop_the_reading_or_are_counted(tmp_path):
    path = tmp_path / "eu.wiki.jsonl"
    path.write_text('{"text": "bat"}\n{"text": null}\n{broken\n{"text": "bi"}\n')
    (tmp_path / "ca.wiki.parquet").write_bytes(b"not Parquet")
    corpora, _ = corpora_of_paths([str(path)], FieldsConfig(), None)
    with pytest.raises(CorpusError, match=r"eu.wiki.jsonl: line 2: .*holds nothing.*; mend it, or .*--on-error skip"):
        list(Reading().documents(corpora))
    reading = Reading(skips=True)
    for _ in range(2):  # counts are of the last reading
        assert [document.text for document in reading.documents(corpora)] == ["bat", "bi"]
        assert reading.num_left_out == 2
    assert "eu.wiki.jsonl: field 'text' holds nothing" in reading.first_left_out
    both, _ = corpora_of_paths([str(tmp_path)], FieldsConfig(), None)
    with pytest.raises(CorpusError, match=r"ca.wiki.parquet"):
        list(Reading().documents(both))
    assert len(list(reading.documents(both))) == 2
    assert reading.num_left_out == 3


@pytest.fixture
def call(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(["tokenizer", *map(str, arguments)])
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


def test_the_commands(call, tmp_path):
    out = tmp_path / "made" / "tokenizer.json"
    code, told, _ = call("train", QUICKSTART, "--vocab-size", 600, "--holdout", 0.15, "--out", out)
    assert code == 0
    assert f"600 tokens in {out}" in told
    assert "bytes trained on" in told
    assert "tokens/word  bytes/word  premium" in told
    code, told, _ = call("fertility", out, QUICKSTART, "--holdout", 0.15, "--json")
    assert code == 0
    rows = json.loads(told)["rows"]
    assert {row["language"] for row in rows} >= {"eu", "ca"}
    assert all(row["tokens"] < row["size_bytes"] for row in rows)
    code, told, _ = call("fertility", "byte", QUICKSTART, "--holdout", 0)
    assert code == 0
    assert "257 tokens; byte-level" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fertility", "byte"], "give files, folders, globs or URLs, or else --config corpora.yaml"),
        (["fertility", "byte", "nowhere"], "nowhere: no such file"),
        (["fertility", "byte", QUICKSTART, "--on-error", "perhaps"], "--on-error perhaps: expected stop or skip"),
        (["train", QUICKSTART, "--vocab-size", 1000000, "--out", "unused"], "--vocab-size asks for 1,000,000"),
    ],
)
def test_commands_that_are_refused(call, arguments, message):
    code, _, err = call(*arguments)
    assert code == 2
    assert message in err


def test_a_declaration_says_what_is_held_out_and_excluded(tmp_path, capsys):
    """Without an option of its own, or else a tokenizer would be trained on what its streams hold out."""
    rows = [{"id": f"d{i}", "text": f"kaixo mundua {i} " * 9} for i in range(60)]
    (tmp_path / "eu.web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    held = [row["id"] for row in rows if is_held_out(row["id"], 0.5)]
    (tmp_path / "ids").write_text("\n".join(held[:4]))
    declared = {"options": {"holdout": 0.5, "exclude": str(tmp_path / "ids")}}
    declared["corpora"] = {"eu.web": {"sources": str(tmp_path / "eu.web.jsonl")}}
    (tmp_path / "corpora.yaml").write_text(json.dumps(declared))
    with pytest.raises(SystemExit, match="0"):
        main(["tokenizer", "fertility", "byte", "--config", str(tmp_path / "corpora.yaml"), "--json"])
    (row, *_) = json.loads(capsys.readouterr().out)["rows"]
    assert row["documents"] == len(held) - 4
    (tmp_path / "ids").unlink()
    with pytest.raises(SystemExit, match="2"):
        main(["tokenizer", "fertility", "byte", "--config", str(tmp_path / "corpora.yaml")])
    assert "ids: cannot be read" in capsys.readouterr().err
