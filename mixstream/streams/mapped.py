"""One memory-mapped MDS shard: where its samples are, and in them the columns.

A shard is ``uint32 n | uint32 offsets[n + 1] | config JSON | samples``; a sample is the uint32 sizes of
its variable columns, then the bytes of all columns in order (mosaicml-streaming 0.13, MDS version 2).
"""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mixstream.errors import ShardError
from mixstream.kernels import native
from mixstream.streams.index import Int64
from mixstream.streams.place import Place

Bytes = npt.NDArray[np.uint8]


def map_file(path: Path, file_bytes: int) -> Bytes:
    """Map a raw shard, read-only.

    Raises:
        ShardError: the file is missing, of another size than `file_bytes`, or cannot be mapped.
    """
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
        if native is None:
            return np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))  # a plain array is indexed faster
        return np.frombuffer(native.map_file(path, file_bytes), dtype=np.uint8)  # holds no file descriptor
    except (OSError, ValueError, TypeError) as problem:
        raise ShardError(f"{path}: cannot be mapped ({problem})") from None


class MappedShard:
    """The samples of one shard, checked once; nothing is copied.

    What index.json says is compared with the header and the offsets here, which reads few pages. The sizes that
    stand in front of a sample with variable columns are compared when the sample, or the `table`, is asked for.
    """

    def __init__(self, path: Place, data: Bytes, num_samples: int, sizes: tuple[int | None, ...]) -> None:
        """Check a shard's content.

        Args:
            path: the file, for messages.
            data: its content, (bytes,).
            num_samples: rows that index.json tells.
            sizes: bytes of each column, None where they vary.

        Raises:
            ShardError: the header or the offsets do not fit.
        """
        self.path = path
        self.data = data
        self._offsets = _offsets(path, data, num_samples)
        self._sizes = sizes
        self._variable = [place for place, size in enumerate(sizes) if size is None]
        self._head_bytes = 4 * len(self._variable)
        if not self._variable and np.any(np.diff(self._offsets) != sum(size or 0 for size in sizes)):
            size = sum(size or 0 for size in sizes)
            raise ShardError(f"{path}: samples are not of {size} bytes each as index.json says")

    @property
    def num_samples(self) -> int:
        """Rows in the shard."""
        return len(self._offsets) - 1

    def bounds(self, rows: Int64) -> Int64:
        """Return where the columns of `rows` (n,) begin and end in `data`: (n, columns + 1).

        Column c of a row takes the bytes from bound c up to bound c + 1.

        Raises:
            ShardError: the sizes of a sample's columns do not add up to its size.
        """
        begins = self._offsets[rows].astype(np.int64)
        ends = self._offsets[rows + 1].astype(np.int64)
        bounds = np.empty((len(rows), 1 + len(self._sizes)), np.int64)
        bounds[:, 0] = begins + self._head_bytes
        bounds[:, 1:] = [size or 0 for size in self._sizes]
        if self._variable:
            heads = np.zeros((len(rows), self._head_bytes), np.uint8)
            told = ends - begins >= self._head_bytes
            heads[told] = self.data[begins[told, None] + np.arange(self._head_bytes)]
            bounds[:, [1 + place for place in self._variable]] = heads.view("<u4")
        np.cumsum(bounds, axis=1, out=bounds)
        for first in np.flatnonzero(bounds[:, -1] != ends)[:1]:
            self.bounds_of(int(rows[first]))  # tells what is wrong
        return bounds

    def bounds_of(self, row: int) -> list[int]:
        """Return where the columns of one row begin and end in `data`; as `bounds`, and faster for one."""
        begin, end = self._offsets[row : row + 2].tolist()
        head = begin + self._head_bytes
        told = iter(() if head > end else self.data[begin:head].view("<u4").tolist())
        bounds = list(accumulate((next(told, 0) if size is None else size for size in self._sizes), initial=head))
        if bounds[-1] != end:
            raise ShardError(
                f"{self.path}: row {row} has {end - begin} bytes, its columns add up to {bounds[-1] - begin}; "
                f"the shard is damaged, copy it or convert it again with --overwrite"
            )
        return bounds

    def table(self, place: int) -> Bytes | None:
        """Return column number `place` of all samples as an (n, bytes) view, None where it does not lie evenly.

        It does where all samples are of one size and, if they have variable columns, tell the same sizes.
        """
        first, second, last = (int(self._offsets[i]) for i in (0, 1, -1))
        if last - first != (second - first) * self.num_samples or np.any(np.diff(self._offsets) != second - first):
            return None
        begin, end = self.bounds(np.zeros(1, np.int64))[0, place : place + 2] - first
        samples = self.data[first:last].reshape(self.num_samples, second - first)
        if self._variable and np.any(samples[:, : self._head_bytes] != samples[0, : self._head_bytes]):
            return None
        return samples[:, begin:end]


def _offsets(path: Place, data: Bytes, num_samples: int) -> npt.NDArray[np.uint32]:
    """Return the (n + 1,) byte offsets of the samples, a view of the file, checked against it."""
    header_bytes = 4 * (num_samples + 2)
    if len(data) < header_bytes:
        raise ShardError(f"{path}: {len(data)} bytes cannot hold the header of {num_samples} samples")
    found = int(data[:4].view("<u4")[0])
    if found != num_samples:
        raise ShardError(f"{path}: header says {found} samples, index.json says {num_samples}")
    offsets: npt.NDArray[Any] = data[4:header_bytes].view("<u4")
    if offsets[0] < header_bytes or offsets[-1] != len(data) or np.any(offsets[1:] < offsets[:-1]):
        raise ShardError(f"{path}: its sample offsets do not fit the file of {len(data)} bytes")
    return offsets
