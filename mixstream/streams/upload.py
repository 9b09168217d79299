"""Uploading streams: each is there whole or not at all.

Shards go first, several at a time, then the small files of the held-out split, then the stream's own, index.json last:
what has no index.json is no stream yet, and is uploaded again. What is to be replaced loses its index.json first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from mixstream.errors import ShardError, StreamError
from mixstream.formats import dump_json, parse, parse_json
from mixstream.streams.catalog import find_streams
from mixstream.streams.index import INDEX_NAME, read_index
from mixstream.streams.manifest import HELDOUT, MANIFEST_NAME, is_stream_name
from mixstream.streams.place import all_together, find_place
from mixstream.streams.placing import is_part
from mixstream.streams.remote import RemoteFolder, is_url
from mixstream.streams.remote.folder import CATALOG_NAME, CatalogFile

UPLOADS = 8  # at a time; a large file has several requests of its own
SMALL = (f"{HELDOUT}/{MANIFEST_NAME}", f"{HELDOUT}/{INDEX_NAME}", MANIFEST_NAME, INDEX_NAME)  # in this order, last

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Uploaded:
    """What became of one stream.

    Attributes:
        num_files, size_bytes: of the stream, its held-out split included.
        kept: the same was there already, whole.
    """

    name: str
    num_files: int
    size_bytes: int
    kept: bool


@dataclass(frozen=True)
class LocalStream:
    """A whole stream of this machine.

    Attributes:
        directory: where it is.
        shards: {path there: bytes}, those of the held-out split included.
        small: its stream.json and index.json files, the last one last.
    """

    directory: Path
    shards: dict[str, int]
    small: tuple[str, ...]

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of all its files, by path."""
        return self.shards | {path: (self.directory / path).stat().st_size for path in self.small}


def upload_streams(
    streams: str | Path,
    url: str,
    overwrite: bool = False,
    announce: Advance = lambda size: None,
    advance: Advance = lambda size: None,
) -> list[Uploaded]:
    """Copy a folder of streams, or one stream, to an object store, and list what is there in catalog.json.

    Args:
        streams: the folder.
        url: of the folder of streams to be.
        overwrite: replace streams that are others.
        announce: is told how many bytes there are.
        advance: is told of bytes that were uploaded or found there.

    Raises:
        StreamError: what is to be uploaded is no whole stream, or another one is in its place.
        RemoteError: the store refuses, or does not answer for long.
    """
    if is_url(str(streams)):
        raise StreamError(f"{streams}: only streams of this machine are uploaded; name their folder")
    target = find_place(url)
    if isinstance(target, Path):
        raise StreamError(f"{url}: is no URL; give one such as s3://bucket/streams, or copy folders with other tools")
    _, directories = find_streams(Path(streams))
    found = {name: local_stream(directory) for name, directory in directories.items() if isinstance(directory, Path)}
    check_target(target, found)
    announce(sum(sum(local.sizes.values()) for local in found.values()))
    uploaded = [upload_stream(local, target / name, overwrite, advance) for name, local in found.items()]
    write_catalog(target)
    return uploaded


def check_target(target: RemoteFolder, names: Iterable[str]) -> None:
    """Check that streams of these names can be written below a place.

    Raises:
        StreamError: it is a stream itself, or a name that would not be found there again.
        FormatError: its catalog.json is none of ours.
        RemoteError: the store refuses, or cannot list.
    """
    if not target.root.lists:
        raise StreamError(
            f"{target}: {target.root.scheme}: cannot list, so what is there cannot be seen; upload to "
            f"s3:, gs: or az:, or with the tools of that store"
        )
    bad = next((name for name in names if not is_stream_name(name)), None)
    if bad is not None:
        raise StreamError(f"stream {bad!r}: a store's streams have names without spaces; rename it")
    if (target / INDEX_NAME).exists():
        raise StreamError(f"{target}: is a stream itself; give the folder above it")
    place = target / CATALOG_NAME
    remedy = "it is no list of streams, choose another folder"
    with contextlib.suppress(FileNotFoundError):
        text = place.read_bytes().decode(errors="replace")
        parse(CatalogFile, parse_json(text, str(place), remedy), str(place), remedy)


def write_catalog(target: RemoteFolder) -> None:
    """List the streams below a place in its catalog.json, which plain HTTP servers need."""
    names = target.children()
    whole = all_together(lambda name: (target / name / INDEX_NAME).exists(), names, target)
    streams = tuple(name for name, is_whole in zip(names, whole, strict=True) if is_whole)
    (target / CATALOG_NAME).put(dump_json(CatalogFile(streams=streams)).encode())


def local_stream(directory: Path) -> LocalStream:
    """Return what there is to upload of a stream of this machine, its sizes checked.

    Raises:
        ShardError: a file is missing or of another size.
        StreamError: an index.json is not what it should be.
    """
    shards: dict[str, int] = {}
    for prefix in ("", f"{HELDOUT}/"):
        if not (directory / f"{prefix}{INDEX_NAME}").exists():
            continue
        index = read_index(directory / HELDOUT if prefix else directory)
        files = index.compressed_files if index.compression else index.files
        sizes = index.compressed_bytes if index.compression else index.file_bytes
        shards |= {f"{prefix}{file}": size for file, size in zip(files, sizes.tolist(), strict=True)}
    for path, size in shards.items():
        _check_size(directory / path, size)
    return LocalStream(directory, shards, tuple(path for path in SMALL if (directory / path).exists()))


def _check_size(path: Path, expected: int) -> None:
    found = path.stat().st_size if path.exists() else None
    if found != expected:
        told = "no such file" if found is None else f"{found} bytes"
        raise ShardError(
            f"{path}: {told}, index.json says {expected} bytes; only whole streams are uploaded, copy it or convert "
            f"the stream again with --overwrite"
        )


def upload_stream(
    local: LocalStream, place: RemoteFolder, overwrite: bool = False, advance: Advance = lambda size: None
) -> Uploaded:
    """Make a place of a store the copy of a stream; what is the same there already is kept.

    Args:
        local: the stream.
        place: where it is to be.
        overwrite: replace another one that is there.
        advance: is told of bytes that were uploaded or found there.

    Raises:
        StreamError: another stream is there, or what is no part of one.
        RemoteError: the store refuses, or does not answer for long.
    """
    sizes, there = local.sizes, place.sizes()
    uploaded = Uploaded(place.name, len(sizes), sum(sizes.values()), kept=False)
    check_parts(place, there, sizes)
    if INDEX_NAME in there:
        differing = [path for path in SMALL if _content(local, path) != _content_there(place, path, there)]
        if not differing and there == sizes:
            advance(uploaded.size_bytes)
            return Uploaded(place.name, uploaded.num_files, uploaded.size_bytes, kept=True)
        if differing and not overwrite:
            raise StreamError(
                f"{place}: is there already, with another {', '.join(differing)}; choose another URL, or --overwrite it"
            )
    for path in (INDEX_NAME, f"{HELDOUT}/{INDEX_NAME}"):
        if path in there:
            (place / path).delete()
    _put_all(local, place, advance)
    _check_arrived(place, local.shards)
    for path in local.small:
        (place / path).put((local.directory / path).read_bytes())
        advance(sizes[path])
    all_together(lambda path: (place / path).delete(), sorted(there.keys() - sizes.keys()), place)
    return uploaded


def check_parts(place: RemoteFolder, there: Iterable[str], also: Iterable[str] = ()) -> None:
    """Refuse to touch what is no part of a stream.

    Args:
        place: of a stream, that is there or is to be.
        there: paths below it.
        also: paths that a stream there has, whatever they look like.

    Raises:
        StreamError: naming the first object that is none.
    """
    known = set(also)
    foreign = next((path for path in sorted(there) if not is_part(path) and path not in known), None)
    if foreign is not None:
        raise StreamError(f"{place / foreign}: is there already and is no part of a stream; choose another URL")


def _put_all(local: LocalStream, place: RemoteFolder, advance: Advance) -> None:
    """Upload the shards, several at a time; the first problem ends it."""

    def put(path: str) -> None:
        (place / path).put(local.directory / path)
        advance(local.shards[path])

    threads = ThreadPoolExecutor(UPLOADS, "mixstream-upload")
    try:
        uploads = [threads.submit(put, path) for path in local.shards]
        done, _ = wait(uploads, return_when=FIRST_EXCEPTION)
        for upload in done:
            upload.result()
    finally:
        threads.shutdown(cancel_futures=True)


def _check_arrived(place: RemoteFolder, shards: dict[str, int]) -> None:
    there = place.sizes()
    wrong = next((path for path, size in shards.items() if there.get(path) != size), None)
    if wrong is not None:
        raise StreamError(
            f"{place / wrong}: has {there.get(wrong, 'no')} bytes after its upload, expected {shards[wrong]}; somebody "
            f"else writes there, upload again"
        )


def _content(local: LocalStream, path: str) -> bytes | None:
    return (local.directory / path).read_bytes() if path in local.small else None


def _content_there(place: RemoteFolder, path: str, there: Iterable[str]) -> bytes | None:
    return (place / path).read_bytes() if path in there else None
