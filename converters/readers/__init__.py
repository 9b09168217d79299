"""Documents out of a file: one format a module, chosen by the file's name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from converters.documents import Document
from converters.readers.jsonl import read_jsonl
from converters.readers.parquet import read_parquet
from converters.readers.text import read_text

Reader = Callable[[Path, str], Iterator[Document]]

READERS: dict[str, Reader] = {
    ".jsonl": read_jsonl,
    ".jsonl.gz": read_jsonl,
    ".jsonl.zst": read_jsonl,
    ".parquet": read_parquet,
    ".txt": read_text,
    ".txt.gz": read_text,
}


def format_of(path: Path) -> str | None:
    """Return the known suffix that a file's name ends in, or None."""
    known = [suffix for suffix in READERS if path.name.lower().endswith(suffix)]
    return max(known, key=len, default=None)


def read_documents(path: Path, text_field: str) -> Iterator[Document]:
    """Yield the documents of a file whose format is known.

    Raises:
        CorpusError: naming file and place of what cannot be read.
    """
    suffix = format_of(path)
    assert suffix is not None, "only files of a known format are read"
    yield from READERS[suffix](path, text_field)
