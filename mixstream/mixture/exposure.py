"""exposure.parquet: what a run has read, by stream, shard and repeat, and at which batches; format and arithmetic.

A row tells how many samples of one shard were drawn in one repeat, and the first and the last batch that drew one.
Batches are numbered by their size: where a run was carried over to another batch size, a shard's repeat has a row for
each size in which it was read, and `first_batch` and `last_batch` are counted in that size.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mixstream.errors import FormatError, MissingExtraError, StateError
from mixstream.formats import FileModel, parse, parse_json
from mixstream.streams.index import Int64
from mixstream.streams.manifest import Count, Positive

COLUMNS = ("stream", "shard", "repeat", "samples", "first_batch", "last_batch", "batch_size")
_NAMES, _NUMBERS = COLUMNS[:2], COLUMNS[2:]
_KEY = b"mixstream.exposure"
_REPEAT_BITS = 32


class ExposureNote(FileModel):
    """Up to where an exposure.parquet has counted; JSON in the file's own metadata.

    Attributes:
        batch: batches counted; the file tells of those before it and no other.
        batch_size: samples of a batch, as batches are counted now.
        sequence_length: tokens of a sample.
        samples: samples that the run had read at that batch.
        uncounted: those of them that were read before counting began: 0, but for a run that an older version began.
    """

    format: Literal["mixstream.exposure"] = "mixstream.exposure"
    version: Literal[1] = 1
    batch: Count
    batch_size: Positive
    sequence_length: Positive
    samples: Count
    uncounted: Count = 0


@dataclass(frozen=True)
class Rows:
    """Rows of the ledger, n of them; shards are numbered over all streams.

    Attributes:
        shard, repeat: (n,).
        samples: (n,) draws.
        first_batch, last_batch: (n,) of those draws.
    """

    shard: Int64
    repeat: Int64
    samples: Int64
    first_batch: Int64
    last_batch: Int64

    def __len__(self) -> int:
        return len(self.shard)

    @classmethod
    def none(cls) -> Rows:
        """Return no rows."""
        return cls(*(np.empty(0, np.int64) for _ in range(5)))


def count_draws(shard: Int64, repeat: Int64, batch: Int64) -> Rows:
    """Return the rows of draws (n,) that stand in the order of their batches."""
    return _added_up(shard << _REPEAT_BITS | repeat, None, batch, batch)


def add_rows(*rows: Rows) -> Rows:
    """Return the sum of rows that were counted one after the other, the earlier ones first."""
    shard, repeat, samples, first, last = (
        np.concatenate([getattr(one, column) for one in rows])
        for column in ("shard", "repeat", "samples", "first_batch", "last_batch")
    )
    return _added_up(shard << _REPEAT_BITS | repeat, samples, first, last)


def _added_up(key: Int64, samples: Int64 | None, first: Int64, last: Int64) -> Rows:
    """Add up what has one key; of each key, in the order of time. None: every row is one sample."""
    if not len(key):
        return Rows.none()
    order = np.argsort(key, kind="stable")
    key = key[order]
    starts = np.concatenate([[0], np.flatnonzero(key[1:] != key[:-1]) + 1])
    ends = np.append(starts[1:], len(key))
    totals = ends - starts if samples is None else np.add.reduceat(samples[order], starts)
    key = key[starts]
    return Rows(key >> _REPEAT_BITS, key & (1 << _REPEAT_BITS) - 1, totals, first[order[starts]], last[order[ends - 1]])


def encode(table: Any, note: ExposureNote) -> bytes:
    """Return a table of `COLUMNS` as the content of an exposure.parquet.

    Numbers are noted by their differences, small ones for the most part: a third of the time that zstd alone takes.
    """
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(
        table.replace_schema_metadata({_KEY: note.model_dump_json()}),
        file,
        compression="zstd",
        use_dictionary=list(_NAMES),
        column_encoding=dict.fromkeys(_NUMBERS, "DELTA_BINARY_PACKED"),
        write_page_checksum=True,
    )
    return file.getvalue()


def decode(content: bytes, where: str) -> tuple[Any, ExposureNote]:
    """Return the table of an exposure.parquet, and up to where it has counted.

    Raises:
        FormatError: it is damaged, or no exposure ledger.
        MissingExtraError: pyarrow is not installed.
    """
    pyarrow = _arrow()
    from pyarrow import parquet

    remedy = "remove it, and the run writes it anew at its next checkpoint"
    try:
        table = parquet.read_table(
            pyarrow.BufferReader(content), read_dictionary=list(_NAMES), page_checksum_verification=True
        )
    except (OSError, ValueError, pyarrow.ArrowException) as problem:
        told = str(problem).splitlines()[0]
        raise FormatError(f"{where}: damaged, or no Parquet file ({told}); {remedy}") from None
    found = (table.schema.metadata or {}).get(_KEY)
    if found is None or tuple(table.column_names) != COLUMNS:
        raise FormatError(f"{where}: a Parquet file, but no exposure ledger; {remedy}")
    note = parse(ExposureNote, parse_json(found.decode(errors="replace"), where, remedy), where, remedy)
    counted = int(table.column("samples").to_numpy().sum())
    if counted != note.samples - note.uncounted:
        raise FormatError(
            f"{where}: its rows add up to {counted:,} samples, expected {note.samples - note.uncounted:,}; {remedy}"
        )
    return table.replace_schema_metadata(None), note


def table_of(rows: Rows, streams: list[tuple[str, tuple[str, ...]]], batch_size: int) -> Any:
    """Return rows as a table.

    Args:
        rows: to tell.
        streams: of the plan: name and shard files of each; they number the shards.
        batch_size: in which their batches are counted.
    """
    pyarrow = _arrow()
    counts = np.array([len(files) for _, files in streams])
    names = np.repeat(np.arange(len(streams)), counts).astype(np.int32)
    files = {file: number for number, file in enumerate(dict.fromkeys(file for _, own in streams for file in own))}
    numbers = np.array([files[file] for _, own in streams for file in own], dtype=np.int32)
    columns = {
        "stream": _named(pyarrow, names[rows.shard], [name for name, _ in streams]),
        "shard": _named(pyarrow, numbers[rows.shard], list(files)),
        **{name: pyarrow.array(getattr(rows, name)) for name in _NUMBERS[:-1]},
        "batch_size": pyarrow.array(np.full(len(rows), batch_size)),
    }
    return pyarrow.table(columns)


def rows_of(table: Any, streams: list[tuple[str, tuple[str, ...]]], batch_size: int) -> tuple[Rows, Any]:
    """Return what `table_of` was given, and the rows of streams and batch sizes that are no more, as a table.

    Raises:
        StateError: a row tells of a shard that its stream has not.
    """
    pyarrow = _arrow()
    stream, shard = (_codes(pyarrow, table.column(name)) for name in _NAMES)
    places = stream[0].astype(np.int64) << 32 | shard[0]
    begins = np.flatnonzero(np.diff(places, prepend=-1))  # a shard's rows stand together
    pairs, at = np.unique(places[begins], return_inverse=True)
    known = {name for name, _ in streams}
    numbers = {place: number for number, place in enumerate((name, file) for name, files in streams for file in files)}
    found = []
    for pair in pairs.tolist():
        name, file = stream[1][pair >> 32], shard[1][pair & 0xFFFFFFFF]
        if name in known and (name, file) not in numbers:
            raise StateError(f"the exposure ledger tells of {name}/{file}, which is gone; it belongs to other streams")
        found.append(numbers.get((name, file), -1))
    number = np.repeat(np.array(found, dtype=np.int64)[at], np.diff(begins, append=len(places)))
    own = (number >= 0) & (table.column("batch_size").to_numpy() == batch_size)
    columns = [table.column(name).to_numpy()[own] for name in _NUMBERS[:-1]]
    return add_rows(Rows(number[own], *columns)), table.filter(pyarrow.array(~own))


def joined(before: Any, now: Any) -> Any:
    """Return two tables as one; None: there was none before."""
    return now if before is None else _arrow().concat_tables([before, now]).unify_dictionaries()


def _named(pyarrow: Any, numbers: Any, names: list[str]) -> Any:
    return pyarrow.DictionaryArray.from_arrays(numbers, pyarrow.array(names, pyarrow.string()))


def _codes(pyarrow: Any, column: Any) -> tuple[Any, list[str]]:
    """Return a column of names as numbers (n,), and the names that they are of."""
    whole = column.unify_dictionaries().combine_chunks()
    if not isinstance(whole, pyarrow.DictionaryArray):
        whole = whole.dictionary_encode()
    return whole.indices.to_numpy(), whole.dictionary.to_pylist()


def _arrow() -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise MissingExtraError(
            "the exposure ledger needs the package 'pyarrow'; install it with pip install 'mixstream-llm[loader]'"
        ) from None
    return pyarrow
