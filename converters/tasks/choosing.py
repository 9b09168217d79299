"""Which documents or samples of a stream a view of it has: the choice task, which reads no shard.

A document belongs to the view of a share and a seed as it would belong to a conversion with that ``--subsample`` and
``--seed``: hash(id, seed) / 2^64 < share (Zhou et al. 2026, arXiv 2606.07597: a proxy that reads D_p of D_t tokens is
to have D_p / D_t of every source's documents). Documents keep their order, so what is made of them is what a conversion
makes of the same documents.

Packed, a stream has lost the tokens of its remainder: those behind its last whole sample, fewer than one sample. A view
that chooses documents whose last tokens are there can be made all the same where those tokens fall into its own
remainder, which nobody reads. Where they do not, such documents are left out, the last one first, until they do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from converters.documents import inside, subsample_hashes
from mixstream.errors import StreamError
from mixstream.streams.catalog import Stream
from mixstream.streams.documents import read_documents
from mixstream.streams.index import Int64
from mixstream.streams.manifest import DOCUMENTS_NAME, MANIFEST_NAME, StreamManifest

By = Literal["document", "sample"]
CHUNK_SAMPLES = 1 << 16  # whose numbers are hashed at a time


@dataclass(frozen=True)
class Rule:
    """Which share of what is chosen, and the seed of the choice."""

    share: float
    seed: int
    by: By = "document"


@dataclass(frozen=True)
class ViewSource:
    """A stream that views are cut out of, and what its stream.json says."""

    stream: Stream
    manifest: StreamManifest

    @property
    def is_packed(self) -> bool:
        """Whether its samples are cut out of documents end to end."""
        return self.manifest.layout == "packed"


class Extent(NamedTuple):
    """How much a view has.

    Attributes:
        samples: of it.
        documents: that it has, those that are chosen first; None where samples are chosen.
        cut: documents that are chosen, and left out because their last tokens are in no sample of the stream.
    """

    samples: int
    documents: int | None = None
    cut: int = 0


class Batch(NamedTuple):
    """Documents of a stream that follow one another.

    Attributes:
        table: pyarrow RecordBatch of them, of n rows.
        begin, num_tokens: (n,) of each.
    """

    table: Any
    begin: Int64
    num_tokens: Int64

    @property
    def ids(self) -> list[str]:
        """Their ids."""
        ids: list[str] = self.table["id"].to_pylist()
        return ids


@dataclass(frozen=True)
class ExtentTask:
    """A stream, and what is chosen of it."""

    source: ViewSource
    rule: Rule


def extent_of(task: ExtentTask) -> Extent:
    """Return how much a view would have.

    Raises:
        StreamError: documents.parquet is missing, damaged, or not of this stream.
    """
    source, rule = task.source, task.rule
    if rule.by == "sample":
        return Extent(sum(int(own.sum()) for own in chosen_samples(source, rule)))
    length, end = source.manifest.sequence_length, source.stream.num_tokens
    documents = tokens = 0
    reaching: list[tuple[int, int]] = []  # documents beyond the last sample: tokens, and those that are there not
    for batch in documents_of_stream(source):
        chosen = np.array(inside(batch.ids, rule.share, rule.seed), bool)
        documents += int(chosen.sum())
        num_tokens = batch.num_tokens[chosen]
        tokens += int(num_tokens.sum())
        if source.is_packed:
            missing = np.minimum(batch.begin[chosen] + num_tokens - end, num_tokens)
            beyond = missing > 0
            reaching += zip(num_tokens[beyond].tolist(), missing[beyond].tolist(), strict=True)
    if not source.is_packed:
        return Extent(documents, documents)
    kept = documents - num_cut(tokens, reaching, length)
    cut = documents - kept
    tokens -= sum(own for own, _ in reaching[len(reaching) - cut :])
    return Extent(tokens // length, kept, cut)


def num_cut(tokens: int, reaching: list[tuple[int, int]], length: int) -> int:
    """Return how many documents are to be left out, from the last one on, so that no sample needs what is missing.

    Args:
        tokens: of all documents that are chosen.
        reaching: of those of them with missing tokens, in order: tokens, and those that are missing.
        length: tokens of a sample.
    """
    missing = sum(own for _, own in reaching)
    for cut, (own_tokens, own_missing) in enumerate(reversed(reaching)):
        if missing <= tokens % length:
            return cut
        tokens -= own_tokens
        missing -= own_missing
    return len(reaching)


def least_share(source: ViewSource, rule: Rule, samples: int) -> float | None:
    """Return a share, rounded up to four digits, whose view has so many samples; None: not even the whole has them.

    It is the least one but for documents that reach into the stream's remainder, which are not counted upon. What is
    held is as much as those samples need.
    """
    need = samples * (source.manifest.sequence_length if rule.by == "document" and source.is_packed else 1)
    hashes, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    for own_hashes, own_counts in _weighed(source, rule):
        hashes, counts = np.concatenate([hashes, own_hashes]), np.concatenate([counts, own_counts])
        order = np.argsort(hashes)
        order = order[: np.searchsorted(np.cumsum(counts[order]), need) + 1]
        hashes, counts = hashes[order], counts[order]
    if int(counts.sum()) < need:
        return None
    return _rounded_up((int(hashes[-1]) + 1) / 2**64)


def _rounded_up(share: float) -> float:
    unit = 10.0 ** (math.floor(math.log10(share)) - 3)
    return min(1.0, float(f"{math.ceil(share / unit * (1 + 1e-12)) * unit:.4g}"))


def _weighed(source: ViewSource, rule: Rule) -> Iterator[tuple[npt.NDArray[np.uint64], Int64]]:
    """Yield hashes, and what each brings: tokens of a whole document, or one sample."""
    if rule.by == "sample":
        for ids in _sample_ids(source):
            yield np.array(subsample_hashes(ids, rule.seed), np.uint64), np.ones(len(ids), np.int64)
        return
    for batch in documents_of_stream(source):
        counts = np.ones_like(batch.begin)
        if source.is_packed:
            counts = np.where(batch.begin + batch.num_tokens <= source.stream.num_tokens, batch.num_tokens, 0)
        yield np.array(subsample_hashes(batch.ids, rule.seed), np.uint64), counts


def chosen_samples(source: ViewSource, rule: Rule) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield of each sample, some at a time, whether it is chosen."""
    for ids in _sample_ids(source):
        yield np.array(inside(ids, rule.share, rule.seed), bool)


def _sample_ids(source: ViewSource) -> Iterator[list[str]]:
    """Yield what samples are hashed by, NAME/NUMBER: the name that the stream has, whatever its folder is called."""
    name, total = source.manifest.name, source.stream.num_samples
    for first in range(0, total, CHUNK_SAMPLES):
        yield [f"{name}/{number}" for number in range(first, min(first + CHUNK_SAMPLES, total))]


def documents_of_stream(source: ViewSource) -> Iterator[Batch]:
    """Yield a stream's documents, in order.

    Raises:
        StreamError: documents.parquet is missing, damaged, or not of this stream.
    """
    manifest, expected, count = source.manifest, 0, 0
    for table in read_documents(source.stream.directory):
        if not len(table):
            continue
        begin, num_tokens = (table[name].to_numpy() for name in ("begin", "num_tokens"))
        steps = num_tokens if source.is_packed else np.full(len(begin), manifest.sequence_length)
        ends = expected + np.cumsum(steps)
        if np.any(begin != ends - steps) or np.any(num_tokens < 1):
            raise _not_of(source, f"of documents {count} to {count + len(begin)} one is not where the last one ends")
        expected, count = int(ends[-1]), count + len(begin)
        yield Batch(table, begin, num_tokens)
    total = (manifest.document_tokens or expected) if source.is_packed else source.stream.num_tokens
    if (expected, count) != (total, manifest.num_documents or count) or expected < source.stream.num_tokens:
        raise _not_of(source, f"has {count} documents up to token {expected}, {MANIFEST_NAME} says {total}")


def _not_of(source: ViewSource, found: str) -> StreamError:
    return StreamError(
        f"{source.stream.directory / DOCUMENTS_NAME}: {found}; it is damaged or of another conversion, copy the stream "
        f"again or convert the corpus again with --overwrite"
    )
