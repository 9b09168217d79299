"""The conversion of one corpus: tasks are handed out, their results put in place; this process only decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from converters.corpus import Corpus, Making, Options, digest_of, how_of, library_versions
from converters.encoding import Progress, encode_corpus, pieces_of, without_duplicates
from converters.existing import check_free, kept_streams
from converters.manifests import Shared, counts_of, sources_of_streams
from converters.rejects import write_rejects
from converters.tasks.cut import Samples
from converters.tasks.encode import REJECTED, cannot_write
from converters.tasks.hashing import check_unchanged, sources_of
from converters.tasks.packing import sequences
from converters.tasks.parts import Part, part_dtype
from converters.tokens.tokenise import dtype_of
from converters.work import work_folder
from converters.writing import num_samples, write_streams
from mixstream.errors import CorpusError, StreamError
from mixstream.streams.manifest import TRAIN, StreamManifest

TOO_FEW = "of streams too small"  # documents in no stream, as they are counted


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
    progress: Progress = Progress(),  # noqa: B008  it is frozen
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
            part_dtype(self._info),
            self._info.eod_token_id,
            options.layout,
            self._pad_token_id(),
            corpus.fields.keep,
            options.shard_bytes,
            options.compression,
        )

    def convert(self) -> Converted:
        corpus, options = self._corpus, self._options
        existing = kept_streams(self._out, corpus, options, self._making)
        if existing is not None:
            return Converted(corpus.name, existing.manifests, kept=True, counts=existing.left_out)
        key = digest_of([[file.identity for file in corpus.files], self._how, library_versions()])
        with work_folder(self._out, corpus.name, key) as work:
            try:
                return self._convert(work)
            except OSError as problem:  # what this process writes itself; tasks and readers tell of theirs
                raise cannot_write(work, problem) from None

    def _convert(self, work: Path) -> Converted:
        corpus, options = self._corpus, self._options
        making = self._making(work)
        pieces = pieces_of(corpus, options, self._how, self._executor)
        encoded = parts = encode_corpus(corpus, options, self._how, pieces, work, self._executor, self._progress)
        self._check_kept(parts)
        if options.deduplicate:
            parts = without_duplicates(parts, options, work, self._executor)
        for file in corpus.files:
            check_unchanged(file)
        found = sequences(parts)
        sizes = {name: num_samples(found, self._samples, name, TRAIN) for name, _ in found}
        too_small = {name: size for name, size in sizes.items() if size < options.min_samples}
        made = sorted(sizes.keys() - too_small.keys())
        if not made:
            raise self._too_little(encoded, sum(too_small.values()))
        for name in made:
            self._check_free(name, making)
        counts = counts_of(parts)
        counts[""][TOO_FEW] = sum(found[key].total_documents for key in found if key[0] in too_small)
        sources = sources_of_streams(corpus, making, (file for file, _ in pieces), encoded)
        shared = Shared(corpus, options, self._samples, making, sources, made, counts[""])
        rejects = write_rejects(encoded, corpus, made, work, self._out)
        manifests = write_streams(
            found, shared, counts, work, self._out, self._executor, lambda name: self._check_free(name, making)
        )
        return Converted(corpus.name, manifests, False, too_small, counts[""], rejects)

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


def _rejects_of(parts: Iterable[Part]) -> str:
    """Return the file of the first span that has documents which cannot be used."""
    return next(f"{part.path}.rejects" for part in parts if part.count(REJECTED))
