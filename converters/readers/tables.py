"""CSV and TSV: a header that names the fields, then a row a document."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from converters.readers.lines import Line, LongLine, read_lines
from converters.readers.rows import MISSING, Asked, BadRow, Row, Span, bad_row, check_fields
from converters.sources import SourceFile
from mixstream.errors import CorpusError

_DELIMITERS = {"csv": ",", "tsv": "\t"}


class _Lines:
    """What the csv module is fed with: lines with their ends, and a note of those that are wrong.

    A wrong line is handed on as far as it decides where rows begin and end, so that the next row can be read.
    """

    def __init__(self, file: SourceFile, most: int) -> None:
        self.wrong: tuple[str, bytes] | None = None  # of the lines since it was last taken
        self._most = most
        whole = Span(0, file.size_bytes)
        self._lines = (line for _, lines in read_lines(file, whole, most) for line in lines)

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line: Line = next(self._lines)
        if isinstance(line, LongLine):
            self._note(line.told(self._most), line.head)
            return '"\n' if line.quotes % 2 else "\n"
        if b"\0" in line:
            self._note("a NUL byte, expected text", line)
            line = line.replace(b"\0", b"?")
        try:
            return line.decode("utf-8") + "\n"
        except UnicodeDecodeError as problem:
            self._note(f"not UTF-8 ({problem.reason} at byte {problem.start}), expected text in UTF-8", line)
            return line.decode("utf-8", "replace") + "\n"

    def _note(self, problem: str, content: bytes) -> None:
        if self.wrong is None:
            self.wrong = problem, content

    def take_wrong(self) -> tuple[str, bytes] | None:
        wrong, self.wrong = self.wrong, None
        return wrong


def read_table(file: SourceFile, span: Span, asked: Asked) -> Iterator[Row | BadRow]:
    """Yield the rows of a table, but for blank lines.

    Raises:
        CorpusError: a header that is none, no such field, a quote that is never closed or stands where none may, after
            which no row is sure; or the rest of the file cannot be read.
    """
    # A limit of the module, for all that use it: it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), asked.max_line_bytes))
    lines = _Lines(file, asked.max_line_bytes)
    rows = csv.reader(lines, delimiter=_DELIMITERS[file.format], strict=True)
    header = _header(file, rows, lines, asked)
    places = [header.index(field) if field in header else None for field in asked.fields]
    while True:
        number = rows.line_num
        try:
            found = next(rows)
        except StopIteration:
            return
        except csv.Error as problem:
            raise _broken(file, number, rows.line_num, problem) from None
        wrong = lines.take_wrong()
        if wrong is not None:
            yield bad_row(number, *wrong)
        elif not found:
            continue
        elif len(found) != len(header):
            yield bad_row(number, f"{len(found)} fields, expected {len(header)} as in the header", ", ".join(found))
        else:
            yield Row(number, tuple([MISSING if place is None else found[place] for place in places]))


def _header(file: SourceFile, rows: Iterator[list[str]], lines: _Lines, asked: Asked) -> list[str]:
    try:
        header = next(rows, [])
    except csv.Error as problem:
        raise _broken(file, 0, 1, problem) from None
    wrong = lines.take_wrong()
    if wrong is not None:
        raise CorpusError(f"{file.name}, line 1: {wrong[0]} in the header, which names the fields; mend it")
    twice = next((name for name in header if header.count(name) > 1 and name in asked.fields), None)
    if twice is not None:
        raise CorpusError(f"{file.name}, line 1: the header names {twice!r} {header.count(twice)} times; keep one")
    check_fields(file, asked, header, "field")
    return header


def _broken(file: SourceFile, begun: int, seen: int, problem: csv.Error) -> CorpusError:
    told = {
        "unexpected end of data": "a quote that is opened there is never closed",
    }.get(str(problem), str(problem))
    upto = f" to {seen}" if seen > begun + 1 else ""
    return CorpusError(
        f"{file.name}, line {begun + 1}{upto}: {told}; after that no row is sure, mend the quotes of the row that "
        f"begins there"
    )
