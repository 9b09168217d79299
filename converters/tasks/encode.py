"""The encode task: a span of a source file to a part, by any process, at any time, with the same result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from converters.documents import EXCLUDED, OUTSIDE, Documents, Fields, Selection, UnfitError, ids_of
from converters.readers import MISSING, Asked, BadRow, DocumentIs, Rows, Span, locate, read_batches, spans
from converters.readers.blocks import LostError
from converters.sources import SourceFile
from converters.tasks.parts import Array, Part, PartWriter, note_whole
from converters.tokens.tokenise import ByteTokenizer, Tokenizer, TokenizerSpec, dtype_of
from mixstream.errors import CorpusError, StreamError, TokenizerError
from mixstream.streams.manifest import HELDOUT, TRAIN

REJECTED = "rejected"

OnError = Literal["stop", "quarantine"]


@dataclass(frozen=True)
class Encoding:
    """How all spans of a corpus are encoded.

    Attributes:
        fields: which fields mean what.
        asked: of the reader.
        tokenizer: the file in the work folder that says it (see `save_tokenizer`): it may have megabytes.
        excluded: a file of ids that are left out, one a line; None: none is.
        holdout, subsample, seed: of the `Selection`.
        has_hashes: note the hashes of texts, by which duplicates are found.
        on_error: what happens to a document that cannot be used.
        max_rejects: of them; None: any number.
    """

    fields: Fields
    asked: Asked
    tokenizer: str
    excluded: str | None
    holdout: float
    subsample: float | None
    seed: int
    has_hashes: bool
    on_error: OnError
    max_rejects: int | None


@dataclass(frozen=True)
class SpansTask:
    """One file, and how it is cut; what cannot be read `stops` the run, or else becomes a reject in its only span."""

    file: SourceFile
    span_bytes: int
    document: DocumentIs
    stops: bool


def spans_of(task: SpansTask) -> list[Span]:
    """Return the spans of a file.

    Raises:
        CorpusError: it is not what its name says.
    """
    try:
        return spans(task.file, task.span_bytes, task.document)
    except CorpusError:
        if task.stops:
            raise
        return [Span(0, 1)]  # reading it fails again


@dataclass(frozen=True)
class EncodeTask:
    """One span, and the path of the part that is made of it."""

    file: SourceFile
    span: Span
    path: str
    encoding: Encoding


class Reject(NamedTuple):
    """What could not be used: counted in its span; None: the rest of the file."""

    number: int | None
    stream: str
    problem: str
    content: str


def encode_span(task: EncodeTask) -> Part:
    """Read a span, choose, tokenise, write the part; what is whole already is not made again.

    Raises:
        CorpusError: the span cannot be read, has a document that cannot be used, or too many of them.
        TokenizerError: the tokenizer makes tokens beyond its vocabulary.
        StreamError: the work folder cannot be written.
    """
    whole = Part.load(task.path)
    if whole is not None:
        return whole
    tokenizer = _tokenizer(task.encoding.tokenizer)
    try:
        return _encode(task, tokenizer)
    except OSError as problem:
        raise cannot_write(Path(task.path).parent, problem) from None


def cannot_write(place: Path, problem: OSError) -> StreamError:
    """Return the error of a work folder that cannot be written."""
    return StreamError(
        f"{place}: cannot be written ({problem.strerror or problem}); mend that and run the same command again, it "
        f"goes on with what is done"
    )


def _encode(task: EncodeTask, tokenizer: Tokenizer) -> Part:
    info, encoding = tokenizer.info, task.encoding
    rejects = _Rejects(task)
    keep = encoding.fields.keep
    with PartWriter(task.path, dtype_of(info), info.eod_token_id, keep, encoding.has_hashes) as writer:
        for chosen in _chosen(task, writer, rejects):
            tokens = _encoded(chosen.documents, tokenizer)
            wrong = set() if tokens is None else _with_ends(tokens, tokenizer)
            for place in sorted(wrong):
                problem = f"the text makes the end-of-document token {info.eod_token_id}; take it out"
                stream, text = chosen.documents.streams[place], chosen.documents.texts[place]
                rejects.add(Reject(chosen.numbers[place], stream, problem, text[:200]))
            if wrong and tokens is not None:
                chosen = chosen.where([place not in wrong for place in range(len(tokens))])
                tokens = [own for place, own in enumerate(tokens) if place not in wrong]
            writer.add(chosen.splits, chosen.documents, tokens, chosen.numbers)
        for reject in rejects.found:
            writer.count(reject.stream, REJECTED)
        rejects.save()
        return writer.finish()


class _Chosen(NamedTuple):
    """Documents, the split of each, and the number of its row."""

    documents: Documents
    splits: Sequence[str]
    numbers: Sequence[int]

    def where(self, taken: Sequence[bool]) -> _Chosen:
        """Return those that are taken."""
        documents, splits, numbers = self
        return _Chosen(documents.where(taken), list(compress(splits, taken)), list(compress(numbers, taken)))


def _chosen(task: EncodeTask, writer: PartWriter, rejects: _Rejects) -> Iterator[_Chosen]:
    """Yield the documents that are taken, in the order of the span, many at a time."""
    selection = _selection(task.encoding)
    for rows in _rows(task, rejects):
        if isinstance(rows, BadRow):
            rejects.add(Reject(rows.number, task.encoding.fields.stream_of(), rows.problem, rows.content))
            continue
        for documents, numbers in _documents(rows, task, rejects):
            chosen = _Chosen(documents, selection.splits_of(documents.ids), numbers)
            if EXCLUDED in chosen.splits or OUTSIDE in chosen.splits:
                taken = [split in (TRAIN, HELDOUT) for split in chosen.splits]
                for stream, split in zip(documents.streams, chosen.splits, strict=True):
                    if split in (EXCLUDED, OUTSIDE):
                        writer.count(stream, split)
                outside = [split == OUTSIDE for split in chosen.splits]
                writer.leave_out(documents.where(outside), list(compress(numbers, outside)))
                chosen = chosen.where(taken)
            if chosen.documents.ids:
                yield chosen


def _documents(rows: Rows, task: EncodeTask, rejects: _Rejects) -> Iterator[tuple[Documents, Sequence[int]]]:
    """Yield the documents of the rows that can be used, and their numbers: all at once, or else one by one."""
    fields, most = task.encoding.fields, task.encoding.asked.max_document_bytes
    try:
        yield _short(fields.documents(rows.columns), most), rows.numbers
        return
    except UnfitError:
        pass
    for number, values in zip(rows.numbers, zip(*rows.columns, strict=True), strict=True):
        try:
            fields.document(values)
            yield _short(fields.documents([[value] for value in values]), most), [number]
        except UnfitError as problem:
            rejects.add(Reject(number, fields.stream_of(values), str(problem), _beginning(values[0])))


def _beginning(value: Any) -> str:
    """Return the beginning of a text, or of what is in its place."""
    if value is None or value is MISSING:
        return ""
    return (value if isinstance(value, str) else repr(value))[:200]


def _short(documents: Documents, most: int) -> Documents:
    """Return the documents, none of which is too long.

    Raises:
        UnfitError: one is.
    """
    longest = max(map(len, documents.contents), default=0)
    if longest > most:
        raise UnfitError(f"a text of {longest:,} bytes, expected at most {most:,} (--max-document-bytes)")
    return documents


def _rows(task: EncodeTask, rejects: _Rejects) -> Iterator[Rows | BadRow]:
    """Yield a span's rows; where the rest of the file cannot be read that is one reject."""
    try:
        yield from read_batches(task.file, task.span, task.encoding.asked)
    except CorpusError as problem:
        if task.encoding.on_error == "stop" or isinstance(problem, LostError):
            raise
        rejects.add(Reject(None, task.encoding.fields.stream_of(), str(problem), ""))


def _encoded(documents: Documents, tokenizer: Tokenizer) -> list[Array] | None:
    """Return the tokens of documents; None: they are their bytes."""
    if isinstance(tokenizer, ByteTokenizer):
        return None
    return tokenizer.encode(documents.texts)


def _with_ends(tokens: list[Array], tokenizer: Tokenizer) -> set[int]:
    """Return which documents hold the end-of-document token, though they have not ended.

    Raises:
        TokenizerError: a token is not in the vocabulary.
    """
    info = tokenizer.info
    joined = np.concatenate(tokens)
    if len(joined) and int(joined.max()) >= info.vocab_size:
        raise TokenizerError(
            f"tokenizer {info.name!r} made token {int(joined.max())}, but its vocabulary ends at {info.vocab_size - 1}"
        )
    if not (joined == info.eod_token_id).any():
        return set()
    return {place for place, own in enumerate(tokens) if (own == info.eod_token_id).any()}


class _Rejects:
    """What a span has that cannot be used: the first one ends the task, or all are written beside the part."""

    def __init__(self, task: EncodeTask) -> None:
        self._task = task
        self.found: list[Reject] = []

    def add(self, reject: Reject) -> None:
        """Note one.

        Raises:
            CorpusError: documents that cannot be used stop the run, or there are too many.
        """
        encoding = self._task.encoding
        if encoding.on_error == "stop":
            where = self._where(reject)
            raise CorpusError(
                f"{self._task.file.name}{where and ', '}{where}: {reject.problem}; mend or remove the document, or "
                f"--on-error quarantine"
            )
        self.found.append(reject)
        if encoding.max_rejects is not None and len(self.found) > encoding.max_rejects:
            raise too_many(encoding.max_rejects, f"{self._task.file.name}, {self._where(reject)}: {reject.problem}")

    def save(self) -> None:
        """Write what was found, a line each, next to the part."""
        if not self.found:
            return
        lines = (
            {
                "file": self._task.file.name,
                "place": self._where(reject),
                "stream": reject.stream or None,
                "reason": reject.problem,
                "content": reject.content,
            }
            for reject in self.found
        )
        told = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        note_whole(Path(f"{self._task.path}.rejects"), told)

    def _where(self, reject: Reject) -> str:
        return "" if reject.number is None else locate(self._task.file, self._task.span, reject.number)


def too_many(max_rejects: int, example: str) -> CorpusError:
    """Return the error of more rejects than are allowed."""
    return CorpusError(
        f"more than {max_rejects:,} documents cannot be used (--max-rejects), one of them: {example}; look at the "
        f"corpus, or allow more"
    )


def _selection(encoding: Encoding) -> Selection:
    excluded = frozenset() if encoding.excluded is None else _ids(encoding.excluded)
    return Selection(encoding.holdout, encoding.subsample, encoding.seed, excluded)


_ids = lru_cache(maxsize=1)(ids_of)


def save_tokenizer(spec: TokenizerSpec, path: Path) -> None:
    """Write what a worker needs to have the same tokenizer."""
    path.write_text(json.dumps({"name": spec.name, "eod_token": spec.eod_token, "json": spec.json}))


@lru_cache(maxsize=1)
def _tokenizer(path: str) -> Tokenizer:
    return TokenizerSpec(**json.loads(Path(path).read_text())).load()
