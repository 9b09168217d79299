"""What MDSWriter compresses shards with: zstd, gz, bz2, br, snappy; undone by pyarrow, outside Python's lock.

Ours are compressed with zstd, by the package that MDSWriter uses: pyarrow's may be of another version, of other bytes.
"""

from __future__ import annotations

from typing import Any

from mixstream.errors import MissingExtraError, ShardError, StreamError

_CODECS = {"br": "brotli", "bz2": "bz2", "gz": "gzip", "snappy": "snappy", "zstd": "zstd"}
EXTENSIONS = tuple(_CODECS)
_ZSTD_LEVELS = {"zstd": 3} | {f"zstd:{level}": level for level in range(1, 23)}  # MDSWriter's names


def compress(content: bytes, compression: str) -> bytes:
    """Return a shard's content compressed; the same bytes on every machine.

    Args:
        content: of the raw shard.
        compression: ``zstd``, or ``zstd:LEVEL`` with a level from 1 to 22.

    Raises:
        StreamError: another compression.
        MissingExtraError: the package that does it is not installed.
    """
    if compression not in _ZSTD_LEVELS:
        raise StreamError(f"compression {compression!r}; shards are written with none, zstd, or zstd:1 to zstd:22")
    try:
        import zstd
    except ModuleNotFoundError:
        raise MissingExtraError(
            "compressing shards needs the package 'zstd'; install it with pip install 'mixstream-llm[convert]'"
        ) from None
    packed: bytes = zstd.compress(content, _ZSTD_LEVELS[compression], 1)  # in one thread: the workers are the others
    return packed


def decompress(path: object, data: Any, compression: str, raw_bytes: int) -> Any:
    """Return what a compressed shard holds, as a read-only buffer of `raw_bytes` bytes.

    Args:
        path: the file, for messages.
        data: its content, any buffer.
        compression: a name of ``EXTENSIONS``, a level may follow: ``zstd:7``.
        raw_bytes: size that the content must have.

    Raises:
        ShardError: it is damaged, or of another size.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise MissingExtraError(
            "compressed shards need the package 'pyarrow'; install it with pip install 'mixstream-llm[loader]'"
        ) from None
    name = compression.partition(":")[0]
    try:
        if name == "snappy":
            content = _unsnap(pyarrow, data, raw_bytes)
        else:
            with pyarrow.CompressedInputStream(pyarrow.BufferReader(data), _CODECS[name]) as stream:
                content = stream.read(raw_bytes + 1)  # one more than there may be
    except (OSError, ValueError) as problem:  # pyarrow's ArrowInvalid is a ValueError
        raise ShardError(
            f"{path}: cannot be decompressed ({problem}); the shard is truncated or damaged, copy it again"
        ) from None
    if len(content) != raw_bytes:
        more = "more than " if len(content) > raw_bytes else ""
        raise ShardError(
            f"{path}: decompresses to {more}{min(len(content), raw_bytes)} bytes, index.json says {raw_bytes}; "
            f"copy it again"
        )
    return content


def _unsnap(pyarrow: Any, data: Any, raw_bytes: int) -> Any:
    """Decompress raw snappy, which cannot be streamed; in front it tells its size, 7 bits a byte, lowest first."""
    told, shift = 0, 0
    for byte in bytes(data[:5]):
        told |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if told != raw_bytes:
        raise ValueError(f"snappy tells {told} bytes, index.json {raw_bytes}")
    return pyarrow.decompress(data, decompressed_size=raw_bytes, codec="snappy", asbytes=False)
