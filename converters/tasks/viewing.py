"""The view task: the chosen documents or samples of one stream, read once in order, to the shards of another stream.

What is held is one shard of each of the two, and some thousands of documents.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from converters.documents import inside
from converters.tasks.choosing import Batch, Extent, Rule, ViewSource, chosen_samples, documents_of_stream
from converters.tasks.encode import cannot_write
from converters.tasks.repacking import Array, Columns, ViewShards, pieces_of
from mixstream.formats import dump_json, write_whole
from mixstream.streams.documents import DocumentsWriter
from mixstream.streams.index import Int64
from mixstream.streams.manifest import HELDOUT, MANIFEST_NAME, REJECTS_NAME, StreamManifest, Subsample, View
from mixstream.streams.place import Place
from mixstream.streams.placing import is_part


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
    with _shards(task, place, 1) as shards:
        for columns in pieces_of(
            task.source.stream, ((own, None) for own in chosen_samples(task.source, task.rule)), 1
        ):
            shards.add(columns)
    unknown = ("num_documents", "num_bytes", "remainder_tokens", "padding_tokens", "truncated_tokens")
    return _manifest(task, dict.fromkeys(unknown))


def _by_document(task: ViewTask, place: Path) -> StreamManifest:
    source, manifest = task.source, task.source.manifest
    length = manifest.sequence_length
    units = length if source.is_packed else 1
    with DocumentsWriter(place, manifest.columns) as writer, _shards(task, place, units) as shards:
        table = _Table(writer, task, shards.note)
        for columns in pieces_of(source.stream, table.chosen(), units):
            shards.add(columns)
    totals, tokens = table.totals, task.extent.samples * length
    counts: dict[str, Any] = {"num_documents": task.extent.documents, "num_bytes": totals.num_bytes}
    if source.is_packed:
        counts["remainder_tokens"] = totals.num_tokens - tokens
    else:
        counts |= {"truncated_tokens": totals.truncated, "padding_tokens": totals.padding}
    return _manifest(task, counts | {"subsample": Subsample(share=task.rule.share, seed=task.rule.seed)})


def _shards(task: ViewTask, place: Path, units: int) -> ViewShards:
    return ViewShards(task.source.stream, task.extent.samples, place, units)


def _manifest(task: ViewTask, counts: Mapping[str, Any]) -> StreamManifest:
    """Return the stream.json of a view: that of its stream, but for what the choice changes."""
    known = {name: getattr(task.source.manifest, name) for name in StreamManifest.model_fields}
    tokens = task.extent.samples * task.source.manifest.sequence_length
    sizes = {
        "version": 2,
        "num_samples": task.extent.samples,
        "num_tokens": tokens,
        "view": view_of(task.source, task.rule, task.extent.cut),
    }
    return StreamManifest.model_validate(known | sizes | dict(counts))


def view_of(source: ViewSource, rule: Rule, cut_documents: int = 0) -> View:
    """Return what stream.json says of how a view was cut out."""
    stream = source.stream
    return View(
        stream=stream.name,
        fingerprint=stream.fingerprint,
        by=rule.by,
        share=rule.share,
        seed=rule.seed,
        cut_documents=cut_documents,
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
