"""stream.json: what a stream holds, written by the converters, read by the catalog."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mixstream.formats import Document, read_json

MANIFEST_NAME = "stream.json"
TRAIN = "train"
HELDOUT = "heldout"

Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(gt=0)]
StreamName = Annotated[str, Field(pattern=r"^[^./\s][^/\s]*$")]


class TokenizerInfo(Document):
    """Which tokenizer made the tokens.

    Attributes:
        name: what it was asked for by: ``byte``, a path or a hub name.
        fingerprint: hash of all that decides its tokens; two streams mix only if theirs are equal.
        vocab_size: number of token ids; every token is below it.
        eod_token_id: the end-of-document token, written after every document.
    """

    name: str
    fingerprint: str
    vocab_size: Positive
    eod_token_id: Count


class Source(Document):
    """One file that a stream was made from."""

    name: str
    size_bytes: Count
    sha256: str


class StreamManifest(Document):
    """What one stream directory holds.

    Attributes:
        name: the stream's name, ``language.domain`` by custom.
        split: the documents that training reads, or those held out by their hash.
        num_samples: rows of `sequence_length` tokens each.
        num_tokens: tokens in those rows.
        num_documents: documents, whole or cut by the last row's end.
        heldout_documents: documents of the corpus that the held-out split took, be it that their tokens
            did not fill one sample and there is no such split.
        num_bytes: UTF-8 bytes of the documents' text.
        remainder_tokens: tokens left over at the end, fewer than one row, in no sample.
        text_field: field or column that the text was read from, where the format has fields.
        holdout: share of documents that the held-out split takes.
    """

    format: Literal["mixstream.stream"] = "mixstream.stream"
    version: Literal[1] = 1
    name: StreamName
    language: str
    domain: str
    split: Literal["train", "heldout"] = "train"
    num_samples: Positive
    num_tokens: Positive
    num_documents: Positive
    heldout_documents: Count
    num_bytes: Positive
    remainder_tokens: Count
    sequence_length: Positive
    token_column: str = "tokens"
    dtype: Literal["uint16", "uint32"]
    tokenizer: TokenizerInfo
    text_field: str
    holdout: Annotated[float, Field(ge=0, lt=1)]
    sources: tuple[Source, ...]

    @property
    def tokens_per_byte(self) -> float:
        """Tokens that the tokenizer makes of a byte of this text (its fertility)."""
        return (self.num_tokens + self.remainder_tokens) / self.num_bytes


def read_manifest(directory: Path) -> StreamManifest | None:
    """Return a stream directory's manifest, or None for a plain MDS directory.

    Raises:
        FormatError: stream.json is not what docs/formats.md says.
    """
    path = directory / MANIFEST_NAME
    if not path.exists():
        return None
    return read_json(path, StreamManifest, "convert the corpus again")
