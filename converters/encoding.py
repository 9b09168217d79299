"""The first half of a conversion: every span of a corpus to a part, and parts without duplicates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.corpus import Corpus, Options, digest_of, library_versions
from converters.readers import Asked, Span
from converters.sources import SourceFile
from converters.tasks.duplicates import DropTask, FindTask, buckets_of, drop_duplicates, find_duplicates
from converters.tasks.encode import (
    REJECTED,
    EncodeTask,
    Encoding,
    SpansTask,
    encode_span,
    save_tokenizer,
    spans_of,
    too_many,
)
from converters.tasks.executors import run_all
from converters.tasks.parts import IS_PART, Part, part_dtype
from mixstream.errors import CorpusError

OnCount = Callable[[int], None]


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


ENCODED_BY = (  # of all that decides streams, what decides a part
    "version",
    "fields",
    "document",
    "tokenizer",
    "holdout",
    "subsample",
    "excluded documents",
    "deduplication",
    "way with errors",
    "longest document",
)


def encode_corpus(
    corpus: Corpus,
    options: Options,
    how: Mapping[str, Any],
    pieces: Sequence[tuple[SourceFile, Span]],
    work: Path,
    executor: Executor,
    progress: Progress,
) -> list[Part]:
    """Return the parts of all spans, in order; those that are whole already are not made again.

    Args:
        corpus, options: what is encoded, and how.
        how: all that decides it (`how_of`).
        pieces: the spans of all files (`pieces_of`).
        work: the work folder of the conversion; parts are beside it, for others of the corpus.
        executor: runs the tasks.
        progress: is told how far it is.

    Raises:
        CorpusError: a file cannot be read, or documents cannot be used.
        TokenizerError: the tokenizer makes tokens beyond its vocabulary.
        StreamError: the work folder cannot be written.
    """
    encoding = _encoding(corpus, options, work)
    folder = work.parent / "parts"
    folder.mkdir(exist_ok=True)
    decided = digest_of([[how[what] for what in ENCODED_BY], library_versions()])  # hashed once, not for each span
    tasks = [
        EncodeTask(file, span, str(folder / digest_of([file.identity, span, decided])), encoding)
        for file, span in pieces
    ]
    wanted = {Path(task.path).name for task in tasks}
    for left in folder.iterdir():  # of sources that have changed since
        if IS_PART.match(left.name) and left.name.partition(".")[0] not in wanted:
            left.unlink()
    progress.total(sum(file.size_bytes for file in corpus.files))
    rejected = Counter[str]()
    weights = _bytes_of(pieces)

    def note(task: EncodeTask, part: Part) -> None:
        progress.read(weights[task.file, task.span])
        progress.documents(part.num_documents)
        rejected[REJECTED] += part.count(REJECTED)
        if options.max_rejects is not None and rejected[REJECTED] > options.max_rejects:
            raise too_many(options.max_rejects, f"see {task.path}.rejects")

    return run_all(executor, encode_span, tasks, note, lambda task: weights[task.file, task.span])


def pieces_of(
    corpus: Corpus, options: Options, how: Mapping[str, Any], executor: Executor
) -> list[tuple[SourceFile, Span]]:
    """Return the spans of all files, in order; the executor looks into those that tell theirs inside.

    Raises:
        CorpusError: a file is not what its name says.
    """
    stops = options.on_error == "stop"
    tasks = [SpansTask(file, how["span size"], corpus.document, stops) for file in corpus.files]
    found = run_all(executor, spans_of, tasks, size_of=lambda task: 0)
    return [(file, span) for file, own in zip(corpus.files, found, strict=True) for span in own]


def _encoding(corpus: Corpus, options: Options, work: Path) -> Encoding:
    """Return how spans are encoded; what has megabytes is put into the work folder, where all find it."""
    save_tokenizer(options.tokenizer, work / "tokenizer.json")
    fields = corpus.fields
    return Encoding(
        fields,
        Asked(fields.asked, options.max_document_bytes, corpus.document, fields.optional),
        str(work / "tokenizer.json"),
        None if options.exclude is None else _excluded(options.exclude, work),
        options.holdout,
        options.subsample,
        options.seed,
        options.deduplicate,
        options.on_error,
        options.max_rejects,
    )


def _excluded(exclude: Path, work: Path) -> str:
    copy = work / "excluded"
    content = exclude.read_bytes()
    try:
        content.decode()
    except UnicodeDecodeError as problem:
        line = content[: problem.start].count(b"\n") + 1
        raise CorpusError(f"{exclude}: line {line} is not UTF-8; --exclude needs an id a line") from None
    copy.write_bytes(content)
    return str(copy)


def _bytes_of(pieces: Sequence[tuple[SourceFile, Span]]) -> dict[tuple[SourceFile, Span], int]:
    """Return about how many bytes of its file a span has, for who waits: exact in sum."""
    width = Counter[SourceFile]()
    for file, span in pieces:
        width[file] += span.stop - span.start
    return {(file, span): file.size_bytes * (span.stop - span.start) // max(width[file], 1) for file, span in pieces}


def without_duplicates(parts: Sequence[Part], options: Options, work: Path, executor: Executor) -> list[Part]:
    """Return parts that have the first of documents with the same text.

    Raises:
        StreamError: the work folder cannot be written.
    """
    folder = work / "unique"
    folder.mkdir(exist_ok=True)
    paths = tuple(part.path for part in parts)
    num_buckets = buckets_of(paths)
    found = tuple(str(folder / f"{bucket:05d}.found") for bucket in range(num_buckets))
    finds = [FindTask(paths, bucket, num_buckets, target) for bucket, target in enumerate(found)]
    run_all(executor, find_duplicates, finds)
    dtype = part_dtype(options.loaded.info)
    drops = (DropTask(path, number, found, dtype, str(folder / Path(path).name)) for number, path in enumerate(paths))
    return run_all(executor, drop_duplicates, drops)
