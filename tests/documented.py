"""Streams made of known documents, the slow and obvious way."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from conftest import BYTE, write_split

from mixstream.streams.documents import DocumentsWriter
from mixstream.streams.manifest import Conversion, StreamManifest

EOD, PAD = BYTE.eod_token_id, 0


class Text(NamedTuple):
    """A document's text, and its quality."""

    text: str
    quality: float | None = None

    @property
    def tokens(self) -> list[int]:
        return [*self.text.encode(), EOD]


def texts(count: int, seed: int = 0) -> list[Text]:
    """Return documents of 0 to 29 letters, every third without a quality."""
    random = np.random.default_rng(seed)
    letters = [chr(97 + letter) for letter in range(26)]
    return [
        Text("".join(random.choice(letters, random.integers(0, 30))), None if n % 3 == 2 else n / 7)
        for n in range(count)
    ]


def write_documented(
    directory: Path,
    documents: list[Text],
    *,
    length: int = 8,
    layout: str = "packed",
    quality: bool = False,
    split: str = "train",
    shard_bytes: int = 600,
    compression: str | None = None,
    **manifest: object,
) -> StreamManifest:
    """Write a split of a stream; return its stream.json."""
    rows, values, counts = _packed(documents, length) if layout == "packed" else _padded(documents, length)
    columns = {"tokens": np.array(rows, np.uint16)} | ({"quality": np.array(values)} if quality else {})
    name = directory.parent.name if split == "heldout" else directory.name
    made = StreamManifest.model_validate(
        {
            "name": name,
            "language": "eu",
            "domain": "a",
            "split": split,
            "layout": layout,
            "num_samples": len(rows),
            "num_tokens": len(rows) * length,
            "num_documents": len(documents),
            "num_bytes": sum(len(document.tokens) - 1 for document in documents),
            "sequence_length": length,
            "columns": ("quality",) if quality else (),
            "dtype": "uint16",
            "tokenizer": BYTE,
            "conversion": Conversion(fingerprint="f", streams=(name,)),
            **counts,
            **manifest,
        }
    )
    write_split(directory, columns, made, shard_bytes, compression)
    sizes = np.array([len(document.tokens) for document in documents])
    begin = np.arange(len(documents)) * length if layout == "documents" else np.cumsum(sizes) - sizes
    ids, values = [f"id-{n}" for n in range(len(documents))], pa.array([d.quality for d in documents], pa.float64())
    with DocumentsWriter(directory, made.columns) as writer:
        writer.write(ids, begin, sizes, sizes - 1, [values] if quality else [])
    return made


def _packed(documents: list[Text], length: int) -> tuple[list, list, dict]:
    tokens = [(token, document.quality) for document in documents for token in document.tokens]
    rows, values = [], []
    for first in range(0, len(tokens) - length + 1, length):
        row = tokens[first : first + length]
        rows.append([token for token, _ in row])
        known = [value for _, value in row if value is not None]
        values.append(sum(known) / len(known) if known else math.nan)
    return rows, values, {"remainder_tokens": len(tokens) % length}


def _padded(documents: list[Text], length: int) -> tuple[list, list, dict]:
    sizes = [len(document.tokens) for document in documents]
    counts = {
        "pad_token_id": PAD,
        "padding_tokens": sum(max(0, length - size) for size in sizes),
        "truncated_tokens": sum(max(0, size - length) for size in sizes),
    }
    rows = [(document.tokens + length * [PAD])[:length] for document in documents]
    return rows, [math.nan if document.quality is None else document.quality for document in documents], counts
