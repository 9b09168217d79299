"""Every column of every row of an MDS directory, as mosaicml-streaming reads it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mixstream.errors import ShardError, StreamError
from mixstream.streams.columns import Decode, find_decoder
from mixstream.streams.index import MdsIndex, read_index
from mixstream.streams.mapped import MappedShard
from mixstream.streams.place import Place, absolute, find_place
from mixstream.streams.shard import OpenFiles, shard_starts
from mixstream.streams.store import ShardStore


class MdsReader:
    """The rows of one MDS directory, whatever their columns; for tokens, `Shard` is faster.

    Attributes:
        name, directory, index: the folder's name, the folder, its shards.
        columns: {name: encoding}, as a sample stores them.
    """

    def __init__(self, directory: Place, index: MdsIndex, decoders: dict[str, Decode], store: ShardStore) -> None:
        """Read `index` of `directory`; use `MdsReader.open`."""
        self.name = directory.name
        self.directory = directory
        self.index = index
        self.columns = dict(zip(index.column_names, index.column_encodings, strict=True))
        self._decoders = decoders
        self._store = store
        self._starts: list[int] = shard_starts(index.shard_samples).tolist()
        self._open: OpenFiles[MappedShard] = OpenFiles()

    @classmethod
    def open(cls, directory: str | Path, allow_pickle: bool = False, store: ShardStore | None = None) -> MdsReader:
        """Open an MDS directory.

        Args:
            directory: a folder with an index.json, or the URL of one.
            allow_pickle: read columns of encoding ``pkl``, which run whatever code their writer put there.
            store: opens the shards; None: raw ones only, hashes not checked.

        Raises:
            StreamError, ShardError: what is wrong with index.json; an encoding that is not known or not allowed.
        """
        folder = absolute(find_place(directory))
        index = read_index(folder)
        decoders = {}
        for name, encoding in zip(index.column_names, index.column_encodings, strict=True):
            try:
                decoders[name] = find_decoder(encoding, allow_pickle)
            except StreamError as problem:
                raise StreamError(f"{folder}: column {name!r}: {problem}") from None
        return cls(folder, index, decoders, store or ShardStore())

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, row: int) -> dict[str, Any]:
        """Return one row, {column: value}; arrays are read-only views of the file.

        Raises:
            IndexError: there is no such row.
            ShardError: a shard or a value in it is damaged.
        """
        if not -len(self) <= row < len(self):
            raise IndexError(f"{self.directory}: row {row} of {len(self)}")
        row %= len(self)
        number = bisect_right(self._starts, row) - 1
        shard = self._open.get(self.name, number, self._map)
        within = row - self._starts[number]
        bounds = shard.bounds_of(within)
        values = shard.data.data
        decoded = {}
        for place, (name, decode) in enumerate(self._decoders.items()):
            try:
                decoded[name] = decode(values[bounds[place] : bounds[place + 1]])
            except ValueError as problem:
                raise ShardError(
                    f"{shard.path}: row {within}, column {name!r} ({self.columns[name]}): {problem}; the shard is "
                    f"damaged, copy it or convert it again with --overwrite"
                ) from None
        return decoded

    def _map(self, number: int) -> MappedShard:
        return self._store.map_shard(self, number)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[row] for row in range(len(self)))
