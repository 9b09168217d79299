"""Which files make which stream.

A file ``eu.wiki.jsonl.zst`` makes the stream ``eu.wiki`` of language ``eu`` and domain ``wiki``; the files in a folder
``eu.wiki/`` make it together, in the order of their names. Files may be given one by one, by folders, by globs, and by
URLs of all three.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mixstream.errors import CorpusError
from mixstream.streams.place import Place

_LINES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".wet": "wet",
    ".warc": "wet",
}
_COMPRESSED = {"": None, ".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}

FORMATS: dict[str, tuple[str, str | None]] = {
    **{suffix + end: (kind, packed) for suffix, kind in _LINES.items() for end, packed in _COMPRESSED.items()},
    ".parquet": ("parquet", None),
    ".arrow": ("arrow", None),
}
"""Format and compression by the end of a file's name."""

KNOWN = f"{', '.join('*' + s for s in (*_LINES, '.parquet', '.arrow'))}; all but the last two also .gz .zst .bz2 .xz"


@dataclass(frozen=True)
class SourceFile:
    """One file of a corpus.

    Attributes:
        place: its path, or where its object is.
        name: what it is called in the manifest and in messages: its path below the folder that was given, or its URL;
            no two of a corpus are called the same.
        format: ``jsonl``, ``csv``, ``tsv``, ``text``, ``wet``, ``parquet`` or ``arrow``.
        compression: ``gzip``, ``zstd``, ``bz2``, ``xz`` or None.
        size_bytes: as it is stored.
        version: changes when its content does: ``mtime:`` and nanoseconds of a file, ``etag:`` of an object, or
            ``sha256:`` where there is no other way.
    """

    place: Place
    name: str
    format: str
    compression: str | None
    size_bytes: int
    version: str

    @property
    def identity(self) -> tuple[str, str, str, str | None, int, str]:
        """What tells it from every other file, and from itself before a change."""
        return str(self.place), self.name, self.format, self.compression, self.size_bytes, self.version

    @property
    def ranged(self) -> bool:
        """Whether parts of it can be read; else all of it is copied for each part, so that it has one."""
        return isinstance(self.place, Path) or self.place.ranged

    @property
    def etag(self) -> str | None:
        """What the object store calls this version of it, if it does."""
        return self.version.removeprefix("etag:") if self.version.startswith("etag:") else None


@dataclass(frozen=True)
class FoundFile:
    """A file, and the stream that its name, or that of its folder, says; None where neither is LANGUAGE.DOMAIN."""

    stream: str | None
    file: SourceFile


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        files: in the order in which they are read.
        ignored: files of no known format.
    """

    files: tuple[FoundFile, ...]
    ignored: tuple[str, ...]


def find_files(paths: Sequence[str | Path]) -> Found:
    """Find the files to convert.

    Args:
        paths: files; folders, which hold files, folders named after a stream, or a dataset saved to disk; globs, in
            which ``**`` stands for folders of any depth; URLs of all of these.

    Raises:
        CorpusError: a path that is not there, no file of a known format, one that lies too deep or is given twice, an
            empty file, or a saved dataset that cannot be read as it is.
        RemoteError: an object store refuses, does not answer for long, or cannot list.
        StreamError: a URL that lost a slash.
    """
    from converters.sources.finding import find_all

    return find_all(paths)


def format_of(name: str) -> str | None:
    """Return the known suffix that a file's name ends in, the longest one, or None."""
    low = name.lower()
    return max((suffix for suffix in FORMATS if low.endswith(suffix) and len(low) > len(suffix)), key=len, default=None)


def stem_of(name: str) -> str:
    """Return a file's name without its folder and known suffix."""
    last = name.rpartition("/")[2]
    stem = last[: len(last) - len(format_of(last) or "")]
    return stem.removesuffix(".warc")


def is_stream_name(name: str) -> bool:
    """Return whether a name is LANGUAGE.DOMAIN, of letters, digits, dots, ``-`` and ``_``."""
    language, _, domain = name.partition(".")
    return bool(language and domain and name.replace(".", "").replace("-", "").replace("_", "").isalnum())


def by_stream(found: Found) -> dict[str, tuple[SourceFile, ...]]:
    """Return the files of each stream, streams in the order of their names.

    Raises:
        CorpusError: a file whose name is not LANGUAGE.DOMAIN.
    """
    streams: dict[str, list[SourceFile]] = {}
    for one in found.files:
        if one.stream is None:
            folder, _, _ = one.file.name.rpartition("/")
            named = folder.rpartition("/")[2] if folder and "://" not in one.file.name else stem_of(one.file.name)
            raise CorpusError(
                f"{one.file.place}: makes a stream named {named!r}, expected LANGUAGE.DOMAIN such as eu.wiki; rename "
                f"the file (eu.wiki.jsonl), put it in a folder eu.wiki/, or give --name, --language and --domain, or "
                f"--language-field"
            )
        streams.setdefault(one.stream, []).append(one.file)
    return {name: tuple(streams[name]) for name in sorted(streams)}


def version_of(path: Path | int) -> tuple[int, str]:
    """Return the size and the version of a local file, or of one that is open."""
    told = os.stat(path)  # noqa: PTH116  also of an open file
    return told.st_size, f"mtime:{told.st_mtime_ns}"


def sha256(file: SourceFile) -> str | None:
    """Return the hash of a local file's bytes; of an object None: its version stands for it."""
    if not isinstance(file.place, Path):
        return None
    digest = hashlib.sha256()
    block = memoryview(bytearray(1 << 20))
    with file.place.open("rb", buffering=0) as opened:
        while size := opened.readinto(block):
            digest.update(block[:size])
    return digest.hexdigest()
