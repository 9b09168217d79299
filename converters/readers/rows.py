"""What readers are asked for, and what they give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, NamedTuple

from converters.sources import SourceFile
from mixstream.errors import CorpusError, nearest

TOLD_CHARACTERS = 200  # of a row that is wrong

DocumentIs = Literal["line", "file"]


class Missing(Enum):
    """The value of a field that is not there; unlike None, which is one that is there and null."""

    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"


MISSING = Missing.MISSING


class Span(NamedTuple):
    """The part of a source file that one task reads.

    Of a plain line file bytes, of which it owns the lines that begin there; of a Parquet file row groups; of an Arrow
    IPC file record batches; of anything else (0, 1), the whole file.
    """

    start: int
    stop: int


class Row(NamedTuple):
    """One row of a source file.

    Attributes:
        number: its place in its span, from 0: of files of lines the line that it begins on, blank ones counted; else
            how many rows come before it.
        values: of the fields asked for, in that order; `MISSING` where there is none.
    """

    number: int
    values: tuple[Any, ...]


class Rows(NamedTuple):
    """Several rows of a source file, by column, which takes a fraction of the time.

    Attributes:
        numbers: of each row, as of a `Row`.
        columns: the values of each field asked for.
    """

    numbers: Sequence[int]
    columns: tuple[Sequence[Any], ...]


class BadRow(NamedTuple):
    """One row that is wrong, where the next ones can be read.

    Attributes:
        number: as of a `Row`.
        problem: what was found, and what was expected.
        content: its beginning, at most `TOLD_CHARACTERS`.
    """

    number: int
    problem: str
    content: str


@dataclass(frozen=True)
class Asked:
    """What is asked of a reader.

    Attributes:
        fields: names, the text's first; a dot leads into a nested field where there is no field of the whole name.
        max_document_bytes: of one text. A line of text may have as many, one of JSON or CSV `max_line_bytes`.
        document: what of a text file is a document, a line or the whole file.
        optional: those of the fields that need not be there, in files that have columns: they are `MISSING` there.
    """

    fields: tuple[str, ...]
    max_document_bytes: int = 16 << 20
    document: DocumentIs = "line"
    optional: frozenset[str] = frozenset()

    @property
    def max_line_bytes(self) -> int:
        r"""Longest line of JSON or CSV, in bytes; of a longer one only the beginning is held.

        JSON may write a letter of 2 bytes in 6, as ``\u00f1``; 64 KiB are left for the other fields.
        """
        return 3 * self.max_document_bytes + (64 << 10)


def bad_row(number: int, problem: str, content: str | bytes) -> BadRow:
    """Return a `BadRow` that tells the beginning of `content`."""
    if isinstance(content, bytes):
        content = content[: 4 * TOLD_CHARACTERS].decode("utf-8", "backslashreplace")
    return BadRow(number, problem, content[:TOLD_CHARACTERS])


def check_fields(file: SourceFile, asked: Asked, known: Iterable[str], what: str = "column") -> None:
    """Refuse fields that a file with these columns cannot have.

    Raises:
        CorpusError: naming the one most like it and all that there are.
    """
    names = list(known)
    for field in asked.fields:
        if field not in names and field not in asked.optional:
            raise CorpusError(
                f"{file.name}: no {what} {field!r}{nearest(field, names)} ({what}s: {', '.join(names) or 'none'}); "
                f"name one that is there"
            )


def gathered(rows: Iterable[Row | BadRow], most: int = 256) -> Iterator[Rows | BadRow]:
    """Yield the same rows, at most so many at a time, those that are wrong in their places."""
    held: list[Row] = []
    for row in rows:
        if isinstance(row, Row):
            held.append(row)
        if held and (isinstance(row, BadRow) or len(held) == most):
            yield _by_column(held)
            held = []
        if isinstance(row, BadRow):
            yield row
    if held:
        yield _by_column(held)


def _by_column(rows: Sequence[Row]) -> Rows:
    return Rows([row.number for row in rows], tuple(zip(*(row.values for row in rows), strict=True)))


def scattered(batches: Iterable[Rows | BadRow]) -> Iterator[Row | BadRow]:
    """Yield rows one by one."""
    for rows in batches:
        if isinstance(rows, BadRow):
            yield rows
        else:
            yield from map(Row, rows.numbers, zip(*rows.columns, strict=True))
