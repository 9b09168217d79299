"""Fertility: how many tokens a tokenizer makes of a byte and of a word, by language.

Where it is unequal, a budget of tokens buys less text of one language than of another, and a context holds less of it
(Petrov et al. 2023, arXiv 2305.15425, who call the ratio to the best language its premium; theirs is of parallel
sentences, ours of the tokens a byte of each language's own texts).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from converters.documents import Document, is_held_out
from converters.tokens.tokenise import Tokenizer
from mixstream.errors import CorpusError

BATCH_CHARACTERS = 1 << 18

# Scripts that are written without spaces: Thai, Lao, Tibetan, Myanmar, Khmer, kana, Han. Each letter is a word.
_UNSPACED = (
    "\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46\u0e81-\u0eb0\u0eb2\u0eb3\u0ec0-\u0ec6\u0f40-\u0f6c\u1000-\u102a"
    "\u1780-\u17b3\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Their marks belong to the letter before; their punctuation is no word.
_UNCOUNTED = (
    "\u0e31\u0e34-\u0e3a\u0e47-\u0e5b\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece\u0f00-\u0f3f\u0f71-\u0fff\u102b-\u109f"
    "\u17b4-\u17ff\u3000-\u3040\u3097-\u30a0\u30fb-\u30ff\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}{_UNCOUNTED}]+")


@dataclass(frozen=True)
class Fertility:
    """What a tokenizer makes of some texts.

    Attributes:
        documents, size_bytes, words, tokens: of all of them; no end-of-document token is counted.
    """

    documents: int = 0
    size_bytes: int = 0
    words: int = 0
    tokens: int = 0

    def __add__(self, other: Fertility) -> Fertility:
        return Fertility(
            self.documents + other.documents,
            self.size_bytes + other.size_bytes,
            self.words + other.words,
            self.tokens + other.tokens,
        )

    @property
    def tokens_per_byte(self) -> float:
        """Tokens of a byte of UTF-8."""
        return self.tokens / max(self.size_bytes, 1)

    @property
    def tokens_per_word(self) -> float:
        """Tokens of a word."""
        return self.tokens / max(self.words, 1)

    @property
    def bytes_per_word(self) -> float:
        """Bytes of a word: what a byte-level tokenizer makes of it."""
        return self.size_bytes / max(self.words, 1)


@dataclass(frozen=True)
class FertilityRow:
    """One row of the table: a language, or one of its streams.

    Attributes:
        language: of it.
        stream: None: all streams of the language.
        fertility: of its texts.
        premium: tokens a byte, in those of the language that has the fewest.
    """

    language: str
    stream: str | None
    fertility: Fertility
    premium: float

    def as_json(self) -> dict[str, Any]:
        """Return the row as JSON can tell it."""
        fertility = self.fertility
        return {
            "language": self.language,
            "stream": self.stream,
            **asdict(fertility),
            "tokens_per_byte": fertility.tokens_per_byte,
            "tokens_per_word": fertility.tokens_per_word,
            "bytes_per_word": fertility.bytes_per_word,
            "premium": self.premium,
        }


def count_words(text: str) -> int:
    """Return the number of words of a text.

    A word is what stands between spaces; in scripts that are written without them every letter is one, whereas their
    marks and punctuation are none.
    """
    return sum(1 for _ in _WORD.finditer(text))


def measure(
    documents: Iterable[Document], tokenizer: Tokenizer, holdout: float, most_bytes: int
) -> dict[str, Fertility]:
    """Return the fertility of each stream.

    Args:
        documents: of all streams.
        tokenizer: makes the tokens.
        holdout: measure the documents that are held out at this share, which no tokenizer was trained on; 0: all.
        most_bytes: of a stream; what comes later in the reading is left out.

    Raises:
        CorpusError: no document is held out.
    """
    found: dict[str, Fertility] = {}
    seen: dict[str, int] = {}

    def chosen() -> Iterator[Document]:
        for document in documents:
            taken = seen.get(document.stream, 0)
            if taken < most_bytes and (not holdout or is_held_out(document.id, holdout)):
                seen[document.stream] = taken + len(document.content)
                yield document

    for batch in _batches(chosen()):
        for document, tokens in zip(batch, tokenizer.encode([document.text for document in batch]), strict=True):
            own = Fertility(1, len(document.content), count_words(document.text), len(tokens))
            found[document.stream] = found.get(document.stream, Fertility()) + own
    if not found:
        raise CorpusError(
            f"no document is held out at --holdout {holdout:g}; give more text, or 0 to measure all of it"
        )
    return {stream: found[stream] for stream in sorted(found)}


def rows_of(streams: dict[str, Fertility]) -> list[FertilityRow]:
    """Return the table: every language, and its streams below it."""
    languages: dict[str, Fertility] = {}
    for stream, own in streams.items():
        language = stream.partition(".")[0]
        languages[language] = languages.get(language, Fertility()) + own
    best = min(total.tokens_per_byte for total in languages.values())
    rows = []
    for language in sorted(languages):
        total = languages[language]
        rows.append(FertilityRow(language, None, total, total.tokens_per_byte / best))
        members = {name: own for name, own in streams.items() if name.partition(".")[0] == language}
        rows += [FertilityRow(language, name, own, own.tokens_per_byte / best) for name, own in members.items()]
    return rows


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    held = 0
    for document in documents:
        batch.append(document)
        held += len(document.text)
        if held >= BATCH_CHARACTERS:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
