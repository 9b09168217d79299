"""The work folder of a conversion: beside the streams to be, hidden, owned by one process at a time.

    OUT/.mixstream-NAME/lock        held as long as somebody converts the corpus NAME to OUT
    OUT/.mixstream-NAME/parts/...   what spans of files were encoded to; by a hash of all that decides it
    OUT/.mixstream-NAME/hashes/...  hashes of files
    OUT/.mixstream-NAME/KEY/...     what else was done; KEY is a hash of sources, options and libraries

A run that was killed leaves its folder, and the same command goes on there; so does one whose files were mended, or
that has more of them, with the parts of those that are the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from converters.tasks.encode import cannot_write
from converters.tasks.parts import TEMPORARY
from mixstream.errors import StreamError

SHARED = ("parts", "hashes")  # by what conversions of one corpus have in common
_KEY = re.compile(r"[0-9a-f]{24}")  # of a conversion, as digest_of gives it
_LOCK = "lock"


@contextmanager
def work_folder(out: Path, name: str, key: str) -> Iterator[Path]:
    """Give the work folder of one conversion; when the block ends well it goes, else it stays.

    Args:
        out: where the streams will be.
        name: of the corpus.
        key: of the conversion.

    Raises:
        StreamError: another process converts that corpus there, or the folder cannot be written, or is a link.
    """
    folder = (out / f".mixstream-{name}").absolute()  # a worker may be in another folder
    made = [parent for parent in folder.parents if not parent.exists()]
    try:
        with locked(folder, f"{out}: another process converts {name} to there"):
            _clean(folder, key)
            try:
                yield folder / key
            except BaseException:
                if not any(folder.glob("parts/*.json")):  # nothing was done
                    with contextlib.suppress(OSError):  # unless a worker still writes there
                        _empty(folder)
                raise
            try:
                _empty(folder)
            except OSError as problem:
                raise StreamError(
                    f"{folder}: cannot be removed ({problem.strerror}); the streams are whole, remove it yourself"
                ) from None
    finally:
        for parent in (folder, *made):  # those that were made for it and hold nothing
            with contextlib.suppress(OSError):
                parent.rmdir()


def _clean(folder: Path, key: str) -> None:
    """Remove what other conversions left, and what was being written by a run that was killed."""
    try:
        for other in folder.iterdir():
            if _KEY.fullmatch(other.name) and other.name != key:
                shutil.rmtree(other)
        for left in folder.rglob(TEMPORARY):
            left.unlink(missing_ok=True)
        (folder / key).mkdir(exist_ok=True)
    except OSError as problem:
        raise cannot_write(folder, problem) from None


def _empty(folder: Path) -> None:
    """Remove all that a work folder holds, the lock last."""
    for own in folder.iterdir():
        if own.is_dir() and (own.name in SHARED or _KEY.fullmatch(own.name)):
            shutil.rmtree(own)
    (folder / _LOCK).unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, told: str) -> Iterator[None]:
    """Hold a folder's lock; who held it before may have removed the folder with it.

    Args:
        folder: is made if it is not there.
        told: what another process is at, if one has the lock.

    Raises:
        StreamError: another process has it, or the folder cannot be written or locked, or is a link.
    """
    path = folder / _LOCK
    while True:
        if folder.is_symlink():
            raise StreamError(f"{folder}: is a link, and what is in it would be removed; remove the link")
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
            raise StreamError(f"{told} at this moment; wait for it, or choose another --out") from None
        except OSError as problem:
            os.close(file)
            raise StreamError(
                f"{folder}: cannot be locked ({problem.strerror}); its file system may be mounted without locks, see "
                f"that it has them or choose another --out"
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
