"""A stream's documents.parquet compared with its stream.json, read once, in order, as its shards ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from mixstream.errors import RemoteError, StreamError
from mixstream.streams.catalog import Stream
from mixstream.streams.contents import Reaching
from mixstream.streams.documents import read_documents
from mixstream.streams.index import Int64
from mixstream.streams.manifest import DOCUMENTS_NAME, MANIFEST_NAME, StreamManifest, read_manifest
from mixstream.streams.place import Place
from mixstream.streams.shard import shard_starts


class Tally:
    """The documents of a split, in order, as far as its shards have asked for them.

    Attributes:
        num_documents: that were read.
        problem: the first that was found; from there on nothing is compared.
    """

    def __init__(self, stream: Stream, manifest: StreamManifest) -> None:
        """Read the documents of `stream`."""
        self.num_documents = 0
        self.problem: str | None = None
        self._manifest = manifest
        self._place = stream.directory / DOCUMENTS_NAME
        self._starts = shard_starts(stream.index.shard_samples)
        self._batches = self._read(stream.directory)
        self._names = ["begin", "num_tokens", *manifest.columns]
        self._held: dict[str, npt.NDArray[Any]] = {}
        self._coming: list[dict[str, npt.NDArray[Any]]] = []  # read, and not yet held
        self._reached = 0  # token up to which documents were read, padding included
        self._first = 0  # number of the first that is held
        self._tokens = self._num_bytes = self._padding = self._truncated = 0

    def of_shard(self, number: int) -> Reaching | None:
        """Return the documents of a shard; the shards are asked for in order. None after a problem."""
        samples = range(int(self._starts[number]), int(self._starts[number + 1]))
        first_token, last_token = (end * self._manifest.sequence_length for end in (samples.start, samples.stop))
        try:
            while self.problem is None and self._reached < last_token:
                if not self._pull():
                    raise StreamError(
                        f"{self._place}: its {self.num_documents} documents end at token {self._reached}, the "
                        f"samples of shard {number} at {last_token}; convert the corpus again with --overwrite"
                    )
        except (StreamError, RemoteError) as problem:
            self.problem = str(problem)
        if self.problem is not None:
            return None
        parts = [self._held, *self._coming] if self._held else self._coming
        self._held = {name: np.concatenate([part[name] for part in parts]) for name in self._names}
        self._coming = []
        begin = self._held["begin"]
        passed = int(np.searchsorted(self._ends(), first_token, side="right"))
        self._first += passed
        self._held = {name: values[passed:] for name, values in self._held.items()}
        reach = int(np.searchsorted(begin[passed:], last_token, side="left"))
        own = {name: values[:reach] for name, values in self._held.items()}
        fields = {name: own[name] for name in self._manifest.columns}
        return Reaching(self._manifest, samples, self._first, own["begin"], own["num_tokens"], fields)

    def finish(self) -> None:
        """Read what is left, and compare the sums with stream.json."""
        try:
            while self.problem is None and self._pull():
                self._coming = []
        except (StreamError, RemoteError) as problem:
            self.problem = str(problem)
        if self.problem is not None:
            return
        manifest = self._manifest
        packed = manifest.layout == "packed"
        counts = {
            "documents": (self.num_documents, manifest.num_documents),
            "tokens": (self._tokens, manifest.document_tokens),
            "bytes of text": (self._num_bytes, manifest.num_bytes),
            "tokens of padding": (self._padding, None if packed else manifest.padding_tokens),
            "tokens cut off": (self._truncated, None if packed else manifest.truncated_tokens),
        }
        wrong = [f"{found} {what}, {known}" for what, (found, known) in counts.items() if known not in (None, found)]
        if wrong:
            self.problem = (
                f"{self._place}: tells and {MANIFEST_NAME} says: {'; '.join(wrong)}; one of them is of another "
                f"conversion, copy the stream again or convert the corpus again with --overwrite"
            )

    def _ends(self) -> Int64:
        """Return the tokens up to which each document that is held reaches, padding included."""
        if self._manifest.layout == "documents":
            return self._held["begin"] + self._manifest.sequence_length
        ends: Int64 = self._held["begin"] + self._held["num_tokens"]
        return ends

    def _pull(self) -> bool:
        """Read on; return whether there was more.

        Raises:
            StreamError: the table is damaged, or not one of this stream.
        """
        batch = next(self._batches, None)
        if batch is None:
            return False
        self._check(batch)
        self._coming.append(batch)
        return True

    def _read(self, directory: Place) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """Yield the columns of some documents; of a kept field's, NaN where there is none."""
        wanted = ["id", "begin", "num_tokens", "num_bytes", *self._manifest.columns]
        for batch in read_documents(directory):
            types = [str(kind) for kind in batch.schema.types]
            if batch.schema.names != wanted or types != ["string", *3 * ["int64"], *(len(wanted) - 4) * ["double"]]:
                raise StreamError(
                    f"{self._place}: has columns {', '.join(map(str, batch.schema))}; expected {', '.join(wanted)}: "
                    f"string, int64, and float64 for kept fields"
                )
            if any(batch.column(name).null_count for name in wanted[:4]):
                raise StreamError(f"{self._place}: a document without id, begin, num_tokens or num_bytes")
            yield {name: batch.column(name).to_numpy(zero_copy_only=False) for name in wanted[1:]}

    def _check(self, batch: dict[str, npt.NDArray[Any]]) -> None:
        """Count some documents.

        Raises:
            StreamError: one without tokens, or that does not begin where it must.
        """
        begin, num_tokens, length = batch["begin"], batch["num_tokens"], self._manifest.sequence_length
        if self._manifest.layout == "documents":
            expected = (self.num_documents + np.arange(len(begin))) * length
        else:
            expected = self._tokens + np.cumsum(num_tokens) - num_tokens
        wrong = np.flatnonzero((begin != expected) | (num_tokens < 1) | (batch["num_bytes"] < 0))
        if len(wrong):
            row = wrong[0]
            raise StreamError(
                f"{self._place}: document {self.num_documents + row} has {num_tokens[row]} tokens from {begin[row]}, "
                f"expected one or more from {expected[row]}; convert the corpus again with --overwrite"
            )
        self.num_documents += len(begin)
        self._tokens += int(num_tokens.sum())
        self._num_bytes += int(batch["num_bytes"].sum())
        self._padding += int(np.maximum(0, length - num_tokens).sum())
        self._truncated += int(np.maximum(0, num_tokens - length).sum())
        self._reached = self.num_documents * length if self._manifest.layout == "documents" else self._tokens


def open_tally(stream: Stream) -> Tally | None:
    """Return the documents of a stream, or None where they are not told and need not be.

    Raises:
        StreamError: they are missing, or samples have not the columns that stream.json says.
    """
    manifest = read_manifest(stream.directory)
    if manifest is None:
        return None
    for name in manifest.columns:
        columns = dict(zip(stream.index.column_names, stream.index.column_encodings, strict=True))
        if columns.get(name) != "float64":
            raise StreamError(
                f"{stream.directory}: {MANIFEST_NAME} says that samples have a column {name!r}, index.json has "
                f"{columns}; expected it as float64, copy the stream again"
            )
    if (stream.directory / DOCUMENTS_NAME).exists():
        return Tally(stream, manifest)
    if manifest.conversion is None or (manifest.view and manifest.view.by == "sample"):  # of before, or not known
        return None
    raise StreamError(
        f"{stream.directory / DOCUMENTS_NAME}: there is none; copy the stream again or convert it again with "
        f"--overwrite"
    )
