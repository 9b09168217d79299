"""A document: one text of a corpus, and where it was found."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from mixstream.errors import CorpusError


class Document(NamedTuple):
    """One text of a corpus.

    Attributes:
        id: given by the corpus, or else the hash of its text: what decides its split.
        text: not empty.
    """

    id: str
    text: str


def document_of(text: Any, given_id: Any, where: str, text_field: str) -> Document:
    """Return a document from what a reader found.

    Args:
        text: must be a string that is not blank.
        given_id: a string or whole number, or None.
        where: file and place, for the message.
        text_field: the field's name, for the message.

    Raises:
        CorpusError: there is no text, or one that UTF-8 cannot hold, or an id that is none.
    """
    if not isinstance(text, str):
        found = "nothing" if text is None else f"{type(text).__name__}"
        raise CorpusError(f"{where}: field {text_field!r} holds {found}, expected a text (--text-field names it)")
    if not text.strip():
        raise CorpusError(f"{where}: the text is empty; remove the document from the corpus")
    try:
        encoded = text.encode("utf-8")
    except UnicodeEncodeError as problem:
        raise CorpusError(f"{where}: the text is not Unicode ({problem.reason}); mend the document") from None
    if given_id is None:
        return Document(hashlib.blake2b(encoded, digest_size=16).hexdigest(), text)
    if not isinstance(given_id, str | int) or isinstance(given_id, bool):
        raise CorpusError(f"{where}: field 'id' holds {given_id!r}, expected a string or a whole number")
    return Document(str(given_id), text)


def is_held_out(document: Document, share: float) -> bool:
    """Return whether a document belongs to the held-out split.

    Decided by the hash of its id alone: the same in every run, order and machine, and when a corpus grows.
    """
    digest = hashlib.blake2b(document.id.encode("utf-8", "replace"), digest_size=8, person=b"heldout").digest()
    return int.from_bytes(digest, "little") < share * 2**64
