"""Tokens of texts from those of their chunks, each encoded once: most of a text is words that came before.

Pre-tokenisers of the GPT family begin a word anew at every space that follows a character that is none, and look no
further back: the tokens of a text are those of the chunks between such places, one after the other. So chunks are
looked up, and only new ones go to the library. This holds for the patterns listed here, no others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.tokens.locality import BYTE_LEVEL

KEPT_CHARACTERS = 1 << 21  # of chunks, in each of two generations: some 120 MB in all
LONGEST_KEPT = 32  # characters: longer ones seldom come again

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_ENDS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_CASED = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
)
# Words with their marks, since vowel signs of Indic and South-East Asian scripts are marks; with the space or sign
# before them; digits one by one; signs; line ends; spaces but the last before a word. No contractions of one language.
ALL_SCRIPTS = r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PATTERNS = {
    "GPT-2": r"'s|'t|'re|'ve|'m|'ll|'d|" + BYTE_LEVEL,
    "GPT-4, Llama 3": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_ENDS}",
    "Qwen 2": rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_ENDS}",
    "GPT-4o": _CASED + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "ours": ALL_SCRIPTS,
}

_OTHER_SPACES = "\t-\r\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_SPACES = f" {_OTHER_SPACES}"
# Up to a space after a character that is none; other spaces (a line end may belong to the sign before it) stay inside.
_CHUNKS = re.compile(
    rf"[{_SPACES}]*[^{_SPACES}]+(?:[{_OTHER_SPACES}][{_SPACES}]*(?:[^{_SPACES}]+|\Z))*|[{_SPACES}]+"
).findall
_SPACE = re.compile(rf"[{_SPACES}]")


def comes_in_chunks(tokenizer: dict[str, Any]) -> bool:
    """Return whether the tokens of a text are those of its chunks.

    Args:
        tokenizer: its tokenizer.json, of which special tokens are taken for text.
    """
    if any(not token["special"] for token in tokenizer.get("added_tokens", [])):
        return False  # they are looked for in the whole text
    model = tokenizer["model"]
    if tokenizer.get("normalizer") is not None or model.get("type") != "BPE":
        return False
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix") or not _has_all_bytes(model["vocab"]):
        return False  # a token has as many bytes as its name has letters
    splits = tokenizer.get("pre_tokenizer") or {}
    parts = splits.get("pretokenizers", []) if splits.get("type") == "Sequence" else [splits]
    if not parts or parts[-1].get("type") != "ByteLevel" or parts[-1].get("add_prefix_space", True):
        return False
    if len(parts) == 1:
        return bool(parts[0].get("use_regex", True))
    first = parts[0]
    is_split = first.get("type") == "Split" and first.get("behavior") == "Isolated" and not first.get("invert")
    known = is_split and first["pattern"].get("Regex") in PATTERNS.values()
    return bool(len(parts) == 2 and known and not parts[1].get("use_regex", True))


def _has_all_bytes(vocabulary: Mapping[str, int]) -> bool:
    from tokenizers import pre_tokenizers

    return all(letter in vocabulary for letter in pre_tokenizers.ByteLevel.alphabet())


def chunks_of(text: str) -> list[str]:
    """Return the chunks of a text, which together are the text."""
    found: list[str] = _CHUNKS(text)
    return found


def sections(text: str, characters: int) -> Iterator[str]:
    """Yield a text in parts of at least so many characters, cut where a chunk ends; the last may be shorter."""
    start = 0
    while start < len(text):
        stop = text.find(" ", start + characters)
        while stop > 0 and _SPACE.match(text[stop - 1]):
            stop = text.find(" ", stop + 1)
        yield text[start : stop if stop > 0 else len(text)]
        start = stop if stop > 0 else len(text)


class ChunkEncoder:
    """Encodes texts by their chunks, and keeps those of two generations: what is used again stays."""

    def __init__(self, tokenizer: Any, dtype: str, kept_characters: int = KEPT_CHARACTERS) -> None:
        """Encode with a `tokenizers.Tokenizer` that `comes_in_chunks`, to tokens of a type."""
        self._tokenizer = tokenizer
        self._dtype = np.dtype(dtype)
        self._kept_characters = kept_characters
        self._young: dict[str, bytes] = {}  # tokens as they are in memory
        self._old: dict[str, bytes] = {}
        self._held = 0
        vocabulary = tokenizer.get_vocab(with_added_tokens=True)
        self._num_bytes = np.zeros(1 + max(vocabulary.values()), np.int64)  # of text, of each token
        for token, number in vocabulary.items():
            self._num_bytes[number] = len(token)

    def encode(self, texts: Sequence[str]) -> list[npt.NDArray[Any]]:
        """Return the tokens (tokens,) of each text, not to be written to."""
        chunked = [chunks_of(text) for text in texts]
        wanted = set(chain.from_iterable(chunked)).difference(self._young)
        known = [chunk for chunk in wanted if chunk in self._old]
        self._young.update((chunk, self._old[chunk]) for chunk in known)
        self._encode_new(list(wanted.difference(known)))
        of_chunk = self._young.__getitem__
        tokens = [np.frombuffer(b"".join(map(of_chunk, chunks)), self._dtype) for chunks in chunked]
        self._forget(wanted)
        return tokens

    def _encode_new(self, chunks: list[str]) -> None:
        """Encode chunks that can follow one another as one text, which takes far less than one by one."""
        joined = [chunk for chunk in chunks if chunk[0] == " " and not _SPACE.match(chunk[-1])]
        single = set(chunks).difference(joined)
        tokens = np.array(self._tokens_of(["".join(joined)])[0], self._dtype)
        ends = np.cumsum(self._num_bytes[tokens])
        stops = np.cumsum([len(chunk.encode()) for chunk in joined], dtype=np.int64)
        cuts = np.searchsorted(ends, stops)
        if len(joined) and (ends[-1] != stops[-1] or not np.array_equal(ends[cuts], stops)):
            raise AssertionError("a token goes over the end of a chunk")
        width, held, start = self._dtype.itemsize, tokens.tobytes(), 0
        for chunk, stop in zip(joined, ((cuts + 1) * width).tolist(), strict=True):
            self._young[chunk] = held[start:stop]
            start = stop
        for chunk, own in zip(single, self._tokens_of(list(single)), strict=True):
            self._young[chunk] = np.array(own, self._dtype).tobytes()

    def _tokens_of(self, texts: list[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]

    def _forget(self, added: set[str]) -> None:
        for chunk in added:
            if len(chunk) > LONGEST_KEPT:
                del self._young[chunk]
            else:
                self._held += len(chunk)
        if self._held > self._kept_characters:
            self._old, self._young, self._held = self._young, {}, 0
