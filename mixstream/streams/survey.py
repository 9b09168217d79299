"""What a person, or a machine, is told of streams: their counts, and some of their texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np

from mixstream.errors import ShardError, TokenizerError
from mixstream.formats import FileModel
from mixstream.streams.catalog import Catalog, Stream, load_shard
from mixstream.streams.manifest import StreamManifest, TokenizerInfo, read_manifest
from mixstream.streams.place import all_together
from mixstream.streams.remote.file import RemoteFile
from mixstream.streams.shard import Tokens, shard_starts

Decode = Callable[[Tokens], str]
FindDecoder = Callable[[TokenizerInfo], Decode]


class SampleText(FileModel):
    """The text of one sample; of a padded one without the padding."""

    sample: int
    text: str


class StreamSurvey(FileModel):
    """What is known of one stream; None: nobody wrote it down.

    Attributes:
        num_tokens: in samples, padding included.
        tokens_per_byte: fertility: tokens that the tokenizer makes of a byte of its text.
        stored_bytes: of its shards' files, compressed where they are; without the held-out split.
        heldout_samples: of the held-out split; 0 where there is none.
        fingerprint: of its shards; `tokenizer_fingerprint` of what made its tokens.
        texts: some samples, as asked for; `no_texts` says why there are none.
    """

    name: str
    language: str | None
    domain: str | None
    layout: str
    num_documents: int | None
    num_tokens: int
    num_bytes: int | None
    num_samples: int
    sequence_length: int
    tokens_per_byte: float | None
    heldout_samples: int
    num_shards: int
    stored_bytes: int
    tokenizer: str | None
    tokenizer_fingerprint: str | None
    fingerprint: str
    rejected_documents: int | None
    duplicate_documents: int | None
    excluded_documents: int | None
    texts: tuple[SampleText, ...] = ()
    no_texts: str | None = None


class Survey(FileModel):
    """What `mixstream inspect --json` prints."""

    format: Literal["mixstream.survey"] = "mixstream.survey"
    version: Literal[1] = 1
    root: str
    streams: tuple[StreamSurvey, ...]


def survey_streams(catalog: Catalog, num_texts: int, find_decoder: FindDecoder) -> Survey:
    """Return what is known of the streams of a catalog; no shard is read unless texts are asked for.

    Args:
        catalog: of the streams.
        num_texts: samples of each stream to show: evenly spread, the same each time.
        find_decoder: returns what makes text of tokens, or raises TokenizerError.

    Raises:
        StreamError, FormatError: what is wrong with a stream.
        RemoteError: an object store refuses, or does not answer for long.
    """
    heldout = catalog.heldout()
    sizes = heldout.sizes if heldout else {}

    def look(stream: Stream) -> StreamSurvey:
        manifest = read_manifest(stream.directory)
        texts, reason = _texts(stream, num_texts, find_decoder) if num_texts else ((), None)
        return StreamSurvey(
            name=stream.name,
            language=stream.language,
            domain=stream.domain,
            layout=stream.layout,
            num_documents=_known(manifest, "num_documents"),
            num_tokens=stream.num_tokens,
            num_bytes=_known(manifest, "num_bytes"),
            num_samples=stream.num_samples,
            sequence_length=stream.sequence_length,
            tokens_per_byte=stream.tokens_per_byte,
            heldout_samples=sizes.get(stream.name, 0),
            num_shards=len(stream.index.files),
            stored_bytes=_stored(stream),
            tokenizer=stream.tokenizer.name if stream.tokenizer else None,
            tokenizer_fingerprint=stream.tokenizer.fingerprint if stream.tokenizer else None,
            fingerprint=stream.fingerprint,
            rejected_documents=_known(manifest, "rejected_documents"),
            duplicate_documents=_known(manifest, "duplicate_documents"),
            excluded_documents=_known(manifest, "excluded_documents"),
            texts=texts,
            no_texts=reason,
        )

    return Survey(root=str(catalog.root), streams=tuple(all_together(look, catalog, catalog.root)))


def _stored(stream: Stream) -> int:
    index = stream.index
    return int((index.compressed_bytes if index.compression else index.file_bytes).sum())


def _known(manifest: StreamManifest | None, name: str) -> int | None:
    value: int | None = getattr(manifest, name) if manifest else None
    return value


def _texts(stream: Stream, count: int, find_decoder: FindDecoder) -> tuple[tuple[SampleText, ...], str | None]:
    """Return the texts of some samples, or why they cannot be told."""
    if stream.tokenizer is None:
        return (), "nobody wrote down which tokenizer made the tokens"
    try:
        decode = find_decoder(stream.tokenizer)
    except TokenizerError as problem:
        return (), str(problem)
    count = min(count, stream.num_samples)
    texts = []
    for sample in ((2 * np.arange(count) + 1) * stream.num_samples // (2 * count)).tolist():
        tokens = sample_tokens(stream, sample)
        if stream.layout == "documents":
            ends = np.flatnonzero(tokens == stream.tokenizer.eod_token_id)
            tokens = tokens[: ends[0] if len(ends) else len(tokens)]
        texts.append(SampleText(sample=sample, text=decode(tokens)))
    return tuple(texts), None


def sample_tokens(stream: Stream, sample: int) -> Tokens:
    """Return the tokens of one sample, (sequence_length,); of an object only what holds them is fetched.

    Raises:
        ShardError: its shard is not what index.json says.
        RemoteError: an object store refuses, or does not answer for long.
    """
    starts = shard_starts(stream.index.shard_samples)
    number = int(np.searchsorted(starts, sample, side="right")) - 1
    row, place = sample - int(starts[number]), stream.directory / stream.index.files[number]
    sizes, position = stream.column.sizes, stream.column.position
    if isinstance(place, Path) or stream.index.compression or None in sizes:
        tokens: Tokens = load_shard(stream, number).read(np.array([row]))[0]
        return tokens
    try:
        with RemoteFile(place) as file:
            file.seek(4 + 4 * row)
            file.seek(int.from_bytes(file.read(4), "little") + sum(size or 0 for size in sizes[:position]))
            content = file.read(sizes[position] or 0)
    except FileNotFoundError:
        raise ShardError(f"{place}: no such object, but index.json lists it; upload the stream again") from None
    if len(content) != sizes[position]:
        raise ShardError(f"{place}: row {row} ends behind the object; upload the stream again")
    return np.frombuffer(content, stream.column.dtype)
