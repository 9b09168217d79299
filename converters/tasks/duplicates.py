"""Exact duplicates: of documents of one stream with the same text the first one stays.

Those outside a subsample are looked at too: a share of the documents is to be one of those that are not duplicates.

The hashes of all documents need not fit into memory: they are looked at in as many turns as there are buckets, each a
range of hashes; then each part that has duplicates is written again without them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.tasks.encode import cannot_write
from converters.tasks.parts import HASHES, NOWHERE, Part, Run, copy_documents, note_whole

DUPLICATE = "duplicate"
BUCKET_DOCUMENTS = 4_000_000  # looked at in one turn, at some 40 bytes each

_FOUND = np.dtype([("part", "<u4"), ("row", "<u8")])


@dataclass(frozen=True)
class FindTask:
    """One bucket: its duplicates of all parts go to a file, in the order of parts and rows."""

    paths: tuple[str, ...]
    bucket: int
    num_buckets: int
    found: str


@dataclass(frozen=True)
class DropTask:
    """One part (its number among all), without the duplicates that were found, to another path."""

    path: str
    number: int
    found: tuple[str, ...]
    dtype: str
    to: str


def buckets_of(paths: Iterable[str]) -> int:
    """Return how many buckets the documents of these parts need."""
    num_documents = sum(Path(f"{path}.hashes").stat().st_size for path in paths) // HASHES.itemsize
    return max(1, -(-num_documents // BUCKET_DOCUMENTS))


def find_duplicates(task: FindTask) -> None:
    """Note of every text that was there before where it is.

    Raises:
        StreamError: that cannot be written.
    """
    target = Path(task.found)
    if target.exists():
        return
    hashes, parts = [], []
    for number, path in enumerate(task.paths):
        own = np.fromfile(f"{path}.hashes", HASHES)
        own = own[own["hash"][:, 0] % np.uint64(task.num_buckets) == task.bucket]
        hashes.append(own)
        parts.append(np.full(len(own), number, np.uint32))
    of_all, part = np.concatenate(hashes), np.concatenate(parts)
    duplicate = is_repeated(of_all, part) & (of_all["row"] != NOWHERE)
    found = np.empty(int(duplicate.sum()), _FOUND)
    found["part"], found["row"] = part[duplicate], of_all["row"][duplicate]
    try:
        note_whole(target, np.sort(found, order=("part", "row")).tobytes())
    except OSError as problem:
        raise cannot_write(target.parent, problem) from None


def is_repeated(hashes: npt.NDArray[Any], part: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return of each of (n,) `HASHES`, in the parts (n,), whether the same hash was read before it, (n,)."""
    high, low = hashes["hash"].T
    order = np.lexsort((hashes["number"], part, low, high))
    repeated = np.zeros(len(hashes), bool)
    repeated[order[1:]] = (high[order[1:]] == high[order[:-1]]) & (low[order[1:]] == low[order[:-1]])
    return repeated


def drop_duplicates(task: DropTask) -> Part:
    """Write a part without its duplicates; return it. What has none stays as it is.

    Raises:
        StreamError: it cannot be written.
    """
    part = Part.load(task.path)
    assert part is not None, "all parts are whole by now"
    rows = np.concatenate([_rows(path, task.number) for path in task.found])
    if not len(rows):
        return part
    whole = Part.load(task.to)
    if whole is not None:
        return whole
    run_ends = np.cumsum([run.num_documents for run in part.runs])
    dropped = np.bincount(np.searchsorted(run_ends, rows, side="right"), minlength=len(run_ends))
    counts = {name: dict(own) for name, own in part.counts.items()}
    for run, number in zip(part.runs, dropped.tolist(), strict=True):
        if number:
            own = counts.setdefault(run.stream, {})
            own[DUPLICATE] = own.get(DUPLICATE, 0) + number
    duplicate = np.zeros(part.num_documents, bool)
    duplicate[rows.astype(np.int64)] = True
    try:
        totals = copy_documents(part, task.to, task.dtype, ~duplicate)
    except OSError as problem:
        raise cannot_write(Path(task.to).parent, problem) from None
    runs = [Run(run.stream, run.split, *own) for run, own in zip(part.runs, totals, strict=True) if own[0]]
    made = Part(task.to, tuple(runs), counts, part.kept)
    made.save()
    return made


def _rows(path: str, number: int) -> npt.NDArray[Any]:
    """Return the rows of a part that are in a file of all parts' duplicates, of which little is read."""
    count = Path(path).stat().st_size // _FOUND.itemsize
    if not count:
        return np.empty(0, np.uint64)
    found = np.memmap(path, _FOUND, mode="r")
    first, last = (bisect_left(found, own, key=lambda row: int(row["part"])) for own in (number, number + 1))
    return np.array(found["row"][first:last])
