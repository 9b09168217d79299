"""The conversion of one corpus: tasks are handed out, their results put in place; this process only decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from converters.corpus import Corpus, Making, Options, digest_of, how_of, span_bytes_of
from converters.existing import Existing, check_free, made_already
from converters.manifests import Shared, counts_of, manifest_of
from converters.readers import Asked, Span, spans
from converters.rejects import write_rejects
from converters.sources import SourceFile
from converters.tasks.cut import Samples, ShardTask, TableTask, write_shard_of, write_table
from converters.tasks.duplicates import DropTask, FindTask, buckets_of, drop_duplicates, find_duplicates
from converters.tasks.encode import REJECTED, EncodeTask, Encoding, cannot_write, encode_span, save_tokenizer, too_many
from converters.tasks.executors import run_all
from converters.tasks.hashing import check_unchanged, sources_of
from converters.tasks.packing import Sequenced, sequences
from converters.tasks.parts import Part
from converters.tokens.tokenise import dtype_of
from converters.work import work_folder
from mixstream.errors import CorpusError, StreamError
from mixstream.formats import dump_json, write_whole
from mixstream.streams.manifest import HELDOUT, MANIFEST_NAME, TRAIN, StreamManifest
from mixstream.streams.placing import put_in_place
from mixstream.streams.writer import write_index

OnCount = Callable[[int], None]
TOO_FEW = "of streams too small"  # documents in no stream, as they are counted


def ignore(count: int) -> None:
    """Take note of nothing."""


@dataclass(frozen=True)
class Progress:
    """Who is told how far a conversion is.

    Attributes:
        total: bytes of sources there are to read.
        read: bytes of sources that were read since the last call.
        documents: documents that were encoded since the last call.
        uploaded: bytes that were uploaded since the last call.
    """

    total: OnCount = ignore
    read: OnCount = ignore
    documents: OnCount = ignore
    uploaded: OnCount = ignore


@dataclass(frozen=True)
class Converted:
    """What became of one corpus.

    Attributes:
        name: the corpus's.
        manifests: {stream: {split: stream.json}}.
        kept: the streams were there already, made from the same files in the same way.
        too_small: {stream: samples} where they are too few, so that there is no such stream.
        counts: documents that are in no stream, by why.
        rejects: files that list those that could not be used.
    """

    name: str
    manifests: Mapping[str, Mapping[str, StreamManifest]]
    kept: bool = False
    too_small: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    rejects: tuple[str, ...] = ()


def convert_corpus(
    corpus: Corpus,
    out: Path,
    options: Options,
    executor: Executor,
    progress: Progress = Progress(),
    taken: Mapping[str, str] = MappingProxyType({}),
) -> Converted:
    """Make the streams of a corpus in the folder `out`, each whole or not at all.

    Output bytes depend on the corpus and the options alone. What a run that was killed had done is not done again.

    Args:
        corpus: the files.
        out: the folder of streams.
        options: how.
        executor: runs the tasks; where it is a cluster, `out` must be a folder that all see.
        progress: is told how far it is.
        taken: {stream: corpus} that others of the same run have made.

    Raises:
        CorpusError: a file cannot be read, a document cannot be used, or there is less than one sample of text.
        TokenizerError: the tokenizer makes tokens beyond its vocabulary.
        StreamError: a stream of that name was made from something else, or what is there is no stream; another
            process converts the same corpus to the same place; or the folder cannot be written.
    """
    return _Conversion(corpus, out, options, executor, progress, taken).convert()


class _Conversion:
    """One corpus on its way."""

    def __init__(
        self,
        corpus: Corpus,
        out: Path,
        options: Options,
        executor: Executor,
        progress: Progress,
        taken: Mapping[str, str],
    ) -> None:
        self._corpus = corpus
        self._out = out
        self._options = options
        self._executor = executor
        self._progress = progress
        self._taken = taken
        self._info = options.loaded.info
        self._how = how_of(corpus, options)
        self._samples = Samples(
            options.sequence_length,
            dtype_of(self._info),
            options.layout,
            self._pad_token_id(),
            corpus.fields.keep,
            options.shard_bytes,
            options.compression,
        )

    def convert(self) -> Converted:
        corpus, options = self._corpus, self._options
        existing = Existing.find(self._out, corpus.stream, corpus.files)
        if existing is not None and not options.overwrite:
            making = self._making()
            if existing.is_made_by(making):
                existing.check_files()
                return Converted(corpus.name, existing.manifests, kept=True, counts=existing.left_out)
            if corpus.stream is not None:
                raise existing.differing(making)
        if corpus.stream is not None:
            check_free(self._out / corpus.stream, options.overwrite)
        key = digest_of([[(file.name, file.size_bytes, file.version) for file in corpus.files], self._how])
        with work_folder(self._out, corpus.name, key) as work:
            try:
                return self._convert(work)
            except OSError as problem:  # what this process writes itself; tasks and readers tell of theirs
                raise cannot_write(work, problem) from None

    def _convert(self, work: Path) -> Converted:
        making = self._making(work)
        encoded = parts = self._encode(work)
        self._check_kept(parts)
        if self._options.deduplicate:
            parts = self._without_duplicates(work, parts)
        for file in self._corpus.files:
            check_unchanged(file)
        found = sequences(parts)
        names = sorted({stream for stream, _ in found})
        least = self._options.min_samples
        too_small = {
            name: self._num_samples(found, name, TRAIN)
            for name in names
            if self._num_samples(found, name, TRAIN) < least
        }
        made = [name for name in names if name not in too_small]
        if not made:
            raise self._too_little(encoded, sum(too_small.values()))
        for name in made:
            self._check_free(name, making)
        counts = counts_of(parts)
        counts[""][TOO_FEW] = sum(found[key].total_documents for key in found if key[0] in too_small)
        rejects = write_rejects(encoded, self._corpus, made, work, self._out)
        manifests = self._write_streams(work, found, made, making, parts)
        return Converted(self._corpus.name, manifests, False, too_small, counts[""], rejects)

    def _check_free(self, name: str, making: Making) -> None:
        """Check that a stream may be put in its place.

        Raises:
            StreamError: there is another one, be it of another corpus of this run.
        """
        if name in self._taken:
            raise StreamError(
                f"{self._out / name}: is made by two corpora, {self._taken[name]} and {self._corpus.name}; make them "
                f"one corpus, or give one another language or domain"
            )
        check_free(self._out / name, self._options.overwrite, making.fingerprint)

    def _check_kept(self, parts: list[Part]) -> None:
        """Refuse to keep a field that no document has: its name may be misspelt."""
        for place, name in enumerate(self._corpus.fields.keep):
            if not any(part.kept[place] for part in parts):
                raise CorpusError(
                    f"{self._corpus.name}: no document has a number in field {name!r} (--keep); mend its name, or "
                    f"leave it out"
                )

    def _making(self, work: Path | None = None) -> Making:
        """Return all that decides the content; hashes of files are noted in the work folder, if there is one."""
        return Making(sources_of(self._corpus, self._executor, work and work.parent / "hashes"), self._how)

    def _encode(self, work: Path) -> list[Part]:
        """Return the parts of all spans, in order; those that are whole already are not made again."""
        corpus, options = self._corpus, self._options
        encoding = Encoding(
            corpus.fields,
            Asked(corpus.fields.asked, options.max_document_bytes, corpus.document, corpus.fields.optional),
            str(work / "tokenizer.json"),
            self._excluded(work),
            options.holdout,
            options.subsample,
            options.seed,
            options.deduplicate,
            options.on_error,
            options.max_rejects,
        )
        save_tokenizer(options.tokenizer, work / "tokenizer.json")
        folder = work.parent / "parts"
        folder.mkdir(exist_ok=True)
        how = [self._how[what] for what in ENCODED_BY]
        pieces = [(file, span) for file in corpus.files for span in self._spans(file)]
        tasks = [
            EncodeTask(
                file, span, str(folder / digest_of([file.name, file.size_bytes, file.version, span, how])), encoding
            )
            for file, span in pieces
        ]
        wanted = {Path(task.path).name for task in tasks}
        for left in folder.iterdir():  # of sources that have changed since
            if left.name.partition(".")[0] not in wanted:
                left.unlink()
        self._progress.total(sum(file.size_bytes for file in corpus.files))
        rejected = Counter[str]()
        weights = _bytes_of(pieces)

        def note(task: EncodeTask, part: Part) -> None:
            self._progress.read(weights[task.file, task.span])
            self._progress.documents(part.num_documents)
            rejected[REJECTED] += part.count(REJECTED)
            if options.max_rejects is not None and rejected[REJECTED] > options.max_rejects:
                raise too_many(options.max_rejects, f"see {task.path}.rejects")

        return run_all(self._executor, encode_span, tasks, note)

    def _spans(self, file: SourceFile) -> list[Span]:
        try:
            return spans(file, span_bytes_of(self._corpus, self._options), self._corpus.document)
        except CorpusError:
            if self._options.on_error == "stop":
                raise
            return [Span(0, 1)]  # reading it fails again, in its task, where it becomes a reject

    def _excluded(self, work: Path) -> str | None:
        if self._options.exclude is None:
            return None
        copy = work / "excluded"
        content = self._options.exclude.read_bytes()
        try:
            content.decode()
        except UnicodeDecodeError as problem:
            line = content[: problem.start].count(b"\n") + 1
            raise CorpusError(
                f"{self._options.exclude}: line {line} is not UTF-8; --exclude needs an id a line"
            ) from None
        copy.write_bytes(content)
        return str(copy)

    def _without_duplicates(self, work: Path, parts: list[Part]) -> list[Part]:
        folder = work / "unique"
        folder.mkdir(exist_ok=True)
        paths = tuple(part.path for part in parts)
        num_buckets = buckets_of(paths)
        found = tuple(str(folder / f"{bucket:05d}.found") for bucket in range(num_buckets))
        run_all(
            self._executor,
            find_duplicates,
            [FindTask(paths, bucket, num_buckets, target) for bucket, target in enumerate(found)],
        )
        drops = (
            DropTask(path, number, found, self._samples.dtype, str(folder / Path(path).name))
            for number, path in enumerate(paths)
        )
        return run_all(self._executor, drop_duplicates, drops)

    def _write_streams(
        self,
        work: Path,
        found: Mapping[tuple[str, str], Sequenced],
        names: list[str],
        making: Making,
        parts: list[Part],
    ) -> dict[str, Mapping[str, StreamManifest]]:
        """Write all shards, then put each stream in its place."""
        manifests: dict[str, Mapping[str, StreamManifest]] = {}
        placed = work / "placed"
        placed.mkdir(exist_ok=True)
        for name in names:
            if self._options.overwrite and not (placed / name).exists():
                continue  # what is there may be damaged
            done = made_already(self._out / name, making)
            if done is not None:  # by a run that was killed after that
                manifests[name] = done
        left = [name for name in names if name not in manifests]
        splits = [(name, split) for name in left for split in (TRAIN, HELDOUT) if self._num_samples(found, name, split)]
        places = {(name, split): self._place(work, name, split) for name, split in splits}
        tables = [
            TableTask(
                str(places[key]), self._samples.keep, self._samples.layout, self._samples.sequence_length, found[key]
            )
            for key in splits
        ]
        losses = dict(zip(splits, run_all(self._executor, write_table, tables), strict=True))
        tasks = [task for key in splits for task in self._shard_tasks(found[key], places[key], work)]
        entries: dict[str, list[Mapping[str, object]]] = {}
        for task, entry in zip(tasks, run_all(self._executor, write_shard_of, tasks), strict=True):
            entries.setdefault(task.directory, []).append(entry)
        counts = counts_of(parts)
        shared = Shared(self._corpus, self._options, self._samples, making, names, counts[""])
        for name in left:
            own = {
                split: manifest_of(name, split, found, shared, counts[name], losses[name, split])
                for split in (TRAIN, HELDOUT)
                if (name, split) in places
            }
            for split, manifest in own.items():
                place = places[name, split]
                write_whole(place / MANIFEST_NAME, dump_json(manifest))
                write_index(place, entries[str(place)])
            self._check_free(name, making)  # another process may have put one there
            put_in_place(places[name, TRAIN], self._out / name)
            (placed / name).touch()
            manifests[name] = own
        return {name: manifests[name] for name in names}

    @staticmethod
    def _place(work: Path, name: str, split: str) -> Path:
        place = work / "made" / name / (HELDOUT if split == HELDOUT else "")
        place.mkdir(parents=True, exist_ok=True)
        return place

    def _shard_tasks(self, sequenced: Sequenced, place: Path, work: Path) -> Iterable[ShardTask]:
        samples = self._samples
        num_samples = samples.count(sequenced)
        step = samples.format.samples_per_shard(samples.shard_bytes, samples.compression)
        for number, first in enumerate(range(0, num_samples, step)):
            last = min(first + step, num_samples)
            pieces = sequenced.between(first * samples.units, last * samples.units, samples.layout)
            noted = work / "shards" / digest_of(str(place.relative_to(work))) / f"{number:05d}.json"
            yield ShardTask(str(place), str(noted), number, samples, tuple(pieces))

    def _num_samples(self, found: Mapping[tuple[str, str], Sequenced], name: str, split: str) -> int:
        return self._samples.count(found[name, split]) if (name, split) in found else 0

    def _too_little(self, parts: list[Part], num_samples: int) -> CorpusError:
        files = ", ".join(file.name for file in self._corpus.files[:3])
        more = f" and {len(self._corpus.files) - 3:,} more" if len(self._corpus.files) > 3 else ""
        tokens = sum(run.num_tokens for part in parts for run in part.runs if run.split == TRAIN)
        rejected = sum(part.count(REJECTED) for part in parts)
        told = f" ({rejected:,} documents cannot be used, see {_rejects_of(parts)})" if rejected else ""
        length, least = self._options.sequence_length, self._options.min_samples
        if least > 1:
            return CorpusError(
                f"{files}{more}: make {num_samples:,} samples{told}, expected at least {least:,} (--min-samples); give "
                f"more text, or a larger --subsample if it is one"
            )
        return CorpusError(
            f"{files}{more}: {tokens} tokens are fewer than one sample of {length}{told}; give more text or a smaller "
            f"--sequence-length"
        )

    def _pad_token_id(self) -> int:
        pad = self._options.loaded.pad_token_id
        return self._info.eod_token_id if pad is None else pad


ENCODED_BY = (  # of all that decides streams, what decides a part
    "version",
    "fields",
    "document",
    "formats",
    "tokenizer",
    "holdout",
    "subsample",
    "excluded documents",
    "deduplication",
    "way with errors",
    "longest document",
)


def _rejects_of(parts: Iterable[Part]) -> str:
    """Return the file of the first span that has documents which cannot be used."""
    return next(f"{part.path}.rejects" for part in parts if part.count(REJECTED))


def _bytes_of(pieces: list[tuple[SourceFile, Span]]) -> dict[tuple[SourceFile, Span], int]:
    """Return about how many bytes of its file a span has, for who waits: exact in sum."""
    width = Counter[SourceFile]()
    for file, span in pieces:
        width[file] += span.stop - span.start
    return {(file, span): file.size_bytes * (span.stop - span.start) // max(width[file], 1) for file, span in pieces}
