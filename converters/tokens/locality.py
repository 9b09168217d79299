"""How far a token depends on the text around it: whether a long text may be tokenised piece by piece.

Told from a tokenizer.json. Normalizers and pre-tokenizers look at a character and what stands beside it, or follow
a run of characters of one kind, so that what happens at a cut is forgotten once the text has changed its kind.
Where that cannot be told, a text is encoded as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

KINDS = {"letter": "aZéжא가日क", "digit": "07٣", "space": " \n\t\u00a0", "other": "!.,-_'\"。😀\u0301"}
NORMALIZERS = "NFC NFD NFKC NFKD Lowercase Strip StripAccents Prepend Replace Precompiled BertNormalizer Nmt ByteLevel"
PRE_TOKENIZERS = (
    "ByteLevel Split Digits Punctuation Whitespace WhitespaceSplit BertPreTokenizer Metaspace CharDelimiterSplit "
    "UnicodeScripts"
)
BYTE_LEVEL = r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # what ByteLevel splits at with use_regex
_ATOM = re.compile(  # a property, an escape, a class, the head of a group, or one character
    r"\\[pP]\{[^}]*\}|\\.|\[\^?(?:\\.|\[:\^?\w+:\]|[^\[\]\\])+\]|\((?:\?[\w-]*(?::|=|!|<=|<!|>))?|.", re.DOTALL
)
_UNBOUNDED = re.compile(r"[*+]|\{\d*,\}")


@dataclass(frozen=True)
class Locality:
    """What two encodings of overlapping pieces must agree on, to be one encoding of both.

    Attributes:
        by_words: only the starts of words (pre-tokens) are joints. Not so for a BPE of undivided texts: a
            sequence of its tokens is right if and only if each pair of neighbours is.
        runs: the sets of kinds that patterns follow without end: a run of one may decide where words before it
            begin, so that either side of a joint must hold a character of another kind.
    """

    by_words: bool
    runs: frozenset[frozenset[str]]

    def forgets(self, text: str) -> bool:
        """Return whether a text ends what happened before it, and is not changed by what comes after it."""
        import unicodedata

        kinds = {kind_of(character) for character in text}
        return any(unicodedata.combining(character) == 0 for character in text) and not any(
            kinds <= run for run in self.runs
        )


def kind_of(character: str) -> str:
    """Return the kind of a character, one of `KINDS`."""
    if character.isspace():
        return "space"
    if character.isalpha():
        return "letter"
    return "digit" if character.isnumeric() else "other"


def locality_of(tokenizer: dict[str, Any]) -> Locality | None:
    """Return the locality of a tokenizer, or None where its texts must be encoded as a whole.

    Args:
        tokenizer: its tokenizer.json.
    """
    normalizers = list(_flat(tokenizer.get("normalizer"), "normalizers"))
    splits = list(_flat(tokenizer.get("pre_tokenizer"), "pretokenizers"))
    if any(part["type"] not in NORMALIZERS.split() for part in normalizers):
        return None
    if any(part["type"] not in PRE_TOKENIZERS.split() for part in splits):
        return None
    model = tokenizer["model"]
    divided = any(_divides(part) for part in splits)
    affixes = model.get("continuing_subword_prefix") or model.get("end_of_word_suffix")
    if not divided and (model.get("type") != "BPE" or affixes):
        return None
    runs: set[frozenset[str]] = set()
    for pattern in filter(None, map(_pattern_of, normalizers + splits)):
        found = runs_of(pattern)
        if found is None:
            return None
        runs |= found
    return Locality(divided, frozenset(runs))


def runs_of(pattern: str) -> set[frozenset[str]] | None:
    """Return the kinds of characters that each unbounded part of a regular expression goes over.

    None where one goes over letters and spaces alike, such as a quoted string, or where it cannot be told.
    """
    runs = set()
    for atom in _ATOM.finditer(pattern):
        if atom[0] == "[" or re.fullmatch(r"\\[1-9kg]", atom[0]):  # a class within a class; a reference back
            return None
        if atom[0] in "*+?" or not _UNBOUNDED.match(pattern, atom.end()):
            continue
        if atom[0] == ")":
            return None
        run = _kinds_of(atom[0])
        if {"letter", "space"} <= run:
            return None
        runs.add(run)
    return runs


def _kinds_of(atom: str) -> frozenset[str]:
    from tokenizers import Regex, pre_tokenizers

    split = pre_tokenizers.Split(Regex(atom), "removed")  # the engine that will run it
    return frozenset(
        kind for kind, examples in KINDS.items() if any(not split.pre_tokenize_str(example) for example in examples)
    )


def _divides(part: dict[str, Any]) -> bool:
    if part["type"] == "ByteLevel":
        return bool(part.get("use_regex", True))
    return part["type"] != "Metaspace" or bool(part.get("split", True))


def _pattern_of(part: dict[str, Any]) -> str | None:
    if part["type"] == "ByteLevel":
        return BYTE_LEVEL if part.get("use_regex") else None
    pattern = part.get("pattern")
    return pattern.get("Regex") if isinstance(pattern, dict) else None


def _flat(part: dict[str, Any] | None, members: str) -> Iterator[dict[str, Any]]:
    if part is None:
        return
    if part["type"] == "Sequence":
        for member in part[members]:
            yield from _flat(member, members)
    else:
        yield part
