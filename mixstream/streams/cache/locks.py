"""Locks by name that all processes of a machine see: one byte a name in one file.

They are Linux's locks of open file descriptions: whoever opens the file anew is another owner, in this process or in
another, and the system drops an owner's locks when it dies, however it dies. Threads that share an owner share its
locks. A folder that several machines see at a time cannot be locked so: a cache belongs to one of them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
from pathlib import Path

_NAMES = 1 << 32  # where the names' bytes begin; those below are for who owns the file
_PLACES = (1 << 62) - _NAMES


class NamedLocks:
    """One owner of locks in a file, which is made if it is not there, readable by the user alone."""

    def __init__(self, path: Path) -> None:
        """Open the file."""
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def share(self, name: str) -> bool:
        """Take a lock that others may share, or turn one that nobody shares into it; False: another has it alone."""
        return self._set(fcntl.F_RDLCK, _place(name))

    def seize(self, name: str) -> bool:
        """Take a lock alone, or turn a shared one into it; False: another one shares it or has it."""
        return self._set(fcntl.F_WRLCK, _place(name))

    def release(self, name: str) -> None:
        """Give a lock back; nothing happens to one that is not held."""
        self._set(fcntl.F_UNLCK, _place(name))

    def seize_all(self) -> None:
        """Wait for the lock of the file itself."""
        fcntl.fcntl(self.file, fcntl.F_OFD_SETLKW, _flock(fcntl.F_WRLCK, 0))

    def release_all(self) -> None:
        """Give the lock of the file itself back; the names' locks stay."""
        self._set(fcntl.F_UNLCK, 0)

    def close(self) -> None:
        """Give all locks back."""
        file, self.file = self.file, -1  # the number may be another file's from now on
        if file >= 0:
            os.close(file)

    def _set(self, kind: int, place: int) -> bool:
        try:
            fcntl.fcntl(self.file, fcntl.F_OFD_SETLK, _flock(kind, place))
        except BlockingIOError:
            return False
        return True


def _place(name: str) -> int:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return _NAMES + int.from_bytes(digest, "little") % _PLACES


def _flock(kind: int, place: int) -> bytes:
    """Return C's struct flock for one byte."""
    return struct.pack("hhqqi0q", kind, os.SEEK_SET, place, 1, 0)
