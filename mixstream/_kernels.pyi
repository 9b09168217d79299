"""What _kernels.c offers; arrays are C-contiguous and of int64, unless said otherwise."""

from typing import Any

import numpy as np
import numpy.typing as npt

Int64 = npt.NDArray[np.int64]

class Map:
    """A file's bytes, read-only, through the buffer protocol; holds no file descriptor."""

    def __buffer__(self, flags: int) -> memoryview: ...

def draw(
    shape: tuple[int, ...],
    counts: Int64,
    owed: Int64,
    shares: Int64,
    used: Int64,
    drawn: Int64,
    totals: Int64,
    limits: Int64,
    lane_limits: Int64,
    batch_size: int,
    lookahead: int,
) -> int:
    """Write up to n batches' draws to counts (n, L, K); return how many; `owed`, `used` and `drawn` move on.

    `totals` (K,) is room to work in. Twin: ledger.draw_slowly.
    """

def window_rows(rows: Int64, first: int, size: int, a: int, b: int, key: int, ends: Int64, shifts: Int64) -> None:
    """Write the rows at places first, first + 1, ... of a shuffled window of `size`. Twin: order.permute."""

def place(
    shape: tuple[int, ...],
    counts: Int64,
    cursors: Int64,
    rows: Int64,
    repeats: Int64,
    first_batch: int,
    key: int,
    stream: Int64,
    sample: Int64,
    repeat: Int64,
) -> None:
    """Deal draws to the rows of batches; moves `cursors` on. Twin: batches.place_slowly."""

def gather(*table_and_rows: Any) -> int:
    """Copy samples' tokens: (*table, stream, sample, shard, out, again, limit). Twin: TokenReader._gather."""

def sources(*table_and_rows: Any) -> int:
    """Write the address of samples' tokens, or say that a shard is closed: (*table, stream, sample, shard, source)."""

def touch(source: Int64, size: int) -> None:
    """Bring `size` bytes at every address into memory."""

def map_file(path: str, size: int) -> Map:
    """Map a file of a known size; OSError where it cannot be, or has another."""
