"""The tokens of one shard, and the shards that are open at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from itertools import accumulate
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from mixstream.errors import ShardError
from mixstream.streams.index import Int64
from mixstream.streams.mapped import Bytes, MappedShard
from mixstream.streams.place import Place
from mixstream.streams.tokens import TokenColumn

Tokens = npt.NDArray[Any]
OpenT = TypeVar("OpenT")

MAX_OPEN_SHARDS = 256  # of one dataset: a map holds one file descriptor, and 1024 is a common limit of a process


class Shard:
    """The tokens of one shard, checked once; its rows are read without copying where they lie evenly.

    Attributes:
        rows: the tokens of all samples as one (n, sequence_length) view of the file, of the type on disk
            (rows may lie at any address, not only at multiples of that type's size); None where samples vary
            in size, which `read` copes with.
    """

    def __init__(self, path: Place, data: Bytes, num_samples: int, column: TokenColumn) -> None:
        """Check a shard's content against what index.json says of it.

        Args:
            path: the file, for messages.
            data: its content, (bytes,), mapped or in memory.
            num_samples: rows that index.json tells.
            column: where a sample keeps its tokens.

        Raises:
            ShardError: the header or the offsets do not fit.
        """
        self._file = MappedShard(path, data, num_samples, column.sizes)
        self._column = column
        self.rows: Tokens | None = self._as_rows()

    @property
    def num_samples(self) -> int:
        """Rows in the shard."""
        return self._file.num_samples

    @property
    def address(self) -> int:
        """Where the file begins in memory."""
        return int(self._file.data.ctypes.data)

    @property
    def token_bytes(self) -> int:
        """Bytes of a token."""
        return self._column.dtype.itemsize

    @cached_property
    def token_offsets(self) -> Int64:
        """Bytes from the file's beginning to each sample's tokens, (n,).

        Raises:
            ShardError: a sample is damaged, or of another length than the first.
        """
        if self.rows is not None:
            first = int(self.rows.ctypes.data) - self.address
            return first + np.arange(self.num_samples) * self.rows.strides[0]
        begins, lengths = self._places(np.arange(self.num_samples))
        self._check_alike(lengths)
        return np.ascontiguousarray(begins)

    def read(self, rows: Int64) -> Tokens:
        """Return the tokens of `rows` (n,) as an (n, sequence_length) array of the type on disk.

        Raises:
            ShardError: the samples are not all of one length, or damaged.
        """
        if self.rows is not None:
            found: Tokens = self.rows[rows]
            return found
        begins, lengths = self._places(rows)
        self._check_alike(lengths)
        width = int(lengths[0]) * self._column.dtype.itemsize if len(rows) else 0
        return sliding_window_view(self._file.data, width)[begins].view(self._column.dtype)  # one gather

    def _check_alike(self, lengths: Int64) -> None:
        if np.any(lengths != lengths[:1]):
            told = np.unique(lengths).tolist()
            raise ShardError(f"{self._file.path}: its samples have {told} tokens, expected all of one length")

    def length(self, row: int) -> int:
        """Tokens in one row.

        Raises:
            ShardError: the sample is damaged.
        """
        return int(self._places(np.array([row]))[1][0])

    def _as_rows(self) -> Tokens | None:
        values = self._file.table(self._column.position)
        if values is None or self._column.sequence_length is not None:
            return None if values is None else values.view(self._column.dtype)
        # Each sample brings its shape: where all bring the first one's, the rest of them lies evenly too.
        _, lengths = self._places(np.zeros(1, np.int64))
        shape_bytes = values.shape[1] - int(lengths[0]) * self._column.dtype.itemsize
        if np.any(values[:, :shape_bytes] != values[0, :shape_bytes]):
            return None
        return values[:, shape_bytes:].view(self._column.dtype)

    def _places(self, rows: Int64) -> tuple[Int64, Int64]:
        """Return where the tokens of `rows` begin in the file, and how many there are: (n,) each."""
        place = self._column.position
        begins, ends = self._file.bounds(rows)[:, place : place + 2].T
        if self._column.sequence_length is None:
            begins = begins + self._shape_bytes(rows, begins, ends)
        return begins, (ends - begins) // self._column.dtype.itemsize

    def _shape_bytes(self, rows: Int64, begins: Int64, ends: Int64) -> Int64:
        """Return the bytes of the shape that an ndarray of dynamic shape carries in front of its values: (n,).

        A byte tells dimensions and the width of a number of the shape, which comes next: (length,).
        """
        data, itemsize = self._file.data, self._column.dtype.itemsize
        code = np.where(ends > begins, data[np.minimum(begins, len(data) - 1)], 0)
        widths = np.left_shift(1, code % 4, dtype=np.int64)
        told = np.zeros(len(rows), np.int64)
        for width in np.unique(widths):
            here = np.flatnonzero((widths == width) & (ends - begins > width))
            numbers = data[begins[here, None] + 1 + np.arange(width)]
            told[here] = numbers.view(f"<u{width}")[:, 0].astype(np.int64)
        held, rest = np.divmod(ends - begins - 1 - widths, itemsize)
        wrong = np.flatnonzero((code // 4 != 1) | (told < 1) | (held != told) | (rest != 0))
        if len(wrong):
            first = wrong[0]
            raise ShardError(
                f"{self._file.path}: row {rows[first]} is not one row of {self._column.dtype.name}: "
                f"{code[first] // 4} dimensions, {told[first]} long, in {ends[first] - begins[first]} bytes; "
                f"the shard is damaged, or not of tokens"
            )
        return 1 + widths


class OpenFiles(Generic[OpenT]):
    """What is mapped now, of all streams of one reader: the one not read for longest is closed."""

    def __init__(self, limit: int = MAX_OPEN_SHARDS) -> None:
        """Keep at most `limit` open."""
        self._limit = limit
        self._open: OrderedDict[tuple[str, int], OpenT] = OrderedDict()

    def __len__(self) -> int:
        return len(self._open)

    def get(self, stream: str, number: int, open_shard: Callable[[int], OpenT]) -> OpenT:
        """Return shard `number` of a stream, opened by ``open_shard(number)`` where it is not."""
        key = stream, number
        if key in self._open:
            self._open.move_to_end(key)
            return self._open[key]
        while len(self._open) >= self._limit:
            self._open.popitem(last=False)
        shard = self._open[key] = open_shard(number)
        return shard


def shard_starts(shard_samples: Int64) -> Int64:
    """Return the (S + 1,) row at which each shard starts, and the total."""
    return np.fromiter(accumulate(shard_samples.tolist(), initial=0), np.int64, len(shard_samples) + 1)
