"""Which documents samples are made of, and where a document is: of documents.parquet only what is asked for is read.

A row group tells in the file's footer where its first and its last document begin, so that of a large table one or two
groups are read. Ids are in no order: to find one, the column of ids is read, and nothing else.
"""

from __future__ import annotations

import difflib
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from mixstream.errors import StreamError
from mixstream.streams.documents import DocumentPart, opened_documents, parts_of_sample
from mixstream.streams.place import Place

BATCH_ROWS = 1 << 13  # ids that are read at a time
MAX_LIKE = 10_000  # ids that one is compared with, of all streams together, to suggest what was meant


@dataclass(frozen=True)
class DocumentPlace:
    """Where a document of a split is.

    Attributes:
        id: the document's.
        document: its number in the split.
        begin: the place of its first token among the tokens of all samples.
        num_tokens: of it, its end included and what was cut off too.
    """

    id: str
    document: int
    begin: int
    num_tokens: int


def documents_of_samples(
    directory: Place, samples: Iterable[int], sequence_length: int, is_padded: bool = False
) -> Mapping[int, tuple[DocumentPart, ...]]:
    """Return the documents that each of some samples of a split was made of, in order.

    Args:
        directory: of the split.
        samples: numbers of the samples.
        sequence_length: tokens of a sample.
        is_padded: whether samples may be of padding alone: then they have no documents.

    Raises:
        StreamError: the split has no documents.parquet, or it is damaged, or no document reaches into such a sample.
        RemoteError: an object store refuses, or does not answer for long.
    """
    found: dict[int, list[tuple[int, ...]]] = {}
    with opened_documents(directory) as file:
        groups = _groups(file)
        held, begin, num_tokens = range(0), np.empty(0, np.int64), np.empty(0, np.int64)
        for sample in sorted(set(samples)):
            needed = _groups_at(groups, sample * sequence_length, (sample + 1) * sequence_length)
            if held != needed:
                held, counts = needed, file.read_row_groups(list(needed), columns=["begin", "num_tokens"])
                begin, num_tokens = (counts.column(name).to_numpy() for name in ("begin", "num_tokens"))
            first = groups[needed.start].first
            parts = parts_of_sample(begin, num_tokens, sample, sequence_length, is_padded)
            found[sample] = [(first + row, *own) for row, *own in parts]
        ids = _ids_at(file, groups, {row for parts in found.values() for row, *_ in parts})
    return {sample: tuple(DocumentPart(ids[row], row, *own) for row, *own in parts) for sample, parts in found.items()}


def find_document(directory: Place, document_id: str) -> list[DocumentPlace]:
    """Return where documents of an id are in a split: one, or several where the corpus has the id twice, or none.

    Raises:
        StreamError: the split has no documents.parquet, or it is damaged.
        RemoteError: an object store refuses, or does not answer for long.
    """
    from pyarrow import compute

    found: list[DocumentPlace] = []
    with opened_documents(directory) as file:
        first = 0
        for group in range(file.num_row_groups if _is_text(document_id) else 0):
            ids = file.read_row_group(group, columns=["id"]).column("id")
            rows = compute.indices_nonzero(compute.equal(ids, document_id)).to_pylist()
            if rows:
                places = file.read_row_group(group, columns=["begin", "num_tokens"]).take(rows).to_pylist()
                found += [
                    DocumentPlace(document_id, first + row, one["begin"], one["num_tokens"])
                    for row, one in zip(rows, places, strict=True)
                ]
            first += len(ids)
    return found


def like_document(directory: Place, document_id: str, most: int = MAX_LIKE) -> list[str]:
    """Return the id most like one that is not there, of those that begin as it does; none where none is like it.

    It is compared with the first `most` of them: a thousand comparisons take a tenth of a second.
    """
    with opened_documents(directory) as file:
        beginnings = document_id[: len(document_id) * 3 // 4] if _is_text(document_id) else "", ""
        found = (list(islice(_ids(file, beginning), most)) for beginning in beginnings)
        return difflib.get_close_matches(document_id, next(filter(None, found), []), n=1)


def _is_text(document_id: str) -> bool:
    """Return whether it is Unicode: what a shell was given in another encoding is not, and no id is it."""
    try:
        document_id.encode()
    except UnicodeEncodeError:
        return False
    return True


def _ids(file: Any, beginning: str) -> Iterator[str]:
    from pyarrow import compute

    for batch in file.iter_batches(columns=["id"]):
        ids = batch.column("id")
        yield from compute.filter(ids, compute.starts_with(ids, beginning)).to_pylist()


class _Group(NamedTuple):
    """A row group: the place at which its first document begins, that document's number, and how many there are."""

    begin: int
    first: int
    size: int


def _groups(file: Any) -> list[_Group]:
    """Return the row groups of a table, as its footer tells them.

    Raises:
        StreamError: there are none.
    """
    column = file.schema_arrow.names.index("begin")
    groups: list[_Group] = []
    for number in range(file.num_row_groups):
        own = file.metadata.row_group(number)
        noted = own.column(column).statistics
        begin = noted.min if noted is not None and noted.has_min_max else 0  # nobody noted it: it may be any
        groups.append(_Group(begin, groups[-1].first + groups[-1].size if groups else 0, own.num_rows))
    if not groups:
        raise StreamError("documents.parquet: has no documents; copy it again or convert the corpus with --overwrite")
    return groups


def _groups_at(groups: Sequence[_Group], begin: int, end: int) -> range:
    """Return the row groups that have the documents of tokens `begin` to `end` - 1."""
    begins = [group.begin for group in groups]
    low = begins.index(max((own for own in begins if own <= begin), default=begins[0]))
    return range(low, max(low + 1, bisect_left(begins, end)))


def _ids_at(file: Any, groups: Sequence[_Group], documents: set[int]) -> dict[int, str]:
    """Return the ids of documents by their numbers; a group is read as far as they go."""
    found: dict[int, str] = {}
    for number, (_, first, count) in enumerate(groups):
        own = sorted(document for document in documents if first <= document < first + count)
        batches = file.iter_batches(BATCH_ROWS, row_groups=[number], columns=["id"]) if own else ()
        for batch in batches:
            ids = batch.column("id")
            found.update({row: ids[row - first].as_py() for row in own if first <= row < first + len(ids)})
            first += len(ids)
            if first > own[-1]:
                break
    return found
