"""Lines of a plain, gzip or zstd file, decoded and numbered."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow

from mixstream.errors import CorpusError

_COMPRESSION = {".gz": "gzip", ".zst": "zstd"}


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, line without its end) of every line that is not blank.

    Raises:
        CorpusError: the file is missing, its compression is broken, or a line is not UTF-8.
    """
    number = 0
    try:
        with pyarrow.input_stream(str(path), compression=_COMPRESSION.get(path.suffix.lower())) as stream:
            for number, line in enumerate(io.BufferedReader(stream), start=1):
                text = line.decode("utf-8").rstrip("\r\n")
                if text.strip():
                    yield number, text
    except UnicodeDecodeError as problem:
        raise CorpusError(f"{path}, line {number}: not UTF-8 ({problem}); convert the file to UTF-8") from None
    except OSError as problem:
        raise CorpusError(
            f"{path}: cannot be read after line {number} ({problem}); it may be truncated, copy it again"
        ) from None
