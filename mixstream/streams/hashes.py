"""Hashes of shards as MDSWriter notes them in index.json: of xxhash or of Python's hashlib."""

from __future__ import annotations

import hashlib
from typing import Any

from mixstream.errors import MissingExtraError, ShardError
from mixstream.streams.index import Hashes

_XXHASH = ("xxh3_64", "xxh3_128", "xxh128", "xxh64", "xxh32")
# The fastest first, as measured on 64 MiB; hashlib's others, but shake's, follow.
_FASTEST = (*_XXHASH, "sha1", "sha256", "blake2b", "md5")
KNOWN = (*_FASTEST, *sorted(a for a in hashlib.algorithms_guaranteed - {*_FASTEST} if not a.startswith("shake")))


def noted_hash(hashes: Hashes, number: int) -> tuple[str, str] | None:
    """Return (algorithm, hex digest) of one file by the fastest algorithm that was noted for it, or None."""
    for algorithm in KNOWN:
        if algorithm in hashes and hashes[algorithm][number]:
            return algorithm, hashes[algorithm][number].decode()
    return None


def check_hash(path: object, data: Any, noted: tuple[str, str]) -> None:
    """Compare a file's content with (algorithm, hex digest).

    Raises:
        ShardError: they differ.
        MissingExtraError: the algorithm is of xxhash, which is not installed.
    """
    algorithm, expected = noted
    found = _digest(algorithm, data)
    if found != expected.lower():
        raise ShardError(
            f"{path}: its {algorithm} is {found}, index.json says {expected}; the shard is damaged or another "
            f"one's, copy it or convert it again with --overwrite"
        )


def new_xxh64() -> Any:
    """Return an xxh64 of nothing yet, with hashlib's methods.

    Raises:
        MissingExtraError: xxhash is not installed.
    """
    return _xxhash("xxh64").xxh64()


def _digest(algorithm: str, data: Any) -> str:
    if algorithm not in _XXHASH:
        return hashlib.new(algorithm, data, usedforsecurity=False).hexdigest()
    digest: str = getattr(_xxhash(algorithm), algorithm)(data).hexdigest()
    return digest


def _xxhash(algorithm: str) -> Any:
    try:
        import xxhash
    except ModuleNotFoundError:
        raise MissingExtraError(
            f"{algorithm} needs the package 'xxhash'; install it with pip install 'mixstream-llm[loader]'"
        ) from None
    return xxhash
