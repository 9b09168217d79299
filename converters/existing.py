"""What is in a stream's place already: the same stream, another one, or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mixstream.errors import StreamError
from mixstream.streams.catalog import open_stream
from mixstream.streams.index import INDEX_NAME
from mixstream.streams.manifest import HELDOUT, TRAIN, StreamManifest, read_manifest
from mixstream.streams.place import Place
from mixstream.streams.placing import foreign_entry
from mixstream.streams.remote import RemoteFolder
from mixstream.streams.upload import check_parts


def find_existing(place: Place, made: Mapping[str, Any], overwrite: bool = False) -> dict[str, StreamManifest] | None:
    """Return the manifests of a stream that would come out the same, or None where it must be written.

    Args:
        place: of the stream.
        made: what decides its content.
        overwrite: whether another one may be replaced.

    Raises:
        StreamError: there is one that was made from something else, or is damaged, and it may not be overwritten; or
            there is what is no part of a stream.
    """
    is_stream = _holds_local(place) if isinstance(place, Path) else _holds_remote(place)
    if overwrite or not is_stream:
        return None
    manifest = read_manifest(place)
    if manifest is None or not (place / INDEX_NAME).exists():
        raise StreamError(
            f"{place}: is a stream already, not one that mixstream made whole; choose another --out, or --overwrite it"
        )
    found = {
        "sources": manifest.sources,
        "sequence length": manifest.sequence_length,
        "holdout": manifest.holdout,
        "text field": manifest.text_field,
        "tokenizer": manifest.tokenizer.fingerprint,
    }
    differing = [what for what, wanted in made.items() if found[what] != wanted]
    if differing:
        raise StreamError(
            f"{place}: is there already, made with another {', '.join(differing)}; choose another --out, or "
            f"--overwrite it"
        )
    open_stream(place.name, place).check_files()
    heldout = read_manifest(place / HELDOUT)
    if heldout is not None:
        open_stream(place.name, place / HELDOUT).check_files()
    return {TRAIN: manifest, **({HELDOUT: heldout} if heldout else {})}


def _holds_local(directory: Path) -> bool:
    """Return whether a stream, or a part of one, is in a folder.

    Raises:
        StreamError: there is what is no part of one.
    """
    foreign = foreign_entry(directory)
    if foreign is not None:
        raise StreamError(f"{foreign}: is there already and is no part of a stream; choose another --out")
    return directory.exists() and any(directory.iterdir())


def _holds_remote(place: RemoteFolder) -> bool:
    """Return whether a stream is in a place of a store; without its index.json it is one that was never whole.

    Raises:
        StreamError: there is what is no part of one.
    """
    there = place.sizes()
    check_parts(place, there)
    return INDEX_NAME in there
