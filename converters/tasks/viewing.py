"""The view task: the chosen documents or samples of one stream, read once in order, to the shards of another stream.

What is held is one shard of each of the two, and some thousands of documents.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from converters.documents import inside
from converters.tasks.choosing import Batch, Extent, Rule, ViewSource, chosen_samples, documents_of_stream
from converters.tasks.encode import cannot_write
from mixstream.errors import StreamError
from mixstream.formats import dump_json, write_whole
from mixstream.streams.catalog import Stream
from mixstream.streams.documents import DocumentsWriter, sample_means
from mixstream.streams.files import read_raw
from mixstream.streams.index import INDEX_NAME, Int64
from mixstream.streams.manifest import HELDOUT, MANIFEST_NAME, REJECTS_NAME, StreamManifest, Subsample, View
from mixstream.streams.mapped import MappedShard
from mixstream.streams.place import Place
from mixstream.streams.placing import is_part
from mixstream.streams.shard import Shard, shard_starts
from mixstream.streams.writer import SHARD_BYTES, RowFormat, write_index, write_shard

Array = npt.NDArray[Any]
Columns = Mapping[str, Array]


@dataclass(frozen=True)
class ViewTask:
    """A stream, what is chosen of it and how much that is, and the folder that the view is made in."""

    source: ViewSource
    rule: Rule
    extent: Extent
    directory: str


class _Totals(NamedTuple):
    """What the documents of a view have together."""

    num_tokens: int = 0
    num_bytes: int = 0
    truncated: int = 0
    padding: int = 0


def write_view(task: ViewTask) -> StreamManifest:
    """Write a view, its held-out split included; return its stream.json. What is in the folder goes away.

    Raises:
        StreamError: the stream has columns that no view can have, or is not what its files say; or the folder cannot
            be written.
    """
    place = Path(task.directory)
    try:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        manifest = _by_sample(task, place) if task.rule.by == "sample" else _by_document(task, place)
        write_whole(place / MANIFEST_NAME, dump_json(manifest))
        _keep_beside(task.source.stream.directory, place)
    except OSError as problem:
        raise cannot_write(place, problem) from None
    return manifest


def _by_sample(task: ViewTask, place: Path) -> StreamManifest:
    with _Shards(task, place, 1) as shards:
        for columns in _pieces(task.source.stream, ((own, None) for own in chosen_samples(task.source, task.rule)), 1):
            shards.add(columns)
    unknown = ("num_documents", "num_bytes", "remainder_tokens", "padding_tokens", "truncated_tokens")
    return _manifest(task, dict.fromkeys(unknown))


def _by_document(task: ViewTask, place: Path) -> StreamManifest:
    source, manifest = task.source, task.source.manifest
    length = manifest.sequence_length
    units = length if source.is_packed else 1
    with DocumentsWriter(place, manifest.columns) as writer, _Shards(task, place, units) as shards:
        table = _Table(writer, task, shards.note)
        for columns in _pieces(source.stream, table.chosen(), units):
            shards.add(columns)
    totals, tokens = table.totals, task.extent.samples * length
    counts: dict[str, Any] = {"num_documents": task.extent.documents, "num_bytes": totals.num_bytes}
    if source.is_packed:
        counts["remainder_tokens"] = totals.num_tokens - tokens
    else:
        counts |= {"truncated_tokens": totals.truncated, "padding_tokens": totals.padding}
    return _manifest(task, counts | {"subsample": Subsample(share=task.rule.share, seed=task.rule.seed)})


def _manifest(task: ViewTask, counts: Mapping[str, Any]) -> StreamManifest:
    """Return the stream.json of a view: that of its stream, but for what the choice changes."""
    known = {name: getattr(task.source.manifest, name) for name in StreamManifest.model_fields}
    tokens = task.extent.samples * task.source.manifest.sequence_length
    sizes = {"version": 2, "num_samples": task.extent.samples, "num_tokens": tokens, "view": view_of(task)}
    return StreamManifest.model_validate(known | sizes | dict(counts))


def view_of(task: ViewTask) -> View:
    """Return what stream.json says of how a view was cut out."""
    stream, rule = task.source.stream, task.rule
    return View(
        stream=stream.name,
        fingerprint=stream.fingerprint,
        by=rule.by,
        share=rule.share,
        seed=rule.seed,
        cut_documents=task.extent.cut,
    )


class _Table:
    """Writes the table of a view's documents, as they are passed."""

    def __init__(self, writer: DocumentsWriter, task: ViewTask, note: Callable[[Columns], None]) -> None:
        self._writer = writer
        self._task = task
        self._note = note
        self._left = task.extent.documents or 0
        self._begin = 0
        self.totals = _Totals()

    def chosen(self) -> Iterator[tuple[Array, Int64 | None]]:
        """Yield of the stream's documents, some at a time, whether the view has them, (n,), and their tokens, (n,).

        In layout "documents" each is one sample, and there are no tokens to tell.
        """
        rule, is_packed = self._task.rule, self._task.source.is_packed
        for batch in documents_of_stream(self._task.source):
            chosen = np.array(inside(batch.ids, rule.share, rule.seed), bool)
            chosen &= np.cumsum(chosen) <= self._left
            self._left -= int(chosen.sum())
            if chosen.any():
                self._write(batch, chosen)
            yield chosen, batch.num_tokens if is_packed else None

    def _write(self, batch: Batch, chosen: Array) -> None:
        import pyarrow

        length = self._task.source.manifest.sequence_length
        own = batch.table.filter(pyarrow.array(chosen))
        num_tokens = batch.num_tokens[chosen]
        steps = num_tokens if self._task.source.is_packed else np.full(len(num_tokens), length)
        ends = self._begin + np.cumsum(steps)
        fields = {name: own[name] for name in self._task.source.manifest.columns}
        self._writer.write(own["id"], ends - steps, num_tokens, own["num_bytes"], list(fields.values()))
        values = {name: field.to_numpy(zero_copy_only=False) for name, field in fields.items()}
        self._note({"begin": ends - steps, "num_tokens": num_tokens, **values})
        found = _Totals(
            int(num_tokens.sum()),
            int(own["num_bytes"].to_numpy().sum()),
            int(np.maximum(num_tokens - length, 0).sum()),
            int(np.maximum(length - num_tokens, 0).sum()),
        )
        self.totals = _Totals(*(had + has for had, has in zip(self.totals, found, strict=True)))
        self._begin = int(ends[-1])


def _pieces(stream: Stream, chosen: Iterator[tuple[Array, Int64 | None]], units: int) -> Iterator[Columns]:
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
            end = min(int(ends[-1]), int(starts[number + 1]))
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


class _Shards:
    """Puts what comes together to shards of a view, as a conversion would; left well, it writes the index."""

    def __init__(self, task: ViewTask, place: Path, units: int) -> None:
        stream = task.source.stream
        self._place = place
        self._units = units
        self._length = stream.sequence_length
        self._token_column = stream.column.name
        self._format = format_of(stream)
        self._shard_bytes, self._compression = _written_as(stream)
        self._step = self._format.samples_per_shard(self._shard_bytes, self._compression)
        self._samples = task.extent.samples
        self._done = self._filled = 0
        self._entries: list[Mapping[str, Any]] = []
        self._documents: list[Columns] = []
        self._buffers = self._new_buffers()

    def __enter__(self) -> _Shards:
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
        begins = np.maximum(held["begin"], first)[here] - first
        lengths = np.minimum(ends, last)[here] - first - begins
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


def _keep_beside(source: Place, place: Path) -> None:
    """Have the stream's held-out split and its rejects in the view's folder: the same files, where that can be."""
    if not isinstance(source, Path):
        for name in sorted(source.sizes()):
            if is_part(name) and (name.startswith(f"{HELDOUT}/") or name == REJECTS_NAME):
                (place / name).parent.mkdir(exist_ok=True)
                (place / name).write_bytes((source / name).read_bytes())
        return
    heldout = source / HELDOUT
    files = [source / REJECTS_NAME, *(heldout.iterdir() if heldout.is_dir() else ())]
    for file in files:
        name = str(file.relative_to(source))
        if is_part(name) and file.is_file():
            target = place / name
            target.parent.mkdir(exist_ok=True)
            try:
                os.link(file.resolve(), target)
            except OSError:  # another file system, or one without links
                shutil.copyfile(file, target)
