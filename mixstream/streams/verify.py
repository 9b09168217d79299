"""Every shard of a folder of streams, looked through from its first byte to its last, and the documents in it."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixstream.errors import MixstreamError, RemoteError, ShardError, StreamError
from mixstream.streams.catalog import Stream, check_names, find_streams, open_stream
from mixstream.streams.contents import Reaching, check_ends, check_field
from mixstream.streams.documents import Float64
from mixstream.streams.files import read_raw
from mixstream.streams.hashes import noted_hash
from mixstream.streams.index import INDEX_NAME, Int64
from mixstream.streams.manifest import HELDOUT, MANIFEST_NAME, TRAIN, StreamManifest, read_manifest
from mixstream.streams.mapped import MappedShard
from mixstream.streams.place import Place, all_together
from mixstream.streams.shard import Shard, Tokens
from mixstream.streams.tally import open_tally

THREADS = min(8, os.cpu_count() or 1)  # hashing, decompressing and comparing run outside Python's lock
CHUNK_SAMPLES = 1024


@dataclass(frozen=True)
class Verdict:
    """What was found of one stream, or of its held-out split.

    Attributes:
        name: the stream's, ``/heldout`` behind it for a split.
        num_shards, num_samples: what index.json lists; 0 where it cannot be read.
        hashed: shards whose content was compared with a hash.
        problems: all that is wrong, in words.
        documents: that the shards were compared with; None where nobody wrote them down.
    """

    name: str
    num_shards: int
    num_samples: int
    hashed: int
    problems: tuple[str, ...]
    documents: int | None = None


def verify_streams(
    root: str | Path,
    token_column: str | None = None,
    announce: Callable[[int], None] = lambda total: None,
    advance: Callable[[int], None] = lambda done: None,
) -> list[Verdict]:
    """Look through the streams under a folder and their held-out splits; nothing is written.

    Args:
        root: a folder of stream directories, or one stream directory; or the URL of one.
        token_column: of plain MDS directories that have neither ``tokens`` nor ``input_ids``.
        announce: is told how many shards there are.
        advance: is told of every few shards how many they are.

    Raises:
        StreamError: there is no such folder, no stream in it, or what was one.
    """
    opened: dict[str, Stream] = {}
    broken: dict[str, str] = {}
    for name, directory in _targets(root).items():
        try:
            opened[name] = open_stream(name.partition("/")[0], directory, token_column)
        except MixstreamError as problem:
            broken[name] = str(problem)
    announce(sum(len(stream.index.files) for stream in opened.values()))
    verdicts = [Verdict(name, 0, 0, 0, (problem,)) for name, problem in broken.items()]
    verdicts += [_verify_stream(name, stream, advance) for name, stream in opened.items()]
    verdicts.sort(key=lambda verdict: verdict.name)
    try:
        check_names({name: stream for name, stream in opened.items() if "/" not in name})
    except StreamError as problem:
        verdicts.append(Verdict("(names)", 0, 0, 0, (str(problem),)))
    return verdicts


def _targets(root: str | Path) -> dict[str, Place]:
    """Return every stream's directory, and every held-out split's, by name."""
    folder, streams = find_streams(root)
    splits = all_together(lambda directory: (directory / HELDOUT / INDEX_NAME).exists(), streams.values(), folder)
    places = {}
    for (name, directory), has_split in zip(streams.items(), splits, strict=True):
        places[name] = directory
        if has_split:
            places[f"{name}/{HELDOUT}"] = directory / HELDOUT
    return places


def _verify_stream(name: str, stream: Stream, advance: Callable[[int], None]) -> Verdict:
    count, problems, tally = len(stream.index.files), [], None
    try:
        _check_split(name, stream)
        tally = open_tally(stream)
    except MixstreamError as problem:
        problems.append(str(problem))
    waiting: deque[Future[str | None]] = deque()
    with ThreadPoolExecutor(THREADS) as pool:
        for number in range(count):
            documents = tally.of_shard(number) if tally else None  # of few shards at a time, whatever the stream's size
            waiting.append(pool.submit(_problem, stream, number, documents))
            if len(waiting) > 2 * THREADS:
                problems += filter(None, [waiting.popleft().result()])
                advance(1)
        for last in waiting:
            problems += filter(None, [last.result()])
            advance(1)
    if tally:
        tally.finish()
        problems += filter(None, [tally.problem])
    hashed = sum(noted_hash(stream.index.hashes, number) is not None for number in range(count))
    return Verdict(name, count, stream.num_samples, hashed, tuple(problems), tally.num_documents if tally else None)


def _check_split(name: str, stream: Stream) -> None:
    """Check that a stream's stream.json is not the other split's, and that both are of one conversion.

    Raises:
        StreamError: it is, or they are not.
    """
    manifest, expected = read_manifest(stream.directory), HELDOUT if "/" in name else TRAIN
    if manifest is None:
        return
    if manifest.split != expected:
        raise StreamError(
            f"{stream.directory}: {MANIFEST_NAME} says that it is the split {manifest.split!r}, expected {expected!r}; "
            f"copy the stream again"
        )
    whole = read_manifest(stream.directory.parent) if expected == HELDOUT else None
    if whole is None or whole.conversion is None:
        return
    if manifest.conversion != whole.conversion or whole.heldout_documents not in (None, manifest.num_documents):
        raise StreamError(
            f"{stream.directory}: has {manifest.num_documents} documents of the conversion {_told(manifest)}, the "
            f"stream's {MANIFEST_NAME} tells of {whole.heldout_documents} of {_told(whole)}; copy the stream again or "
            f"convert it again with --overwrite"
        )


def _told(manifest: StreamManifest) -> str:
    return manifest.conversion.fingerprint if manifest.conversion else "unknown"


def _problem(stream: Stream, number: int, documents: Reaching | None) -> str | None:
    try:
        verify_shard(stream, number, documents)
    except (ShardError, RemoteError) as problem:
        return str(problem)
    return None


def verify_shard(stream: Stream, number: int, documents: Reaching | None = None) -> None:
    """Look through one shard: its file, size, header, offsets, noted hash, every token, and kept fields.

    Args:
        stream: the stream.
        number: of the shard.
        documents: that it is made of, where they are known.

    Raises:
        ShardError: what is wrong with it.
    """
    path, data = read_raw(stream, number, verify_hashes=True)
    sizes = stream.index.column_sizes
    shard = Shard(path, data, int(stream.index.shard_samples[number]), stream.column)
    for first in range(0, shard.num_samples, CHUNK_SAMPLES):
        rows = np.arange(first, min(first + CHUNK_SAMPLES, shard.num_samples))
        tokens = shard.read(rows) if shard.rows is None else shard.rows[rows[0] : rows[-1] + 1]
        _check_tokens(stream, number, rows, tokens)
        if documents is not None:
            check_ends(path, first, tokens, documents)
    if documents is not None:
        for name in documents.fields:
            check_field(
                path, name, _numbers(stream, name, MappedShard(path, data, shard.num_samples, sizes)), documents
            )


def _numbers(stream: Stream, name: str, shard: MappedShard) -> Float64:
    """Return a float64 column of all samples, (n,).

    Raises:
        ShardError: it does not lie evenly.
    """
    values = shard.table(stream.index.column_names.index(name))
    if values is None or values.shape[1] != 8:
        raise ShardError(f"{shard.path}: column {name!r} is not of 8 bytes a sample; the shard is damaged")
    numbers: Float64 = np.ascontiguousarray(values).view("<f8")[:, 0]
    return numbers


def _check_tokens(stream: Stream, number: int, rows: Int64, tokens: Tokens) -> None:
    """Check the lengths of `rows` (n,) and, where the tokenizer is known, that their tokens are its own."""
    path = stream.directory / stream.index.files[number]
    if tokens.shape[1] != stream.sequence_length:
        raise ShardError(f"{path}: has samples of {tokens.shape[1]} tokens, expected {stream.sequence_length}")
    tokenizer = stream.tokenizer
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or (tokenizer is not None and high >= tokenizer.vocab_size):
        outside = tokens < 0 if tokenizer is None else (tokens < 0) | (tokens >= tokenizer.vocab_size)
        row, column = np.argwhere(outside)[0]
        known = f"; the tokenizer {tokenizer.name!r} has {tokenizer.vocab_size}" if tokenizer else ""
        raise ShardError(
            f"{path}: row {rows[row]} has token {tokens[row, column]} at {column}, expected one from 0{known}; the "
            f"shard is damaged, or of another tokenizer"
        )
