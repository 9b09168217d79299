"""Exact duplicates: of documents of one stream with the same text the first one stays.

The hashes of all documents need not fit into memory: they are looked at in as many turns as there are buckets, each a
range of hashes; then each part that has duplicates is written again without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from converters.encode import cannot_write
from converters.parts import Part, Run, copy_documents, documents_of, note_whole

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


def buckets_of(num_documents: int) -> int:
    """Return how many buckets so many documents need."""
    return max(1, -(-num_documents // BUCKET_DOCUMENTS))


def find_duplicates(task: FindTask) -> None:
    """Note of every text that was there before where it is.

    Raises:
        StreamError: that cannot be written.
    """
    target = Path(task.found)
    if target.exists():
        return
    hashes: list[npt.NDArray[Any]] = []
    places: list[npt.NDArray[Any]] = []
    for number, path in enumerate(task.paths):
        own = hashes_of(path)
        rows = np.flatnonzero(own["high"] % np.uint64(task.num_buckets) == task.bucket)
        found = np.empty(len(rows), _FOUND)
        found["part"], found["row"] = number, rows
        hashes.append(own[rows])
        places.append(found)
    place = np.concatenate(places)
    duplicate = is_repeated(np.concatenate(hashes), place["part"])
    try:
        note_whole(target, place[duplicate].tobytes())
    except OSError as problem:
        raise cannot_write(target.parent, problem) from None


def is_repeated(hashes: npt.NDArray[Any], part: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return of each of (n,) `hashes_of` the parts (n,) whether the same one was read before it, (n,)."""
    order = np.lexsort((hashes["number"], part, hashes["low"], hashes["high"]))
    ordered = hashes[order]
    is_same = (ordered["high"][1:] == ordered["high"][:-1]) & (ordered["low"][1:] == ordered["low"][:-1])
    repeated = np.zeros(len(hashes), bool)
    repeated[order[1:]] = is_same
    return repeated


def hashes_of(path: str) -> npt.NDArray[Any]:
    """Return of a part's documents the hashes, in two 64-bit halves, and the numbers of their rows, (n,)."""
    table = documents_of(path)
    hashes = np.empty(len(table), [("high", "<u8"), ("low", "<u8"), ("number", "<i8")])
    first = 0
    for chunk in table["hash"].chunks:
        halves = np.frombuffer(chunk.buffers()[1], "<u8").reshape(-1, 2)[chunk.offset : chunk.offset + len(chunk)]
        hashes["high"][first : first + len(chunk)], hashes["low"][first : first + len(chunk)] = halves.T
        first += len(chunk)
    hashes["number"] = table["number"].to_numpy()
    return hashes


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
    made = Part(task.to, tuple(runs), counts)
    made.save()
    return made


def _rows(path: str, number: int) -> npt.NDArray[Any]:
    found = np.fromfile(path, _FOUND)
    first, last = np.searchsorted(found["part"], [number, number + 1])
    return found["row"][first:last]
