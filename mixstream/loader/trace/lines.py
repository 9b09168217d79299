"""A log of JSON objects, one a line, in which some number never falls: looked up by halving, however long it is."""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mixstream.errors import FormatError
from mixstream.formats import FileModelT, parse, parse_json

NEWLINE = b"\n"
BRING_BACK = "bring the file back"
Key = Callable[[dict[str, Any]], Any]


class SortedLines:
    """The whole lines of a file, each known by the byte at which it starts; a file that is not there has none.

    A line without its end is left out: the run is writing it, or was killed then.
    """

    def __init__(self, path: Path) -> None:
        """Map the file into memory.

        Raises:
            FormatError: it is there and cannot be read.
        """
        self.path = path
        self._content: mmap.mmap | bytes = b""
        try:
            with path.open("rb") as file:
                if path.stat().st_size:
                    self._content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            pass
        except OSError as problem:
            raise FormatError(f"{path}: cannot be read ({problem.strerror}); it is a log of a run") from None
        self.end = self._content.rfind(b"\n") + 1

    def read(self, start: int) -> dict[str, Any]:
        """Return the line that starts at a byte.

        Raises:
            FormatError: it is no JSON object.
        """
        line = self._content[start : self._content.find(b"\n", start)].decode("utf-8", errors="replace")
        try:
            content = json.loads(line)
        except ValueError:
            content = parse_json(line, self.where(start), BRING_BACK)
        if not isinstance(content, dict):
            raise FormatError(f"{self.where(start)}: not a JSON object; {BRING_BACK}")
        return content

    def parse(self, start: int, model: type[FileModelT]) -> FileModelT:
        """Return the line that starts at a byte as a `model`.

        Raises:
            FormatError: it is none.
        """
        content = self.read(start)
        try:
            return model.model_validate(content)
        except ValidationError:
            return parse(model, content, self.where(start), BRING_BACK)

    def where(self, start: int) -> str:
        """Return a name of the line that starts at a byte, for messages: all before it is counted."""
        return f"{self.path}, line {self._content[:start].count(NEWLINE) + 1}"

    def after(self, start: int) -> int:
        """Return where the line after one starts."""
        return self._content.find(b"\n", start) + 1

    def before(self, end: int) -> int:
        """Return where the line starts that ends before a byte."""
        return self._content.rfind(b"\n", 0, end - 1) + 1

    def from_(self, start: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the lines from one on, and where each starts."""
        while start < self.end:
            yield start, self.read(start)
            start = self.after(start)

    def count_up_to(self, key: Key, bound: Any) -> int:
        """Return the byte at which the lines end whose key is at most `bound`.

        Raises:
            FormatError: a line that was looked at has no such key.
        """
        low, high = 0, self.end
        while low < high:
            start = self.before((low + high) // 2 + 1)
            if self._is_up_to(start, key, bound):
                low = self.after(start)
            else:
                high = start
        return low

    def last_up_to(self, key: Key, bound: Any) -> int | None:
        """Return where the last line starts whose key is at most `bound`, or None where there is none."""
        end = self.count_up_to(key, bound)
        return self.before(end) if end else None

    def key(self, start: int, key: Key) -> Any:
        """Return the key of the line that starts at a byte.

        Raises:
            FormatError: it has none.
        """
        line = self.read(start)
        try:
            return key(line)
        except (KeyError, TypeError, IndexError, AttributeError, ValueError, OverflowError):
            raise self._refusal(start) from None

    def _is_up_to(self, start: int, key: Key, bound: Any) -> bool:
        try:
            return bool(self.key(start, key) <= bound)
        except TypeError:
            raise self._refusal(start) from None

    def _refusal(self, start: int) -> FormatError:
        return FormatError(f"{self.where(start)}: not a line of such a log; {BRING_BACK}")
