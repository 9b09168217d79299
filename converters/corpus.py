"""What is converted, and how: everything that decides the bytes of streams."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from converters.documents import Fields
from converters.sources import SourceFile
from converters.tasks.encode import OnError
from converters.tasks.packing import Layout
from converters.tokens.tokenise import Tokenizer, TokenizerSpec
from mixstream.errors import CorpusError
from mixstream.streams.manifest import Source
from mixstream.streams.writer import SHARD_BYTES

MADE_BY = 1  # counts changes of the conversion that change its bytes
LEAST_SPAN_BYTES, MOST_SPAN_BYTES, USUAL_SPANS = 16 << 20, 256 << 20, 4096


@dataclass(frozen=True)
class Corpus:
    """One declaration: files, and how their rows become documents.

    Attributes:
        name: of the stream that it makes, or of the corpus where streams are named by fields.
        files: in the order in which they are read.
        fields: which fields mean what.
        document: a line or a file of plain text is one.
    """

    name: str
    files: tuple[SourceFile, ...]
    fields: Fields
    document: Literal["line", "file"] = "line"

    @property
    def files_digest(self) -> str:
        """Hash of what its files are called and how large they are."""
        return digest_of([(file.name, file.size_bytes) for file in self.files])

    @property
    def stream(self) -> str | None:
        """The one stream that it makes; None where fields name streams."""
        return self.fields.stream_of() or None


@dataclass(frozen=True)
class Options:
    """How corpora are converted.

    Attributes:
        tokenizer: makes the tokens.
        sequence_length: tokens of a sample.
        layout: packed, or a document a sample, cut and padded.
        holdout: share of documents for the held-out split.
        subsample, seed: share of the other documents that are taken, and the seed of their choice; None: all.
        exclude: file with the ids of documents that are left out, one a line.
        deduplicate: of documents of a stream with the same text take the first.
        on_error: a document that cannot be used stops the run, or goes to rejects.jsonl.
        max_rejects: of them of one corpus; None: any number.
        max_document_bytes: a longer document cannot be used.
        shard_bytes: size at which a shard ends.
        compression: of shards, such as ``zstd:3``; None: raw.
        span_bytes: of files, that one task reads; None: by the size of the corpus.
        min_samples: of a stream; there is none of fewer.
        overwrite: replace streams that were made from something else.
    """

    tokenizer: TokenizerSpec
    sequence_length: int = 2048
    layout: Layout = "packed"
    holdout: float = 0.02
    subsample: float | None = None
    seed: int = 0
    exclude: Path | None = None
    deduplicate: bool = False
    on_error: OnError = "stop"
    max_rejects: int | None = None
    max_document_bytes: int = 16 << 20
    shard_bytes: int = SHARD_BYTES
    compression: str | None = None
    span_bytes: int | None = None
    min_samples: int = 1
    overwrite: bool = False

    @cached_property
    def loaded(self) -> Tokenizer:
        """The tokenizer itself."""
        return self.tokenizer.load()

    @cached_property
    def excluded_sha256(self) -> str | None:
        """Hash of the file of excluded ids.

        Raises:
            CorpusError: it cannot be read.
        """
        if self.exclude is None:
            return None
        try:
            return hashlib.sha256(self.exclude.read_bytes()).hexdigest()
        except OSError as problem:
            raise CorpusError(f"{self.exclude}: cannot be read ({problem.strerror}); --exclude names a file") from None


def span_bytes_of(corpus: Corpus, options: Options) -> int:
    """Return how large a span is: by the corpus alone, so that spans do not depend on who reads them."""
    if options.span_bytes is not None:
        return options.span_bytes
    wanted = sum(file.size_bytes for file in corpus.files) // USUAL_SPANS
    rounded = 1 << wanted.bit_length()  # one more file must not give all others other spans
    return min(max(rounded, LEAST_SPAN_BYTES), MOST_SPAN_BYTES)


@dataclass(frozen=True)
class Making:
    """All that decides the content of the streams of a corpus.

    Attributes:
        sources: the files, with their hashes.
        how: {what: its value}, as a person is told of it.
    """

    sources: tuple[Source, ...]
    how: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of it all."""
        return digest_of([[source.model_dump() for source in self.sources], dict(self.how)])


def how_of(corpus: Corpus, options: Options) -> dict[str, Any]:
    """Return all but the sources that decides the content of a corpus's streams."""
    asked = {name: value for name, value in asdict(corpus.fields).items() if not name.startswith("_")}
    return {
        "version": MADE_BY,
        "fields": asked,
        "document": corpus.document,
        "formats": [file.format for file in corpus.files],
        "tokenizer": options.loaded.info.fingerprint,
        "sequence length": options.sequence_length,
        "layout": options.layout,
        "holdout": options.holdout,
        "subsample": None if options.subsample is None else [options.subsample, options.seed],
        "excluded documents": options.excluded_sha256,
        "deduplication": options.deduplicate,
        "way with errors": options.on_error,
        "longest document": options.max_document_bytes,
        "shard size": options.shard_bytes,
        "compression": options.compression,
        "fewest samples": options.min_samples,
        "span size": span_bytes_of(corpus, options),
    }


def library_versions() -> dict[str, str]:
    """Return the versions of the packages that may write other bytes from one to the next.

    What was done before one of them was replaced is done again; a stream that is there stays the same.
    """
    return {name: version(name) for name in ("tokenizers", "pyarrow", "numpy", "zstd") if find_spec(name)}


def digest_of(value: Any) -> str:
    """Return a short hash of what JSON can tell."""
    told = json.dumps(value, sort_keys=True, default=str).encode()
    return hashlib.blake2b(told, digest_size=12).hexdigest()
