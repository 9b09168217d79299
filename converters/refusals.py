"""What a view cannot be cut out of, and where it cannot be put; and the views that are there already."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from converters.tasks.choosing import Rule, ViewSource
from converters.tasks.repacking import format_of
from converters.tasks.viewing import view_of
from mixstream.errors import StreamError
from mixstream.streams.catalog import Stream, open_stream
from mixstream.streams.index import INDEX_NAME
from mixstream.streams.manifest import DOCUMENTS_NAME, HELDOUT, MANIFEST_NAME, StreamManifest, View, read_manifest
from mixstream.streams.placing import foreign_entry


def source_of(stream: Stream, rule: Rule) -> ViewSource:
    """Return a stream that a view can be cut out of.

    Raises:
        StreamError: none can.
    """
    manifest = read_manifest(stream.directory)
    if manifest is None:
        raise StreamError(
            f"{stream.directory}: has no {MANIFEST_NAME}, in which a view says what it is; put one there "
            f"(docs/formats.md says what it needs), or cut views of others (--streams)"
        )
    if manifest.view is not None and manifest.view.by == "sample":
        raise StreamError(
            f"{stream.directory}: is a view by sample itself, whose samples have lost their numbers; cut the view out "
            f"of stream {manifest.view.stream!r} that it was cut out of"
        )
    extra = set(stream.index.column_names) - {stream.column.name}
    format_of(stream)
    if rule.by == "document":
        _check_documents(stream, manifest, extra, rule)
    return ViewSource(stream, manifest)


def _check_documents(stream: Stream, manifest: StreamManifest, extra: set[str], rule: Rule) -> None:
    """Check that a stream's documents are known, and all of those that a view would have are there.

    Raises:
        StreamError: they are not.
    """
    if not (stream.directory / DOCUMENTS_NAME).exists():
        raise StreamError(
            f"{stream.directory}: has no {DOCUMENTS_NAME}, so that nobody knows its documents; convert its corpus with "
            f"mixstream convert --subsample, or choose samples instead (--by sample)"
        )
    unknown = extra - set(manifest.columns)
    if unknown:
        raise StreamError(
            f"{stream.directory}: its samples have columns {', '.join(sorted(unknown))}, which are no fields of its "
            f"documents; choose samples instead (--by sample)"
        )
    had = manifest.subsample
    if had is not None and had.seed != rule.seed:
        raise StreamError(
            f"{stream.directory}: has a share of {had.share} by seed {had.seed} itself, and of that a share by seed "
            f"{rule.seed} would be no share of the whole by one seed; give --seed {had.seed}, or cut out of the whole"
        )
    if had is not None and had.share < rule.share:
        raise StreamError(
            f"{stream.directory}: has a share of {had.share} of the whole itself; expected a share of the whole of at "
            f"most that, found {rule.share}: cut it out of the whole"
        )


def kept_views(out: Path, sources: Mapping[str, ViewSource], rule: Rule, overwrite: bool) -> dict[str, StreamManifest]:
    """Return the views that are there already.

    Raises:
        StreamError: something else is in the place of one, or beside them.
        ShardError: a shard of one is missing.
    """
    beside = sorted(index.parent for index in out.glob(f"[!.]*/{INDEX_NAME}") if index.parent.name not in sources)
    for other in beside:
        manifest = read_manifest(other)
        view = manifest.view if manifest else None
        if view is None or Rule(view.share, view.seed, view.by) != rule:
            what = "is another stream" if view is None else f"is a view of share {view.share} by seed {view.seed}"
            raise StreamError(
                f"{other}: {what}, and a folder of views is to hold those of one share and seed; choose another --out"
            )
    for name, source in sources.items():
        own = source.stream.directory
        if isinstance(own, Path) and (out / name).exists() and (out / name).samefile(own):
            raise StreamError(
                f"{own}: a view cannot take the place of the stream that it is cut out of; choose another --out"
            )
    found = {name: view_there(out / name, view_of(source, rule), overwrite) for name, source in sources.items()}
    return {name: manifest for name, manifest in found.items() if manifest is not None}


def view_there(place: Path, wanted: View, overwrite: bool) -> StreamManifest | None:
    """Return the stream.json of a view that is there already, or None where there is none, or it may be replaced.

    Raises:
        StreamError: there is another stream, or what is no part of one.
        ShardError: a shard of it is missing.
    """
    foreign = foreign_entry(place)
    if foreign is not None:
        raise StreamError(f"{foreign}: is there already and is no part of a stream; choose another --out")
    if overwrite or not place.exists() or not any(place.iterdir()):
        return None
    manifest = read_manifest(place) if (place / INDEX_NAME).exists() else None
    if manifest is None or manifest.view is None or manifest.view.model_copy(update={"cut_documents": 0}) != wanted:
        raise StreamError(f"{place}: is there already and is not this view; choose another --out, or --overwrite it")
    for split in (place, place / HELDOUT):
        if split.exists():
            open_stream(place.name, split).check_files()
    return manifest
