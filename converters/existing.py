"""What is in the place of streams already: the same ones, others, or what is no stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from converters.corpus import Corpus, Making, Options
from mixstream.errors import StreamError
from mixstream.streams.catalog import open_stream
from mixstream.streams.index import INDEX_NAME
from mixstream.streams.manifest import HELDOUT, TRAIN, StreamManifest, read_manifest
from mixstream.streams.place import Place, all_together
from mixstream.streams.placing import foreign_entry
from mixstream.streams.remote import RemoteFolder
from mixstream.streams.upload import check_parts


@dataclass(frozen=True)
class Existing:
    """Streams that are there and could be those that a corpus makes.

    Attributes:
        places: of the streams, by name.
        manifests: {stream: {split: stream.json}}.
    """

    places: Mapping[str, Place]
    manifests: Mapping[str, Mapping[str, StreamManifest]]

    @classmethod
    def find(cls, out: Place, corpus: Corpus) -> Existing | None:
        """Return the stream of a corpus, or where fields name them all streams of a conversion of files so named.

        Raises:
            FormatError: a stream.json is none of ours.
            RemoteError: the store refuses, or does not answer for long.
        """
        if corpus.stream is not None:
            manifest = _whole(out / corpus.stream)
            names: Sequence[str] = () if manifest is None else (corpus.stream,)
        else:
            names = _of_conversion(out, corpus.files_digest)
        found = {name: manifests for name in names if (manifests := _manifests(out / name))}
        return cls({name: out / name for name in found}, found) if found and len(found) == len(names) else None

    def is_made_by(self, making: Making) -> bool:
        """Return whether a conversion would make the same again; a view that was cut out of its streams is another."""
        made = {
            manifest.conversion.fingerprint if manifest.conversion and manifest.view is None else None
            for splits in self.manifests.values()
            for manifest in splits.values()
        }
        return made == {making.fingerprint}

    @property
    def left_out(self) -> Mapping[str, int]:
        """Documents of the corpus that are in none of its streams, by why."""
        conversion = next(iter(self.manifests.values()))[TRAIN].conversion
        return {} if conversion is None else conversion.left_out

    def differing(self, making: Making) -> StreamError:
        """Return the error of streams that were made in another way."""
        name, splits = next(iter(self.manifests.items()))
        manifest = splits[TRAIN]
        subsample = manifest.subsample and [manifest.subsample.share, manifest.subsample.seed]
        found = {
            "sources": (manifest.sources, making.sources),
            "way (a view)": (manifest.view, None),
            "sequence length": (manifest.sequence_length, making.how["sequence length"]),
            "layout": (manifest.layout, making.how["layout"]),
            "holdout": (manifest.holdout, making.how["holdout"]),
            "subsample": (subsample or None, making.how["subsample"]),
            "text field": (manifest.text_field, making.how["fields"]["text"]),
            "id field": (manifest.id_field, making.how["fields"]["id"]),
            "tokenizer": (manifest.tokenizer.fingerprint, making.how["tokenizer"]),
        }
        what = [told for told, (own, wanted) in found.items() if own != wanted] or ["set of options"]
        return StreamError(
            f"{self.places[name]}: is there already, made with another {', '.join(what)}; choose another --out, or "
            f"--overwrite it"
        )

    def check_files(self) -> None:
        """Check that all their shards are there.

        Raises:
            ShardError: one is not.
        """
        for name, splits in self.manifests.items():
            for split in splits:
                place = self.places[name]
                open_stream(name, place / HELDOUT if split == HELDOUT else place).check_files()


def kept_streams(out: Place, corpus: Corpus, options: Options, making: Callable[[], Making]) -> Existing | None:
    """Return the streams of a corpus that are there as they would be made, or None where they are to be made.

    Args:
        out: the folder of streams.
        corpus, options: what is to be converted, and how.
        making: tells all that decides it; it reads the files, so it is only asked where there are streams.

    Raises:
        StreamError: what is in the corpus's place was made from something else, or is no stream.
        ShardError: the streams are there, and a shard of them is not.
    """
    existing = None if options.overwrite else Existing.find(out, corpus)
    if existing is not None:
        made = making()
        if existing.is_made_by(made):
            existing.check_files()
            return existing
        if corpus.stream is not None:
            raise existing.differing(made)
    if corpus.stream is not None:
        check_free(out / corpus.stream, options.overwrite)
    return None


def check_free(place: Place, overwrite: bool, fingerprint: str | None = None) -> None:
    """Check that a stream may be put somewhere.

    Args:
        place: of the stream.
        overwrite: whether another one may be replaced.
        fingerprint: of the conversion whose stream may be there.

    Raises:
        StreamError: there is another one, or what is no part of a stream.
    """
    if isinstance(place, RemoteFolder):
        there = place.sizes()
        check_parts(place, there)
        is_there = INDEX_NAME in there  # without it, it was never whole
    else:
        foreign = foreign_entry(place)
        if foreign is not None:
            raise StreamError(f"{foreign}: is there already and is no part of a stream; choose another --out")
        is_there = place.exists() and any(place.iterdir())
    if not is_there or overwrite:
        return
    manifest = _whole(place)
    made_by = manifest and manifest.view is None and manifest.conversion
    if made_by and made_by.fingerprint == fingerprint:
        return
    told = "one that mixstream made whole" if manifest is None else "one of this conversion"
    raise StreamError(f"{place}: is a stream already, not {told}; choose another --out, or --overwrite it")


def made_already(place: Path, making: Making) -> Mapping[str, StreamManifest] | None:
    """Return the manifests of the stream there, if it is one of a conversion."""
    manifests = _manifests(place)
    existing = Existing({place.name: place}, {place.name: manifests})
    return manifests if manifests and existing.is_made_by(making) else None


def _whole(place: Place) -> StreamManifest | None:
    """Return the manifest of a stream that has an index, too."""
    return read_manifest(place) if (place / INDEX_NAME).exists() else None


def _manifests(place: Place) -> dict[str, StreamManifest]:
    train = _whole(place)
    if train is None:
        return {}
    heldout = _whole(place / HELDOUT)
    return {TRAIN: train} | ({} if heldout is None else {HELDOUT: heldout})


def _of_conversion(out: Place, files: str) -> tuple[str, ...]:
    """Return the names of all streams of a conversion that read files of names and sizes of this hash."""
    if isinstance(out, Path):
        children = sorted(index.parent.name for index in out.glob(f"[!.]*/{INDEX_NAME}"))
    else:
        children = out.children()
    for manifest in all_together(lambda name: _whole(out / name), children, out):
        if manifest is not None and manifest.conversion is not None and manifest.conversion.files == files:
            return manifest.conversion.streams
    return ()
