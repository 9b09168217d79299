"""Writing MDS shards and their index, byte for byte as MDSWriter does (mosaicml-streaming 0.13, MDS version 2).

A shard is a function of its rows, so that several processes may write those of one stream; what they wrote becomes a
stream when `mixstream.streams.placing` puts it in its place.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mixstream.errors import StreamError
from mixstream.formats import write_whole
from mixstream.streams.columns import SCALARS
from mixstream.streams.compression import compress
from mixstream.streams.hashes import new_xxh64
from mixstream.streams.index import INDEX_NAME, MAX_BYTES
from mixstream.streams.mapped import Bytes

SHARD_BYTES = 1 << 26
TOKENS = "tokens"  # the column
HASH = "xxh64"  # index.json, and so the stream's fingerprint, then tells its content
_PIECE_BYTES = 1 << 20  # put together at a time: stays in the processor's cache


@dataclass(frozen=True)
class RowFormat:
    """Columns of a stream's samples, each of a fixed size.

    Attributes:
        columns: (name, MDS encoding) each, such as ``("tokens", "ndarray:uint16:2048")`` or ``("quality", "float64")``;
            kept in the order in which a sample stores them, that of their names.
    """

    columns: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        """Sort the columns.

        Raises:
            StreamError: there is none, two of one name, or one whose size varies.
        """
        names = [name for name, _ in self.columns]
        if not names or len(set(names)) < len(names):
            raise StreamError(f"columns {names}; expected one or more, each with a name of its own")
        for _, encoding in self.columns:
            _layout(encoding)
        object.__setattr__(self, "columns", tuple(sorted(self.columns)))

    @cached_property
    def layouts(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Type and shape of a sample's value of each column, in order; the shape of a number is empty."""
        return {name: _layout(encoding) for name, encoding in self.columns}

    @cached_property
    def column_bytes(self) -> tuple[int, ...]:
        """Bytes of each column of a sample."""
        return tuple(dtype.itemsize * math.prod(shape) for dtype, shape in self.layouts.values())

    @property
    def row_bytes(self) -> int:
        """Bytes of a sample."""
        return sum(self.column_bytes)

    def samples_per_shard(self, shard_bytes: int, compression: str | None = None) -> int:
        """Return how many samples fill a shard, which ends before it is larger than `shard_bytes`.

        The compression counts because a shard names it, at its beginning.

        Raises:
            StreamError: there is no room for one, or for more than a shard's 32-bit offsets can tell.
        """
        if shard_bytes > MAX_BYTES:
            raise StreamError(f"shards of {shard_bytes} bytes; MDS shards end below {MAX_BYTES + 1}, choose fewer")
        head_bytes = 8 + len(self.described(shard_bytes, compression))
        count = (shard_bytes - head_bytes) // (4 + self.row_bytes)
        if count < 1:
            raise StreamError(
                f"shards of {shard_bytes} bytes cannot hold a sample of {self.row_bytes} bytes; make shards of at "
                f"least {head_bytes + 4 + self.row_bytes} bytes, or shorter samples"
            )
        return count

    def config(self, size_limit: int, compression: str | None) -> dict[str, Any]:
        """Return what index.json and a shard's header say of how it was written."""
        return {
            "version": 2,
            "format": "mds",
            "compression": compression,
            "hashes": [HASH],
            "size_limit": size_limit,
            "column_names": [name for name, _ in self.columns],
            "column_encodings": [encoding for _, encoding in self.columns],
            "column_sizes": list(self.column_bytes),
        }

    def described(self, size_limit: int, compression: str | None) -> bytes:
        """Return `config` as a shard's header has it."""
        return json.dumps(self.config(size_limit, compression), sort_keys=True).encode()


def _layout(encoding: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return type and shape of an MDS encoding's value.

    Raises:
        StreamError: the size of its values is not fixed.
    """
    kind, *options = encoding.split(":")
    name = {"int": "int64"}.get(kind, kind) if not options else ""
    shape: tuple[int, ...] = ()
    if kind == "ndarray" and len(options) == 2 and all(side.isdecimal() for side in options[1].split(",")):
        name, shape = options[0], tuple(map(int, options[1].split(",")))
    if name not in SCALARS or 0 in shape:
        raise StreamError(
            f"a column encoded as {encoding!r}; expected one of fixed size: ndarray:TYPE:LENGTH, or int or one of "
            f"{', '.join(SCALARS)}"
        )
    return np.dtype(name).newbyteorder("<"), shape


def write_shard(
    path: Path,
    number: int,
    rows: Mapping[str, npt.NDArray[Any]],
    form: RowFormat,
    size_limit: int,
    compression: str | None = None,
) -> dict[str, Any]:
    """Write shard `number` of the MDS directory `path`, where it is whole or absent under its name.

    Uncompressed it takes some megabytes beside `rows`; compressed, a copy of the shard and its compressed bytes.

    Args:
        path: an existing folder.
        number: of the shard, from 0.
        rows: n values of each column, (n, length) or (n,), of the type that `form` says.
        form: the columns.
        size_limit: the most bytes of a shard.
        compression: None, or ``zstd`` and maybe a level: ``zstd:3``.

    Returns:
        The shard's entry of index.json.

    Raises:
        StreamError: the rows are not those of the format, none, or too many; or the file cannot be written.
    """
    columns = _as_bytes(rows, form)
    count, limit = len(columns[0]), form.samples_per_shard(size_limit, compression)
    if not 1 <= count <= limit:
        raise StreamError(f"{path}: shard {number} of {count} samples; expected 1 to {limit} in {size_limit} bytes")
    pieces: Iterable[bytes | memoryview] = chain(
        [_head(count, form, size_limit, compression)], _pieces(columns, form.row_bytes)
    )
    name, packed = f"shard.{number:05}.mds", None
    if compression is None:
        raw = _told(name, _store(path / name, pieces))
    else:
        joined = io.BytesIO()  # `b"".join` would hold all pieces beside it
        for piece in pieces:
            joined.write(piece)
        content = joined.getvalue()
        raw = _told(name, _digested([content]))
        name = f"{name}.{compression.partition(':')[0]}"
        packed = _told(name, _store(path / name, [compress(content, compression)]))
    return {"samples": count, "raw_data": raw, "zip_data": packed} | form.config(size_limit, compression)


def write_index(directory: Path, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write index.json from the entries of all shards, in order.

    Raises:
        StreamError: there is none.
        FormatError: the file cannot be written.
    """
    if not entries:
        raise StreamError(f"{directory}: a stream without shards; give it a sample or leave it out")
    content = {"version": 2, "shards": list(entries)}
    write_whole(directory / INDEX_NAME, json.dumps(content, sort_keys=True))


def _as_bytes(rows: Mapping[str, npt.NDArray[Any]], form: RowFormat) -> list[Bytes]:
    """Return the bytes of each column, (n, bytes of the column) each.

    Raises:
        StreamError: other columns than the format's, of other types or shapes, or of different lengths.
    """
    if sorted(rows) != list(form.layouts):
        raise StreamError(f"rows have columns {sorted(rows)}, expected {list(form.layouts)}")
    counts = {name: len(values) for name, values in rows.items()}
    if len(set(counts.values())) > 1:
        raise StreamError(f"columns have {counts} values; expected as many of each")
    columns = []
    for (name, (dtype, shape)), size in zip(form.layouts.items(), form.column_bytes, strict=True):
        values = rows[name]
        if values.dtype != dtype or values.shape[1:] != shape:
            raise StreamError(
                f"column {name!r} has values of type {values.dtype} and shape {values.shape[1:]}, expected {dtype.name}"
                f" and {shape}"
            )
        columns.append(np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(-1, size))
    return columns


def _head(count: int, form: RowFormat, size_limit: int, compression: str | None) -> bytes:
    """Return what stands before the samples: their number, where each begins, the last ends, and the config."""
    described = form.described(size_limit, compression)
    first = 4 + 4 * (count + 1) + len(described)
    offsets = first + form.row_bytes * np.arange(count + 1)
    return np.concatenate([[count], offsets]).astype("<u4").tobytes() + described


def _pieces(columns: Sequence[Bytes], row_bytes: int) -> Iterator[memoryview]:
    """Yield the samples, some at a time; a piece is gone when the next one is asked for."""
    count, step = len(columns[0]), max(1, _PIECE_BYTES // row_bytes)
    if len(columns) == 1:
        yield columns[0].reshape(-1).data
        return
    for first in range(0, count, step):
        # joined anew for each piece: a buffer used again would save nothing, it is the copy that costs
        yield np.concatenate([column[first : first + step] for column in columns], axis=1).reshape(-1).data


def _digested(pieces: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Return the number of bytes and their hash."""
    digest, size = new_xxh64(), 0
    for piece in pieces:
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


def _store(path: Path, pieces: Iterable[bytes | memoryview]) -> tuple[int, str]:
    """Write a file under a temporary name, then rename it; return its size and hash.

    Raises:
        StreamError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")

    def written() -> Iterator[bytes | memoryview]:
        with temporary.open("wb", buffering=0) as file:
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
                yield piece

    try:
        told = _digested(written())
        temporary.replace(path)
    except OSError as problem:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise StreamError(f"{path}: cannot be written ({problem.strerror}); make room there, or elsewhere") from None
    return told


def _told(name: str, told: tuple[int, str]) -> dict[str, Any]:
    return {"basename": name, "bytes": told[0], "hashes": {HASH: told[1]}}
