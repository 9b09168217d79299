"""Rows out of columns: what Parquet and Arrow share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow
import pyarrow.compute

from converters.readers.rows import MISSING, Asked, BadRow, Rows, bad_row, check_fields
from converters.sources import SourceFile
from mixstream.errors import CorpusError

ROWS_BYTES = 4 << 20  # of rows that are made at a time
MAX_ROWS = 1024  # at a time: a dictionary may hide how large they are


def check_columns(file: SourceFile, schema: Any, asked: Asked) -> None:
    """Refuse fields that no column holds, or two of one name.

    Raises:
        CorpusError: naming the nearest column and all that there are.
    """
    names = list(schema.names)
    for field in asked.fields:
        if names.count(field) > 1:
            raise CorpusError(f"{file.name}: has {names.count(field)} columns {field!r}; keep one of them")
    check_fields(file, asked, [*names, *_nested("", schema)])


def _nested(above: str, fields: Any) -> Iterator[str]:
    """Yield the dotted paths of all fields inside of structs."""
    for field in fields:
        if pyarrow.types.is_struct(field.type):
            inner = [field.type.field(i) for i in range(field.type.num_fields)]
            yield from (f"{above}{field.name}.{one.name}" for one in inner)
            yield from _nested(f"{above}{field.name}.", inner)


def rows_of(batch: Any, first: int, fields: Sequence[str]) -> Iterator[Rows | BadRow]:
    """Yield the rows of a record batch, of which the first has the number `first`; one by one if any is wrong."""
    numbers = range(first, first + batch.num_rows)
    try:
        rows: Rows | BadRow = Rows(numbers, tuple(_column(batch, field) for field in fields))
    except (ValueError, OverflowError) as problem:  # Parquet's writers need not check that text is UTF-8
        if batch.num_rows > 1:
            for row in range(batch.num_rows):
                yield from rows_of(batch.slice(row, 1), first + row, fields)
            return
        if isinstance(problem, pyarrow.ArrowException):
            raise
        rows = bad_row(first, f"a value that cannot be read ({problem}), expected text in UTF-8", "")
    yield rows


def _column(batch: Any, field: str) -> Sequence[Any]:
    names = batch.schema.names
    if field in names:
        return _plain(batch.column(names.index(field)))
    first, *rest = field.split(".")
    if first not in names:
        return [MISSING] * batch.num_rows
    column = batch.column(names.index(first))
    for part in rest:
        if not pyarrow.types.is_struct(column.type) or column.type.get_field_index(part) < 0:
            return [MISSING] * batch.num_rows
        column = pyarrow.compute.struct_field(column, part)
    return _plain(column)


def _plain(column: Any) -> Sequence[Any]:
    values: Sequence[Any] = column.to_pylist()
    return values


def rows_at_a_time(size_bytes: int, num_rows: int) -> int:
    """Return how many rows to make at a time, of which `num_rows` have `size_bytes` together."""
    return max(1, min(MAX_ROWS, ROWS_BYTES * num_rows // max(size_bytes, 1)))
