"""One memory-mapped MDS shard.

A shard is ``uint32 n | uint32 offsets[n + 1] | config JSON | samples``; a sample is the uint32 sizes of
its variable columns, then the bytes of all columns in order (mosaicml-streaming 0.13, MDS version 2).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mixstream.errors import ShardError, StreamError
from mixstream.streams.index import Int64, MdsIndex

Tokens = npt.NDArray[Any]

TOKEN_COLUMNS = ("tokens", "input_ids")
TOKEN_DTYPES = ("uint8", "uint16", "uint32", "int16", "int32", "int64")
MAX_OPEN_SHARDS = 256  # an open map holds one file descriptor; 1024 is a common limit of a process
_SHAPE_DTYPES = (np.dtype("u1"), np.dtype("<u2"), np.dtype("<u4"), np.dtype("<u8"))


@dataclass(frozen=True)
class TokenColumn:
    """Where the tokens of a sample are.

    Attributes:
        name: the column's name.
        dtype: type of a token on disk, little-endian.
        sequence_length: tokens in every sample, None where each sample brings its own shape.
        position: the column's place among a sample's columns.
        sizes: bytes of each column of a sample, None where they vary.
    """

    name: str
    dtype: np.dtype[Any]
    sequence_length: int | None
    position: int
    sizes: tuple[int | None, ...]

    @property
    def num_variable(self) -> int:
        """Columns of varying size, each with a uint32 in front of the sample."""
        return sum(size is None for size in self.sizes)

    @property
    def start(self) -> int | None:
        """Offset of the tokens in a sample, None where a variable column comes before them."""
        before = self.sizes[: self.position]
        if None in before:
            return None
        return 4 * self.num_variable + sum(size for size in before if size is not None)


def find_token_column(index: MdsIndex, where: str, name: str | None = None) -> TokenColumn:
    """Return the token column of a stream: `name`, or else ``tokens`` or ``input_ids``.

    Raises:
        StreamError: no such column, both of them, or one that does not hold a row of integers.
    """
    known = index.column_names
    wanted = [name] if name is not None else list(TOKEN_COLUMNS)
    found = [column for column in wanted if column in known]
    if len(found) != 1:
        raise StreamError(
            f"{where}: {len(found)} of the token columns {', '.join(wanted)} among its columns "
            f"{', '.join(known)}; name the one to read (token_column=...)"
        )
    position = known.index(found[0])
    kind, _, rest = index.column_encodings[position].partition(":")
    dtype, _, shape = rest.partition(":")
    if kind != "ndarray" or dtype not in TOKEN_DTYPES or "," in shape:
        raise StreamError(
            f"{where}: column {found[0]} is encoded as {index.column_encodings[position]!r}; "
            f"expected ndarray:DTYPE:LENGTH or ndarray:DTYPE, one row of integers"
        )
    return TokenColumn(
        name=found[0],
        dtype=np.dtype(dtype).newbyteorder("<"),
        sequence_length=int(shape) if shape else None,
        position=position,
        sizes=tuple(size or None for size in index.column_sizes),
    )


class Shard:
    """One shard, mapped and checked once; its rows are read without copying."""

    def __init__(self, path: Path, file_bytes: int, num_samples: int, column: TokenColumn) -> None:
        """Map the file and check it against what index.json says of it.

        Raises:
            ShardError: the file is missing, of another size, or its header does not fit.
        """
        self._path = path
        self._column = column
        self._data = _map(path, file_bytes)
        self._offsets = _offsets(path, self._data, num_samples)
        self._rows = self._as_rows()

    @property
    def num_samples(self) -> int:
        """Rows in the shard."""
        return len(self._offsets) - 1

    def read(self, rows: Int64) -> Tokens:
        """Return the tokens of `rows` (n,) as an (n, sequence_length) array of the type on disk.

        Raises:
            ShardError: the samples are not all of one length.
        """
        if self._rows is not None:
            return self._rows[rows]
        samples = [self._sample(int(row)) for row in rows]
        lengths = {len(sample) for sample in samples}
        if len(lengths) > 1:
            raise ShardError(f"{self._path}: its samples have {sorted(lengths)} tokens, expected all of one length")
        return np.stack(samples)

    def length(self, row: int) -> int:
        """Tokens in one row."""
        return len(self._sample(row))

    def _as_rows(self) -> Tokens | None:
        """Return the tokens as one (n, sequence_length) view, where every sample has the same size."""
        column = self._column
        if None in column.sizes or column.sequence_length is None:
            return None
        size = sum(size for size in column.sizes if size is not None)
        first, last = int(self._offsets[0]), int(self._offsets[-1])
        if np.any(np.diff(self._offsets) != size):
            raise ShardError(f"{self._path}: samples are not of {size} bytes each as index.json says")
        samples = self._data[first:last].reshape(-1, size)
        start = column.start or 0
        width = column.sequence_length * column.dtype.itemsize
        return samples[:, start : start + width].view(column.dtype)

    def _sample(self, row: int) -> Tokens:
        """Return one sample's tokens, whatever its layout."""
        sample = self._data[int(self._offsets[row]) : int(self._offsets[row + 1])]
        column = self._column
        sizes = list(column.sizes)
        told = iter(sample[: 4 * column.num_variable].view("<u4").tolist())
        full = [next(told) if size is None else size for size in sizes]
        start = 4 * column.num_variable + sum(full[: column.position])
        value = sample[start : start + full[column.position]]
        if start + full[column.position] > len(sample):
            raise ShardError(f"{self._path}: row {row} ends before its column {column.name} does")
        return self._values(value, row)

    def _values(self, value: npt.NDArray[np.uint8], row: int) -> Tokens:
        """Strip the shape that an ndarray of dynamic shape carries in front of its values."""
        column = self._column
        if column.sequence_length is None:
            num_dimensions, code = int(value[0]) >> 2, int(value[0]) & 3
            if num_dimensions != 1:
                raise ShardError(f"{self._path}: row {row} has {num_dimensions} dimensions, expected 1")
            value = value[1 + _SHAPE_DTYPES[code].itemsize :]
        return np.frombuffer(value.tobytes(), dtype=column.dtype)


class OpenShards:
    """The shards of one stream that are mapped now: opened when first read, the oldest closed."""

    def __init__(self, open_shard: Callable[[int], Shard], limit: int = MAX_OPEN_SHARDS) -> None:
        """Open shard number i by ``open_shard(i)``, keep at most `limit`."""
        self._open_shard = open_shard
        self._limit = limit
        self._open: OrderedDict[int, Shard] = OrderedDict()

    def __getitem__(self, number: int) -> Shard:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        shard = self._open_shard(number)
        self._open[number] = shard
        if len(self._open) > self._limit:
            self._open.popitem(last=False)
        return shard


def _map(path: Path, file_bytes: int) -> npt.NDArray[np.uint8]:
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        raise ShardError(f"{path}: no such file, but index.json lists it; convert the corpus again") from None
    if found != file_bytes:
        raise ShardError(
            f"{path}: {found} bytes, index.json says {file_bytes}; the shard is truncated or changed, "
            f"copy or convert it again"
        )
    return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))  # a plain array is indexed faster


def _offsets(path: Path, data: npt.NDArray[np.uint8], num_samples: int) -> Int64:
    """Return the (n + 1,) byte offsets of the samples, checked against the file."""
    header_bytes = 4 * (num_samples + 2)
    if len(data) < header_bytes:
        raise ShardError(f"{path}: {len(data)} bytes cannot hold the header of {num_samples} samples")
    found = int(data[:4].view("<u4")[0])
    if found != num_samples:
        raise ShardError(f"{path}: header says {found} samples, index.json says {num_samples}")
    offsets = data[4:header_bytes].view("<u4").astype(np.int64)
    if offsets[0] < header_bytes or offsets[-1] != len(data) or np.any(np.diff(offsets) < 0):
        raise ShardError(f"{path}: its sample offsets do not fit the file of {len(data)} bytes")
    return offsets


def shard_starts(shard_samples: Int64) -> Int64:
    """Return the (S + 1,) row at which each shard starts, and the total."""
    return np.fromiter(accumulate(shard_samples.tolist(), initial=0), np.int64, len(shard_samples) + 1)
