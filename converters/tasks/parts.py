"""Parts: what one encode task leaves in the work folder, tokens and a table of their documents.

A part is some files, of which the last one written, .json, says that it is whole:

    HASH.tokens       tokens of all its documents, each with its end-of-document token; of bytes bytes, each with a 0
    HASH.documents    an Arrow file with a row a document, in the order of the tokens
    HASH.hashes       where duplicates are looked for: an array of `HASHES`
    HASH.rejects      what cannot be used, a line of JSON each, where there is something
    HASH.json         its runs (documents of one stream and split that follow one another) and what was counted

Within a block of some megabytes of text documents are grouped by stream and split, and in a part of many runs so are
blocks (see `converters.tasks.grouping`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from converters.documents import Documents, text_hash
from converters.tasks.grouping import group_runs
from converters.tokens.tokenise import ByteTokenizer, dtype_of
from mixstream.streams.manifest import TokenizerInfo

BLOCK_BYTES = 16 << 20  # of text, that a task holds in memory

SUFFIXES = ("tokens", "documents", "hashes")
HASHES = np.dtype([("hash", "<u8", (2,)), ("number", "<i8"), ("row", "<i8")])
"""The hash of a text, the number of its row in the span, and its row in the table of documents, or `NOWHERE`."""

NOWHERE = -1
HASHES_HELD = 1 << 16

Array = npt.NDArray[Any]


class Run(NamedTuple):
    """Documents of one stream and split that follow one another in a part."""

    stream: str
    split: str
    num_documents: int
    num_tokens: int
    num_bytes: int


@dataclass(frozen=True)
class Part:
    """What is in a part.

    Attributes:
        path: of its files, without their suffix.
        runs: in the order of its files.
        counts: {stream: {what: documents}} that are in no run, by why; stream "" where it could not be told.
        kept: of each kept field how many documents have it.
    """

    path: str
    runs: tuple[Run, ...]
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    kept: tuple[int, ...] = ()

    @property
    def num_documents(self) -> int:
        """Documents in its runs."""
        return sum(run.num_documents for run in self.runs)

    def count(self, what: str) -> int:
        """Return how many documents were left out for a reason."""
        return sum(counts.get(what, 0) for counts in self.counts.values())

    def save(self) -> None:
        """Say that the part is whole, and how large its files are: no disk is waited for here."""
        whole = {"runs": self.runs, "counts": self.counts, "kept": self.kept, "sizes": _sizes(self.path)}
        note_whole(Path(f"{self.path}.json"), json.dumps(whole, sort_keys=True))

    @classmethod
    def load(cls, path: str) -> Part | None:
        """Return a part that is whole, or None."""
        try:
            whole = json.loads(Path(f"{path}.json").read_text())
            if whole["sizes"] != _sizes(path):  # the machine had stopped before they were on the disk
                return None
        except (FileNotFoundError, ValueError):  # or before that file was
            return None
        return cls(path, tuple(Run(*run) for run in whole["runs"]), whole["counts"], tuple(whole["kept"]))


def _sizes(path: str) -> list[int]:
    return [Path(f"{path}.{suffix}").stat().st_size for suffix in SUFFIXES]


IS_PART = re.compile(r"[0-9a-f]{24}\.")
"""How names of the files of parts begin: nothing else is ever removed beside them."""

TEMPORARY = ".*.tmp-*"
"""Names of files that are being written, or were when their process was killed."""


def temporary_of(path: str | Path) -> str:
    """Return the path of what will be renamed to `path`, which no other process has, on no machine."""
    final = Path(path)
    return str(final.with_name(f".{final.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}"))


def note_whole(path: Path, content: str | bytes) -> None:
    """Write a small file so that it is there whole or not at all."""
    temporary = Path(temporary_of(path))
    try:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode(errors="backslashreplace"))
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def documents_of(path: str) -> Any:
    """Return a part's table of documents."""
    import pyarrow
    import pyarrow.ipc

    with pyarrow.memory_map(f"{path}.documents") as source, pyarrow.ipc.open_file(source) as reader:
        return reader.read_all()


def copy_documents(part: Part, to: str, dtype: str, kept: npt.NDArray[np.bool_]) -> list[list[int]]:
    """Copy the documents of a part that are `kept`, (n,), to the files of another one, a block at a time.

    Returns:
        What is left of each run: documents, tokens, bytes.
    """
    import pyarrow
    import pyarrow.ipc

    temporary = temporary_of(to)
    tokens = np.memmap(f"{part.path}.tokens", dtype, mode="r")
    run_ends = np.cumsum([run.num_documents for run in part.runs])
    totals = np.zeros((len(part.runs), 3), np.int64)
    row = token = 0
    with (
        pyarrow.memory_map(f"{part.path}.documents") as source,
        pyarrow.ipc.open_file(source) as reader,
        Path(f"{temporary}.documents").open("wb") as documents,
        pyarrow.ipc.new_file(documents, reader.schema) as writer,
        Path(f"{temporary}.tokens").open("wb") as copied,
    ):
        for block in (reader.get_batch(i) for i in range(reader.num_record_batches)):
            own = kept[row : row + len(block)]
            num_tokens, num_bytes = (block[name].to_numpy() for name in ("num_tokens", "num_bytes"))
            run = np.searchsorted(run_ends, np.arange(row, row + len(block)), side="right")[own]
            np.add.at(totals, run, np.stack((np.ones(len(run), np.int64), num_tokens[own], num_bytes[own]), axis=1))
            end = token + int(num_tokens.sum())
            copied.write(tokens[token:end][np.repeat(own, num_tokens)].data)
            writer.write_batch(block.filter(pyarrow.array(own)))
            row, token = row + len(block), end
    Path(f"{temporary}.hashes").touch()  # they have been looked at
    for suffix in SUFFIXES:
        Path(f"{temporary}.{suffix}").rename(f"{to}.{suffix}")
    return [[int(count) for count in own] for own in totals]


def schema_of(keep: Sequence[str]) -> Any:
    """Return the columns of a table of documents: id, num_tokens, num_bytes, and the kept fields."""
    import pyarrow

    columns = [("id", pyarrow.string()), ("num_tokens", pyarrow.int64()), ("num_bytes", pyarrow.int64())]
    columns += [(name, pyarrow.float64()) for name in keep]
    return pyarrow.schema(columns)


class PartWriter:
    """Writes a part, block by block; leaving it by an exception leaves nothing behind."""

    def __init__(self, path: str, dtype: str, eod_token_id: int, keep: Sequence[str], has_hashes: bool) -> None:
        """Write the part `path`; `has_hashes`: with the hashes that duplicates are found by."""
        self._path = path
        self._temporary = temporary_of(path)
        self._end = np.array([eod_token_id], dtype)
        self._keep = tuple(keep)
        self._schema = schema_of(keep)
        self._hashes: list[tuple[bytes, int, int]] | None = [] if has_hashes else None
        self._row = 0
        self._kept = np.zeros(len(keep), np.int64)
        self._block = _Block()
        self._block_bytes = 0
        self.runs: list[Run] = []
        self.counts: dict[str, Counter[str]] = {}

    def __enter__(self) -> PartWriter:
        import pyarrow.ipc

        self._tokens = Path(f"{self._temporary}.tokens").open("wb")
        self._file = Path(f"{self._temporary}.documents").open("wb")
        self._hash_file = Path(f"{self._temporary}.hashes").open("wb")
        self._documents = pyarrow.ipc.new_file(self._file, self._schema)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tokens.close()
        self._file.close()
        self._hash_file.close()
        for suffix in SUFFIXES:
            Path(f"{self._temporary}.{suffix}").unlink(missing_ok=True)

    def count(self, stream: str, what: str) -> None:
        """Count a document that is left out."""
        self.counts.setdefault(stream, Counter())[what] += 1

    def leave_out(self, documents: Documents, numbers: Sequence[int]) -> None:
        """Note the hashes of documents that are in no split, and yet are read before their duplicates."""
        if self._hashes is not None:
            for stream, content, number in zip(documents.streams, documents.contents, numbers, strict=True):
                self._hashes.append((text_hash(stream, content).digest(), number, NOWHERE))
            if len(self._hashes) >= HASHES_HELD:
                self._write_hashes()

    def add(
        self,
        splits: Sequence[str],
        documents: Documents,
        tokens: Sequence[Array] | None,
        numbers: Sequence[int],
    ) -> None:
        """Append n documents.

        Args:
            splits: of each.
            documents: they.
            tokens: of each, (tokens,), its end not among them; None: the bytes of its text.
            numbers: of the rows that they are, in the span.
        """
        block = self._block
        block.keys += zip(documents.streams, splits, strict=True)
        block.ids += documents.ids
        block.contents += documents.contents
        block.kept += documents.kept
        block.tokens += tokens or ()
        block.numbers += numbers
        self._block_bytes += sum(map(len, documents.contents))
        if self._block_bytes >= BLOCK_BYTES:
            self._flush()

    def finish(self) -> Part:
        """Put the part in its place; return what is in it."""
        if self._block.ids:
            self._flush()
        self._write_hashes()
        self._documents.close()
        for file in (self._tokens, self._file, self._hash_file):
            file.close()
        runs = group_runs(self._temporary, self.runs)
        for suffix in SUFFIXES:
            Path(f"{self._temporary}.{suffix}").rename(f"{self._path}.{suffix}")
        counts = {name: dict(own) for name, own in sorted(self.counts.items())}
        part = Part(self._path, tuple(runs), counts, tuple(self._kept.tolist()))
        part.save()
        return part

    def _flush(self) -> None:
        import pyarrow

        block = self._block.grouped()
        self._tokens.write(joined(block.contents, block.tokens, self._end))
        num_tokens = np.fromiter(map(len, block.tokens or block.contents), np.int64, len(block.ids)) + 1
        num_bytes = np.fromiter(map(len, block.contents), np.int64, len(block.contents))
        columns: list[Any] = [block.ids, num_tokens, num_bytes]
        fields = np.array(block.kept, np.float64).reshape(len(block.ids), -1).T
        self._kept += np.count_nonzero(~np.isnan(fields), axis=1)
        columns += list(fields)
        if self._hashes is not None:
            rows = range(self._row, self._row + len(block.ids))
            for (stream, _), content, number, row in zip(block.keys, block.contents, block.numbers, rows, strict=True):
                self._hashes.append((text_hash(stream, content).digest(), number, row))
            self._write_hashes()
        self._row += len(block.ids)
        arrays = [pyarrow.array(own, kind) for own, kind in zip(columns, self._schema.types, strict=True)]
        self._documents.write_batch(pyarrow.record_batch(arrays, schema=self._schema))
        first = 0
        for (stream, split), group in groupby(block.keys):
            last = first + sum(1 for _ in group)
            counts = (int(own[first:last].sum()) for own in (num_tokens, num_bytes))
            self.runs.append(Run(stream, split, last - first, *counts))
            first = last
        self._block, self._block_bytes = _Block(), 0

    def _write_hashes(self) -> None:
        if self._hashes:
            digests, numbers, rows = zip(*self._hashes, strict=True)
            hashes = np.empty(len(digests), HASHES)
            hashes["hash"] = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
            hashes["number"], hashes["row"] = numbers, rows
            self._hash_file.write(hashes.data)
            self._hashes = []


@dataclass
class _Block:
    """Documents that are held, by column: stream and split, id, text in UTF-8, kept fields, tokens, number of the row.

    There are no tokens where they are the bytes of the texts.
    """

    keys: list[tuple[str, str]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    kept: list[tuple[float, ...]] = field(default_factory=list)
    tokens: list[Array] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)

    def grouped(self) -> _Block:
        """Return the same documents, those of one stream and split together, in the order in which they came."""
        if len(set(self.keys)) == 1:
            return self
        order = sorted(range(len(self.keys)), key=self.keys.__getitem__)
        return _Block(
            [self.keys[place] for place in order],
            [self.ids[place] for place in order],
            [self.contents[place] for place in order],
            [self.kept[place] for place in order],
            [self.tokens[place] for place in order] if self.tokens else [],
            [self.numbers[place] for place in order],
        )


def joined(contents: Sequence[bytes], tokens: Sequence[Array], end: Array) -> Any:
    """Return the tokens of all documents, each ended by `end`, (1,); where there are none: the texts, each with a 0.

    A byte has no room for the end of a document, and tokens of two bytes would be written and read for nothing: whoever
    cuts shards knows where documents end.
    """
    if tokens:
        return np.concatenate([piece for own in tokens for piece in (own, end)], dtype=end.dtype, casting="unsafe").data
    return b"\0".join([*contents, b""])


def part_dtype(info: TokenizerInfo) -> str:
    """Return the type of a token in parts: of bytes, uint8."""
    return "uint8" if info == ByteTokenizer.info else dtype_of(info)
