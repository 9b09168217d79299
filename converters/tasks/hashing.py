"""What the manifest records of the files that streams were made from: names, sizes, hashes."""

from __future__ import annotations

import contextlib
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from converters.corpus import Corpus, digest_of
from converters.sources import SourceFile, sha256, version_of
from converters.tasks.encode import cannot_write
from converters.tasks.executors import run_all
from converters.tasks.parts import note_whole
from mixstream.errors import CorpusError
from mixstream.streams.manifest import Source


@dataclass(frozen=True)
class HashTask:
    """A source, and the folder where its hash is noted."""

    file: SourceFile
    noted: str | None


def sources_of(corpus: Corpus, executor: Executor, noted: Path | None = None) -> tuple[Source, ...]:
    """Return what the manifest records of the files of a corpus.

    Args:
        corpus: the files.
        executor: reads them.
        noted: folder where hashes are noted, so that no file is read for it twice; None: nowhere.

    Raises:
        CorpusError: a file cannot be read.
    """
    if noted is not None:
        noted.mkdir(exist_ok=True)
    tasks = [HashTask(file, None if noted is None else str(noted)) for file in corpus.files]
    return tuple(run_all(executor, source_of, tasks, size_of=lambda task: task.file.size_bytes))


def source_of(task: HashTask) -> Source:
    """Return what the manifest records of a file.

    Raises:
        CorpusError: the file cannot be read.
        StreamError: the work folder cannot be written.
    """
    file = task.file
    noted = None if task.noted is None else Path(task.noted) / digest_of(file.identity)
    with contextlib.suppress(FileNotFoundError, ValueError):  # a machine that stopped may leave a note empty
        if noted is not None:
            return Source.model_validate_json(noted.read_text())
    try:
        content = sha256(file)
    except OSError as problem:
        raise CorpusError(f"{file.name}: cannot be read ({problem.strerror}); mend that or leave it out") from None
    source = Source(name=file.name, size_bytes=file.size_bytes, sha256=content, etag=file.etag)
    if noted is not None:
        try:
            note_whole(noted, source.model_dump_json())
        except OSError as problem:
            raise cannot_write(noted.parent, problem) from None
    return source


def check_unchanged(file: SourceFile) -> None:
    """Check that a file of this machine is the one that was found.

    Raises:
        CorpusError: it has changed since.
    """
    if isinstance(file.place, Path):
        now = version_of(file.place) if file.place.exists() else None
        if now != (file.size_bytes, file.version):
            raise CorpusError(f"{file.name}: was changed while it was read; run the same command again")
