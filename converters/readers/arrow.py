"""Arrow IPC, the file format and the stream format, which Hugging Face ``datasets`` saves; some rows at a time."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow
import pyarrow.ipc

from converters.readers.blocks import opened
from converters.readers.columns import check_columns, rows_at_a_time, rows_of
from converters.readers.rows import Asked, BadRow, Rows, Span
from converters.sources import SourceFile
from mixstream.errors import CorpusError

_ALL = 1 << 62
_MAPPED_BYTES = 64 << 20  # of a mapped file, until what was read of it is given back
_MAGIC = b"ARROW1"
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"


def spans_of_arrow(file: SourceFile, span_bytes: int) -> list[Span]:
    """Return spans of record batches of about `span_bytes`; a stream, which tells none beforehand, is one.

    Raises:
        CorpusError: it is not Arrow.
    """
    if not file.ranged:
        return [Span(0, _ALL)]
    with _arrow(file) as (reader, _):
        if not hasattr(reader, "num_record_batches"):
            return [Span(0, 1)]
        count = reader.num_record_batches
    each = max(1, count * span_bytes // max(file.size_bytes, 1))
    return [Span(start, min(start + each, count)) for start in range(0, count, each)]


def read_arrow(file: SourceFile, span: Span, asked: Asked) -> Iterator[Rows | BadRow]:
    """Yield the rows of a span of record batches, of a stream all.

    Raises:
        CorpusError: it is not Arrow, or truncated or damaged, or has no such column.
    """
    number, mapped = 0, 0
    with _arrow(file) as (reader, forget):
        check_columns(file, reader.schema, asked)
        try:
            for batch in _batches(reader, span):
                step = rows_at_a_time(batch.nbytes, batch.num_rows)
                for start in range(0, batch.num_rows, step):
                    rows = batch.slice(start, step)
                    yield from rows_of(rows, number, asked.fields)
                    number += rows.num_rows
                mapped += batch.nbytes
                if mapped >= _MAPPED_BYTES:
                    forget()
                    mapped = 0
        except (OSError, EOFError, pyarrow.ArrowException) as problem:
            raise CorpusError(
                f"{file.name}: cannot be read after row {number} of record batch {span.start} ({problem}); it may be "
                f"truncated or damaged, copy it again"
            ) from None


def locate_in_arrow(file: SourceFile, span: Span, number: int) -> str:
    """Return the row of a stream, else the record batch and the row within it, all from 0."""
    with _arrow(file) as (reader, _):
        if not hasattr(reader, "num_record_batches"):
            return f"row {number}"
        for index in range(span.start, min(span.stop, reader.num_record_batches)):
            rows = reader.get_batch(index).num_rows
            if number < rows:
                return f"record batch {index}, row {number}"
            number -= rows
    return f"record batch {span.stop}"


def _batches(reader: Any, span: Span) -> Iterator[Any]:
    if not hasattr(reader, "num_record_batches"):
        yield from reader
        return
    for index in range(span.start, min(span.stop, reader.num_record_batches)):
        yield reader.get_batch(index)


@contextmanager
def _arrow(file: SourceFile) -> Iterator[tuple[Any, Callable[[], object]]]:
    """Open a file of either format, and what gives back the memory of what was read.

    A file of this machine is mapped, so that only the columns asked for are read. Its pages would count as memory of
    this process until the system wants them back.
    """
    with opened(file) as raw:
        is_file = raw.read(len(_MAGIC)) == _MAGIC
        if not is_file:
            _check_end(file, raw)
        raw.seek(0)
        source, forget = _map(raw) if isinstance(file.place, Path) else (raw, lambda: None)
        try:
            reader = pyarrow.ipc.open_file(source) if is_file else pyarrow.ipc.open_stream(source)
        except (OSError, pyarrow.ArrowException) as problem:
            raise CorpusError(f"{file.name}: not an Arrow file that can be read ({problem})") from None
        with reader:
            yield reader, forget


def _map(raw: BinaryIO) -> tuple[Any, Callable[[], object]]:
    mapped = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
    advice = getattr(mmap, "MADV_DONTNEED", None)
    return pyarrow.py_buffer(mapped), lambda: None if advice is None else mapped.madvise(advice)


def _check_end(file: SourceFile, raw: BinaryIO) -> None:
    """Refuse a stream without its end: pyarrow takes one that was cut between two record batches for whole."""
    raw.seek(max(0, file.size_bytes - len(_END_OF_STREAM)))
    if raw.read(len(_END_OF_STREAM)) != _END_OF_STREAM:
        raise CorpusError(
            f"{file.name}: not an Arrow file that can be read (no end-of-stream mark); it may be truncated, copy it "
            f"again"
        )
