"""What the site's docstrings need that stands otherwise in the files: an extension of griffe, which mkdocs.yml names.

a list of a room's files       is indented, so that its lines stay lines
`name, name: what both are`    is one entry; griffe would take the second name for the first one's type
"""

from __future__ import annotations

import re
from typing import Any

import griffe

_FILES = re.compile(r"^(?=\w+ {2,}\S)", flags=re.MULTILINE)
_NAMES = re.compile(r"^( +\w+(?:, \w+)+): ", flags=re.MULTILINE)


class Docstrings(griffe.Extension):
    """Changes docstrings before they are read as sections."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Indent lists, and join names by spaces that do not break."""
        if obj.docstring is None:
            return
        text = _FILES.sub("    ", obj.docstring.value)
        obj.docstring.value = _NAMES.sub(lambda names: names[1].replace(", ", ",\N{NO-BREAK SPACE}") + ": ", text)
