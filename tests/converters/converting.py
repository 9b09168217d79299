"""What tests of conversions share: corpora of texts, a conversion by one call, what a stream holds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from converters.config import FieldsConfig, OptionsConfig, corpora_of_paths
from converters.run import Converted, convert_corpus
from converters.tasks.executors import executor_of
from mixstream.streams.catalog import open_stream

FIELDS = tuple(FieldsConfig.model_fields)


def convert(paths: Iterable[object], out: Path, name: str | None = None, workers: int = 0, **given) -> list[Converted]:
    """Convert to a folder as the command does; `given` are its options by the names of the configuration."""
    overwrite = given.pop("overwrite", False)
    fields = FieldsConfig(**{own: given.pop(own) for own in FIELDS if own in given})
    options = OptionsConfig(**{"sequence_length": 32, "holdout": 0.2} | given).options(overwrite)
    corpora, _ = corpora_of_paths([str(path) for path in paths], fields, name)
    with executor_of(workers) as executor:
        return [convert_corpus(corpus, out, options, executor) for corpus in corpora]


def write_lines(path: Path, rows: Iterable[object]) -> Path:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_corpus(path: Path, texts: Iterable[str]) -> Path:
    """Write JSON lines of texts alone."""
    return write_lines(path, ({"text": text} for text in texts))


def tokens_of(directory: Path) -> np.ndarray:
    """Return all samples of a stream's split, (n, length)."""
    stream = open_stream(directory.name, directory)
    return np.concatenate([stream.open_shard(i).read(np.arange(n)) for i, n in enumerate(stream.index.shard_samples)])


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, hidden ones included."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
