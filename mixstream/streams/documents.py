"""documents.parquet: which document is where in a split of a stream, a row a document, in the stream's order.

Its columns: ``id``; ``begin``, the place of its first token among the tokens of all samples (behind them, where it lies
in the remainder); ``num_tokens``, its end included and what was cut off too; ``num_bytes`` of its text; and the numeric
fields that were kept, null where the document has none.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from mixstream.errors import MissingExtraError, StreamError
from mixstream.streams.index import Int64
from mixstream.streams.manifest import DOCUMENTS_NAME
from mixstream.streams.place import Place
from mixstream.streams.remote.file import RemoteFile

Float64 = npt.NDArray[np.float64]

GROUP_ROWS = 1 << 20
GROUP_BYTES = 1 << 26
BATCH_ROWS = 1 << 16
_STEP = 1 << 12  # documents, after which a row group may end: wherever the appended tables do
_COUNTS = ("begin", "num_tokens", "num_bytes")


class DocumentsWriter:
    """Writes documents.parquet, there whole or not at all; holds a row group at a time.

    Used as a context manager: left by an exception it leaves nothing. The same documents give the same bytes, whatever
    calls that they are given in.
    """

    def __init__(self, directory: Path, columns: Sequence[str] = ()) -> None:
        """Write into a split's folder, which exists; `columns` are the numeric fields that are kept."""
        self._arrow = _pyarrow()
        self._path = directory / DOCUMENTS_NAME
        self._temporary = directory / f".{DOCUMENTS_NAME}.tmp-{os.getpid()}-{secrets.token_hex(4)}"
        types = dict.fromkeys(columns, self._arrow.float64())
        counts = dict.fromkeys(_COUNTS, self._arrow.int64())
        self._schema = self._arrow.schema({"id": self._arrow.string(), **counts, **types})
        self._held: list[Any] = []
        self._held_rows = self._held_bytes = 0
        self._file: Any = None
        self.num_documents = 0

    def __enter__(self) -> DocumentsWriter:
        from pyarrow import parquet

        with self._telling():
            self._file = parquet.ParquetWriter(
                self._temporary,
                self._schema,
                compression="zstd",
                use_dictionary=False,
                column_encoding=dict.fromkeys(_COUNTS, "DELTA_BINARY_PACKED"),
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._flush()
            with self._telling():
                self._file.close()
                if error is None:
                    self._temporary.replace(self._path)
        finally:
            self._temporary.unlink(missing_ok=True)

    def write(self, ids: Any, begin: Any, num_tokens: Any, num_bytes: Any, fields: Sequence[Any] = ()) -> None:
        """Append n documents.

        Args:
            ids: (n,) texts; this and the others are pyarrow arrays, or what makes one.
            begin, num_tokens, num_bytes: (n,) whole numbers.
            fields: (n,) numbers of each kept field, null where a document has none.

        Raises:
            StreamError: more or fewer fields than kept ones, or a document without id or a count.
        """
        columns = [ids, begin, num_tokens, num_bytes, *fields]
        if len(columns) != len(self._schema):
            raise StreamError(f"{self._path}: {len(fields)} fields of documents, expected {len(self._schema) - 4}")
        documents = self._arrow.table(columns, self._schema.names).cast(self._schema)
        without = [name for name in ("id", *_COUNTS) if documents.column(name).null_count]
        if without:
            raise StreamError(f"{self._path}: a document without {without[0]}; every one has it")
        first = 0
        while first < documents.num_rows:
            step = min(_STEP - self._held_rows % _STEP, documents.num_rows - first)
            self._hold(documents.slice(first, step))
            first += step

    def _hold(self, documents: Any) -> None:
        from pyarrow import compute

        self._held.append(documents)
        self._held_rows += documents.num_rows
        self._held_bytes += compute.sum(compute.binary_length(documents.column("id"))).as_py()
        self._held_bytes += 8 * documents.num_rows * (documents.num_columns - 1)
        self.num_documents += documents.num_rows
        ends = self._held_rows >= GROUP_ROWS or self._held_bytes >= GROUP_BYTES
        if ends and self._held_rows % _STEP == 0:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            group = self._arrow.concat_tables(self._held).combine_chunks()
            with self._telling():
                self._file.write_table(group, row_group_size=group.num_rows)
        self._held, self._held_rows, self._held_bytes = [], 0, 0

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            raise StreamError(
                f"{self._path}: cannot be written ({problem.strerror or problem}); make room there, or elsewhere"
            ) from None


def read_documents_table(directory: Place) -> Any:
    """Return documents.parquet of a split as one pyarrow Table.

    Raises:
        StreamError: there is none, or it is damaged.
        RemoteError: an object store refuses, or does not answer for long.
    """
    with opened_documents(directory) as file:
        return file.read()


def read_documents(directory: Place) -> Iterator[Any]:
    """Yield documents.parquet of a split as pyarrow RecordBatches; errors as `read_documents_table`."""
    with opened_documents(directory) as file:
        yield from file.iter_batches(BATCH_ROWS)


@contextmanager
def opened_documents(directory: Place) -> Iterator[Any]:
    """Open documents.parquet of a split as a pyarrow ParquetFile; errors as `read_documents_table`."""
    _pyarrow()
    from pyarrow import parquet

    place = directory / DOCUMENTS_NAME
    try:
        with (
            place.open("rb") if isinstance(place, Path) else RemoteFile(place) as source,
            parquet.ParquetFile(source, pre_buffer=False) as file,
        ):
            yield file
    except FileNotFoundError:
        raise StreamError(
            f"{place}: there is none; copy it, or convert the corpus again with --overwrite to know its documents"
        ) from None
    except (OSError, ValueError) as problem:  # pyarrow's ArrowInvalid is a ValueError
        if isinstance(problem, StreamError):
            raise
        raise StreamError(
            f"{place}: cannot be read ({str(problem).splitlines()[0]}); it is damaged, copy it again or convert the "
            f"corpus again with --overwrite"
        ) from None


@dataclass(frozen=True)
class DocumentPart:
    """What a sample has of a document.

    Attributes:
        id: the document's.
        document: its number in the stream's split.
        start, stop: its tokens in the sample, from `start` up to `stop`.
        offset: tokens of the document that lie before the sample.
        num_tokens: of the whole document.
    """

    id: str
    document: int
    start: int
    stop: int
    offset: int
    num_tokens: int


def documents_of_sample(table: Any, sample: int, sequence_length: int) -> tuple[DocumentPart, ...]:
    """Return the documents that a sample was made of, in order.

    Args:
        table: of `read_documents_table`.
        sample: number in the split.
        sequence_length: tokens of a sample, as stored.

    Raises:
        StreamError: no document reaches into such a sample.
    """
    ids, begin, num_tokens = (table.column(name) for name in ("id", "begin", "num_tokens"))
    found = parts_of_sample(begin.to_numpy(), num_tokens.to_numpy(), sample, sequence_length)
    return tuple(DocumentPart(ids[row].as_py(), row, *own) for row, *own in found)


def parts_of_sample(
    begin: Int64, num_tokens: Int64, sample: int, sequence_length: int, is_padded: bool = False
) -> list[tuple[int, int, int, int, int]]:
    """Return what a sample was made of, in order: number of the document, and the others of `DocumentPart`.

    Args:
        begin, num_tokens: (n,) of documents one after the other.
        sample: its tokens are from sample x sequence_length on.
        sequence_length: tokens of a sample.
        is_padded: whether a sample may be of padding alone.

    Raises:
        StreamError: none of the documents reaches into the sample.
    """
    first_token, last_token = sample * sequence_length, (sample + 1) * sequence_length
    first = max(0, int(np.searchsorted(begin, first_token, side="right")) - 1)
    last = int(np.searchsorted(begin, last_token, side="left"))
    parts = []
    for row, own, size in zip(
        range(first, last), begin[first:last].tolist(), num_tokens[first:last].tolist(), strict=True
    ):
        start, stop = max(own, first_token), min(own + size, last_token)
        if start < stop:
            parts.append((row, start - first_token, stop - first_token, start - own, size))
    if not (parts or is_padded) or sample < 0:
        raise StreamError(f"sample {sample}: none of the {len(begin)} documents reaches there; expected one of before")
    return parts


def sample_means(begin: Int64, num_tokens: Int64, values: Float64, samples: range, sequence_length: int) -> Float64:
    """Return the mean of a field over the tokens of each of s packed samples, NaN where no token has a value.

    Args:
        begin, num_tokens: (n,) of documents one after the other, which cover the samples.
        values: (n,) of each document, NaN where it has none.
        samples: numbers of the samples.
        sequence_length: tokens of a sample.

    Returns:
        (s,) means; a token has its document's value.
    """
    known = ~np.isnan(values)
    bounds = np.arange(samples.start, samples.stop + 1) * sequence_length
    cuts = np.unique(np.clip(np.concatenate([bounds, begin, begin + num_tokens]), bounds[0], bounds[-1]))
    lengths, document = np.diff(cuts), np.searchsorted(begin, cuts[:-1], side="right") - 1
    sample = cuts[:-1] // sequence_length - samples.start
    weights = np.where(known[document], lengths, 0)
    sums = np.bincount(sample, weights * np.where(known, values, 0.0)[document], len(samples))
    counts = np.bincount(sample, weights, len(samples))
    return np.divide(sums, counts, out=np.full(len(samples), np.nan), where=counts > 0)


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise MissingExtraError(
            f"{DOCUMENTS_NAME} needs the package 'pyarrow'; install it with pip install 'mixstream-llm[loader]'"
        ) from None
    return pyarrow
