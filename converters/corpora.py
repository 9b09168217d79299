"""Several corpora to a folder of streams, here or in an object store."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from converters.corpus import Corpus, Making, Options, how_of
from converters.encoding import Progress
from converters.existing import check_free, kept_streams, made_already
from converters.rejects import rejects_beside
from converters.run import Converted, convert_corpus
from converters.tasks.hashing import sources_of
from converters.work import locked
from mixstream.errors import StreamError
from mixstream.streams.index import INDEX_NAME
from mixstream.streams.place import Place
from mixstream.streams.remote import RemoteFolder
from mixstream.streams.upload import check_target, local_stream, upload_stream, write_catalog


def convert_corpora(
    corpora: Sequence[Corpus],
    out: Place,
    options: Options,
    executor: Executor,
    staging: Path | None = None,
    progress: Progress = Progress(),  # noqa: B008  it is frozen
) -> Iterator[Converted]:
    """Make the streams of every corpus, in a folder or in an object store.

    Args:
        corpora: the corpora.
        out: of the streams.
        options: how.
        executor: runs the tasks.
        staging: folder for streams on their way to an object store, each removed when it is there; None: a temporary
            one. A conversion that was killed goes on with what it had written there.
        progress: is told how far it is.

    Raises:
        CorpusError, TokenizerError, StreamError: as `convert_corpus`.
        RemoteError: the store refuses, or does not answer for long.
    """
    if isinstance(out, Path):
        if staging is not None:
            raise StreamError(
                f"--staging {staging}: is for streams on their way to a URL; {out} is a folder, leave it out"
            )
        taken: dict[str, str] = {}
        for corpus in corpora:
            converted = convert_corpus(corpus, out, options, executor, progress, taken)
            taken |= dict.fromkeys(converted.manifests, corpus.name)
            yield converted
        return
    check_target(out, [corpus.stream for corpus in corpora if corpus.stream is not None])
    with _staged(staging, out) as folder:
        taken = {}
        for corpus in corpora:
            converted = _Uploading(corpus, out, folder / corpus.name, options).convert(executor, progress, taken)
            taken |= dict.fromkeys(converted.manifests, corpus.name)
            yield converted
    write_catalog(out)


class _Uploading:
    """One corpus on its way to an object store."""

    def __init__(self, corpus: Corpus, out: RemoteFolder, staging: Path, options: Options) -> None:
        self._corpus = corpus
        self._out = out
        self._staging = staging
        self._options = options

    def convert(self, executor: Executor, progress: Progress, taken: Mapping[str, str]) -> Converted:
        corpus, options = self._corpus, self._options
        existing = kept_streams(
            self._out, corpus, options, lambda: Making(sources_of(corpus, executor), how_of(corpus, options))
        )
        if existing is not None:
            return Converted(corpus.name, existing.manifests, kept=True, counts=existing.left_out)
        converted = self._convert_here(executor, progress, taken)
        for name, splits in converted.manifests.items():
            conversion = next(iter(splits.values())).conversion
            check_free(self._out / name, options.overwrite, conversion.fingerprint if conversion else None)
        for name in converted.manifests:
            upload_stream(local_stream(self._staging / name), self._out / name, options.overwrite, progress.uploaded)
        beside = self._staging / rejects_beside(corpus.name)
        if beside.exists():
            (self._out / beside.name).put(beside)
        else:
            (self._out / beside.name).delete()  # of an earlier conversion
        shutil.rmtree(self._staging)
        rejects = tuple(path.replace(str(self._staging), str(self._out), 1) for path in converted.rejects)
        return replace(converted, kept=False, rejects=rejects)

    def _convert_here(self, executor: Executor, progress: Progress, taken: Mapping[str, str]) -> Converted:
        """Convert to the staging folder; what was made there of something else goes."""
        options = replace(self._options, overwrite=False)
        streams = [index.parent for index in self._staging.glob(f"[!.]*/{INDEX_NAME}")]
        if streams:
            making = Making(sources_of(self._corpus, executor), how_of(self._corpus, options))
            for stream in streams:
                if made_already(stream, making) is None:  # of another conversion that was killed
                    shutil.rmtree(stream)
        return convert_corpus(self._corpus, self._staging, options, executor, progress, taken)


@contextmanager
def _staged(staging: Path | None, out: RemoteFolder) -> Iterator[Path]:
    """Give a folder of our own, in which everything may be removed."""
    if staging is None:
        with tempfile.TemporaryDirectory(prefix="mixstream-") as temporary:
            yield Path(temporary)
        return
    folder = staging / f".mixstream-{hashlib.sha256(str(out).encode()).hexdigest()[:12]}"
    with locked(folder, f"{staging}: another process converts to {out} by way of there"):
        try:
            yield folder
        finally:
            if [path.name for path in folder.iterdir()] == ["lock"]:  # else it holds what is to be uploaded yet
                shutil.rmtree(folder)


def other_streams(converted: Sequence[Converted], out: Place) -> list[str]:
    """Return the names of the streams in `out` that none of these conversions made."""
    made = {name for one in converted for name in one.manifests}
    if isinstance(out, Path):
        return sorted(index.parent.name for index in out.glob(f"[!.]*/{INDEX_NAME}") if index.parent.name not in made)
    return [name for name in out.children() if name not in made and (out / name / INDEX_NAME).exists()]
