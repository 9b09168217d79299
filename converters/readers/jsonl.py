"""JSON Lines: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from converters.readers.lines import Line, LongLine, read_lines
from converters.readers.nested import Pick, column_of, picker
from converters.readers.rows import Asked, BadRow, Row, Rows, Span, bad_row, gathered
from converters.sources import SourceFile

_EXACT = float(1 << 63)


def read_jsonl(file: SourceFile, span: Span, asked: Asked) -> Iterator[Rows | BadRow]:
    """Yield the objects of a span; blank lines are none.

    Raises:
        CorpusError: the rest of the file cannot be read.
    """
    for first, lines in read_lines(file, span, asked.max_line_bytes):
        columns = _columns(lines, asked.fields)
        if columns is not None:
            yield Rows(range(first, first + len(lines)), columns)
        else:
            yield from gathered(_one_by_one(first, lines, asked))


def _columns(lines: Sequence[Line], fields: tuple[str, ...]) -> tuple[list[Any], ...] | None:
    """Return the fields of lines by column, or None where one of them needs a closer look."""
    try:
        found = list(map(orjson.loads, lines))  # type: ignore[arg-type]
    except orjson.JSONDecodeError:
        return None
    if set(map(type, found)) != {dict}:
        return None
    columns = tuple(column_of(found, field) for field in fields)
    for column in columns:
        if float in set(map(type, column)) and any(type(own) is float and abs(own) >= _EXACT for own in column):
            return None
    return columns


def _one_by_one(first: int, lines: Sequence[Line], asked: Asked) -> Iterator[Row | BadRow]:
    pick, most = picker(asked.fields), asked.max_line_bytes
    for number, line in enumerate(lines, first):
        try:
            found = orjson.loads(line)  # type: ignore[arg-type]
        except orjson.JSONDecodeError:
            row = _decide(number, line, pick, most)
            if row is not None:
                yield row
            continue
        yield Row(number, _exact(pick(found), line, pick)) if type(found) is dict else _no_object(number, line, found)


def _decide(number: int, line: bytes | LongLine, pick: Pick, most: int) -> Row | BadRow | None:
    """Return what the standard library makes of a line that the fast one refuses, which takes less than JSON's."""
    if isinstance(line, LongLine):
        return bad_row(number, line.told(most), line.head)
    if not line.strip():
        return None
    try:
        found = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as problem:
        return bad_row(number, f"not UTF-8 ({problem.reason} at byte {problem.start}), expected JSON in UTF-8", line)
    except (ValueError, RecursionError) as problem:
        return bad_row(number, f"not JSON ({problem}), expected an object", line)
    return Row(number, pick(found)) if isinstance(found, dict) else _no_object(number, line, found)


def _exact(values: tuple[Any, ...], line: bytes | LongLine, pick: Pick) -> tuple[Any, ...]:
    """Return the values with whole numbers beyond 64 bits, of which the fast library makes floats."""
    if any(isinstance(value, float) and abs(value) >= _EXACT for value in values):
        assert isinstance(line, bytes)
        return pick(json.loads(line))
    return values


def _no_object(number: int, line: bytes | LongLine, found: Any) -> BadRow:
    assert isinstance(line, bytes)
    kinds = {type(None): "null", bool: "boolean", int: "number", float: "number", str: "string", list: "list"}
    return bad_row(number, f"a JSON {kinds[type(found)]}, expected an object", line)
