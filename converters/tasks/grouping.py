"""A part's documents put together by stream and split, where many streams take turns in a span.

A part is written in blocks; each has all streams. Of a span of many blocks and streams the runs would be so many that a
corpus of web pages in all languages fills the memory of the process that puts streams together.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mixstream.streams.index import Int64

if TYPE_CHECKING:
    from converters.tasks.parts import Run

CHUNK_ROWS = 1 << 12  # of documents, that are read at a time later
FEW_RUNS = 64  # of a part, which are left as they are: a stream and its held-out split take turns, too


def group_runs(path: str, runs: Sequence[Run]) -> list[Run]:
    """Rewrite the files of a part so that each stream and split has one run, its documents in their order.

    Args:
        path: of the files, without their suffix; they are closed.
        runs: in the order of the files.

    Returns:
        The runs in their new order; the same ones where there are few.
    """
    order = sorted(range(len(runs)), key=lambda run: runs[run][:2])
    groups = [list(own) for _, own in groupby(order, key=lambda run: runs[run][:2])]
    if len(runs) <= FEW_RUNS or len(groups) == len(runs):
        return list(runs)
    ends = np.cumsum([run.num_documents for run in runs])
    numbers = np.concatenate([np.arange(ends[run] - runs[run].num_documents, ends[run]) for run in order])
    try:
        _reorder_tokens(path, runs, order)
        _reorder_documents(path, numbers)
        _renumber_hashes(path, numbers)
    finally:
        for suffix in ("tokens", "documents"):
            Path(f"{path}.{suffix}.grouped").unlink(missing_ok=True)
    return [_merged([runs[run] for run in own]) for own in groups]


def _merged(runs: Sequence[Run]) -> Run:
    totals = (sum(counts) for counts in zip(*(run[2:] for run in runs), strict=True))
    return type(runs[0])(runs[0].stream, runs[0].split, *totals)


def _reorder_tokens(path: str, runs: Sequence[Run], order: Sequence[int]) -> None:
    stored = np.memmap(f"{path}.tokens", np.uint8, mode="r")
    counts = np.array([run.num_tokens for run in runs], np.int64)
    counts *= len(stored) // int(counts.sum())  # bytes of a token
    begins = np.cumsum(counts) - counts
    grouped = Path(f"{path}.tokens.grouped")
    with grouped.open("wb") as file:
        for run in order:
            file.write(stored[begins[run] : begins[run] + counts[run]].data)
    grouped.replace(f"{path}.tokens")


def _reorder_documents(path: str, numbers: Int64) -> None:
    import pyarrow
    import pyarrow.ipc

    grouped = Path(f"{path}.documents.grouped")
    with (
        pyarrow.memory_map(f"{path}.documents") as source,
        pyarrow.ipc.open_file(source) as reader,
        grouped.open("wb") as file,
        pyarrow.ipc.new_file(file, reader.schema) as writer,
    ):
        table = reader.read_all().combine_chunks()
        writer.write_table(table.take(pyarrow.array(numbers)), max_chunksize=CHUNK_ROWS)
    grouped.replace(f"{path}.documents")


def _renumber_hashes(path: str, numbers: Int64) -> None:
    """Have hashes tell the rows where their documents are now; `numbers` are the old ones, in the new order."""
    from converters.tasks.parts import HASHES

    hashes = np.fromfile(f"{path}.hashes", HASHES)
    new = np.empty_like(numbers)
    new[numbers] = np.arange(len(numbers))
    is_there = hashes["row"] >= 0
    hashes["row"][is_there] = new[hashes["row"][is_there]]
    hashes.tofile(f"{path}.hashes")
