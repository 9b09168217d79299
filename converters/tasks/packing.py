"""Which tokens of which parts make which shard: decided from counts alone, before anything is copied.

A split's documents in the order of their parts, each ended by its end-of-document token, are one sequence of tokens.
Packed, sample i is tokens [i L, (i + 1) L) of it, so nothing is lost but what is left over after the last whole sample.
In layout "documents" sample i is document i, cut at L tokens or filled up to them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from converters.tasks.parts import Part

Layout = Literal["packed", "documents"]
Int64 = npt.NDArray[np.int64]


class Piece(NamedTuple):
    """A run of documents in a part, and what is meant of it.

    Attributes:
        path: the part's.
        token, row: where the run begins in the part's tokens and in its table of documents.
        num_tokens, num_documents: of the run.
        begin, end: what is meant, counted from the run's begin: tokens, or documents in layout "documents".
    """

    path: str
    token: int
    row: int
    num_tokens: int
    num_documents: int
    begin: int
    end: int


@dataclass(frozen=True)
class Sequenced:
    """The runs of one split, in order; arrays (R,) of int64.

    Attributes:
        paths: of the parts.
        part: index into `paths`.
        token, row: where a run begins in its part.
        num_tokens, num_documents, num_bytes: of each run.
    """

    paths: Sequence[str]
    part: Int64
    token: Int64
    row: Int64
    num_tokens: Int64
    num_documents: Int64
    num_bytes: Int64

    @property
    def total_tokens(self) -> int:
        """Tokens of all runs."""
        return int(self.num_tokens.sum())

    @property
    def total_documents(self) -> int:
        """Documents of all runs."""
        return int(self.num_documents.sum())

    @property
    def total_bytes(self) -> int:
        """Bytes of text of all runs."""
        return int(self.num_bytes.sum())

    @cached_property
    def token_ends(self) -> Int64:
        """Where each run ends in the sequence of tokens."""
        return np.cumsum(self.num_tokens)

    @cached_property
    def document_ends(self) -> Int64:
        """Where each run ends in the sequence of documents."""
        return np.cumsum(self.num_documents)

    def between(self, begin: int, end: int, layout: Layout) -> list[Piece]:
        """Return what tokens, or in layout "documents" documents, [begin, end) of the sequence are."""
        ends = self.token_ends if layout == "packed" else self.document_ends
        if begin >= end:
            return []
        first, last = np.searchsorted(ends, (begin, end - 1), side="right").tolist()
        pieces = []
        for run in range(first, last + 1):
            run_begin = int(ends[run - 1]) if run else 0
            meant = max(begin - run_begin, 0), min(end, int(ends[run])) - run_begin
            pieces.append(
                Piece(
                    self.paths[int(self.part[run])],
                    int(self.token[run]),
                    int(self.row[run]),
                    int(self.num_tokens[run]),
                    int(self.num_documents[run]),
                    *meant,
                )
            )
        return pieces


def sequences(parts: Iterable[Part]) -> dict[tuple[str, str], Sequenced]:
    """Return the runs of each (stream, split), in the order of the parts."""
    paths: dict[tuple[str, str], list[str]] = {}  # of those alone that have such a run: they go to other processes
    columns: dict[tuple[str, str], list[tuple[int, ...]]] = {}
    for part in parts:
        token = row = 0
        for run in part.runs:
            key = run.stream, run.split
            own = paths.setdefault(key, [])
            if not own or own[-1] != part.path:
                own.append(part.path)
            counts = run.num_tokens, run.num_documents, run.num_bytes
            columns.setdefault(key, []).append((len(own) - 1, token, row, *counts))
            token += run.num_tokens
            row += run.num_documents
    return {key: Sequenced(paths[key], *np.array(own, np.int64).T.copy()) for key, own in sorted(columns.items())}
