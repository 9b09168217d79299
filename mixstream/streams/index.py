"""index.json of an MDS directory: its shards, checked before any of them is opened.

Format: mosaicml-streaming 0.13, MDS version 2. An index may list a million shards, so it is kept by column
(a tuple or an array a field, no object a shard) and checked in a few passes over whole columns.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from mixstream.errors import ShardError, StreamError
from mixstream.streams.compression import EXTENSIONS
from mixstream.streams.place import Place

Int64 = npt.NDArray[np.int64]
Hashes = Mapping[str, npt.NDArray[np.bytes_]]

INDEX_NAME = "index.json"
MAX_BYTES = (1 << 32) - 1  # of a shard: its offsets are uint32
_ALIKE = itemgetter("version", "format", "compression", "column_names", "column_encodings", "column_sizes")
_FILE = itemgetter("basename", "bytes", "hashes")
_RAW = (None, None, None)
_PLAIN_NAME = re.compile(r"[^./\\\0][^/\\\0]*(/[^./\\\0][^/\\\0]*)*")  # relative, below its folder, nothing hidden


@dataclass(frozen=True)
class MdsIndex:
    """The shards of one MDS directory, in order; S shards.

    Attributes:
        files: S paths of the raw shards, relative to the directory.
        file_bytes: (S,) size of each raw file.
        shard_samples: (S,) rows in each shard.
        column_names: names of the columns, in the order in which a sample stores them.
        column_encodings: MDS encoding of each column, such as ``ndarray:uint16:2048``.
        column_sizes: bytes of each column, None where they vary from sample to sample.
        fingerprint: hash of the columns and the raw files (names, sizes, samples, noted hashes); compressing
            those in another way does not change it.
        compression: of the files on disk, such as ``zstd:7``; None: they are raw.
        compressed_files: S paths of the compressed shards, empty where they are raw.
        compressed_bytes: (S,) their sizes, empty where they are raw.
        hashes: {algorithm: (S,) hex digest of each raw file, empty where none was noted}.
        compressed_hashes: the same for the compressed files.
    """

    files: tuple[str, ...]
    file_bytes: Int64
    shard_samples: Int64
    column_names: tuple[str, ...]
    column_encodings: tuple[str, ...]
    column_sizes: tuple[int | None, ...]
    fingerprint: str
    compression: str | None = None
    compressed_files: tuple[str, ...] = ()
    compressed_bytes: Int64 = field(default_factory=lambda: np.zeros(0, np.int64))
    hashes: Hashes = field(default_factory=dict)
    compressed_hashes: Hashes = field(default_factory=dict)

    @property
    def num_samples(self) -> int:
        """Rows in all shards together."""
        return int(self.shard_samples.sum())

    def prefix_fingerprint(self, num_shards: int) -> str:
        """Return the fingerprint of the index that lists only the first `num_shards` shards; O(num_shards).

        A stream that has grown by appended shards still has its old fingerprint as that of a prefix.

        Raises:
            StreamError: there are not so many shards.
        """
        if not 1 <= num_shards <= len(self.files):
            raise StreamError(f"a prefix of {num_shards} shards was asked of an index of {len(self.files)}")
        return _fingerprint(
            (self.column_names, self.column_encodings, self.column_sizes),
            self.files[:num_shards],
            self.file_bytes[:num_shards],
            self.shard_samples[:num_shards],
            {algorithm: noted[:num_shards] for algorithm, noted in self.hashes.items()},
        )


def read_index(directory: Place) -> MdsIndex:
    """Read and check a directory's index.json; O(shards), some microseconds each.

    Raises:
        StreamError: it is missing, not JSON, of another version, empty, or its shards disagree in their
            columns or their compression.
        ShardError: a shard has a negative count, or a file name that leaves the directory.
    """
    path = directory / INDEX_NAME
    shards = _Shards(path)
    try:
        content = json.loads(path.read_bytes(), object_hook=shards.take)
        if not isinstance(content, dict) or not isinstance(content.get("shards"), list):
            raise StreamError(f"{path}: has no list of shards; it is not an MDS index")
        if content.get("version") != 2:
            raise StreamError(f"{path}: MDS version {content.get('version')!r}, expected 2")
        if not content["shards"]:
            raise StreamError(
                f"{path}: lists no shard; the stream is empty, leave it out, or convert it again with --overwrite"
            )
        if content["shards"] != list(range(shards.count)):
            raise TypeError("no object with raw_data")
        return _index_of(path, shards)
    except StreamError:
        raise
    except OSError as problem:
        raise StreamError(
            f"{path}: {problem.strerror or 'no such object'}; {directory} is not an MDS directory"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise StreamError(
            f"{path}: not JSON ({problem}); it may be truncated, convert the corpus again with --overwrite"
        ) from None
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as problem:
        raise StreamError(f"{path}: a shard's entry is not MDS ({problem!r})") from None


class _Shards:
    """Takes the shards out of index.json while it is parsed, so that no object a shard outlives its entry.

    Kept as they are parsed, the garbage collector walks through all of them again and again.
    """

    def __init__(self, path: Place) -> None:
        self._path = path
        self._flat: list[Any] = []  # 7 values a shard
        self.count = 0
        self.alike: tuple[Any, ...] = ()

    def take(self, parsed: dict[str, Any]) -> Any:
        """Return what stands in the place of a JSON object: of a shard its number, of a file its values."""
        if "basename" in parsed:
            return _FILE(parsed)
        if "raw_data" not in parsed:
            return parsed
        alike = _ALIKE(parsed)
        if alike != self.alike:
            self._check_alike(alike)
        raw, compressed = parsed["raw_data"], parsed["zip_data"]
        if type(raw) is not tuple or type(compressed) is not (tuple if alike[2] else type(None)):
            raise TypeError(f"files {raw!r}, {compressed!r}")
        self._flat.append(parsed["samples"])
        self._flat += raw
        self._flat += compressed or _RAW
        self.count += 1
        return self.count - 1

    def column(self, number: int) -> list[Any]:
        """Return one value of every shard: 0 samples, 1-3 raw name, bytes, hashes, 4-6 those of the compressed."""
        return self._flat[number::7]

    def _check_alike(self, alike: tuple[Any, ...]) -> None:
        """Check what all shards have in common, at the first of them and where one differs."""
        version, form, compression, *columns = alike
        if version != 2 or form != "mds":
            raise StreamError(
                f"{self._path}: a shard has version {version!r} and format {form!r}, expected 2 and 'mds'"
            )
        if self.alike and columns != list(self.alike[3:]):
            raise StreamError(
                f"{self._path}: shards disagree in their columns; convert the corpus again with --overwrite"
            )
        if self.alike:
            raise StreamError(
                f"{self._path}: shards are compressed in different ways ({self.alike[2]}, {compression}); write "
                f"them alike"
            )
        if compression is not None and str(compression).partition(":")[0] not in EXTENSIONS:
            raise StreamError(
                f"{self._path}: shards are compressed with {compression!r}, expected one of {', '.join(EXTENSIONS)}"
            )
        self.alike = alike


def _index_of(path: Place, shards: _Shards) -> MdsIndex:
    compression = shards.alike[2]
    columns = _columns(*shards.alike[3:])
    samples = _whole_numbers(shards.column(0))
    files, file_bytes, hashes = _files(path, samples, *(shards.column(i) for i in (1, 2, 3)))
    zipped, zipped_bytes, zipped_hashes = _NO_FILES
    if compression is not None:
        zipped, zipped_bytes, zipped_hashes = _files(path, samples, *(shards.column(i) for i in (4, 5, 6)))
    if file_bytes.max() > MAX_BYTES:
        raise ShardError(f"{path}: claims a shard of {file_bytes.max()} bytes; MDS shards end below {MAX_BYTES + 1}")
    if len({*files, *zipped}) != len(files) + len(zipped):
        raise ShardError(f"{path}: names a shard file twice; convert the corpus again with --overwrite")
    return MdsIndex(
        files=files,
        file_bytes=file_bytes,
        shard_samples=samples,
        column_names=columns[0],
        column_encodings=columns[1],
        column_sizes=columns[2],
        fingerprint=_fingerprint(columns, files, file_bytes, samples, hashes),
        compression=compression,
        compressed_files=zipped,
        compressed_bytes=zipped_bytes,
        hashes=hashes,
        compressed_hashes=zipped_hashes,
    )


Columns = tuple[tuple[str, ...], tuple[str, ...], tuple[int | None, ...]]
Files = tuple[tuple[str, ...], Int64, Hashes]
_NO_FILES: Files = ((), np.zeros(0, np.int64), {})


def _columns(names: list[str], encodings: list[str], sizes: list[int | None]) -> Columns:
    """Return column names, encodings and sizes, one each a column."""
    if {type(names), type(encodings), type(sizes)} != {list} or not len(names) == len(encodings) == len(sizes) > 0:
        raise ValueError(f"columns {names!r}, encodings {encodings!r}, sizes {sizes!r}")
    if set(map(type, [*names, *encodings])) != {str} or len(set(names)) != len(names):
        raise ValueError(f"columns {names!r}, encodings {encodings!r}")
    for size in sizes:
        if size is not None and not (type(size) is int and 0 <= size <= MAX_BYTES):
            raise ValueError(f"a column of {size!r} bytes")
    return tuple(names), tuple(encodings), tuple(size or None for size in sizes)  # to streaming, 0 is None


def _files(path: Place, samples: Int64, names: list[Any], sizes: list[Any], noted: list[Any]) -> Files:
    """Return the names, sizes and noted hashes of S files, one a shard, checked."""
    for name in names:
        if not _PLAIN_NAME.fullmatch(name):
            raise ShardError(f"{path}: shard file {name!r} leaves the stream's directory or is hidden; refused")
    file_bytes = _whole_numbers(sizes)
    wrong = np.flatnonzero((file_bytes < 0) | (samples < 1))
    if len(wrong):
        first = wrong[0]
        raise ShardError(f"{path}: shard {names[first]} claims {samples[first]} samples in {file_bytes[first]} bytes")
    algorithms = sorted(set().union(*noted))
    hashes = {a: np.array([digests.get(a, "").encode("ascii") for digests in noted]) for a in algorithms}
    return tuple(names), file_bytes, hashes


def _whole_numbers(values: list[Any]) -> Int64:
    """Return JSON numbers that are whole ones."""
    if set(map(type, values)) != {int}:
        raise TypeError(f"{next(value for value in values if type(value) is not int)!r} is no whole number")
    return np.array(values, dtype=np.int64)


def _fingerprint(columns: Columns, files: Sequence[str], file_bytes: Int64, samples: Int64, hashes: Hashes) -> str:
    digest = hashlib.blake2b(json.dumps([2, len(files), columns]).encode(), digest_size=8)
    digest.update("\0".join(["", *files, ""]).encode())
    digest.update(file_bytes.astype("<i8").tobytes())
    digest.update(samples.astype("<i8").tobytes())
    for algorithm in sorted(hashes):
        noted = hashes[algorithm].tolist()
        if any(noted):  # one that only later shards have is no part of a prefix
            digest.update(b"\0".join([algorithm.encode(), *noted, b""]))
    return digest.hexdigest()
