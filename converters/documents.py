"""A document: one text of a corpus, which stream it belongs to, and which split of that."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import xxhash

from converters.readers import MISSING
from mixstream.streams.manifest import HELDOUT, TRAIN

EXCLUDED, OUTSIDE = "excluded", "outside"  # what is in no split: by name, or by the subsample

_LANGUAGE = re.compile(r"[A-Za-z0-9][\w-]*")
_DOMAIN = re.compile(r"[A-Za-z0-9][\w.-]*")


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

    def document(self, values: tuple[Any, ...]) -> Document:
        """Return a document from the values of the fields `asked`.

        Raises:
            UnfitError: there is no text, or one that UTF-8 cannot hold, or another field is not what it should be.
        """
        text = values[0]
        if not isinstance(text, str):
            raise UnfitError(f"{self._told(self.text, text)}, expected a text (--text-field names it)")
        if not text or text.isspace():
            raise UnfitError("the text is empty")
        try:
            content = text.encode()
        except UnicodeEncodeError as problem:
            raise UnfitError(f"the text is not Unicode ({problem.reason})") from None
        first_kept = 2 + (self.language_field is not None) + (self.domain_field is not None)
        stream = self._stream(values)
        kept = tuple(map(self._number, self.keep, values[first_kept:])) if self.keep else ()
        return Document(self._id(values[1], stream, content), stream, text, content, kept)

    def stream_of(self, values: tuple[Any, ...] = ()) -> str:
        """Return the stream that a document belongs to, or "" where its fields do not say, or there are none."""
        if not values and (self.language_field is not None or self.domain_field is not None):
            return ""
        try:
            return self._stream(values)
        except UnfitError:
            return ""

    def _id(self, given: Any, stream: str, content: bytes) -> str:
        if self.id is None and (given is None or given is MISSING):
            return text_hash(stream, content).hexdigest()
        if isinstance(given, str):
            return given
        if isinstance(given, int) and not isinstance(given, bool):
            return str(given)
        raise UnfitError(f"{self._told(self.id or 'id', given)}, expected a string or a whole number (--id-field)")

    def _stream(self, values: tuple[Any, ...]) -> str:
        language = self.language if self.language_field is None else values[2]
        at = 2 + (self.language_field is not None)
        domain = self.domain if self.domain_field is None else values[at]
        try:
            return self._names[language, domain]
        except (KeyError, TypeError):
            pass
        for name, value, pattern in (
            (self.language_field, language, _LANGUAGE),
            (self.domain_field, domain, _DOMAIN),
        ):
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise UnfitError(f"{self._told(name, value)}, expected a name of letters, digits, - and _")
        self._names[language, domain] = f"{language}.{domain}"
        return self._names[language, domain]

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

    @staticmethod
    def _told(name: str | None, value: Any) -> str:
        if value is MISSING:
            return f"there is no field {name!r}"
        if value is None:
            return f"field {name!r} holds nothing"
        told = repr(value) if isinstance(value, str | int | float) else f"a {_kind(value)}"
        return f"field {name!r} holds {told:.100}"


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

    def split_of(self, document_id: str) -> str:
        """Return `TRAIN`, `HELDOUT`, `EXCLUDED` or `OUTSIDE`."""
        if document_id in self.excluded:
            return EXCLUDED
        if self.holdout and is_held_out(document_id, self.holdout):
            return HELDOUT
        if self.subsample is not None and not _is_below(document_id, self.subsample, b"subsample", self.seed):
            return OUTSIDE
        return TRAIN


def is_held_out(document_id: str, share: float) -> bool:
    """Return whether a document belongs to the held-out split."""
    return _is_below(document_id, share, b"heldout", 0)


def _is_below(document_id: str, share: float, purpose: bytes, seed: int) -> bool:
    salt = seed.to_bytes(16, "little") if seed else b""
    encoded = document_id.encode("utf-8", "replace")
    digest = hashlib.blake2b(encoded, digest_size=8, person=purpose, salt=salt).digest()
    return int.from_bytes(digest, "little") < share * 2**64


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "group of fields"
    return type(value).__name__
