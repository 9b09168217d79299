"""What is chosen of a stream's shards, put together to the shards of another stream."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mixstream.errors import StreamError
from mixstream.streams.catalog import Stream
from mixstream.streams.documents import sample_means
from mixstream.streams.files import read_raw
from mixstream.streams.index import INDEX_NAME, Int64
from mixstream.streams.mapped import MappedShard
from mixstream.streams.shard import Shard, shard_starts
from mixstream.streams.writer import SHARD_BYTES, RowFormat, write_index, write_shard

Array = npt.NDArray[Any]
Columns = Mapping[str, Array]

STEP = 1 << 22  # tokens or samples of a shard, that are chosen from at a time


def pieces_of(stream: Stream, chosen: Iterator[tuple[Array, Int64 | None]], units: int) -> Iterator[Columns]:
    """Yield what is chosen of a stream's shards: tokens one after the other, or samples with all their columns.

    Args:
        stream: it.
        chosen: of its documents or samples, in order, whether each is chosen, and how many units it has (None: one).
        units: of a sample: its tokens; or 1, where samples are chosen.
    """
    starts = shard_starts(stream.index.shard_samples) * units
    begin = number = 0
    opened, columns = -1, {}
    for own, sizes in chosen:
        ends = begin + (np.cumsum(sizes) if sizes is not None else np.arange(1, len(own) + 1))
        while number < len(starts) - 1 and begin < ends[-1]:
            end = min(int(ends[-1]), int(starts[number + 1]), begin + STEP)
            inside_of = np.clip(ends, begin, end)
            mask = np.repeat(own, np.diff(inside_of, prepend=begin))
            if mask.any():
                if opened != number:
                    opened, columns = number, _columns(stream, number, units)
                first = begin - int(starts[number])
                yield {name: values[first : first + len(mask)][mask] for name, values in columns.items()}
            begin = end
            number += end == starts[number + 1]
        begin = int(ends[-1])


def _columns(stream: Stream, number: int, units: int) -> dict[str, Array]:
    """Return the tokens of a shard, end to end; or, of samples with `units` 1, all its columns.

    Raises:
        ShardError: it is damaged.
        StreamError: it has a column of no fixed size.
    """
    path, data = read_raw(stream, number, verify_hashes=True)
    count = int(stream.index.shard_samples[number])
    shard = Shard(path, data, count, stream.column)
    rows = shard.read(np.arange(count)) if shard.rows is None else shard.rows
    if units > 1:
        return {stream.column.name: rows.reshape(-1)}
    columns, mapped = {stream.column.name: rows}, MappedShard(path, data, count, stream.index.column_sizes)
    for name, (dtype, shape) in format_of(stream).layouts.items():
        if name != stream.column.name:
            values = mapped.table(stream.index.column_names.index(name))
            assert values is not None, "columns are of fixed sizes"
            columns[name] = np.ascontiguousarray(values).view(dtype).reshape(count, *shape)
    return columns


def format_of(stream: Stream) -> RowFormat:
    """Return the columns of a view's samples: the stream's, its tokens of their one length.

    Raises:
        StreamError: one has no fixed size.
    """
    column, index = stream.column, stream.index
    encodings = dict(zip(index.column_names, index.column_encodings, strict=True))
    encodings[column.name] = f"ndarray:{column.dtype.name}:{stream.sequence_length}"
    try:
        return RowFormat(tuple(encodings.items()))
    except StreamError as problem:
        raise StreamError(
            f"{stream.directory}: {problem}; no view can be cut out of it, convert its corpus with mixstream convert "
            f"--subsample"
        ) from None


class ViewShards:
    """Puts what comes together to shards of a view, as a conversion would; left well, it writes the index."""

    def __init__(self, stream: Stream, num_samples: int, place: Path, units: int) -> None:
        """Prepare to write.

        Args:
            stream: that the view is cut out of, whose columns, shard size and compression it has.
            num_samples: of the view.
            place: folder of the view.
            units: of a sample, as `pieces_of` gives them: its tokens, or 1.
        """
        self._place = place
        self._units = units
        self._length = stream.sequence_length
        self._token_column = stream.column.name
        self._format = format_of(stream)
        self._shard_bytes, self._compression = _written_as(stream)
        self._step = self._format.samples_per_shard(self._shard_bytes, self._compression)
        self._samples = num_samples
        self._done = self._filled = 0
        self._entries: list[Mapping[str, Any]] = []
        self._documents: list[Columns] = []
        self._buffers = self._new_buffers()

    def __enter__(self) -> ViewShards:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            assert self._done == self._samples, "what was counted is there"
            write_index(self._place, self._entries)

    def note(self, documents: Columns) -> None:
        """Tell of documents, whose tokens come next: where they begin, how many they are, their fields."""
        if self._units > 1 and len(self._format.columns) > 1:
            self._documents.append(documents)

    def add(self, columns: Columns) -> None:
        """Append units of each column; what fills no sample is left out."""
        count, taken = len(columns[self._token_column]), 0
        while taken < count and self._buffers:
            room = len(self._buffers[self._token_column]) - self._filled
            step = min(room, count - taken)
            for name, buffer in self._buffers.items():
                buffer[self._filled : self._filled + step] = columns[name][taken : taken + step]
            self._filled += step
            taken += step
            if step == room:
                self._flush()

    def _flush(self) -> None:
        count = self._filled // self._units
        rows = {
            name: own.reshape(count, *shape)
            for name, own in self._buffers.items()
            for _, shape in [self._format.layouts[name]]
        }
        rows |= self._means(range(self._done, self._done + count))
        number = len(self._entries)
        entry = write_shard(self._place, number, rows, self._format, self._shard_bytes, self._compression)
        self._entries.append(entry)
        self._done += count
        self._buffers = self._new_buffers()

    def _new_buffers(self) -> dict[str, Array]:
        """Return room for the next shard; none where all samples are there."""
        self._filled = 0
        count = min(self._step, self._samples - self._done) * self._units
        if not count:
            return {}
        return {
            name: np.empty((count, *(() if self._units > 1 else shape)), dtype)
            for name, (dtype, shape) in self._format.layouts.items()
            if self._units == 1 or name == self._token_column
        }

    def _means(self, samples: range) -> dict[str, Array]:
        """Return the documents' fields as columns of packed samples."""
        if not self._documents:
            return {}
        first, last = samples.start * self._length, samples.stop * self._length
        held = {name: np.concatenate([own[name] for own in self._documents]) for name in self._documents[0]}
        ends = held["begin"] + held["num_tokens"]
        here = (held["begin"] < last) & (ends > first)
        begins, lengths = held["begin"][here] - first, held["num_tokens"][here]
        self._documents = [{name: own[ends > last] for name, own in held.items()}]
        return {
            name: sample_means(begins, lengths, held[name][here], range(len(samples)), self._length)
            for name in self._format.layouts
            if name != self._token_column
        }


def _written_as(stream: Stream) -> tuple[int, str | None]:
    """Return the most bytes of a shard, and its compression, as the stream was written; zstd or none."""
    shards = json.loads((stream.directory / INDEX_NAME).read_bytes())["shards"]
    size_limit, compression = shards[0].get("size_limit"), stream.index.compression
    is_ours = compression is not None and compression.partition(":")[0] == "zstd"
    return size_limit if type(size_limit) is int else SHARD_BYTES, compression if is_ours else None
