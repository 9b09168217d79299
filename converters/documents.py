"""A document: one text of a corpus, which stream it belongs to, and which split of that."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from converters.readers import MISSING
from mixstream.errors import CorpusError
from mixstream.streams.manifest import HELDOUT, TRAIN

EXCLUDED, OUTSIDE = "excluded", "outside"  # what is in no split: by name, or by the subsample
HELDOUT_SEED = 1  # of the hash by which documents are held out: for ever

_LANGUAGE = re.compile(r"[A-Za-z0-9][\w-]{0,63}")
_DOMAIN = re.compile(r"[A-Za-z0-9][\w.-]{0,63}")
_NAME_BYTES = 128  # of the two: a file system takes names of 255 bytes, and others are made of this one


class UnfitError(Exception):
    """A document that cannot be used; its text says what was found and what was expected."""


class Document(NamedTuple):
    """One text of a corpus.

    Attributes:
        id: given by the corpus, or else the hash of its stream and its text: what decides its split.
        stream: ``language.domain``.
        text: not blank.
        content: the text in UTF-8.
        kept: the numeric fields that are kept, nan where it has none.
    """

    id: str
    stream: str
    text: str
    content: bytes
    kept: tuple[float, ...]


class Documents(NamedTuple):
    """Several documents, by column; see `Document`."""

    ids: list[str]
    streams: list[str]
    texts: list[str]
    contents: list[bytes]
    kept: list[tuple[float, ...]]

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, taken: Sequence[bool]) -> Documents:
        """Return those that are taken."""
        ids, streams, texts, contents, kept = self
        return Documents(
            list(compress(ids, taken)),
            list(compress(streams, taken)),
            list(compress(texts, taken)),
            list(compress(contents, taken)),
            list(compress(kept, taken)),
        )


@dataclass(frozen=True)
class Fields:
    """Which fields of a corpus mean what; dotted paths name nested ones.

    Attributes:
        text: of the text.
        id: of what names a document for ever; None: `id` where there is one, and else its content.
        language, domain: fixed; or
        language_field, domain_field: read from each document.
        keep: numeric fields that become columns.
    """

    text: str = "text"
    id: str | None = None
    language: str | None = None
    domain: str | None = None
    language_field: str | None = None
    domain_field: str | None = None
    keep: tuple[str, ...] = ()
    _names: dict[tuple[Any, Any], str] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def asked(self) -> tuple[str, ...]:
        """The fields to read, in the order in which `document` takes their values."""
        named = tuple(name for name in (self.language_field, self.domain_field) if name is not None)
        return (self.text, self.id or "id", *named, *self.keep)

    @property
    def optional(self) -> frozenset[str]:
        """Those of the fields asked for that need not be there."""
        return frozenset() if self.id else frozenset(["id"])

    def documents(self, columns: Sequence[Sequence[Any]]) -> Documents:
        """Return documents from the values of the fields `asked`, by column.

        Raises:
            UnfitError: one of them has no text, or one that UTF-8 cannot hold, or another field is not what it should
                be; `document` tells of one what.
        """
        texts, given = columns[0], self._given(columns[1])
        if set(map(type, texts)) - {str} or not all(texts) or any(map(str.isspace, texts)):
            raise UnfitError("a text is missing or empty")
        try:
            contents = list(map(str.encode, texts))
        except UnicodeEncodeError as problem:
            raise UnfitError(f"a text is not Unicode ({problem.reason})") from None
        at = self._num_before_kept
        streams = [self._stream(values) for values in zip(*columns[2:at], strict=True)]
        if at == 2:
            streams = [self._stream(())] * len(texts)
        ids = list(given)
        if set(map(type, given)) - {str}:
            ids = list(map(self._id, given, streams, contents))
        _check_unicode("".join(ids))
        kept: list[tuple[float, ...]] = [()] * len(texts)
        if self.keep:
            named = zip(self.keep, columns[at:], strict=True)
            numbers = ([self._number(name, own) for own in column] for name, column in named)
            kept = list(zip(*numbers, strict=True))
        return Documents(ids, streams, list(texts), contents, kept)

    def document(self, values: Sequence[Any]) -> Document:
        """Return one document from the values of the fields `asked`.

        Raises:
            UnfitError: what is wrong with it, and what was expected.
        """
        text = values[0]
        if not isinstance(text, str):
            raise UnfitError(f"{_told(self.text, text)}, expected a text (--text-field names it)")
        if not text or text.isspace():
            raise UnfitError("the text is empty")
        try:
            text.encode()
        except UnicodeEncodeError as problem:
            raise UnfitError(f"the text is not Unicode ({problem.reason})") from None
        ids, streams, texts, contents, kept = self.documents([[value] for value in values])
        return Document(ids[0], streams[0], texts[0], contents[0], kept[0])

    def stream_of(self, values: Sequence[Any] = ()) -> str:
        """Return the stream that a document belongs to, or "" where its fields do not say, or there are none."""
        if not values and (self.language_field is not None or self.domain_field is not None):
            return ""
        try:
            return self._stream(values[2 : self._num_before_kept])
        except UnfitError:
            return ""

    @property
    def _num_before_kept(self) -> int:
        return 2 + (self.language_field is not None) + (self.domain_field is not None)

    def _given(self, ids: Sequence[Any]) -> Sequence[Any]:
        """Return the ids, an empty one as none: a table cannot tell the two apart, and all such would be one document.

        Raises:
            UnfitError: one is empty, though it was asked for by name.
        """
        if "" not in ids:
            return ids
        if self.id is not None:
            raise UnfitError(f"field {self.id!r} is empty, expected an id of its own for every document (--id-field)")
        return [given or MISSING if isinstance(given, str) else given for given in ids]

    def _id(self, given: Any, stream: str, content: bytes) -> str:
        if self.id is None and (given is None or given is MISSING):
            own: str = text_hash(stream, content).hexdigest()
            return own
        if isinstance(given, str):
            return given
        if isinstance(given, int) and not isinstance(given, bool):
            return str(given)
        raise UnfitError(f"{_told(self.id or 'id', given)}, expected a string or a whole number (--id-field)")

    def _stream(self, named: Sequence[Any]) -> str:
        """Return the stream of a document whose language or domain fields have these values."""
        language = self.language if self.language_field is None else named[0]
        domain = self.domain if self.domain_field is None else named[-1]
        try:
            return self._names[language, domain]
        except (KeyError, TypeError):  # a new name, or no name at all
            pass
        for name, value, pattern in (
            (self.language_field, language, _LANGUAGE),
            (self.domain_field, domain, _DOMAIN),
        ):
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise UnfitError(f"{_told(name, value)}, expected a name of at most 64 letters, digits, - and _")
        if len(f"{language}.{domain}".encode()) > _NAME_BYTES:
            raise UnfitError(f"a stream named '{language}.{domain}', expected a name of at most {_NAME_BYTES} bytes")
        stream = self._names[language, domain] = f"{language}.{domain}"
        return stream

    @staticmethod
    def _number(name: str, value: Any) -> float:
        if value is None or value is MISSING:
            return math.nan
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UnfitError(f"field {name!r} holds {value!r:.100}, expected a number (--keep)")
        try:
            return float(value)
        except OverflowError:
            raise UnfitError(f"field {name!r} holds a number beyond a float64 (--keep)") from None


def _told(name: str | None, value: Any) -> str:
    """Return what was found in a field."""
    if value is MISSING:
        return f"there is no field {name!r}"
    if value is None:
        return f"field {name!r} holds nothing"
    kind = "a group of fields" if isinstance(value, Mapping) else f"a {type(value).__name__}"
    return (
        f"field {name!r} holds {value!r:.100}" if isinstance(value, str | int | float) else f"field {name!r} is {kind}"
    )


def _check_unicode(ids: str) -> None:
    try:
        ids.encode()
    except UnicodeEncodeError as problem:
        raise UnfitError(f"the id is not Unicode ({problem.reason})") from None


def text_hash(stream: str, content: bytes) -> Any:
    """Return the hash (xxh3, 128 bits) of a stream's name and a text: equal for exact duplicates in one stream."""
    digest = xxhash.xxh3_128(f"{stream}\0".encode())
    digest.update(content)
    return digest


@dataclass(frozen=True)
class Selection:
    """Which documents go where, by their ids alone: the same in every run, order and machine, and when a corpus grows.

    Attributes:
        holdout: share of documents that the held-out split takes.
        subsample: share of the others that are taken (Zhou et al. 2026, arXiv 2606.07597: a proxy that
            reads D_p of D_t tokens is to have D_p/D_t of every source's documents, so that it repeats them as often);
            the held-out split stays whole, and so comparable.
        seed: of the subsample.
        excluded: ids of documents that are left out.
    """

    holdout: float = 0.0
    subsample: float | None = None
    seed: int = 0
    excluded: frozenset[str] = frozenset()

    def splits_of(self, ids: Sequence[str]) -> list[str]:
        """Return `TRAIN`, `HELDOUT`, `EXCLUDED` or `OUTSIDE` for each id."""
        held_out = below(ids, self.holdout, HELDOUT_SEED)
        splits = [HELDOUT if held else TRAIN for held in held_out]
        if self.subsample is not None:
            chosen = inside(ids, self.subsample, self.seed)
            splits = [OUTSIDE if own == TRAIN and not is_in else own for own, is_in in zip(splits, chosen, strict=True)]
        if self.excluded:
            splits = [EXCLUDED if own in self.excluded else split for own, split in zip(ids, splits, strict=True)]
        return splits


def ids_of(path: str | Path) -> frozenset[str]:
    """Return the ids in a file, one a line.

    Raises:
        CorpusError: it cannot be read.
    """
    try:
        with Path(path).open(encoding="utf-8-sig") as lines:
            return frozenset(line for line in (own.rstrip("\r\n") for own in lines) if line)
    except (OSError, UnicodeDecodeError) as problem:
        raise CorpusError(f"{path}: cannot be read ({problem}), expected ids, one a line, in UTF-8") from None


def is_held_out(document_id: str, share: float) -> bool:
    """Return whether a document belongs to the held-out split."""
    return below([document_id], share, HELDOUT_SEED)[0]


def inside(ids: Sequence[str], share: float, seed: int) -> list[bool]:
    """Return of each id whether it is in the subsample of a share and a seed."""
    return below(ids, share, _subsample_seed(seed))


def subsample_hashes(ids: Sequence[str], seed: int) -> list[int]:
    """Return the hash of each id, of 64 bits, by which it is `inside`: where it is below 2^64 times the share."""
    digest, seeded = xxhash.xxh3_64_intdigest, _subsample_seed(seed)
    return [digest(own, seeded) for own in ids]


def _subsample_seed(seed: int) -> int:
    """Return the seed of the hash: far from that of the held-out split, whatever was asked for."""
    own: int = xxhash.xxh3_64_intdigest("subsample", seed)
    return own


def below(ids: Sequence[str], share: float, seed: int) -> list[bool]:
    """Return of each id whether its hash (xxh3, 64 bits, with a seed) is below a share of all hashes."""
    bound, digest = int(share * 2**64), xxhash.xxh3_64_intdigest
    return [digest(own, seed) < bound for own in ids]
