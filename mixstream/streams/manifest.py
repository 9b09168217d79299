"""stream.json: what a stream holds, written by the converters, read by the catalog."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from mixstream.formats import FileModel, parse, parse_json, read_json
from mixstream.streams.remote import RemoteFolder

MANIFEST_NAME = "stream.json"
TRAIN = "train"
HELDOUT = "heldout"

MAX_COUNT = (1 << 62) - 1  # what can still be added up in 64 bits
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Positive = Annotated[int, Field(gt=0, le=MAX_COUNT)]
_STREAM_NAME = r"^[^./\s][^/\s]*$"
StreamName = Annotated[str, Field(pattern=_STREAM_NAME)]


class TokenizerInfo(FileModel):
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


class Source(FileModel):
    """One file that a stream was made from."""

    name: str
    size_bytes: Count
    sha256: str


class StreamManifest(FileModel):
    """What one stream directory holds; what only a converter knows is None where another made the stream.

    Attributes:
        name: the stream's name, ``language.domain`` by custom.
        split: the documents that training reads, or those held out by their hash.
        token_column: None: ``tokens`` or ``input_ids``, or the one that the reader names.
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
    num_documents: Positive | None = None
    heldout_documents: Count | None = None
    num_bytes: Positive | None = None
    remainder_tokens: Count | None = None
    sequence_length: Positive
    token_column: str | None = None
    dtype: Literal["uint8", "uint16", "uint32", "int16", "int32", "int64"]
    tokenizer: TokenizerInfo
    text_field: str | None = None
    holdout: Annotated[float, Field(ge=0, lt=1)] | None = None
    sources: tuple[Source, ...] | None = None

    @property
    def tokens_per_byte(self) -> float | None:
        """Tokens that the tokenizer makes of a byte of this text (its fertility); None where it is not known."""
        if self.num_bytes is None:
            return None
        return (self.num_tokens + (self.remainder_tokens or 0)) / self.num_bytes


def is_stream_name(name: str) -> bool:
    """Tell whether stream.json may give a stream that name."""
    return re.search(_STREAM_NAME, name) is not None


def read_manifest(directory: Path | RemoteFolder) -> StreamManifest | None:
    """Return a stream directory's manifest, or None for a plain MDS directory.

    Raises:
        FormatError: stream.json is not what docs/formats.md says.
    """
    path = directory / MANIFEST_NAME
    remedy = "mend it, or convert the corpus again with --overwrite"
    if isinstance(path, Path):
        return read_json(path, StreamManifest, remedy) if path.exists() else None
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    return parse(StreamManifest, parse_json(content.decode(errors="replace"), str(path), remedy), str(path), remedy)
