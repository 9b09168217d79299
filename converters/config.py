"""corpora.yaml: one declaration for a whole corpus, and what the command line says in its stead."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from converters.corpus import Corpus, Options
from converters.documents import Fields
from converters.sources import Found, SourceFile, by_stream, find_files, is_stream_name
from converters.tasks.encode import OnError
from converters.tasks.packing import Layout
from converters.tokens.tokenise import spec_of
from mixstream.errors import CorpusError
from mixstream.formats import FileModel, load_yaml, parse
from mixstream.streams.writer import SHARD_BYTES, TOKENS

TAKEN = (TOKENS, "id", "begin", "num_tokens", "num_bytes", "hash")
"""Names that columns of samples or of documents.parquet have already."""

Language = Annotated[str, Field(pattern=r"^[A-Za-z][\w-]*$")]
_NAME = r"^[A-Za-z0-9][\w.-]*$"
Name = Annotated[str, Field(pattern=_NAME)]


class FieldsConfig(FileModel):
    """Which fields of rows mean what, and which stream a document belongs to.

    Attributes:
        text_field, id_field: dotted paths name nested ones.
        language, domain: fixed; or
        language_field, domain_field: read from each document, which makes a stream of each (language, domain).
        keep: numeric fields that become columns.
        document: of plain text, a line or a file.
    """

    text_field: str = "text"
    id_field: str | None = None
    language: Language | None = None
    domain: Name | None = None
    language_field: str | None = None
    domain_field: str | None = None
    keep: tuple[str, ...] = ()
    document: Literal["line", "file"] = "line"

    @model_validator(mode="after")
    def _is_consistent(self) -> FieldsConfig:
        for fixed, read in (("language", "language_field"), ("domain", "domain_field")):
            if getattr(self, fixed) is not None and getattr(self, read) is not None:
                raise ValueError(f"{fixed} and {read} are both given; keep one of them")
        parts = [self.language or self.language_field, self.domain or self.domain_field]
        if sum(part is not None for part in parts) == 1:
            raise ValueError("a stream is LANGUAGE.DOMAIN; give both, each fixed or as the name of a field")
        for name in self.keep:
            if name in TAKEN or self.keep.count(name) > 1:
                raise ValueError(f"keep: {name!r} is a column of every stream, or given twice; rename the field")
        return self

    @property
    def names_streams(self) -> bool:
        """Whether it says which stream a document belongs to."""
        return (self.language or self.language_field) is not None

    def fields(self, stream: str | None = None) -> Fields:
        """Return which fields mean what; all documents belong to `stream`, if one is given."""
        language, _, domain = (stream or "").partition(".")
        return Fields(
            self.text_field,
            self.id_field,
            language or self.language,
            domain or self.domain,
            self.language_field,
            self.domain_field,
            self.keep,
        )


class CorpusConfig(FieldsConfig):
    """One corpus of corpora.yaml: `sources` are files, folders, globs and URLs."""

    sources: str | tuple[str, ...]


class OptionsConfig(FileModel):
    """How all corpora are converted; see `converters.corpus.Options`."""

    tokenizer: str = "byte"
    eod_token: str | None = None
    sequence_length: Annotated[int, Field(ge=2, le=1 << 24)] = 2048
    layout: Layout = "packed"
    holdout: Annotated[float, Field(ge=0, le=0.99)] = 0.02
    subsample: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0
    exclude: str | None = None
    deduplicate: bool = False
    on_error: OnError = "stop"
    max_rejects: Annotated[int, Field(ge=0)] | None = None
    max_document_bytes: Annotated[int, Field(ge=1 << 10, le=1 << 31)] = 16 << 20
    shard_bytes: Annotated[int, Field(ge=1 << 10, le=1 << 31)] = SHARD_BYTES
    compression: str | None = None
    min_samples: Annotated[int, Field(ge=1)] = 1
    span_bytes: Annotated[int, Field(ge=1)] | None = None

    def options(self, overwrite: bool = False) -> Options:
        """Return what it says, the tokenizer loaded.

        Raises:
            TokenizerError: there is no such tokenizer, or its end-of-document token is not known.
        """
        own = {name: getattr(self, name) for name in type(self).model_fields}
        spec = spec_of(own.pop("tokenizer"), own.pop("eod_token"))
        exclude = own.pop("exclude")
        return Options(tokenizer=spec, exclude=None if exclude is None else Path(exclude), overwrite=overwrite, **own)


class CorporaConfig(FileModel):
    """corpora.yaml.

    Attributes:
        options: of all corpora.
        corpora: by name, which is the stream's, LANGUAGE.DOMAIN, unless the corpus says its language and domain.
    """

    version: Literal[1] = 1
    options: OptionsConfig = OptionsConfig()
    corpora: Annotated[dict[Name, CorpusConfig], Field(min_length=1)]


def read_config(path: Path) -> CorporaConfig:
    """Read corpora.yaml.

    Raises:
        FormatError: naming every key that is wrong, and what is known.
    """
    return parse(CorporaConfig, load_yaml(path, "--config names one"), str(path))


def corpora_of_config(config: CorporaConfig) -> tuple[list[Corpus], list[str]]:
    """Find the files of every corpus.

    Returns:
        The corpora in the order of their names, and files of no known format, which are left out.

    Raises:
        CorpusError: there are none, a name is no LANGUAGE.DOMAIN, or two corpora make the same stream.
    """
    corpora: list[Corpus] = []
    ignored: list[str] = []
    for name, own in sorted(config.corpora.items()):
        sources = (own.sources,) if isinstance(own.sources, str) else own.sources
        if not own.names_streams:
            _check_name(name, f"corpora {name}")
        found = find_files(sources)
        corpora.append(Corpus(name, _all_of(found), own.fields(None if own.names_streams else name), own.document))
        ignored += found.ignored
    _check_distinct(corpora)
    return corpora, ignored


def corpora_of_paths(paths: Sequence[str], fields: FieldsConfig, name: str | None) -> tuple[list[Corpus], list[str]]:
    """Find the corpora of files, folders, globs and URLs.

    Args:
        paths: theirs.
        fields: how they are read.
        name: makes one stream of that name of all files; where fields name streams, it names the corpus: what was done
            of it and its rejects are found by it.

    Returns:
        The corpora in the order of their names, and files of no known format, which are left out.

    Raises:
        CorpusError: there are none, or a file's name is no LANGUAGE.DOMAIN and nothing else says its stream.
    """
    found = find_files(paths)
    ignored = list(found.ignored)
    if name is not None:
        if fields.names_streams:
            if not re.fullmatch(_NAME, name):
                raise CorpusError(f"--name {name}: expected a name of letters, digits, dots, - and _")
            return [Corpus(name, _all_of(found), fields.fields(), fields.document)], ignored
        _check_name(name, f"--name {name}")
        return [Corpus(name, _all_of(found), fields.fields(name), fields.document)], ignored
    if fields.names_streams:
        label = f"{fields.language or 'all'}.{fields.domain or 'all'}"
        return [Corpus(label, _all_of(found), fields.fields(), fields.document)], ignored
    streams = by_stream(found)
    for own, files in streams.items():
        _check_name(own, str(files[0].place))
    return [Corpus(own, streams[own], fields.fields(own), fields.document) for own in sorted(streams)], ignored


def _all_of(found: Found) -> tuple[SourceFile, ...]:
    return tuple(one.file for one in found.files)


def _check_name(name: str, where: str) -> None:
    """Refuse what is no LANGUAGE.DOMAIN, and numbers as languages: ``20231101.eu`` is a dump's date and language."""
    if is_stream_name(name) and name[0].isalpha():
        return
    language = f" of the language {name.partition('.')[0]!r}" if is_stream_name(name) else ""
    raise CorpusError(
        f"{where}: makes a stream named {name!r}{language}, expected LANGUAGE.DOMAIN such as eu.wiki; rename it, or "
        f"say its language and domain"
    )


def _check_distinct(corpora: Sequence[Corpus]) -> None:
    makers: dict[str, str] = {}
    for corpus in corpora:
        if corpus.stream is not None and makers.setdefault(corpus.stream, corpus.name) != corpus.name:
            raise CorpusError(
                f"corpora {makers[corpus.stream]} and {corpus.name}: both make the stream {corpus.stream!r}; list all "
                f"its sources in one of them, or give one another domain"
            )
