"""The bytes of a source file, in blocks: decompressed, and with an end that is noticed when it comes too early.

Nothing here holds more than a few blocks, whatever a file holds: a megabyte of gzip may be a gigabyte of zeros.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from converters.sources import SourceFile, version_of
from mixstream.errors import CorpusError
from mixstream.streams.remote import RemoteFile

BLOCK_BYTES = 1 << 18  # fits into a cache: with 4 MiB lines are split a tenth slower
_PACKED_BYTES = 1 << 18
_XZ_MEMORY = 256 << 20  # xz -9 takes 65 MiB


class LostError(CorpusError):
    """A file is not there as it was found, or its disk fails: nothing is known of its content."""


class UnreadableError(Exception):
    """The rest of a file cannot be read; its reader says where it was."""


@contextmanager
def opened(file: SourceFile, ahead_stop: int | None = None) -> Iterator[BinaryIO]:
    """Open the file as it is stored; of an object nothing from `ahead_stop` on is fetched before it is asked for.

    Raises:
        LostError: it is not there any more, or another one than was found.
        RemoteError: an object store refuses, or does not answer for long.
    """
    if not isinstance(file.place, Path):
        with RemoteFile(file.place, file.size_bytes, file.etag, ahead_stop) as remote:
            yield cast(BinaryIO, remote)
        return
    try:
        local = file.place.open("rb", buffering=0)
    except OSError as problem:
        told = f"cannot be opened ({problem.strerror}), but was there when it was found"
        raise LostError(f"{file.name}: {told}; leave it as it is and convert again") from None
    with local:
        if version_of(local.fileno()) != (file.size_bytes, file.version):
            raise LostError(f"{file.name}: was changed after it was found; leave it as it is and convert again")
        yield cast(BinaryIO, local)


def read_blocks(file: SourceFile, raw: BinaryIO) -> Iterator[bytes]:
    """Yield a whole file's content, decompressed.

    Args:
        file: what it is.
        raw: it, opened.

    Raises:
        UnreadableError: it is truncated or damaged, or something follows its end.
    """
    if file.compression is None:
        return _plain(raw)
    if file.compression == "zstd":
        return _zstd(raw)
    return _members(raw, *_ENGINES[file.compression])


def _plain(raw: BinaryIO) -> Iterator[bytes]:
    while block := read_some(raw, BLOCK_BYTES):
        yield block


def read_some(raw: BinaryIO, size: int) -> bytes:
    """Return at most so many bytes of a file, b"" at its end.

    Raises:
        LostError: its disk fails.
    """
    try:
        return raw.read(size)
    except OSError as problem:
        raise LostError(
            f"{raw.name}: cannot be read ({problem.strerror}); see to its disk, and convert again"
        ) from None


def _zstd(raw: BinaryIO) -> Iterator[bytes]:
    import pyarrow

    stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), "zstd")
    while True:
        try:
            block = stream.read(BLOCK_BYTES)
        except OSError as problem:
            raise UnreadableError(str(problem)) from None
        if not block:
            return
        yield block


_ENGINES: dict[str, tuple[Callable[[], Any], tuple[type[Exception], ...]]] = {
    "gzip": (lambda: zlib.decompressobj(31), (zlib.error,)),
    "bz2": (bz2.BZ2Decompressor, (OSError, ValueError)),
    "xz": (lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY), (lzma.LZMAError,)),
}


def _members(raw: BinaryIO, make: Callable[[], Any], errors: tuple[type[Exception], ...]) -> Iterator[bytes]:
    """Yield what the members of a file hold, one after the other; each must end, and nothing else may follow."""
    engine, data, members, begun = make(), b"", 0, False
    while True:
        data = data or read_some(raw, _PACKED_BYTES)
        if not data:
            break
        begun, block = True, b""
        while data or len(block) == BLOCK_BYTES:  # a full block: there may be more of what went in
            try:
                block = engine.decompress(data, BLOCK_BYTES)
            except errors as problem:
                told = f"what follows its end is of another kind: {problem}" if members else str(problem)
                raise UnreadableError(told) from None
            if block:
                yield block
            if engine.eof:
                data, engine, begun, block = engine.unused_data, make(), False, b""
                members += 1
                break
            data = getattr(engine, "unconsumed_tail", b"")  # bz2 and lzma keep it themselves
    if begun:
        raise UnreadableError("its compressed data ends too early")
