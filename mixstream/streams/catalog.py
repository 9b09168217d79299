"""The catalog: the streams under one folder, known without reading their samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from mixstream.errors import StreamError, nearest
from mixstream.streams.compression import EXTENSIONS
from mixstream.streams.files import check_files, read_raw
from mixstream.streams.index import INDEX_NAME, MdsIndex, read_index
from mixstream.streams.manifest import HELDOUT, MANIFEST_NAME, StreamManifest, TokenizerInfo, read_manifest
from mixstream.streams.place import Place, absolute, all_together, find_place
from mixstream.streams.shard import Shard
from mixstream.streams.store import ShardStore
from mixstream.streams.tokens import TokenColumn, find_token_column


@dataclass(frozen=True)
class Stream:
    """One stream: an MDS directory of token rows, all of one length.

    Attributes:
        name: the directory's name.
        directory: where its shards are: a folder, or a place in an object store.
        language, domain: from stream.json; None for a plain MDS directory.
        sequence_length: tokens in a sample.
        index: its shards.
        column: where a sample keeps its tokens.
        tokenizer: what made the tokens; None where nobody wrote it down.
        tokens_per_byte: tokens made of a byte of text; None where nobody wrote it down.
        claimed_name: the name that stream.json gives it, which is the directory's unless that was renamed.
        layout: ``packed``, or ``documents``: a sample is one document, padded behind its end.
        num_documents: whole or cut by the last row's end; None where nobody wrote it down.
    """

    name: str
    directory: Place
    language: str | None
    domain: str | None
    sequence_length: int
    index: MdsIndex
    column: TokenColumn
    tokenizer: TokenizerInfo | None
    tokens_per_byte: float | None
    claimed_name: str | None = None
    layout: str = "packed"
    num_documents: int | None = None

    @property
    def num_samples(self) -> int:
        """Rows in the stream."""
        return self.index.num_samples

    @property
    def num_tokens(self) -> int:
        """Tokens in the stream."""
        return self.num_samples * self.sequence_length

    @property
    def fingerprint(self) -> str:
        """Hash of the index: another number, order, size or hash of shards gives another one."""
        return self.index.fingerprint

    def open_shard(self, number: int) -> Shard:
        """Open one shard in its place; a `ShardStore` opens also what is compressed or elsewhere, and checks hashes.

        Raises:
            ShardError: it is not what index.json says.
            StreamError: it is compressed, or in an object store.
        """
        return ShardStore().open_shard(self, number)

    def check_files(self) -> None:
        """Check that every shard is there in its full size, raw or compressed; O(shards), nothing is read.

        Raises:
            ShardError: naming the first file that is missing or of another size.
            RemoteError: an object store refuses, does not answer for long, or cannot list.
        """
        check_files(self)


class Catalog:
    """The streams under one folder, in the order of their names."""

    def __init__(self, root: Place, streams: Mapping[str, Stream], split: str | None = None) -> None:
        """Hold `streams`, found under `root` or in the sub-folders `split` there; use `Catalog.open` to find them."""
        self.root = root
        self.split = split
        self.streams: Mapping[str, Stream] = MappingProxyType(dict(streams))

    @classmethod
    def open(cls, root: str | Path, split: str | None = None, token_column: str | None = None) -> Catalog:
        """Find the streams under a folder.

        Args:
            root: a folder of stream directories, or one stream directory: a path, or the URL of one in an object store.
            split: the sub-folder of each stream to read instead of the stream itself, such as
                ``heldout``; streams without it are left out.
            token_column: name of the token column of plain MDS directories that have neither
                ``tokens`` nor ``input_ids``.

        Raises:
            StreamError: no folder, no stream in it, or one that cannot be used.
            RemoteError: an object store refuses, or does not answer for long.
        """
        folder, places = find_streams(root, split)
        opened = all_together(lambda own: open_stream(*own, token_column), places.items(), folder)
        found = dict(zip(places, opened, strict=True))
        check_names(found)
        return cls(folder, found, split)

    def heldout(self) -> Catalog | None:
        """Return the catalog of these streams' held-out splits, or None where none has one.

        Raises:
            StreamError: a held-out split of another tokenizer or sequence length than its stream.
        """

        def open_split(stream: Stream) -> Stream | None:
            place = stream.directory / HELDOUT
            return open_stream(stream.name, place, stream.column.name) if (place / INDEX_NAME).exists() else None

        opened = all_together(open_split, self, self.root)
        found = {stream.name: stream for stream in opened if stream is not None}
        for name, split in found.items():
            _check_pair(name, self[name], f"{name}/{HELDOUT}", split)
        return Catalog(self.root, found, HELDOUT) if found else None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the streams, in order."""
        return tuple(self.streams)

    @property
    def sizes(self) -> dict[str, int]:
        """Samples of each stream, by name."""
        return {name: stream.num_samples for name, stream in self.streams.items()}

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens of each stream, by name."""
        return {name: stream.num_tokens for name, stream in self.streams.items()}

    def __len__(self) -> int:
        return len(self.streams)

    def __iter__(self) -> Iterator[Stream]:
        return iter(self.streams.values())

    def __getitem__(self, name: str) -> Stream:
        if name not in self.streams:
            raise StreamError(f"{self.root}: holds no stream {name!r}{nearest(name, self.streams)}")
        return self.streams[name]

    def only(self, names: Sequence[str]) -> Catalog:
        """Return the catalog of some of the streams.

        Raises:
            StreamError: one is not there; with the nearest that is.
        """
        found = {name: self[name] for name in names}
        return Catalog(self.root, {name: own for name, own in self.streams.items() if name in found}, self.split)

    def check_alike(self) -> None:
        """Check that the streams can be mixed: one tokenizer, one sequence length.

        Raises:
            StreamError: naming two streams that differ and in what.
        """
        first, *others = self.names
        for other in others:
            _check_pair(first, self[first], other, self[other])


def _check_pair(name: str, stream: Stream, other_name: str, other: Stream) -> None:
    """Refuse two streams of different tokenizers or sequence lengths.

    Raises:
        StreamError: naming both and in what they differ.
    """
    if other.sequence_length != stream.sequence_length:
        raise StreamError(
            f"stream {other_name!r} has sequence length {other.sequence_length}, "
            f"{name!r} has {stream.sequence_length}; convert them with one --sequence-length"
        )
    if _fingerprint(other) != _fingerprint(stream):
        raise StreamError(
            f"stream {other_name!r} was made with tokenizer {_told(other)}, {name!r} with {_told(stream)}; convert "
            f"them with one tokenizer (a plain MDS directory can be given a stream.json that names its tokenizer)"
        )


def find_streams(root: str | Path, split: str | None = None) -> tuple[Place, dict[str, Place]]:
    """Return the folder of streams, and each stream's directory (or its split's) by name, nothing opened.

    Raises:
        StreamError: no folder, no stream in it, or a directory that was a stream and has lost its index.
        RemoteError: an object store refuses, or does not answer for long.
    """
    folder = find_place(root)
    if isinstance(folder, Path) and not folder.is_dir():
        raise StreamError(f"{folder}: no such folder; `mixstream convert` makes one from a corpus")
    if (folder / INDEX_NAME).exists():
        directories: Sequence[Place] = [absolute(folder)]
        folder = absolute(folder).parent
    else:
        directories = _below(folder)
    places = {child.name: child / split if split else child for child in directories}
    have_index = all_together(lambda place: (place / INDEX_NAME).exists(), places.values(), folder)
    found = {name: place for (name, place), has in zip(places.items(), have_index, strict=True) if has}
    # What was uploaded has its index.json last, in held-out splits too: of a store only what has none is looked at.
    known = set(found) if split is None and not isinstance(folder, Path) else set()
    _check_whole(folder, [directory for directory in directories if directory.name not in known])
    if not found:
        deeper = sorted(folder.glob(f"*/*/{INDEX_NAME}")) if isinstance(folder, Path) else []
        if deeper:
            place = deeper[0].parent
            raise StreamError(
                f"{folder}: holds no stream, but {place} is one; open {place.parent}, or, where {place.name!r} is a "
                f"split, Catalog.open(root, split={place.name!r}) or a folder of links to such splits"
            )
        inside = f" with a {split!r} split" if split else ""
        raise StreamError(
            f"{folder}: holds no stream{inside}, that is no folder with an {INDEX_NAME}; "
            f"`mixstream convert` makes streams from a corpus"
        )
    return folder, found


def _below(folder: Place) -> Sequence[Place]:
    """Return what may be streams, in the order of names."""
    if isinstance(folder, Path):
        return sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    return [folder / name for name in folder.children()]


def check_names(streams: Mapping[str, Stream]) -> None:
    """Refuse two folders that claim one name, be it that one of them claims it only in its stream.json.

    Raises:
        StreamError: naming both folders.
    """
    claimed: dict[str, Stream] = {}
    for stream in streams.values():
        for name in {stream.name, stream.claimed_name or stream.name}:
            if name in claimed:
                raise StreamError(
                    f"{claimed[name].directory} and {stream.directory} both claim the name {name!r}, as folder or in "
                    f"{MANIFEST_NAME}; a copy needs its own name in its {MANIFEST_NAME}, or remove one of them"
                )
            claimed[name] = stream


def _check_whole(folder: Place, directories: Iterable[Place]) -> None:
    """Refuse folders that were streams and have lost their index: leaving them out would not be noticed.

    Raises:
        StreamError: naming the first.
    """
    parts = [MANIFEST_NAME, "shard.00000.mds", *(f"shard.00000.mds.{name}" for name in EXTENSIONS)]

    def has_lost_it(directory: Place) -> bool:
        if (directory / INDEX_NAME).exists() or (isinstance(directory, Path) and not directory.is_dir()):
            return False
        return any((directory / part).exists() for part in parts)

    candidates = [*directories, *(directory / HELDOUT for directory in directories)]
    lost = all_together(has_lost_it, candidates, folder)
    for directory, has in zip(candidates, lost, strict=True):
        if has:
            raise StreamError(
                f"{directory}: holds parts of a stream but no {INDEX_NAME}; copy it or convert it again with "
                f"--overwrite, or remove it"
            )


def open_stream(name: str, directory: Place, token_column: str | None = None) -> Stream:
    """Return one stream, from its index.json and stream.json.

    Raises:
        StreamError, ShardError, FormatError: what is wrong with them.
    """
    index, manifest = _read_about(directory)
    wanted = manifest.token_column if manifest and manifest.token_column else token_column
    column = find_token_column(index, str(directory), wanted)
    stream = Stream(
        name=name,
        directory=absolute(directory),
        language=manifest.language if manifest else None,
        domain=manifest.domain if manifest else None,
        sequence_length=column.sequence_length or 0,
        index=index,
        column=column,
        tokenizer=manifest.tokenizer if manifest else None,
        tokens_per_byte=manifest.tokens_per_byte if manifest else None,
        claimed_name=manifest.name if manifest else None,
        layout=manifest.layout if manifest else "packed",
        num_documents=manifest.num_documents if manifest else None,
    )
    if column.sequence_length is None:  # each sample brings its own
        stream = replace(stream, sequence_length=load_shard(stream, 0).length(0))
    found = (index.num_samples, stream.sequence_length, stream.num_tokens, column.dtype.name)
    told = manifest and (manifest.num_samples, manifest.sequence_length, manifest.num_tokens, manifest.dtype)
    if told not in (None, found):
        raise StreamError(
            f"{directory}: stream.json says {told}, index.json {found} (samples, sequence length, tokens, type); "
            f"mend stream.json, or convert the corpus again with --overwrite"
        )
    return stream


def _read_about(directory: Place) -> tuple[MdsIndex, StreamManifest | None]:
    """Return what index.json and stream.json say; from an object store both at a time, since each takes its latency."""
    if isinstance(directory, Path):
        return read_index(directory), read_manifest(directory)
    with ThreadPoolExecutor(1, "mixstream-look") as thread:
        manifest = thread.submit(read_manifest, directory)
        return read_index(directory), manifest.result()


def load_shard(stream: Stream, number: int, verify_hashes: bool = False) -> Shard:
    """Return one shard without a cache: mapped where it is raw, else decompressed into memory for this once.

    Raises:
        ShardError: it is not what index.json says.
    """
    path, data = read_raw(stream, number, verify_hashes)
    return Shard(path, data, int(stream.index.shard_samples[number]), stream.column)


def _fingerprint(stream: Stream) -> str | None:
    return stream.tokenizer.fingerprint if stream.tokenizer else None


def _told(stream: Stream) -> str:
    tokenizer = stream.tokenizer
    return f"{tokenizer.name!r} (fingerprint {tokenizer.fingerprint})" if tokenizer else "unknown (no stream.json)"
