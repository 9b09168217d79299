"""Rows out of source files: one format a module, chosen by the file's format.

rows      what is asked for and what is given
blocks    bytes, decompressed
lines     lines of bytes, and of a span
nested    fields by dotted paths
jsonl text tables wet parquet arrow     the formats
columns   what Parquet and Arrow share
"""

from __future__ import annotations

from collections.abc import Iterator

from converters.readers.lines import lines_before
from converters.readers.rows import MISSING, Asked, BadRow, DocumentIs, Row, Rows, Span, gathered, scattered
from converters.sources import SourceFile

__all__ = ["MISSING", "Asked", "BadRow", "DocumentIs", "Row", "Rows", "Span"]
__all__ += ["locate", "read_batches", "read_span", "spans"]

_WHOLE = Span(0, 1)


def spans(file: SourceFile, span_bytes: int, document: DocumentIs = "line") -> list[Span]:
    """Return the parts that a file is read in, which depend on it and on `span_bytes` only.

    Args:
        file: the file.
        span_bytes: of each part, at least 1; of Parquet and Arrow as many as whole row groups or record batches have.
        document: what of a text file is one document; a file that is one has one part.

    Raises:
        CorpusError: it is not what its name says.
        RemoteError: an object store refuses, or does not answer for long.
    """
    if not file.ranged:
        span_bytes = file.size_bytes
    if file.format == "parquet":
        from converters.readers.parquet import spans_of_parquet

        return spans_of_parquet(file, span_bytes)
    if file.format == "arrow":
        from converters.readers.arrow import spans_of_arrow

        return spans_of_arrow(file, span_bytes)
    is_cut = file.format == "jsonl" or (file.format == "text" and document == "line")
    if not is_cut or file.compression is not None:
        return [_WHOLE]
    return [Span(start, min(start + span_bytes, file.size_bytes)) for start in range(0, file.size_bytes, span_bytes)]


def read_span(file: SourceFile, span: Span, asked: Asked) -> Iterator[Row | BadRow]:
    """Yield the rows of one part of a file, one by one; raises what `read_batches` raises."""
    return scattered(read_batches(file, span, asked))


def read_batches(file: SourceFile, span: Span, asked: Asked) -> Iterator[Rows | BadRow]:
    """Yield the rows of one part of a file, many at a time.

    Raises:
        CorpusError: the rest of it cannot be read, or it has no such field; names file and place.
        RemoteError: an object store refuses, or does not answer for long.
    """
    # Each loads what it needs: pyarrow is heavy.
    if file.format == "jsonl":
        from converters.readers.jsonl import read_jsonl

        return read_jsonl(file, span, asked)
    if file.format == "text":
        from converters.readers.text import read_text

        return read_text(file, span, asked)
    if file.format == "parquet":
        from converters.readers.parquet import read_parquet

        return read_parquet(file, span, asked)
    if file.format == "arrow":
        from converters.readers.arrow import read_arrow

        return read_arrow(file, span, asked)
    if file.format == "wet":
        from converters.readers.wet import read_wet

        return gathered(read_wet(file, span, asked))
    from converters.readers.tables import read_table

    return gathered(read_table(file, span, asked))


def locate(file: SourceFile, span: Span, number: int) -> str:
    """Return where a row is, for people: ``line 17``, from 1; ``row group 3, row 5``, from 0; ``record 9``, from 1.

    Reads what lies before the span, so that it is only for messages.

    Args:
        file: the file.
        span: of it.
        number: of the row, within the span.
    """
    if file.format == "parquet":
        from converters.readers.parquet import locate_in_parquet

        return locate_in_parquet(file, span, number)
    if file.format == "arrow":
        from converters.readers.arrow import locate_in_arrow

        return locate_in_arrow(file, span, number)
    if file.format == "wet":
        return f"record {number + 1}"
    return f"line {lines_before(file, span) + number + 1}"
