"""The documents of corpora, one after the other: for what looks at texts before there are streams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from converters.corpus import Corpus
from converters.documents import Document, UnfitError
from converters.readers import Asked, BadRow, Span, locate, read_span, spans
from converters.sources import SourceFile
from mixstream.errors import CorpusError

SPAN_BYTES = 64 << 20


@dataclass
class Reading:
    """How corpora are read, and what could not be used.

    Attributes:
        skips: a document that cannot be used is counted and left out; it stops the reading if not.
        excluded: ids of documents that are not there.
        max_document_bytes: a longer document cannot be used.
        num_left_out: in the last reading, documents that could not be used and files whose rest could not be read.
        first_left_out: where and why, of the first.
    """

    skips: bool = False
    excluded: frozenset[str] = frozenset()
    max_document_bytes: int = 16 << 20
    num_left_out: int = field(default=0, init=False)
    first_left_out: str = field(default="", init=False)

    def documents(self, corpora: Sequence[Corpus]) -> Iterator[Document]:
        """Yield the documents of corpora, in the order of their files.

        Raises:
            CorpusError: a file that cannot be read, or a document that cannot be used, if that is to stop it.
            RemoteError: an object store refuses, or does not answer for long.
        """
        self.num_left_out, self.first_left_out = 0, ""
        for corpus in corpora:
            for file in corpus.files:
                yield from self._of_file(corpus, file)

    def _of_file(self, corpus: Corpus, file: SourceFile) -> Iterator[Document]:
        fields = corpus.fields
        asked = Asked(fields.asked, self.max_document_bytes, corpus.document, fields.optional)
        try:
            for span in spans(file, SPAN_BYTES, corpus.document):
                for row in read_span(file, span, asked):
                    if isinstance(row, BadRow):
                        self._leave_out(file, span, row.number, row.problem)
                        continue
                    try:
                        document = fields.document(row.values)
                    except UnfitError as problem:
                        self._leave_out(file, span, row.number, str(problem))
                        continue
                    if document.id not in self.excluded:
                        yield document
        except CorpusError as problem:
            if not self.skips:
                raise
            self._count(str(problem))

    def _leave_out(self, file: SourceFile, span: Span, number: int, problem: str) -> None:
        if not self.skips:
            raise CorpusError(
                f"{file.name}: {locate(file, span, number)}: {problem}; mend it, or leave such documents out with "
                f"--on-error skip"
            )
        self._count(f"{file.name}: {problem}")

    def _count(self, problem: str) -> None:
        self.num_left_out += 1
        self.first_left_out = self.first_left_out or problem
