"""WET: texts that were extracted from WARC files of the web, one a record of type conversion."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from converters.readers.blocks import BLOCK_BYTES, UnreadableError, opened, read_blocks
from converters.readers.rows import MISSING, Asked, BadRow, Row, Span, bad_row, check_fields
from converters.sources import SourceFile
from mixstream.errors import CorpusError, MissingExtraError

HEADERS = {
    "id": "WARC-Record-ID",
    "url": "WARC-Target-URI",
    "language": "WARC-Identified-Content-Language",
    "date": "WARC-Date",
}
FIELDS = ("text", *HEADERS)

_RECORD_END = b"\r\n\r\n"
_HEADER_BYTES = 1 << 20


def read_wet(file: SourceFile, span: Span, asked: Asked) -> Iterator[Row | BadRow]:
    """Yield the texts of a whole file; records of other types are none, but are counted.

    Of several languages of a page the first, of which it has most, is its language.

    Raises:
        CorpusError: it is not WARC, is truncated or damaged, or holds web pages and no text; or a field is asked for
            that there is not.
        MissingExtraError: warcio is not installed.
    """
    check_fields(file, asked, FIELDS, "field")
    kinds: set[str] = set()
    count = 0
    try:
        with opened(file) as raw:
            content = _Content(read_blocks(file, raw))
            for record in _records(content):
                kinds.add(str(record.rec_type))
                row = _row(count, record, asked) if record.rec_type == "conversion" else None
                _finish(record, content)
                count += 1
                if row is not None:
                    yield row
    except UnreadableError as problem:
        raise CorpusError(
            f"{file.name}: cannot be read after record {count} ({problem}); it may be truncated or damaged, copy it "
            f"again"
        ) from None
    if "conversion" not in kinds:
        raise CorpusError(
            f"{file.name}: holds no record of type conversion, which a text is (types: "
            f"{', '.join(sorted(kinds)) or 'none'}); extract the text of its pages first"
        )


class _Content:
    """What warcio reads from; no line of it is longer than a header may be."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._buffered = io.BufferedReader(_Blocks(blocks), BLOCK_BYTES)

    def read(self, size: int) -> bytes:
        return self._buffered.read(size)

    def readline(self) -> bytes:
        line = self._buffered.readline(_HEADER_BYTES)
        if len(line) == _HEADER_BYTES:
            raise UnreadableError(f"a header line of more than {_HEADER_BYTES:,} bytes")
        return line


class _Blocks(io.RawIOBase):
    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        if not self._rest:
            self._rest = memoryview(next(self._blocks, b""))
        size = min(len(into), len(self._rest))
        into[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size


def _records(content: _Content) -> Iterator[Any]:
    """Yield warcio's records; each must have been read to its end before the next is asked for.

    Raises:
        UnreadableError: what comes next is no record.
    """
    try:
        from warcio.exceptions import ArchiveLoadFailed
        from warcio.recordloader import ArcWarcRecordLoader
    except ModuleNotFoundError:
        raise MissingExtraError(
            "WET files are read by the package 'warcio'; install it with pip install warcio"
        ) from None

    loader = ArcWarcRecordLoader()
    while line := content.readline():
        if not line.strip():
            continue
        try:
            record = loader.parse_record_stream(content, line, known_format="warc", no_record_parse=True)
        except (ArchiveLoadFailed, EOFError) as problem:
            raise UnreadableError(str(problem)[:200] or "it ends within a header") from None
        given = record.rec_headers.get_header("Content-Length") or ""
        if not (given.isascii() and given.isdigit()):
            raise UnreadableError(f"a record with Content-Length {given!r}, expected a number of bytes")
        yield record


def _row(number: int, record: Any, asked: Asked) -> Row | BadRow:
    most = asked.max_document_bytes
    content = record.raw_stream.read(min(most + 1, record.length))
    if len(content) > most:
        return bad_row(number, f"a text of {record.length:,} bytes, expected at most {most:,}", content)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as problem:
        return bad_row(number, f"not UTF-8 ({problem.reason} at byte {problem.start}), expected UTF-8", content)
    return Row(number, tuple([text if field == "text" else _header(record, field) for field in asked.fields]))


def _header(record: Any, field: str) -> Any:
    found = record.rec_headers.get_header(HEADERS[field]) if field in HEADERS else None
    if found is None:
        return MISSING
    return found.split(",")[0].strip() if field == "language" else found


def _finish(record: Any, content: _Content) -> None:
    """Read what is left of a record, and its end.

    Raises:
        UnreadableError: it ends too early.
    """
    while record.raw_stream.read(BLOCK_BYTES):
        pass
    found = b"" if record.raw_stream.limit else content.read(len(_RECORD_END))
    if found != _RECORD_END:
        told = f"{found!r} follows" if len(found) == len(_RECORD_END) else "the file ends in it"
        raise UnreadableError(f"a record of {record.length:,} bytes has no end: {told}")
