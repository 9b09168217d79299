"""The shard task: samples out of the parts, one MDS shard, and the table of a split's documents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.tasks.encode import cannot_write
from converters.tasks.packing import Layout, Piece, Sequenced
from converters.tasks.parts import Array, documents_of, note_whole
from mixstream.streams.documents import DocumentsWriter, sample_means
from mixstream.streams.writer import TOKENS, RowFormat, write_shard


@dataclass(frozen=True)
class Samples:
    """What the samples of a stream are.

    Attributes:
        sequence_length: tokens of each.
        dtype: of a token.
        part_dtype: of a token in parts; where it is another, ends of documents are to be put in.
        eod_token_id: what they are.
        layout: packed, or a document each.
        pad_token_id: fills samples of documents up.
        keep: numeric fields of documents that are columns.
        shard_bytes, compression: of the shards.
    """

    sequence_length: int
    dtype: str
    part_dtype: str
    eod_token_id: int
    layout: Layout
    pad_token_id: int
    keep: tuple[str, ...]
    shard_bytes: int
    compression: str | None

    @property
    def format(self) -> RowFormat:
        """The columns of a shard."""
        tokens = (TOKENS, f"ndarray:{self.dtype}:{self.sequence_length}")
        return RowFormat(tuple(sorted([tokens, *((name, "float64") for name in self.keep)])))

    @property
    def units(self) -> int:
        """What one sample takes of the sequence: tokens, or documents."""
        return self.sequence_length if self.layout == "packed" else 1

    def count(self, sequenced: Sequenced) -> int:
        """Return how many samples a split's documents make."""
        units = sequenced.total_tokens if self.layout == "packed" else sequenced.total_documents
        return units // self.units


@dataclass(frozen=True)
class ShardTask:
    """One shard: where it goes and is noted to be whole, its number, what it is made of."""

    directory: str
    noted: str
    number: int
    samples: Samples
    pieces: tuple[Piece, ...]


def write_shard_of(task: ShardTask) -> dict[str, Any]:
    """Write a shard; return index.json's entry of it. What is there already is not made again.

    Raises:
        StreamError: it cannot be written.
    """
    noted = Path(task.noted)
    samples, directory = task.samples, Path(task.directory)
    done = _done(directory, noted)
    if done is not None:
        return done
    try:
        rows = _packed(task) if samples.layout == "packed" else _documents(task)
        entry = write_shard(directory, task.number, rows, samples.format, samples.shard_bytes, samples.compression)
        noted.parent.mkdir(parents=True, exist_ok=True)
        note_whole(noted, json.dumps(entry))
    except OSError as problem:
        raise cannot_write(directory, problem) from None
    return entry


def _done(directory: Path, noted: Path) -> dict[str, Any] | None:
    """Return the entry of a shard that is whole, or None."""
    try:
        entry: dict[str, Any] = json.loads(noted.read_text())
        stored = entry["zip_data"] or entry["raw_data"]
        is_whole = (directory / stored["basename"]).stat().st_size == stored["bytes"]
    except (FileNotFoundError, ValueError):  # a machine that stopped may leave a file empty
        return None
    return entry if is_whole else None


def _packed(task: ShardTask) -> dict[str, Array]:
    """Return the columns of packed samples, each with as many rows as the pieces' tokens fill."""
    samples = task.samples
    tokens = np.empty(sum(piece.end - piece.begin for piece in task.pieces), samples.dtype)
    filled = 0
    for piece in task.pieces:
        own = tokens[filled : filled + piece.end - piece.begin]
        if samples.part_dtype == samples.dtype:
            _read(piece, own)
        else:
            stored = np.empty(len(own), samples.part_dtype)
            _read(piece, stored)
            own[:] = stored
            own[_ends(piece)] = samples.eod_token_id
        filled += len(own)
    rows = {TOKENS: tokens.reshape(-1, samples.sequence_length)}
    if samples.keep:
        found, values = zip(*(_values(piece, samples.keep) for piece in task.pieces), strict=True)
        lengths = np.concatenate(found)
        begins, whole = np.cumsum(lengths) - lengths, range(len(rows[TOKENS]))
        for name, own in zip(samples.keep, np.concatenate(values, axis=1), strict=True):
            rows[name] = sample_means(begins, lengths, own, whole, samples.sequence_length)
    return rows


def _read(piece: Piece, into: Array) -> None:
    """Read the tokens of a piece of packed samples."""
    with Path(f"{piece.path}.tokens").open("rb", buffering=0) as file:
        file.seek((piece.token + piece.begin) * into.itemsize)
        missing = into.data.cast("B")
        while missing and (size := file.readinto(missing)):  # one call reads 2 GiB at most
            missing = missing[size:]
    assert not missing, "a part that is whole has all its tokens"


def _ends(piece: Piece) -> Array:
    """Return where documents end among the tokens of a piece of packed samples."""
    num_tokens = documents_of(piece.path)["num_tokens"].slice(piece.row, piece.num_documents).to_numpy()
    ends = np.cumsum(num_tokens) - 1
    inside: Array = ends[np.searchsorted(ends, piece.begin) : np.searchsorted(ends, piece.end)]
    return inside - piece.begin


def _values(piece: Piece, keep: Sequence[str]) -> tuple[Array, Array]:
    """Return of the documents that a piece's tokens are of how many each has of them, (n,), and its values, (k, n)."""
    table = documents_of(piece.path).slice(piece.row, piece.num_documents)
    ends = np.cumsum(table["num_tokens"].to_numpy())
    inside = np.clip(ends, piece.begin, piece.end)
    lengths = np.diff(inside, prepend=piece.begin)
    has_some = lengths > 0
    return lengths[has_some], np.stack([table[name].to_numpy()[has_some] for name in keep])


def _documents(task: ShardTask) -> dict[str, Array]:
    """Return the columns of samples of a document each."""
    samples = task.samples
    length = samples.sequence_length
    found: list[Array] = []
    values: list[Array] = []
    for piece in task.pieces:
        table = documents_of(piece.path).slice(piece.row, piece.num_documents)
        ends = np.cumsum(table["num_tokens"].to_numpy())
        begins = ends - table["num_tokens"].to_numpy()
        tokens = np.memmap(f"{piece.path}.tokens", samples.part_dtype, mode="r")[piece.token :]  # most may be cut off
        for document in range(piece.begin, piece.end):
            own = tokens[begins[document] : min(ends[document], begins[document] + length)].astype(samples.dtype)
            if len(own) == ends[document] - begins[document]:
                own[-1] = samples.eod_token_id
            padding = np.full(length - len(own), samples.pad_token_id, samples.dtype)
            found.append(np.concatenate((own, padding)))
        if samples.keep:
            values.append(np.stack([table[name].to_numpy()[piece.begin : piece.end] for name in samples.keep]))
    rows = {TOKENS: np.stack(found)}
    for i, name in enumerate(samples.keep):
        rows[name] = np.concatenate([own[i] for own in values])
    return rows


@dataclass(frozen=True)
class TableTask:
    """The table of a split's documents: where it goes, and the runs in their order."""

    directory: str
    keep: tuple[str, ...]
    layout: Layout
    sequence_length: int
    sequenced: Sequenced


def write_table(task: TableTask) -> tuple[int, int]:
    """Write documents.parquet.

    Returns:
        Tokens that samples of a document each cut off, and that they are filled up with.

    Raises:
        StreamError: it cannot be written.
    """
    import pyarrow

    begin = truncated = padding = 0
    try:
        with DocumentsWriter(Path(task.directory), task.keep) as writer:
            for table in _tables(task.sequenced):
                num_tokens = table["num_tokens"].to_numpy()
                if task.layout == "packed":
                    begins = begin + np.cumsum(num_tokens) - num_tokens
                    begin += int(num_tokens.sum())
                else:
                    begins = begin + np.arange(len(num_tokens)) * task.sequence_length
                    begin += len(num_tokens) * task.sequence_length
                truncated += int(np.maximum(num_tokens - task.sequence_length, 0).sum())
                padding += int(np.maximum(task.sequence_length - num_tokens, 0).sum())
                kept = [pyarrow.array(table[own].to_numpy(), from_pandas=True) for own in task.keep]  # nan: null
                writer.write(table["id"], begins, num_tokens, table["num_bytes"], kept)
    except OSError as problem:
        raise cannot_write(Path(task.directory), problem) from None
    return truncated, padding


def _tables(sequenced: Sequenced) -> Iterator[Any]:
    """Yield the rows of each run, a part's table opened once for all its runs that follow one another."""
    opened, table = -1, None
    for part, row, count in zip(sequenced.part, sequenced.row, sequenced.num_documents, strict=True):
        if part != opened:
            opened, table = part, documents_of(sequenced.paths[int(part)])
        assert table is not None, "no part has a negative number"
        yield table.slice(int(row), int(count))
