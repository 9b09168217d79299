"""stream.json: what a stream holds, written by the converters, read by the catalog."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from mixstream.formats import FileModel, parse, parse_json, read_json
from mixstream.streams.remote import RemoteFolder

MANIFEST_NAME = "stream.json"
DOCUMENTS_NAME = "documents.parquet"
REJECTS_NAME = "rejects.jsonl"
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
    """One file that a stream was made from.

    Attributes:
        name: relative file name, or URL.
        sha256: of a file's content; None of an object in a store.
        etag: of an object, by which the store tells its content from another one.
    """

    name: str
    size_bytes: Count
    sha256: str | None = None
    etag: str | None = None


class Subsample(FileModel):
    """Which documents of a corpus a stream has: a share of them, by the hash of their id and the seed."""

    share: Annotated[float, Field(gt=0, le=1)]
    seed: int


class Conversion(FileModel):
    """The conversion that made a stream.

    Attributes:
        fingerprint: hash of all that decides its output.
        files: hash of the names and sizes of all files that it read, of which a stream's `sources` may be some.
        streams: names of all streams that it made.
        left_out: documents of the corpus that are in none of them, by why: ``excluded``, ``outside`` the subsample,
            ``duplicate``, ``rejected``, those too whose stream cannot be told.
    """

    fingerprint: str
    files: str | None = None
    streams: tuple[StreamName, ...]
    left_out: dict[str, Count] = Field(default_factory=dict)


class View(FileModel):
    """How a stream was cut out of another one.

    Attributes:
        stream: name of the other one.
        fingerprint: of its index.json.
        by: what was chosen: documents, by the hash of their id; or samples, by that of the stream's name and their
            number.
        share, seed: of the choice.
        cut_documents: documents at the end that were chosen, and whose last tokens are in no sample of the other one.
    """

    stream: StreamName
    fingerprint: str
    by: Literal["document", "sample"] = "document"
    share: Annotated[float, Field(gt=0, le=1)]
    seed: int
    cut_documents: Count = 0


class StreamManifest(FileModel):
    """What one stream directory holds; what only a converter knows is None where another made the stream.

    Attributes:
        name: the stream's name, ``language.domain`` by custom.
        split: the documents that training reads, or those held out by their hash.
        layout: ``packed``: samples are cut out of the documents' tokens one after the other; ``documents``: a sample
            is a document, cut off or padded.
        token_column: None: ``tokens`` or ``input_ids``, or the one that the reader names.
        columns: the documents' numeric fields that samples have as columns too.
        num_samples: rows of `sequence_length` tokens each.
        num_tokens: tokens in those rows, padding included.
        num_documents: documents, whole or cut by the last row's end.
        heldout_documents: documents of the corpus that the held-out split took, be it that their tokens
            did not fill one sample and there is no such split.
        excluded_documents, duplicate_documents, rejected_documents: documents of the corpus that the stream left out,
            as asked, as the same as an earlier one, or as bad.
        num_bytes: UTF-8 bytes of the documents' text.
        remainder_tokens: tokens left over at the end, fewer than one row, in no sample.
        padding_tokens: tokens of the rows that stand behind a document's end (layout ``documents``).
        truncated_tokens: tokens of documents that were longer than a row, in no sample (layout ``documents``).
        pad_token_id: what the padding is.
        text_field: field or column that the text was read from, where the format has fields.
        id_field: field or column of the documents' ids; None: ``id``, or hashes.
        holdout: share of documents that the held-out split takes.
        subsample: the share of documents that the stream has; None: all.
        conversion: what made it, or the stream that it is a view of.
        view: what it was cut out of, and how; from version 2 on, which only views have.
    """

    format: Literal["mixstream.stream"] = "mixstream.stream"
    version: Literal[1, 2] = 1
    name: StreamName
    language: str
    domain: str
    split: Literal["train", "heldout"] = "train"
    layout: Literal["packed", "documents"] = "packed"
    num_samples: Positive
    num_tokens: Positive
    num_documents: Positive | None = None
    heldout_documents: Count | None = None
    excluded_documents: Count | None = None
    duplicate_documents: Count | None = None
    rejected_documents: Count | None = None
    num_bytes: Positive | None = None
    remainder_tokens: Count | None = None
    padding_tokens: Count | None = None
    truncated_tokens: Count | None = None
    sequence_length: Positive
    token_column: str | None = None
    columns: tuple[str, ...] = ()
    dtype: Literal["uint8", "uint16", "uint32", "int16", "int32", "int64"]
    tokenizer: TokenizerInfo
    pad_token_id: Count | None = None
    text_field: str | None = None
    id_field: str | None = None
    holdout: Annotated[float, Field(ge=0, lt=1)] | None = None
    subsample: Subsample | None = None
    sources: tuple[Source, ...] | None = None
    conversion: Conversion | None = None
    view: View | None = None

    @model_validator(mode="after")
    def _is_a_view_from_version_2(self) -> StreamManifest:
        if (self.version == 1) != (self.view is None):
            raise ValueError(f"version {self.version}; a view is of version 2, any other stream of version 1")
        return self

    @model_serializer(mode="wrap")
    def _without_a_view(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        told: dict[str, Any] = dump(self)
        if self.view is None:
            told.pop("view", None)  # version 1 does not know it
        return told

    @model_validator(mode="after")
    def _check_counts(self) -> StreamManifest:
        problem = _wrong_counts(self)
        if problem:
            raise ValueError(problem)
        return self

    @property
    def document_tokens(self) -> int | None:
        """Tokens of all documents, their ends included: packed or cut off, in a sample or not; None: not known."""
        if self.layout == "packed":
            return None if self.remainder_tokens is None else self.num_tokens + self.remainder_tokens
        if self.padding_tokens is None or self.truncated_tokens is None:
            return None
        return self.num_tokens - self.padding_tokens + self.truncated_tokens

    @property
    def tokens_per_byte(self) -> float | None:
        """Tokens that the tokenizer makes of a byte of this text (its fertility); None where it is not known."""
        if self.num_bytes is None:
            return None
        known = self.document_tokens
        return (self.num_tokens if known is None else known) / self.num_bytes


def _wrong_counts(manifest: StreamManifest) -> str | None:
    """Return which of a manifest's counts contradict each other, or None."""
    length, samples = manifest.sequence_length, manifest.num_samples
    padding, remainder = manifest.padding_tokens or 0, manifest.remainder_tokens or 0
    if manifest.layout == "packed":
        if remainder >= length:
            return f"remainder_tokens {remainder} fill a sample of {length}; expected fewer"
        if padding or manifest.truncated_tokens:
            return f"padding_tokens {padding}, truncated_tokens {manifest.truncated_tokens}; layout packed has none"
        return None
    if manifest.pad_token_id is None:
        return "pad_token_id is missing; layout documents needs it"
    if manifest.num_documents not in (None, samples):
        return f"num_samples {samples}, num_documents {manifest.num_documents}; layout documents has one a sample"
    if remainder:
        return f"remainder_tokens {remainder}; layout documents has none"
    if padding > manifest.num_tokens - samples:
        return f"padding_tokens {padding} of {manifest.num_tokens}; expected a token of its own in each sample"
    return None


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
