"""Documents that could not be used, out of all parts into the files that a person reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

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
    streams = frozenset(made)
    for part in parts:
        if not part.count(REJECTED):
            continue
        with Path(f"{part.path}.rejects").open(encoding="utf-8") as lines:
            told = [(own if (own := json.loads(line)["stream"]) in streams else "", line) for line in lines]
        for owner, own in groupby(sorted(told, key=itemgetter(0)), key=itemgetter(0)):
            folder = work / "made" / owner
            folder.mkdir(parents=True, exist_ok=True)
            # One open at a time: there may be more streams than files that a process may have open.
            with (folder / REJECTS_NAME).open("a" if owner in paths else "w", encoding="utf-8") as file:
                file.writelines(line for _, line in own)
            paths[owner] = str(out / owner / REJECTS_NAME if owner else out / rejects_beside(corpus.name))
    if "" in paths:
        (work / "made" / REJECTS_NAME).replace(paths[""])
    else:
        (out / rejects_beside(corpus.name)).unlink(missing_ok=True)  # of an earlier conversion
    return tuple(paths.values())
