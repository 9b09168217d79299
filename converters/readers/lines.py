"""Lines out of blocks of bytes, many at a time, none longer than is asked for, and the lines of a span."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, NamedTuple

from converters.readers.blocks import BLOCK_BYTES, UnreadableError, opened, read_blocks, read_some
from converters.readers.rows import Span
from converters.sources import SourceFile
from mixstream.errors import CorpusError

BOM = b"\xef\xbb\xbf"
_HEAD_BYTES = 1000
_REST_BYTES = 1 << 16  # read at a time of a line that goes on behind its span


class LongLine(NamedTuple):
    """A line that is too long to be held.

    Attributes:
        head: its beginning.
        size_bytes: all of it, without its end.
        quotes: how many ``"`` are in it.
    """

    head: bytes
    size_bytes: int
    quotes: int

    def told(self, most: int) -> str:
        """Return what was found and what was expected."""
        return f"a line of {self.size_bytes:,} bytes, expected at most {most:,} (--max-document-bytes)"


Line = bytes | LongLine


def read_lines(file: SourceFile, span: Span, most: int) -> Iterator[tuple[int, list[Line]]]:
    r"""Yield (number of the first within the span, lines without their ``\n``), some lines at a time.

    Args:
        file: of lines.
        span: of it; of a compressed file the whole.
        most: bytes of a line; a longer one is a `LongLine`.

    Raises:
        CorpusError: the rest of the file cannot be read; names the last line that could.
        RemoteError: an object store refuses, or does not answer for long.
    """
    number = 0
    with opened(file, None if file.compression else span.stop) as raw:
        blocks = read_blocks(file, raw) if file.compression else _of_span(raw, span)
        if span.start == 0 or file.compression:
            blocks = _without_bom(blocks)
        try:
            for lines in split_lines(blocks, most):
                yield number, lines
                number += len(lines)
        except UnreadableError as problem:
            before = "" if file.compression or span.start == 0 else f" of those from byte {span.start:,}"
            raise CorpusError(
                f"{file.name}: cannot be read after line {number}{before} ({problem}); it may be truncated or damaged, "
                f"copy it again"
            ) from None


def split_lines(blocks: Iterable[bytes], most: int) -> Iterator[list[Line]]:
    r"""Yield the lines of blocks, without their ``\n``, some at a time; a last one needs no end, but a byte."""
    open_line = _OpenLine(most)
    for block in blocks:
        lines: list[Line] = list(block.split(b"\n"))
        last = lines.pop()
        assert isinstance(last, bytes)
        if lines:
            first = lines[0]
            assert isinstance(first, bytes)
            open_line.add(first)
            lines[0] = open_line.close()
            if len(block) > most:
                lines = [_held(line, most) for line in lines]
            yield lines
        open_line.add(last)
    if open_line.size_bytes:
        yield [open_line.close()]


def _held(line: Line, most: int) -> Line:
    if isinstance(line, LongLine) or len(line) <= most:
        return line
    return LongLine(line[:_HEAD_BYTES], len(line), line.count(b'"'))


class _OpenLine:
    """A line whose end has not come; of one that is too long only the beginning is kept."""

    def __init__(self, most: int) -> None:
        self.size_bytes = 0
        self._most = most
        self._pieces: list[bytes] = []
        self._quotes = 0

    def add(self, piece: bytes) -> None:
        was_long = self.size_bytes > self._most
        self.size_bytes += len(piece)
        self._pieces.append(piece)
        if self.size_bytes > self._most:
            whole = b"".join(self._pieces)
            self._quotes += (piece if was_long else whole).count(b'"')
            self._pieces = [whole[:_HEAD_BYTES]]

    def close(self) -> Line:
        kept = b"".join(self._pieces)
        line: Line = kept
        if self.size_bytes > self._most:
            line = LongLine(kept[:_HEAD_BYTES], self.size_bytes, self._quotes)
        self.size_bytes, self._pieces, self._quotes = 0, [], 0
        return line


def _of_span(raw: BinaryIO, span: Span) -> Iterator[bytes]:
    r"""Yield the bytes of the lines that begin in a span.

    They go from behind the first ``\n`` at or after ``start - 1`` to behind the first at or after ``stop - 1``.
    """
    position = max(span.start - 1, 0)
    begun = span.start == 0
    raw.seek(position)
    while position < span.stop or begun:
        size = _REST_BYTES if position >= span.stop else min(BLOCK_BYTES, span.stop - position)
        block = read_some(raw, size)
        if not block:
            return
        skip, stop = 0, len(block)
        if not begun:
            skip = block.find(b"\n") + 1
            begun = skip > 0
        if begun and position + stop >= span.stop:
            last = block.find(b"\n", max(span.stop - 1 - position, 0)) + 1
            stop = last or stop
            if last:
                yield block[skip:stop]
                return
        position += len(block)
        if begun:
            yield block[skip:]


def _without_bom(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the blocks without the mark that some programs put before UTF-8."""
    head = b""
    for block in blocks:
        head += block
        if len(head) >= len(BOM):
            break
    yield head.removeprefix(BOM)
    yield from blocks


def lines_before(file: SourceFile, span: Span) -> int:
    """Return how many lines begin before a span of a plain file; reads them all."""
    if span.start == 0 or file.compression:
        return 0
    with opened(file) as raw:
        return sum(block.count(b"\n") for block in _of_span(raw, Span(0, span.start)))
