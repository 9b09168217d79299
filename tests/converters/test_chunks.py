"""A text has the tokens of its chunks, for the tokenizers that are told to be so, and whatever was kept before."""

from __future__ import annotations

import json
from functools import cache

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_pieces import PARTS, SENTENCES, TEXTS, byte_level
from tokenizers import Regex
from tokenizers import pre_tokenizers as pre

from converters.tokens.chunks import PATTERNS, ChunkEncoder, chunks_of, comes_in_chunks, sections
from converters.tokens.tokenise import BATCH_CHARACTERS, HuggingFaceTokenizer

PLAIN = pre.ByteLevel(add_prefix_space=False, use_regex=False)


@cache
def made(name):
    if name == "ByteLevel":
        tokenizer = byte_level(pre.ByteLevel(add_prefix_space=False))
    else:
        tokenizer = byte_level(pre.Split(Regex(PATTERNS[name]), "isolated"), PLAIN)
    assert comes_in_chunks(json.loads(tokenizer.to_str()))
    return tokenizer


def encode_all(tokenizer, texts):
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


@given(text=TEXTS)
@example(text="a!\n  b \x1c c\u3000 d \x85")
def test_chunks_are_the_text(text):
    assert "".join(chunks_of(text)) == text
    parts = list(sections(text, 50))
    assert "".join(parts) == text
    assert [chunk for part in parts for chunk in chunks_of(part)] == chunks_of(text)


@pytest.mark.parametrize("name", ["ByteLevel", *PATTERNS])
@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.one_of(PARTS, st.text(), st.text(" \n\r\t\x1c\x85\u3000'sa.!7é\u0301ñ", max_size=30)), max_size=8)
)
@example(texts=["bai!\n  ez \r\n\n ", "", " ", "l'aigua 'S don't \u0301a \u3000b!\x1c c"])
def test_the_tokens_of_chunks_are_those_of_the_text(name, texts):
    tokenizer = made(name)
    encoder = ChunkEncoder(tokenizer, "uint16", kept_characters=60)
    whole = encode_all(tokenizer, texts)
    for _ in range(3):  # new, kept, and of the generation before
        assert [tokens.tolist() for tokens in encoder.encode(texts)] == whole


def test_what_comes_again_is_not_encoded_again_and_memory_is_bounded():
    asked = []

    class Counting(ChunkEncoder):
        def _tokens_of(self, texts):
            asked.extend(chunk for text in texts for chunk in chunks_of(text))
            return super()._tokens_of(texts)

    encoder = Counting(made("ours"), "uint16", kept_characters=1000)
    text = SENTENCES[0] * 3
    encoder.encode([text])
    assert sorted(asked) == sorted(set(chunks_of(text)))
    encoder.encode([text])
    assert len(asked) == len(set(asked))
    for number in range(200):
        encoder.encode([f"{text}berria {number} {'x' * 5000}"])
    assert sum(map(len, encoder._young)) + sum(map(len, encoder._old)) < 2200
    assert asked.count(" mundua,") == 1  # used all the time, so kept


def test_long_texts_are_cut_at_chunks():
    tokenizer = made("ours")
    tokenizer.add_special_tokens(["<|endoftext|>"])
    ours = HuggingFaceTokenizer(tokenizer, "ours", None)
    for text in (SENTENCES[3] * 16_000, "e" * (BATCH_CHARACTERS + 5), "a " + "e" * 2 * BATCH_CHARACTERS + " a"):
        assert len(text) > BATCH_CHARACTERS
        assert ours.encode([text])[0].tolist() == encode_all(tokenizer, [text])[0]


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFC"}},
        {"model": {"type": "BPE", "vocab": {"a": 0}}},
        {"added_tokens": [{"content": "  ", "special": False}]},
        {"model": {"type": "Unigram"}},
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}},
        {"pre_tokenizer": {"type": "Whitespace"}},
    ],
)
def test_others_are_encoded_whole(change):
    tokenizer = json.loads(made("ByteLevel").to_str())
    assert comes_in_chunks(tokenizer)
    assert not comes_in_chunks(tokenizer | change)


def test_a_pattern_that_is_not_known_is_encoded_whole():
    tokenizer = byte_level(pre.Split(Regex(PATTERNS["ours"] + "|x"), "isolated"), PLAIN)
    assert not comes_in_chunks(json.loads(tokenizer.to_str()))
