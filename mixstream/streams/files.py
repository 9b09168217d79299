"""The files of a stream's shards, where they are: raw, or compressed beside where the raw one would be."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from mixstream.errors import ShardError
from mixstream.streams.compression import decompress
from mixstream.streams.hashes import check_hash, noted_hash
from mixstream.streams.index import MdsIndex
from mixstream.streams.mapped import Bytes, map_file
from mixstream.streams.place import Place

_DESCRIPTION = 64  # bytes by which the descriptions of shards may differ, such as in a number's digits


class Shards(Protocol):
    """What has shards: a stream, or a plain reader of an MDS directory."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def directory(self) -> Place:
        """Where its files are."""

    @property
    def index(self) -> MdsIndex:
        """Which they are."""


def check_files(shards: Shards) -> int:
    """Check that every shard is there in its full size, raw or compressed, and has the samples that index.json says.

    O(shards). Headers are read only where sizes do not show how many samples there are, and of shards that stick out;
    of an object store, sizes are listed and no header is read.

    Returns:
        How many of them are there only compressed.

    Raises:
        ShardError: naming the first file that is missing, of another size, or with another number of samples.
        RemoteError: an object store refuses, does not answer for long, or cannot list.
    """
    index, only_compressed = shards.index, 0
    sizes = None if isinstance(shards.directory, Path) else shards.directory.sizes()
    for number, expected in enumerate(index.file_bytes.tolist()):
        name, found = index.files[number], _size(shards, index.files[number], sizes)
        if found is None and index.compression:
            only_compressed += 1
            name, expected = index.compressed_files[number], int(index.compressed_bytes[number])
            found = _size(shards, name, sizes)
        if found != expected:
            told = "no such file" if found is None else f"{found} bytes"
            raise ShardError(
                f"{shards.directory / name}: {told}, index.json says {expected} bytes; the shard is missing, "
                f"truncated or changed, copy it or convert stream {shards.name!r} again with --overwrite"
            )
    for number in _suspects(index) if sizes is None else ():
        _check_header(shards, number)
    return only_compressed


def _suspects(index: MdsIndex) -> list[int]:
    """Return the shards whose number of samples their size does not bear out.

    A shard of samples of one size is 8 bytes, 4 more and the sample's for each sample, and a description, which is the
    same in all of a writer's shards. The first shard is always looked at: all might be wrong alike.
    """
    if None in index.column_sizes:
        return [] if index.compression else list(range(len(index.files)))
    row = 4 + sum(size for size in index.column_sizes if size is not None)
    described = index.file_bytes - 8 - row * index.shard_samples
    return sorted({0, *np.flatnonzero(np.abs(described - np.median(described)) >= min(row, _DESCRIPTION)).tolist()})


def _check_header(shards: Shards, number: int) -> None:
    """Compare the samples that a shard's header tells with those that index.json does.

    Raises:
        ShardError: they differ.
    """
    path = shards.directory / shards.index.files[number]
    if isinstance(path, Path) and path.exists():
        with path.open("rb") as file:
            head = file.read(4)
    else:
        path, data = read_raw(shards, number)
        head = data[:4].tobytes()
    found, expected = int.from_bytes(head, "little"), int(shards.index.shard_samples[number])
    if found != expected:
        raise ShardError(
            f"{path}: header says {found} samples, index.json says {expected}; one of them is wrong, copy the stream "
            f"again or convert it again with --overwrite"
        )


def read_raw(shards: Shards, number: int, verify_hashes: bool = False) -> tuple[Place, Bytes]:
    """Return a shard's file and its raw content: mapped where it is raw and here, else in memory.

    Raises:
        ShardError: the shard is missing, of another size, damaged, or of another hash.
        RemoteError: an object store refuses, or does not answer for long.
    """
    index = shards.index
    path = shards.directory / index.files[number]
    if not index.compression or (isinstance(path, Path) and path.exists()):
        data = _content(path, int(index.file_bytes[number]))
    else:
        path = shards.directory / index.compressed_files[number]
        packed = _content(path, int(index.compressed_bytes[number])) if index.compressed_bytes[number] else b""
        noted = noted_hash(index.compressed_hashes, number) if verify_hashes else None
        if noted:
            check_hash(path, packed, noted)
        data = np.frombuffer(decompress(path, packed, index.compression, int(index.file_bytes[number])), np.uint8)
    if verify_hashes:
        verify_raw(shards, number, path, data)
    return path, data


def _content(path: Place, size: int) -> Bytes:
    """Return what a file or an object holds: a file mapped."""
    if isinstance(path, Path):
        return map_file(path, size)
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except FileNotFoundError:
        raise ShardError(f"{path}: no such object, but index.json lists it; upload the stream again") from None
    if len(data) != size:
        raise ShardError(f"{path}: {len(data)} bytes, index.json says {size}; upload the stream again")
    return data


def verify_raw(shards: Shards, number: int, path: Place, data: Bytes) -> None:
    """Compare a shard's raw content with the hash noted for it, if there is one.

    Raises:
        ShardError: they differ.
    """
    noted = noted_hash(shards.index.hashes, number)
    if noted:
        check_hash(path, data, noted)


def _size(shards: Shards, name: str, sizes: Mapping[str, int] | None) -> int | None:
    if sizes is not None:
        return sizes.get(name)
    try:
        return os.stat(f"{shards.directory}/{name}").st_size  # noqa: PTH116  a million Paths take seconds
    except FileNotFoundError:
        return None
