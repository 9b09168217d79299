"""Parquet: the columns asked for, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow
import pyarrow.parquet

from converters.readers.blocks import opened
from converters.readers.columns import check_columns, rows_at_a_time, rows_of
from converters.readers.rows import Asked, BadRow, Rows, Span
from converters.sources import SourceFile
from mixstream.errors import CorpusError

_ALL = 1 << 62
_BUFFER_BYTES = 1 << 20  # of each column's compressed bytes; without, all of a row group's are read at once


def spans_of_parquet(file: SourceFile, span_bytes: int) -> list[Span]:
    """Return spans of whole row groups, of `span_bytes` or one row group.

    Raises:
        CorpusError: it is not Parquet.
    """
    if not file.ranged:
        return [Span(0, _ALL)]
    with _parquet(file) as parquet:
        meta = parquet.metadata
        sizes = [meta.row_group(group).total_byte_size for group in range(meta.num_row_groups)]
    spans: list[Span] = []
    start, size = 0, 0
    for group, own in enumerate(sizes):
        if group > start and size + own > span_bytes:
            spans.append(Span(start, group))
            start, size = group, 0
        size += own
    return [*spans, Span(start, len(sizes))] if sizes else []


def read_parquet(file: SourceFile, span: Span, asked: Asked) -> Iterator[Rows | BadRow]:
    """Yield the rows of a span of row groups.

    Raises:
        CorpusError: it is not Parquet, or damaged, or has no such column.
    """
    with _parquet(file) as parquet:
        check_columns(file, parquet.schema_arrow, asked)
        number = 0
        for group in range(span.start, min(span.stop, parquet.num_row_groups)):
            begun = number
            try:
                for batch in _batches(parquet, group, asked):
                    yield from rows_of(batch, number, asked.fields)
                    number += batch.num_rows
            except (OSError, pyarrow.ArrowException) as problem:
                raise CorpusError(
                    f"{file.name}, row group {group}: cannot be read after row {number - begun} ({problem}); it may be "
                    f"damaged, copy it again"
                ) from None


def _batches(parquet: Any, group: int, asked: Asked) -> Any:
    """Return the record batches of a row group: its rows, and of its columns those that are asked for."""
    meta = parquet.metadata.row_group(group)
    wanted = {*asked.fields, *(field.split(".")[0] for field in asked.fields if "." in field)}
    own = [meta.column(i) for i in range(meta.num_columns)]
    size = sum(
        column.total_uncompressed_size
        for column in own
        if column.path_in_schema in wanted or column.path_in_schema.split(".")[0] in wanted
    )
    names = [field for field in asked.fields if _is_there(parquet.schema_arrow, field)]
    return parquet.iter_batches(
        batch_size=rows_at_a_time(size, meta.num_rows), row_groups=[group], columns=names, use_threads=False
    )


def _is_there(schema: Any, field: str) -> bool:
    return field in schema.names or field.split(".")[0] in schema.names


def locate_in_parquet(file: SourceFile, span: Span, number: int) -> str:
    """Return the row group, and the row within it, both from 0."""
    with _parquet(file) as parquet:
        for group in range(span.start, min(span.stop, parquet.num_row_groups)):
            rows = parquet.metadata.row_group(group).num_rows
            if number < rows:
                return f"row group {group}, row {number}"
            number -= rows
    return f"row group {span.stop}"


@contextmanager
def _parquet(file: SourceFile) -> Iterator[Any]:
    with opened(file) as raw:
        try:
            parquet = pyarrow.parquet.ParquetFile(raw, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        except (OSError, pyarrow.ArrowException) as problem:
            raise CorpusError(f"{file.name}: not a Parquet file that can be read ({problem})") from None
        with parquet:
            yield parquet
