"""The search for source files: what is listed where, and what of it is a corpus."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from converters.sources import (
    FORMATS,
    KNOWN,
    Found,
    FoundFile,
    SourceFile,
    format_of,
    is_stream_name,
    stem_of,
    version_of,
)
from converters.sources.saved_datasets import find_saved
from mixstream.errors import CorpusError
from mixstream.streams.index import INDEX_NAME
from mixstream.streams.manifest import MANIFEST_NAME
from mixstream.streams.place import Place, all_together, find_place
from mixstream.streams.remote import RemoteFolder, is_hub, list_hub, look

_MAGIC = re.compile(r"[*?[]")


class _Hit(NamedTuple):
    """A file of a known format: where it is, its name below what was given, and the stream that this says."""

    place: Place
    name: str
    stream: str | None


def find_all(paths: Sequence[str | Path]) -> Found:
    """See `converters.sources.find_files`."""
    hits: list[_Hit] = []
    ignored: list[str] = []
    for path in paths:
        place = find_place(path)
        own, others = _local(place) if isinstance(place, Path) else _remote(place, str(path))
        hits += own
        ignored += others
    if not hits:
        raise CorpusError(f"{', '.join(map(str, paths))}: no corpus file in it (known: {KNOWN})")
    _check_once(hits)
    return Found(tuple(_look(_distinct(hits))), tuple(ignored))


def _local(path: Path) -> tuple[list[_Hit], list[str]]:
    if path.is_dir():
        return _of_folder(path, sorted(_walk(path)))
    if path.exists():
        return [_of_file(path, "")], []
    if not _MAGIC.search(str(path)):
        raise CorpusError(f"{path}: no such file or folder")
    found = [Path(name) for name in sorted(set(glob.glob(str(path), recursive=True)))]  # noqa: PTH207  Path.glob finds hidden files
    files = [file for file in found if file.is_file()]
    if not files:
        raise CorpusError(f"{path}: no such file or folder, and as a pattern it names none")
    ground = str(path)[: _MAGIC.search(str(path)).start()].rpartition("/")[0]  # type: ignore[union-attr]
    known = [file for file in files if format_of(file.name)]
    hits = [_of_file(file, file.parent.name, os.path.relpath(file, ground or ".")) for file in known]
    return hits, [str(file) for file in files if not format_of(file.name)]


def _walk(folder: Path) -> Iterable[str]:
    """Yield the paths of all files below a folder, but for hidden ones and those of streams that lie there."""
    for here, folders, files in os.walk(folder, followlinks=True):
        if {INDEX_NAME, MANIFEST_NAME} <= set(files):  # made of the corpus, it may be
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(here, folder)
        yield from (name if below == "." else f"{below}/{name}" for name in files if not name.startswith("."))


def _remote(place: RemoteFolder, given: str) -> tuple[list[_Hit], list[str]]:
    magic = _MAGIC.search(place.path)
    if magic is None and not given.endswith("/") and format_of(place.name) and (not _lists(place) or _is_there(place)):
        return [_of_file(place, "")], []
    if not _lists(place):
        raise CorpusError(
            f"{place}: {place.root.scheme}: cannot list what is in a folder; give the URL of each file, whose name "
            f"ends in one of {KNOWN}"
        )
    if magic is None:
        names = _list(place)
        if not names:
            raise CorpusError(f"{place}: no such object, and no folder with one in it")
        return _of_folder(place, names)
    ground = RemoteFolder(place.root, place.path[: magic.start()].rpartition("/")[0], place.patience)
    pattern = _pattern(place.path[len(ground.path) :].lstrip("/"))
    names = [name for name in _list(ground) if pattern.fullmatch(name)]
    if not names:
        raise CorpusError(f"{place}: the pattern names no object")
    hits = [_of_file(ground / name, name.rpartition("/")[0].rpartition("/")[2]) for name in names if format_of(name)]
    return hits, [str(ground / name) for name in names if not format_of(name)]


def _lists(place: RemoteFolder) -> bool:
    return place.root.lists or is_hub(place)


def _is_there(place: RemoteFolder) -> bool:
    try:
        look(place)
    except FileNotFoundError:
        return False
    return True


def _list(place: RemoteFolder) -> list[str]:
    """Return the paths of all objects below a folder in order, but for hidden ones."""
    names = list_hub(place) if is_hub(place) else place.sizes()
    return sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))


def _pattern(pattern: str) -> re.Pattern[str]:
    """Return what matches the paths that a glob does: ``**`` folders of any depth, the rest within a name."""
    told = re.escape(pattern).replace(r"\?", "[^/]")
    told = re.sub(r"\\\[(!|\\\^)?(.+?)\\\]", lambda m: f"[{'^' if m[1] else ''}{m[2]}]".replace(r"\-", "-"), told)
    told = told.replace(r"\*\*/", "(?:[^/]+/)*").replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
    return re.compile(told)


def _of_file(place: Place, folder: str, name: str | None = None) -> _Hit:
    """Return a file whose stream is told by its own name, else by that of its folder."""
    if format_of(place.name) is None:
        raise CorpusError(f"{place}: a file of no known format (known: {KNOWN}); rename it or leave it out")
    own = stem_of(place.name)
    stream = own if is_stream_name(own) else folder if is_stream_name(folder) else None
    return _Hit(place, name or (place.name if isinstance(place, Path) else str(place)), stream)


def _of_folder(folder: Place, names: Sequence[str]) -> tuple[list[_Hit], list[str]]:
    """Return the corpus files of a folder, given the paths of all files below it in order, and the others."""
    saved = find_saved(folder, names)
    hits: list[_Hit] = []
    ignored: list[str] = []
    for root, files in saved.items():
        named = root or folder.name
        stream = named if is_stream_name(named) else None
        hits += [_Hit(folder / file, _name_of(folder, file), stream) for file in files]
    for name in names:
        above, _, last = name.rpartition("/")
        if above in saved:
            continue
        if format_of(last) is None:
            ignored.append(str(folder / name))
            continue
        if "/" in above:
            raise CorpusError(
                f"{folder / name}: lies two folders below {folder}; put a stream's files into one folder named after "
                f"it, such as {folder}/eu.wiki/, or name the files by a pattern, such as {folder}/**/*{format_of(last)}"
            )
        hit = _of_file(folder / name, folder.name) if not above else _Hit(folder / name, "", above)
        stream = hit.stream if hit.stream and is_stream_name(hit.stream) else None
        hits.append(_Hit(hit.place, _name_of(folder, name), stream))
    return sorted(hits, key=lambda hit: hit.name), ignored


def _name_of(folder: Place, name: str) -> str:
    return name if isinstance(folder, Path) else str(folder / name)


def _check_once(hits: Sequence[_Hit]) -> None:
    seen: set[Place] = set()
    for hit in hits:
        place = hit.place.resolve() if isinstance(hit.place, Path) else hit.place
        if place in seen:
            raise CorpusError(f"{hit.place}: is given twice, and would be read twice; give it once")
        seen.add(place)


def _distinct(hits: Sequence[_Hit]) -> list[_Hit]:
    """Return files of one name, from several folders, named by more of their paths, until each has its own."""
    named = list(hits)
    for depth in range(2, 1 + max(len(hit.place.parts) if isinstance(hit.place, Path) else 1 for hit in hits)):
        counts: dict[str, int] = {}
        for hit in named:
            counts[hit.name] = counts.get(hit.name, 0) + 1
        twice = {name for name, count in counts.items() if count > 1}
        if not twice:
            break
        named = [
            hit._replace(name="/".join(hit.place.absolute().parts[-depth:]))
            if hit.name in twice and isinstance(hit.place, Path)
            else hit
            for hit in named
        ]
    return named


def _look(hits: Sequence[_Hit]) -> list[FoundFile]:
    """Return the files with their sizes and versions; objects are asked for some at a time."""
    remote = next((hit.place for hit in hits if not isinstance(hit.place, Path)), None)
    sized = all_together(lambda hit: _size_and_version(hit.place), hits, remote or Path())
    found = []
    for hit, (size, version) in zip(hits, sized, strict=True):
        _check_told(hit)
        if size == 0:
            raise CorpusError(f"{hit.place}: empty; leave it out or fill it")
        suffix = format_of(hit.place.name)
        assert suffix is not None
        kind, compression = FORMATS[suffix]
        place = hit.place.absolute() if isinstance(hit.place, Path) else hit.place
        found.append(FoundFile(hit.stream, SourceFile(place, hit.name, kind, compression, size, version)))
    return found


def _check_told(hit: _Hit) -> None:
    """Refuse a name that no stream.json could tell."""
    try:
        hit.name.encode()
    except UnicodeEncodeError:
        told = str(hit.place).encode(errors="backslashreplace").decode()
        raise CorpusError(f"{told}: its name is not UTF-8, expected one that can be written down; rename it") from None


def _size_and_version(place: Place) -> tuple[int, str]:
    if isinstance(place, Path):
        return version_of(place)
    try:
        return look(place)
    except FileNotFoundError:
        raise CorpusError(f"{place}: no such object") from None
