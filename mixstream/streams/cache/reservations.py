"""What the users of a cache folder need at a time: a file each, locked as long as its owner lives."""

from __future__ import annotations

import fcntl
import secrets
from pathlib import Path
from typing import BinaryIO


class Reservations:
    """The reservations in one folder, and this user's own; whoever reads or makes one holds the cache's account."""

    def __init__(self, folder: Path) -> None:
        """Look after `folder`, made if it is not there."""
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder
        self._own: tuple[Path, BinaryIO] | None = None

    def sizes(self) -> dict[str, int]:
        """Return the bytes that those who live have reserved, by name; the dead are forgotten."""
        sizes: dict[str, int] = {}
        for path in self._folder.iterdir():
            name, _, size = path.stem.rpartition(".")
            if not size.isdecimal():  # not of ours
                continue
            with path.open("ab") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    sizes[name] = max(sizes.get(name, 0), int(size))
                    continue
                path.unlink(missing_ok=True)
        return sizes

    def make(self, name: str, size: int) -> None:
        """Reserve, instead of what this user had reserved before."""
        self.end()
        path = self._folder / f"{name}.{size}.{secrets.token_hex(8)}"
        path.touch(mode=0o600)
        file = path.open("wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        self._own = path, file

    def end(self) -> None:
        """Give up this user's reservation, if there is one."""
        if self._own is not None:
            path, file = self._own
            path.unlink(missing_ok=True)
            file.close()
            self._own = None
