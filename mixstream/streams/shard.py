"""One memory-mapped MDS shard.

A shard is ``uint32 n | uint32 offsets[n + 1] | config JSON | samples``; a sample is the uint32 sizes of
its variable columns, then the bytes of all columns in order (mosaicml-streaming 0.13, MDS version 2).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
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
MAX_OPEN_SHARDS = 256  # of one dataset: a map holds one file descriptor, and 1024 is a common limit of a process
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
            f"{', '.join(known)}; name the one to read (token_column)"
        )
    position = known.index(found[0])
    kind, _, rest = index.column_encodings[position].partition(":")
    dtype, _, shape = rest.partition(":")
    size = index.column_sizes[position]
    fixed = shape.isdecimal() and size == int(shape) * np.dtype(dtype if dtype in TOKEN_DTYPES else "u1").itemsize
    if kind != "ndarray" or dtype not in TOKEN_DTYPES or not (fixed or (shape == "" and not size)):
        raise StreamError(
            f"{where}: column {found[0]} is encoded as {index.column_encodings[position]!r} of {size} bytes; "
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

    @property
    def address(self) -> int:
        """Where the file is mapped in memory."""
        return self._data.ctypes.data

    @property
    def token_bytes(self) -> int:
        """Bytes of a token."""
        return self._column.dtype.itemsize

    @cached_property
    def token_offsets(self) -> Int64:
        """Bytes from the file's beginning to each sample's tokens, (n,)."""
        assert self._rows is not None, "TODO"
        return self._offsets[:-1] + (self._column.start or 0)

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
        head = 4 * column.num_variable
        told = iter(sample[: min(head, len(sample)) // 4 * 4].view("<u4").tolist())
        full = [next(told, 0) if size is None else size for size in column.sizes]
        if head + sum(full) != len(sample):
            raise ShardError(
                f"{self._path}: row {row} has {len(sample)} bytes, its columns add up to {head + sum(full)}; "
                f"the shard is damaged, copy it or convert it again with --overwrite"
            )
        start = head + sum(full[: column.position])
        return self._values(sample[start : start + full[column.position]], row)

    def _values(self, value: npt.NDArray[np.uint8], row: int) -> Tokens:
        """Strip the shape that an ndarray of dynamic shape carries in front of its values."""
        column = self._column
        if column.sequence_length is None:
            # A byte tells dimensions and the type of the shape, which comes next: (length,).
            num_dimensions, code = divmod(int(value[0]) if len(value) else 0, 4)
            width = _SHAPE_DTYPES[code].itemsize
            length = int.from_bytes(value[1 : 1 + width].tobytes(), "little")
            if num_dimensions != 1 or length < 1 or len(value) != 1 + width + length * column.dtype.itemsize:
                raise ShardError(
                    f"{self._path}: row {row} is not one row of {column.dtype.name}: {num_dimensions} dimensions, "
                    f"{length} long, in {len(value)} bytes; the shard is damaged, or not of tokens"
                )
            value = value[1 + width :]
        return np.frombuffer(value.tobytes(), dtype=column.dtype)


class OpenShards:
    """The shards that one dataset has mapped now, of all its streams: the one not read for longest is closed."""

    def __init__(self, limit: int = MAX_OPEN_SHARDS) -> None:
        """Keep at most `limit` open."""
        self._limit = limit
        self._open: OrderedDict[tuple[str, int], Shard] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, stream: str, number: int, open_shard: Callable[[int], Shard]) -> Shard:
        """Return shard `number` of a stream, opened by ``open_shard(number)`` where it is not."""
        key = stream, number
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key]
        while len(self._open) >= self._limit:
            self._open.popitem(last=False)
        shard = self._open[key] = open_shard(number)
        return shard


def _map(path: Path, file_bytes: int) -> npt.NDArray[np.uint8]:
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        raise ShardError(
            f"{path}: no such file, but index.json lists it; copy it or convert the corpus again with --overwrite"
        ) from None
    if found != file_bytes:
        raise ShardError(
            f"{path}: {found} bytes, index.json says {file_bytes}; the shard is truncated or changed, "
            f"copy it or convert it again with --overwrite"
        )
    try:
        return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))  # a plain array is indexed faster
    except (OSError, ValueError) as problem:
        raise ShardError(f"{path}: cannot be mapped ({problem})") from None


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
