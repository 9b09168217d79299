"""index.json of an MDS directory: its shards, checked before any of them is opened.

Format: mosaicml-streaming 0.13, MDS version 2.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from mixstream.errors import ShardError, StreamError

Int64 = npt.NDArray[np.int64]

INDEX_NAME = "index.json"


@dataclass(frozen=True)
class MdsIndex:
    """The shards of one MDS directory, in order; S shards.

    Attributes:
        files: S paths relative to the directory.
        file_bytes: (S,) size of each file.
        shard_samples: (S,) rows in each shard.
        column_names: names of the columns, in the order in which a sample stores them.
        column_encodings: MDS encoding of each column, such as ``ndarray:uint16:2048``.
        column_sizes: bytes of each column, None where they vary from sample to sample.
        fingerprint: hash of everything above and of the hashes that the writer noted.
    """

    files: tuple[str, ...]
    file_bytes: Int64
    shard_samples: Int64
    column_names: tuple[str, ...]
    column_encodings: tuple[str, ...]
    column_sizes: tuple[int | None, ...]
    fingerprint: str

    @property
    def num_samples(self) -> int:
        """Rows in all shards together."""
        return int(self.shard_samples.sum())


def read_index(directory: Path) -> MdsIndex:
    """Read and check a directory's index.json.

    Raises:
        StreamError: it is missing, not JSON, of another version, empty, compressed, or its shards
            disagree in their columns.
        ShardError: a shard has a negative count, or a file name that leaves the directory.
    """
    path = directory / INDEX_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise StreamError(f"{path}: {problem.strerror}; {directory} is not an MDS directory") from None
    except (ValueError, RecursionError) as problem:
        raise StreamError(
            f"{path}: not JSON ({problem}); it may be truncated, convert the corpus again with --overwrite"
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("shards"), list):
        raise StreamError(f"{path}: has no list of shards; it is not an MDS index")
    if content.get("version") != 2:
        raise StreamError(f"{path}: MDS version {content.get('version')!r}, expected 2")
    shards = content["shards"]
    if not shards:
        raise StreamError(
            f"{path}: lists no shard; the stream is empty, leave it out, or convert it again with --overwrite"
        )
    try:
        return _index_of(path, shards)
    except StreamError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as problem:
        raise StreamError(f"{path}: a shard's entry is not MDS ({problem!r})") from None


def _index_of(path: Path, shards: list[dict[str, Any]]) -> MdsIndex:
    columns = _columns(shards[0])
    for shard in shards:
        if shard.get("format") != "mds":
            raise StreamError(f"{path}: a shard has format {shard.get('format')!r}, expected 'mds'")
        if _columns(shard) != columns:
            raise StreamError(f"{path}: shards disagree in their columns; convert the corpus again with --overwrite")
        if shard["compression"]:
            raise StreamError(
                f"{path}: shards are compressed ({shard['compression']}); this version reads raw shards, "
                f"write them with compression=None"
            )
    names, encodings, sizes = columns
    files = tuple(_safe_name(path, shard["raw_data"]["basename"]) for shard in shards)
    if len(set(files)) != len(files):
        raise ShardError(f"{path}: names a shard file twice; convert the corpus again with --overwrite")
    file_bytes = np.array([_whole(shard["raw_data"]["bytes"]) for shard in shards], dtype=np.int64)
    shard_samples = np.array([_whole(shard["samples"]) for shard in shards], dtype=np.int64)
    for name, size, samples in zip(files, file_bytes, shard_samples, strict=True):
        if size < 0 or samples < 1:
            raise ShardError(f"{path}: shard {name} claims {samples} samples in {size} bytes")
    facts = [2, columns, [[s["raw_data"], s["samples"]] for s in shards]]
    digest = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8).hexdigest()
    return MdsIndex(
        files=files,
        file_bytes=file_bytes,
        shard_samples=shard_samples,
        column_names=names,
        column_encodings=encodings,
        column_sizes=sizes,
        fingerprint=digest,
    )


def _columns(shard: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[int | None, ...]]:
    """Return a shard's column names, encodings and sizes, one each a column."""
    names = tuple(str(name) for name in shard["column_names"])
    encodings = tuple(str(encoding) for encoding in shard["column_encodings"])
    sizes = tuple(None if size is None else _whole(size) for size in shard["column_sizes"])
    if not len(names) == len(encodings) == len(sizes):
        raise ValueError(f"{len(names)} column names, {len(encodings)} encodings, {len(sizes)} sizes")
    return names, encodings, sizes


def _whole(value: Any) -> int:
    """Return a JSON number that is a whole one."""
    if type(value) is not int:
        raise TypeError(f"{value!r} is no whole number")
    return value


def _safe_name(path: Path, name: str) -> str:
    """Return a shard's file name, if it stays inside the stream's directory."""
    pure = PurePosixPath(name)
    if not name or pure.is_absolute() or ".." in pure.parts or "\\" in name:
        raise ShardError(f"{path}: shard file {name!r} leaves the stream's directory; refused")
    return name
