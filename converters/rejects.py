"""Documents that could not be used, out of all parts into the files that a person reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TextIO

from converters.corpus import Corpus
from converters.tasks.encode import REJECTED
from converters.tasks.parts import Part
from mixstream.streams.manifest import REJECTS_NAME


def rejects_beside(name: str) -> str:
    """Return the name of the file, beside the streams, for what belongs to none of those that were made."""
    return f"{name}.{REJECTS_NAME}"


def write_rejects(parts: Iterable[Part], corpus: Corpus, made: Sequence[str], work: Path, out: Path) -> tuple[str, ...]:
    """Write the rejects of each stream into its folder, those of none beside the streams, in the order of the parts.

    Args:
        parts: all of them.
        corpus: theirs.
        made: names of the streams that are being made.
        work: the work folder, where their folders are.
        out: the folder of streams.

    Returns:
        The paths that the files will have.
    """
    paths: dict[str, str] = {}
    with ExitStack() as stack:
        files: dict[str, TextIO] = {}
        for part in parts:
            if not part.count(REJECTED):
                continue
            with Path(f"{part.path}.rejects").open(encoding="utf-8") as lines:
                for line in lines:
                    stream = json.loads(line)["stream"]
                    owner = stream if stream in made else ""
                    if owner not in files:
                        folder = work / "made" / owner
                        folder.mkdir(parents=True, exist_ok=True)
                        files[owner] = stack.enter_context((folder / REJECTS_NAME).open("w", encoding="utf-8"))
                        paths[owner] = str(out / owner / REJECTS_NAME if owner else out / rejects_beside(corpus.name))
                    files[owner].write(line)
    if "" in paths:
        (work / "made" / REJECTS_NAME).replace(paths[""])
    else:
        (out / rejects_beside(corpus.name)).unlink(missing_ok=True)  # of an earlier conversion
    return tuple(paths.values())
