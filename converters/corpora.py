"""Several corpora to a folder of streams, here or in an object store."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from converters.existing import find_existing
from converters.run import Converted, OnCount, Options, convert_corpus, made_as
from converters.sources import Corpus, Found
from mixstream.errors import MixstreamError, StreamError
from mixstream.streams.index import INDEX_NAME
from mixstream.streams.place import Place
from mixstream.streams.remote import RemoteFolder
from mixstream.streams.upload import check_target, local_stream, upload_stream, write_catalog


def convert_corpora(
    found: Found,
    out: Place,
    options: Options,
    staging: Path | None,
    on_documents: OnCount,
    on_bytes: OnCount,
) -> Iterator[Converted]:
    """Make a stream of every corpus, in a folder or in an object store.

    Args:
        found: the corpora.
        out: of the streams.
        options: how.
        staging: folder for streams on their way to an object store, each removed when it is there; None: a temporary
            one. A conversion that was killed goes on with what it had written there.
        on_documents: called with the number of documents read since the last call.
        on_bytes: called with the number of bytes uploaded since the last call.

    Raises:
        CorpusError, StreamError: as `convert_corpus`.
        RemoteError: the store refuses, or does not answer for long.
    """
    if isinstance(out, Path):
        if staging is not None:
            raise StreamError(
                f"--staging {staging}: is for streams on their way to a URL; {out} is a folder, leave it out"
            )
        for corpus in found.corpora:
            yield convert_corpus(corpus, out, options, on_documents)
        return
    check_target(out, [corpus.name for corpus in found.corpora])
    with _staged(staging, out) as folder:
        for corpus in found.corpora:
            yield _convert_and_upload(corpus, out, folder, options, on_documents, on_bytes)
    write_catalog(out)


def _convert_and_upload(
    corpus: Corpus, out: RemoteFolder, staging: Path, options: Options, on_documents: OnCount, on_bytes: OnCount
) -> Converted:
    made, local = made_as(options, corpus.sources()), staging / corpus.name
    existing = find_existing(out / corpus.name, made, options.overwrite)
    if existing is not None:
        return Converted(corpus.name, existing, kept=True)
    try:
        find_existing(local, made)
    except MixstreamError:  # of another conversion that was killed
        shutil.rmtree(local)
    converted = convert_corpus(corpus, staging, replace(options, overwrite=False), on_documents)
    upload_stream(local_stream(local), out / corpus.name, options.overwrite, on_bytes)
    shutil.rmtree(local)
    return replace(converted, kept=False)


@contextmanager
def _staged(staging: Path | None, out: RemoteFolder) -> Iterator[Path]:
    """Give a folder of our own, in which everything may be removed."""
    if staging is None:
        with tempfile.TemporaryDirectory(prefix="mixstream-") as temporary:
            yield Path(temporary)
        return
    folder = staging / f".mixstream-{hashlib.sha256(str(out).encode()).hexdigest()[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # it holds what is to be uploaded yet
            folder.rmdir()


def other_streams(found: Found, out: Place) -> list[str]:
    """Return the names of the streams in `out` that none of the corpora found makes."""
    made = {corpus.name for corpus in found.corpora}
    if isinstance(out, Path):
        return sorted(index.parent.name for index in out.glob(f"[!.]*/{INDEX_NAME}") if index.parent.name not in made)
    return [name for name in out.children() if name not in made and (out / name / INDEX_NAME).exists()]
