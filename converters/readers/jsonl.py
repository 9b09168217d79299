"""JSON Lines: one JSON object a line, plain, .gz or .zst."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from converters.documents import Document, document_of
from converters.readers.lines import read_lines
from mixstream.errors import CorpusError


def read_jsonl(path: Path, text_field: str) -> Iterator[Document]:
    """Yield the documents of a JSONL file: field `text_field`, and `id` where there is one.

    Raises:
        CorpusError: naming file and line.
    """
    for number, line in read_lines(path):
        where = f"{path}, line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as problem:
            raise CorpusError(f"{where}: not JSON ({problem})") from None
        if not isinstance(fields, dict):
            raise CorpusError(f"{where}: a JSON {type(fields).__name__}, expected an object with {text_field!r}")
        yield document_of(fields.get(text_field), fields.get("id"), where, text_field)
