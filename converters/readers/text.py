"""Plain text, one document a line, plain or .gz; blank lines are no documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from converters.documents import Document, document_of
from converters.readers.lines import read_lines


def read_text(path: Path, text_field: str) -> Iterator[Document]:
    """Yield one document a line; `text_field` means nothing here.

    Raises:
        CorpusError: naming file and line.
    """
    for number, line in read_lines(path):
        yield document_of(line, None, f"{path}, line {number}", text_field)
