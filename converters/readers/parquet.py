"""Parquet, read row group by row group."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet

from converters.documents import Document, document_of
from mixstream.errors import CorpusError, nearest


def read_parquet(path: Path, text_field: str) -> Iterator[Document]:
    """Yield the documents of a Parquet file: column `text_field`, and `id` where there is one.

    Raises:
        CorpusError: naming file, row group and row.
    """
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if text_field not in names:
                raise CorpusError(
                    f"{path}: no column {text_field!r}{nearest(text_field, names)} (columns: {', '.join(names)}; "
                    f"--text-field names it)"
                )
            for name in (text_field, "id"):
                if names.count(name) > 1:
                    raise CorpusError(f"{path}: has {names.count(name)} columns {name!r}; keep one of them")
            columns = [text_field, *(name for name in ("id",) if name in names)]
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=columns)
                ids = table["id"].to_pylist() if "id" in columns else [None] * len(table)
                for row, (text, given_id) in enumerate(zip(table[text_field].to_pylist(), ids, strict=True)):
                    yield document_of(text, given_id, f"{path}, row group {group}, row {row}", text_field)
    except (OSError, pyarrow.ArrowInvalid) as problem:
        raise CorpusError(f"{path}: not a Parquet file that can be read ({problem})") from None
