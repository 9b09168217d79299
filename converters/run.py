"""The conversion: every corpus to a stream, each written whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from converters.documents import Document, is_held_out
from converters.existing import find_existing
from converters.pack import Packer
from converters.readers import read_documents
from converters.sources import Corpus
from converters.tokenise import Tokenizer, dtype_of
from mixstream.errors import CorpusError, TokenizerError
from mixstream.formats import dump_json, write_whole
from mixstream.streams.manifest import (
    HELDOUT,
    MANIFEST_NAME,
    TRAIN,
    Source,
    StreamManifest,
    TokenizerInfo,
)
from mixstream.streams.placing import put_in_place
from mixstream.streams.writer import SHARD_BYTES, TOKENS, RowFormat, write_index, write_shard

DOCUMENTS_AT_A_TIME = 256

OnCount = Callable[[int], None]


@dataclass(frozen=True)
class Options:
    """How corpora are converted.

    Attributes:
        tokenizer: makes the tokens.
        sequence_length: tokens of a sample.
        holdout: share of documents for the held-out split.
        text_field: field or column of the text.
        overwrite: replace a stream that was made from something else.
        shard_bytes: size at which a shard is closed.
    """

    tokenizer: Tokenizer
    sequence_length: int
    holdout: float = 0.02
    text_field: str = "text"
    overwrite: bool = False
    shard_bytes: int = SHARD_BYTES


@dataclass
class _Split:
    """One split of a stream while it is written."""

    packer: Packer
    num_samples: int = 0
    num_documents: int = 0
    num_bytes: int = 0


@dataclass(frozen=True)
class Converted:
    """What became of one corpus.

    Attributes:
        manifests: stream.json of each split, by its name.
        kept: the stream was there already, made from the same files in the same way.
    """

    name: str
    manifests: dict[str, StreamManifest] = field(default_factory=dict)
    kept: bool = False


def convert_corpus(corpus: Corpus, out: Path, options: Options, on_documents: OnCount) -> Converted:
    """Make the stream `out` / corpus.name.

    Args:
        corpus: the files.
        out: the folder of streams.
        options: how.
        on_documents: called with the number of documents read since the last call.

    Raises:
        CorpusError: a file that cannot be read, or one with less than one sample of text.
        StreamError: a stream of that name that was made from something else, or what is no stream.
    """
    directory = out / corpus.name
    sources = corpus.sources()
    existing = find_existing(directory, made_as(options, sources), options.overwrite)
    if existing is not None:
        return Converted(corpus.name, existing, kept=True)
    info = options.tokenizer.info
    dtype = dtype_of(info)
    splits = {name: _Split(Packer(options.sequence_length, dtype, info.eod_token_id)) for name in (TRAIN, HELDOUT)}
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{corpus.name}.", dir=out) as work:
        shards = {name: _Shards(path, dtype, options) for name, path in _folders(Path(work)).items()}
        for documents in _batches(corpus, options.text_field):
            tokens = options.tokenizer.encode([document.text for document in documents])
            for document, document_tokens in zip(documents, tokens, strict=True):
                _check_tokens(document_tokens, info)
                name = HELDOUT if is_held_out(document, options.holdout) else TRAIN
                _write(shards, name, splits[name], document, document_tokens)
            on_documents(len(documents))
        manifests = {
            name: _manifest(corpus, name, splits, sources, options)
            for name, split in splits.items()
            if split.num_samples
        }
        if TRAIN not in manifests:
            raise CorpusError(
                f"{', '.join(map(str, corpus.files))}: {splits[TRAIN].packer.filled} tokens are fewer than one "
                f"sample of {options.sequence_length}; give more text or a smaller --sequence-length"
            )
        for name, manifest in manifests.items():
            shards[name].finish(manifest)
        put_in_place(_folders(Path(work))[TRAIN], directory)
    return Converted(corpus.name, manifests)


class _Shards:
    """Writes the samples of one split, a shard at a time."""

    def __init__(self, folder: Path, dtype: str, options: Options) -> None:
        self._folder = folder
        self._format = RowFormat(((TOKENS, f"ndarray:{dtype}:{options.sequence_length}"),))
        self._limit = options.shard_bytes
        self._rows: list[Any] = []
        self._entries: list[dict[str, Any]] = []

    def write(self, sample: Any) -> None:
        self._rows.append(sample)
        if len(self._rows) == self._format.samples_per_shard(self._limit):
            self._flush()

    def finish(self, manifest: StreamManifest) -> None:
        if self._rows:
            self._flush()
        write_index(self._folder, self._entries)
        write_whole(self._folder / MANIFEST_NAME, dump_json(manifest))

    def _flush(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        rows = {TOKENS: np.stack(self._rows)}
        self._entries.append(write_shard(self._folder, len(self._entries), rows, self._format, self._limit))
        self._rows = []


def _folders(work: Path) -> dict[str, Path]:
    return {TRAIN: work / TRAIN, HELDOUT: work / TRAIN / HELDOUT}


def made_as(options: Options, sources: tuple[Source, ...]) -> dict[str, Any]:
    """Return what decides a stream's content, as its stream.json will tell it."""
    return {
        "sources": sources,
        "sequence length": options.sequence_length,
        "holdout": options.holdout,
        "text field": options.text_field,
        "tokenizer": options.tokenizer.info.fingerprint,
    }


def _batches(corpus: Corpus, text_field: str) -> Iterator[list[Document]]:
    """Yield the corpus' documents, some at a time."""
    documents = (document for file in corpus.files for document in read_documents(file, text_field))
    while batch := list(islice(documents, DOCUMENTS_AT_A_TIME)):
        yield batch


def _check_tokens(tokens: Any, info: TokenizerInfo) -> None:
    """Refuse a token that the stream's type might not hold: it would be written as another one."""
    if len(tokens) and int(tokens.max()) >= info.vocab_size:
        raise TokenizerError(
            f"tokenizer {info.name!r} made token {int(tokens.max())}, but its vocabulary ends at {info.vocab_size - 1}"
        )


def _write(shards: dict[str, _Shards], name: str, split: _Split, document: Document, tokens: Any) -> None:
    for sample in split.packer.add(tokens):
        shards[name].write(sample)
        split.num_samples += 1
    split.num_documents += 1
    split.num_bytes += len(document.text.encode("utf-8"))


def _manifest(
    corpus: Corpus, name: str, splits: dict[str, _Split], sources: tuple[Source, ...], options: Options
) -> StreamManifest:
    split = splits[name]
    return StreamManifest.model_validate(
        {
            "name": corpus.name,
            "language": corpus.language,
            "domain": corpus.domain,
            "split": name,
            "num_samples": split.num_samples,
            "num_tokens": split.num_samples * options.sequence_length,
            "num_documents": split.num_documents,
            "heldout_documents": splits[HELDOUT].num_documents,
            "num_bytes": split.num_bytes,
            "remainder_tokens": split.packer.filled,
            "sequence_length": options.sequence_length,
            "token_column": TOKENS,
            "dtype": dtype_of(options.tokenizer.info),
            "tokenizer": options.tokenizer.info,
            "text_field": options.text_field,
            "holdout": options.holdout,
            "sources": sources,
        }
    )
