"""The documents and texts of samples that were traced, from the streams as they are now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mixstream.errors import MissingExtraError, StreamError, TokenizerError
from mixstream.loader.trace import TracedRow
from mixstream.loader.trace.legs import Leg
from mixstream.report.traced import DocumentShown
from mixstream.streams.catalog import Stream, load_shard
from mixstream.streams.document_search import documents_of_samples
from mixstream.streams.documents import DocumentPart
from mixstream.streams.place import all_together
from mixstream.streams.shard import Shard, Tokens
from mixstream.streams.survey import FindDecoder, sample_tokens


@dataclass(frozen=True)
class Contents:
    """Documents and texts by stream and sample; and why those of a stream are missing, by stream."""

    documents: dict[tuple[str, int], tuple[DocumentShown, ...]] = field(default_factory=dict)
    texts: dict[tuple[str, int], str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def read_contents(leg: Leg, rows: Sequence[TracedRow], find_decoder: FindDecoder | None) -> Contents:
    """Return the documents of rows, and with a decoder their texts; streams of a store are read together.

    Raises:
        ShardError: a shard that is not what index.json says.
        RemoteError: an object store refuses, or does not answer for long.
    """
    by_stream: dict[str, list[TracedRow]] = defaultdict(list)
    for row in rows:
        by_stream[row.origin.stream].append(row)
    streams = {stream.name: stream for stream in leg.streams}
    contents = Contents()

    def look(name: str) -> None:
        stream, own = streams[name], by_stream[name]
        try:
            samples, is_padded = [row.sample for row in own], stream.layout == "documents"
            found = documents_of_samples(stream.directory, samples, leg.plan.sequence_length, is_padded)
        except (StreamError, MissingExtraError) as problem:
            contents.missing[name] = f"no documents: {problem}"
        else:
            contents.documents.update({(name, sample): _shown(parts) for sample, parts in found.items()})
        if find_decoder is None:
            return
        try:
            contents.texts.update(_texts(leg, stream, own, find_decoder))
        except TokenizerError as problem:
            contents.missing[name] = "; ".join([*filter(None, [contents.missing.get(name)]), f"no texts: {problem}"])

    all_together(look, by_stream, leg.streams[0].directory)
    return contents


def _shown(parts: Sequence[DocumentPart]) -> tuple[DocumentShown, ...]:
    return tuple(
        DocumentShown(id=one.id, start=one.start, stop=one.stop, offset=one.offset, num_tokens=one.num_tokens)
        for one in parts
    )


def _texts(
    leg: Leg, stream: Stream, rows: Sequence[TracedRow], find_decoder: FindDecoder
) -> dict[tuple[str, int], str]:
    """Return the texts of samples of one stream; of padded ones without the padding.

    Raises:
        TokenizerError: what made the tokens is unknown, not here, or another one by now.
    """
    if stream.tokenizer is None:
        raise TokenizerError("nobody wrote down which tokenizer made the tokens")
    decode, length = find_decoder(stream.tokenizer), leg.plan.sequence_length
    shards: dict[str, Shard] = {}  # what is compressed is decompressed once
    found = {}
    for row in rows:
        tokens = _row_tokens(leg, stream, row, shards)[row.origin.part * length : (row.origin.part + 1) * length]
        if stream.layout == "documents":
            ends = np.flatnonzero(tokens == stream.tokenizer.eod_token_id)
            tokens = tokens[: ends[0] if len(ends) else len(tokens)]
        found[stream.name, row.sample] = decode(tokens)
    return found


def _row_tokens(leg: Leg, stream: Stream, row: TracedRow, shards: dict[str, Shard]) -> Tokens:
    """Return the tokens of the stored row that a traced row is of."""
    if not isinstance(stream.directory, Path) and not stream.index.compression:  # of an object only what is needed
        return sample_tokens(stream, row.sample * leg.plan.sequence_length // leg.plan.stored_sequence_length)
    name = row.origin.shard
    if name not in shards:
        shards[name] = load_shard(stream, stream.index.files.index(name))
    tokens: Tokens = shards[name].read(np.array([row.origin.row]))[0]
    return tokens
