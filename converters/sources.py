"""Which files make which stream.

A file ``eu.wiki.jsonl.zst`` makes the stream ``eu.wiki`` of language ``eu`` and domain ``wiki``; the files
in a folder ``eu.wiki/`` make it together, in the order of their names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.readers import READERS, format_of
from mixstream.errors import CorpusError
from mixstream.streams.manifest import Source


@dataclass(frozen=True)
class Corpus:
    """The files of one stream to be.

    Attributes:
        name: the stream's name, ``language.domain``.
        files: in the order in which they are read.
    """

    name: str
    files: tuple[Path, ...]

    @property
    def language(self) -> str:
        """The name's first part."""
        return self.name.partition(".")[0]

    @property
    def domain(self) -> str:
        """The name's second part."""
        return self.name.partition(".")[2]

    def sources(self) -> tuple[Source, ...]:
        """Return what the manifest records of the files: name, size and hash."""
        return tuple(Source(name=f.name, size_bytes=f.stat().st_size, sha256=_sha256(f)) for f in self.files)


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        corpora: the streams to make, in the order of their names.
        ignored: files of no known format.
    """

    corpora: tuple[Corpus, ...]
    ignored: tuple[Path, ...]


def find_corpora(paths: Sequence[Path], name: str | None = None) -> Found:
    """Find the files to convert.

    Args:
        paths: files and folders; a folder holds files, and folders named after a stream.
        name: makes one stream of that name of all files.

    Raises:
        CorpusError: a path that is not there, no file of a known format, one that lies too deep or is given
            twice, an empty file, or a name that is not ``language.domain``.
    """
    files: list[tuple[str, Path]] = []
    ignored: list[Path] = []
    for path in paths:
        if not path.exists():
            raise CorpusError(f"{path}: no such file or folder")
        for stream, file in _files_of(path):
            if format_of(file) is None:
                ignored.append(file)
            else:
                files.append((name or stream or _stream_of(file), file))
    if not files:
        raise CorpusError(
            f"{', '.join(map(str, paths))}: no corpus file in it (known: {', '.join('*' + s for s in READERS)})"
        )
    seen: set[Path] = set()
    for _, file in files:
        if file.resolve() in seen:
            raise CorpusError(f"{file}: is given twice, and would be read twice; give it once")
        seen.add(file.resolve())
    by_name: dict[str, list[Path]] = {}
    for stream, file in files:
        _check(stream, file)
        by_name.setdefault(stream, []).append(file)
    corpora = tuple(Corpus(stream, tuple(by_name[stream])) for stream in sorted(by_name))
    return Found(corpora, tuple(ignored))


def _files_of(path: Path) -> list[tuple[str | None, Path]]:
    """Return (stream name or None, file) of every file under a path, two levels deep."""
    if path.is_file():
        return [(None, path)]
    deep = [file for file in sorted(path.glob("*/*/**/*")) if file.is_file() and format_of(file) is not None]
    if deep:
        raise CorpusError(
            f"{deep[0]}: lies two folders below {path}; put a stream's files into one folder named after it, "
            f"such as {path}/eu.wiki/"
        )
    inside = sorted(child for child in path.iterdir() if not child.name.startswith("."))
    return [
        (child.name if child.is_dir() else None, file)
        for child in inside
        for file in (sorted(child.iterdir()) if child.is_dir() else [child])
        if file.is_file() and not file.name.startswith(".")
    ]


def _stream_of(file: Path) -> str:
    suffix = format_of(file) or ""
    return file.name[: len(file.name) - len(suffix)]


def _check(stream: str, file: Path) -> None:
    language, _, domain = stream.partition(".")
    if not language or not domain or not stream.replace(".", "").replace("-", "").replace("_", "").isalnum():
        raise CorpusError(
            f"{file}: makes a stream named {stream!r}, expected LANGUAGE.DOMAIN such as eu.wiki; rename the file "
            f"(eu.wiki.jsonl), put it in a folder eu.wiki/, or give --name"
        )
    if file.stat().st_size == 0:
        raise CorpusError(f"{file}: empty; leave it out or fill it")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
