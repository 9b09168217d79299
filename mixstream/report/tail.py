"""A run's growing logs, read a little at a time: only what is new, and anew where a file was cut back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CHECKED = 256  # bytes before the place reached, by which a file that was cut back and grew again is told


class Tail:
    """The whole lines of a file of JSON objects, as they come.

    A file that is shorter than before, another file, or one whose bytes before the place reached have changed was cut
    back, as at a resume: then it is read from its beginning. Damaged lines are left out, a last one without an end too.
    """

    def __init__(self, path: Path) -> None:
        """Follow `path`, which need not be there yet."""
        self._path = path
        self._reached = 0
        self._before = b""  # the last bytes before it

    def read(self) -> tuple[bool, list[dict[str, Any]]]:
        """Return whether all was read anew, so that what was told before no longer holds, and the lines since then."""
        try:
            with self._path.open("rb") as file:
                is_anew = self._reached > 0 and not self._is_same(file)
                if is_anew:
                    self._reached, self._before = 0, b""
                file.seek(self._reached)
                content = file.read()
        except FileNotFoundError:
            is_anew, content = self._reached > 0, b""
            self._reached, self._before = 0, b""
        end = content.rfind(b"\n") + 1
        self._reached += end
        self._before = (self._before + content[:end])[-CHECKED:]
        return is_anew, [line for line in map(_object, content[:end].splitlines()) if line is not None]

    def _is_same(self, file: Any) -> bool:
        file.seek(self._reached - len(self._before))
        return bool(file.read(len(self._before)) == self._before)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
