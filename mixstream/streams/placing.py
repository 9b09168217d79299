"""What a stream's folder may hold, and putting a finished one in its place: there whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from pathlib import Path

from mixstream.errors import StreamError
from mixstream.streams.catalog import open_stream
from mixstream.streams.index import INDEX_NAME
from mixstream.streams.manifest import DOCUMENTS_NAME, HELDOUT, REJECTS_NAME

_PART = re.compile(r"(index|stream)\.json|shard\.\d+\.mds(\.\w+)?")
_BESIDE = (DOCUMENTS_NAME, REJECTS_NAME)  # parts of a stream only where there are others: somebody's corpus may be so
_TEMPORARY = ".*.tmp-*"


def foreign_entry(directory: Path) -> Path | None:
    """Return what stands in the place of a stream and is no part of one, or None where there is no such thing."""
    if not directory.is_dir() or directory.is_symlink():
        return directory if directory.exists() or directory.is_symlink() else None
    entries = sorted(directory.iterdir())
    is_stream = any(_PART.fullmatch(entry.name) for entry in entries)
    for entry in entries:
        if entry.name == HELDOUT and directory.name != HELDOUT:
            foreign = foreign_entry(entry)
            if foreign is not None:
                return foreign
        elif not (entry.is_file() and (_PART.fullmatch(entry.name) or (is_stream and entry.name in _BESIDE))):
            return entry
    return None


def is_part(path: str) -> bool:
    """Tell whether a path below a stream's directory may be a part of the stream, or of its held-out split."""
    name = path.removeprefix(f"{HELDOUT}/")
    return name in _BESIDE or _PART.fullmatch(name) is not None


def put_in_place(made: Path, final: Path) -> None:
    """Make a finished stream's folder the stream `final`; a stream that was there goes away.

    Whatever is killed in its course, `final` is the old stream, or nothing, or the new one; done again, the new one.
    What was there is renamed to a hidden name beside `made`, and then removed.

    Args:
        made: the folder, held-out split included, on the file system of `final`.
        final: the stream's place.

    Raises:
        StreamError, ShardError, FormatError: `made` is no whole stream, or what is no stream is at `final`.
    """
    if not (made / INDEX_NAME).exists():
        raise StreamError(f"{made}: is no finished stream, it has no {INDEX_NAME}; finish it first")
    splits = [made, made / HELDOUT] if (made / HELDOUT).exists() else [made]
    for split in splits:
        for leftover in split.glob(_TEMPORARY):  # of a writer that was killed
            leftover.unlink()
        open_stream(final.name, split).check_files()
    for folder in (made, final):
        foreign = foreign_entry(folder)
        if foreign is not None:
            raise StreamError(f"{foreign}: is there already and is no part of a stream; choose another --out")
    try:
        for split in splits:
            _to_disk(split)
        _rename(made, final)
    except OSError as problem:
        raise StreamError(
            f"{final}: cannot be put there ({problem.strerror}); the finished stream is {made}, see that both are on "
            f"one file system that can be written"
        ) from None


def _rename(made: Path, final: Path) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    replaced = made.with_name(f".{final.name}.replaced-{secrets.token_hex(4)}")
    if final.exists():
        final.rename(replaced)
    made.rename(final)
    if replaced.exists():
        shutil.rmtree(replaced)


def _to_disk(folder: Path) -> None:
    """Wait until a folder's files are on the disk: a machine that stops must not leave their names alone."""
    for path in [*(path for path in folder.iterdir() if path.is_file()), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
