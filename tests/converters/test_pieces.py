"""A long text is encoded piece by piece: the tokens are those of one encoding of it, whatever it holds."""

from __future__ import annotations

import json
import random
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, trainers
from tokenizers import pre_tokenizers as pre

from converters.tokens.locality import BYTE_LEVEL, locality_of, runs_of
from converters.tokens.pieces import encode_in_pieces

GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
PIECE, OVERLAP = 1024, 256
SENTENCES = [
    "Kaixo mundua, zer moduz zaude gaur? ",
    "El cel és blau; l'aigua, clara i neta: 1714 i 2024. ",
    "I'll be there by 10:45, don't wait for me (really)!\n",
    "Añada 25 g de azúcar y 250 ml de leche...\n\n",
    "À noite não há ninguém na praça, e o café fecha às 22h. ",
    "Сегодня хорошая погода, 東京は今日も雨です。明日は晴れ。",
    "def f(x):\n    return x ** 2  # square\n",
    "e\u0301a\u0327\u0301 ﬁn ½ Å ﷺ 한국어 각 ",
    "👩‍👩‍👧‍👦 🇪🇸🇫🇷🇵🇹 👍🏽! ",
]


def trained(tokenizer, **options):
    kind = {"BPE": trainers.BpeTrainer, "Unigram": trainers.UnigramTrainer, "WordPiece": trainers.WordPieceTrainer}
    trainer = kind[type(tokenizer.model).__name__](show_progress=False, **options)
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer


def byte_level(*splits, vocab_size=420):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre.Sequence(list(splits)) if len(splits) > 1 else splits[0]
    return trained(tokenizer, vocab_size=vocab_size, initial_alphabet=pre.ByteLevel.alphabet())


def undivided():
    tokenizer = byte_level(pre.ByteLevel(False, use_regex=False))
    tokenizer.normalizer = normalizers.NFC()  # sorts marks, however many there are
    return tokenizer


def llama():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.ByteFallback()
    everything = [f"<0x{byte:02X}>" for byte in range(256)]
    return trained(tokenizer, vocab_size=700, special_tokens=["<unk>", *everything], limit_alphabet=60)


def metaspace_bpe():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre.Metaspace(prepend_scheme="first")
    return trained(tokenizer, vocab_size=350, special_tokens=["<unk>"])


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre.Metaspace(prepend_scheme="always")
    return trained(tokenizer, vocab_size=300, special_tokens=["<unk>"], unk_token="<unk>")


def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre.BertPreTokenizer()
    return trained(tokenizer, vocab_size=300, special_tokens=["[UNK]"])


def with_added_words():
    tokenizer = byte_level(pre.ByteLevel(add_prefix_space=False))
    tokenizer.add_tokens(["azúcar", "    ", "\n\n"])
    return tokenizer


TOKENIZERS = {
    "gpt2": lambda: byte_level(pre.ByteLevel(add_prefix_space=False)),
    "roberta": lambda: byte_level(pre.ByteLevel(add_prefix_space=True)),
    "gpt4": lambda: byte_level(pre.Split(Regex(GPT4), "isolated"), pre.ByteLevel(False, use_regex=False)),
    "single digits": lambda: byte_level(pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)),
    "undivided": undivided,
    "llama": llama,
    "metaspace": metaspace_bpe,
    "unigram": unigram,
    "wordpiece": wordpiece,
    "added": with_added_words,
}


@cache
def made(name):
    tokenizer = TOKENIZERS[name]()
    locality = locality_of(json.loads(tokenizer.to_str()))
    assert locality is not None
    return tokenizer, locality


def both(name, text, piece=PIECE, overlap=OVERLAP):
    """Encode a text in pieces and whole; also return the characters that the longest piece had."""
    tokenizer, locality = made(name)
    lengths = []

    def encode(part):
        lengths.append(len(part))
        return tokenizer.encode(part, add_special_tokens=False)

    tokens = encode_in_pieces(text, encode, locality, "uint16", piece, overlap)
    return tokens, tokenizer.encode(text, add_special_tokens=False).ids, lengths


PARTS = st.one_of(
    st.sampled_from(SENTENCES),
    st.text(max_size=20),
    st.tuples(st.sampled_from(SENTENCES), st.integers(1, 40)).map(lambda it: it[0] * it[1]),
    st.tuples(st.sampled_from([*"aA0 \n\t.é\u0301\u0327ñ東😀▁'", "01", "ab", " \n", "🇪🇸"]), st.integers(1, 700)).map(
        lambda it: it[0] * it[1]
    ),
    st.tuples(st.integers(0, 2**32), st.integers(1, 500)).map(lambda it: shuffled(*it)),
)
TEXTS = st.lists(PARTS, min_size=3, max_size=40).map("".join)


def shuffled(seed, count):
    chance = random.Random(seed)
    return "".join(chance.choice(chance.choice(SENTENCES)) for _ in range(count))


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
@example(text="\n" + " " * 1500 + "\n" + SENTENCES[0] * 50)
@example(text=SENTENCES[2] * 24 + " " * 300 + "\n" + SENTENCES[2] * 40)
@example(text="x " * 600 + "0" * 1700 + "78" + SENTENCES[1] * 20)
@example(text=SENTENCES[3] * 20 + "\u0315" * 1000 + "\u0327" + SENTENCES[3] * 20)
def test_pieces_have_the_tokens_of_the_whole(name, text):
    tokens, whole, _ = both(name, text)
    assert tokens.tolist() == whole


@pytest.mark.parametrize("name", TOKENIZERS)
def test_text_as_people_write_it_needs_no_piece_longer_than_one(name):
    text = "".join(random.Random(17).choices(SENTENCES[:5] + SENTENCES[6:7], k=2000))
    tokens, whole, lengths = both(name, text, piece=4096, overlap=512)
    assert tokens.tolist() == whole
    assert max(lengths) == 4096
    assert sum(lengths) < 1.35 * len(text)  # linear: overlaps alone are encoded twice


@pytest.mark.parametrize("text", ["a" * 5000, " " * 5000, "😀" * 3000, "", "a"])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_has_nothing_to_cut_at_is_encoded_whole(name, text):
    tokens, whole, _ = both(name, text)
    assert tokens.tolist() == whole
    assert tokens.dtype == np.uint16


@pytest.mark.parametrize(
    "change",
    [
        {
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": '"[^"]*"|.'},
                "behavior": "Isolated",
                "invert": False,
            }
        },
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "<.*>"}, "content": ""}},
        {"pre_tokenizer": {"type": "FixedLength", "length": 5}},
        {"normalizer": {"type": "Unheard of"}},
        {"pre_tokenizer": None, "model": {"type": "Unigram"}},
        {"pre_tokenizer": None, "model": {"type": "BPE", "end_of_word_suffix": "</w>"}},
    ],
)
def test_tokenizers_whose_tokens_may_depend_on_text_far_away_are_told(change):
    tokenizer = json.loads(made("gpt2")[0].to_str()) | change
    assert locality_of(tokenizer) is None


@pytest.mark.parametrize(
    ("pattern", "runs"),
    [
        (BYTE_LEVEL, [{"letter"}, {"digit"}, {"other"}, {"space"}]),
        (GPT4, [{"letter"}, {"other"}, {"space"}]),
        (r"\S+|\s", [{"letter", "digit", "other"}]),
        (r"\d{2,}a{3}\+", [{"digit"}]),
        (r"(?:ab)+", None),
        (r"(a)\1", None),
        (r"[a[bc]]+", None),
        (r".*", None),
    ],
)
def test_what_a_pattern_follows_without_end(pattern, runs):
    assert runs_of(pattern) == (None if runs is None else {frozenset(run) for run in runs})
