"""Plain text: a document a line, blank lines are none; or a document a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from converters.readers.blocks import UnreadableError, opened, read_blocks
from converters.readers.lines import BOM, Line, LongLine, read_lines
from converters.readers.rows import MISSING, Asked, BadRow, Row, Rows, Span, bad_row, check_fields, gathered
from converters.sources import SourceFile
from mixstream.errors import CorpusError


def read_text(file: SourceFile, span: Span, asked: Asked) -> Iterator[Rows | BadRow]:
    """Yield the documents of a span; the text is the first field, whatever its name, and the only one.

    Raises:
        CorpusError: the rest of the file cannot be read, or another field is asked for.
    """
    check_fields(file, asked, asked.fields[:1], "field")
    others = (MISSING,) * (len(asked.fields) - 1)
    if asked.document == "file":
        yield from gathered([_read_file(file, asked.max_document_bytes, others)])
        return
    for first, lines in read_lines(file, span, asked.max_document_bytes):
        yield from gathered(_texts(first, lines, asked.max_document_bytes, others))


def _texts(first: int, lines: Sequence[Line], most: int, others: tuple[object, ...]) -> Iterator[Row | BadRow]:
    for number, line in enumerate(lines, first):
        if isinstance(line, LongLine):
            yield bad_row(number, line.told(most), line.head)
            continue
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as problem:
            yield _not_utf8(number, line, problem)
            continue
        if text and not text.isspace():
            yield Row(number, (text.rstrip("\r"), *others))


def _read_file(file: SourceFile, most: int, others: tuple[object, ...]) -> Row | BadRow:
    content = bytearray()
    try:
        with opened(file) as raw:
            for block in read_blocks(file, raw):
                content += block
                if len(content) > most:
                    told = f"a file of more than {most:,} bytes, expected at most as many in a document"
                    return bad_row(0, told, bytes(content[:1000]))
    except UnreadableError as problem:
        raise CorpusError(
            f"{file.name}: cannot be read after byte {len(content):,} ({problem}); it may be truncated or damaged, "
            f"copy it again"
        ) from None
    whole = bytes(content).removeprefix(BOM)
    try:
        return Row(0, (whole.decode("utf-8"), *others))
    except UnicodeDecodeError as problem:
        return _not_utf8(0, whole, problem)


def _not_utf8(number: int, content: bytes, problem: UnicodeDecodeError) -> BadRow:
    return bad_row(number, f"not UTF-8 ({problem.reason} at byte {problem.start}), expected text in UTF-8", content)
