"""The work folder of a conversion: beside the streams to be, hidden, owned by one process at a time.

    OUT/.mixstream-NAME/lock        held as long as somebody converts the corpus NAME to OUT
    OUT/.mixstream-NAME/parts/...   what spans of files were encoded to; by a hash of all that decides it
    OUT/.mixstream-NAME/hashes/...  hashes of files
    OUT/.mixstream-NAME/KEY/...     what else was done; KEY is a hash of the sources and of all options

A run that was killed leaves its folder, and the same command goes on there; so does one whose files were mended, or
that has more of them, with the parts of those that are the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from converters.tasks.encode import cannot_write
from converters.tasks.parts import TEMPORARY
from mixstream.errors import StreamError

SHARED = ("parts", "hashes")  # by what conversions of one corpus have in common


@contextmanager
def work_folder(out: Path, name: str, key: str) -> Iterator[Path]:
    """Give the work folder of one conversion; when the block ends well it goes, else it stays.

    Args:
        out: where the streams will be.
        name: of the corpus.
        key: of the conversion.

    Raises:
        StreamError: another process converts that corpus there, or the folder cannot be written.
    """
    folder = out / f".mixstream-{name}"
    made = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    with _locked(folder):
        try:
            for other in folder.iterdir():
                if other.is_dir() and other.name not in (key, *SHARED):
                    shutil.rmtree(other)
            for left in folder.rglob(TEMPORARY):  # by a run that was killed
                left.unlink(missing_ok=True)
            (folder / key).mkdir(exist_ok=True)
        except OSError as problem:
            raise cannot_write(folder, problem) from None
        try:
            yield folder / key
        except BaseException:
            if not any(folder.glob("parts/*.json")):  # nothing was done
                with contextlib.suppress(OSError):  # unless a worker still writes there
                    _remove(folder, made)
            raise
        _remove(folder, [])


def _remove(folder: Path, made: list[Path]) -> None:
    """Remove the work folder, and of the folders around it those that were made for it and hold nothing."""
    shutil.rmtree(folder)
    with contextlib.suppress(OSError):
        for parent in made[1:]:
            parent.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; who held it before may have removed the folder with it."""
    path = folder / "lock"
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # the folder went meanwhile
        except OSError as problem:
            raise cannot_write(folder, problem) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = _same(file, path)
        except BlockingIOError:
            os.close(file)
            raise StreamError(
                f"{folder.parent}: another process converts {folder.name.removeprefix('.mixstream-')} to there at this "
                f"moment; wait for it, or choose another --out"
            ) from None
        if is_ours:
            break
        os.close(file)
    try:
        yield
    finally:
        os.close(file)


def _same(file: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        found, there = os.fstat(file), path.stat()
        return (found.st_dev, found.st_ino) == (there.st_dev, there.st_ino)
    return False
