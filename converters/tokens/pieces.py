"""The tokens of a long text from overlapping pieces of it: those of one encoding, without its memory.

1. A piece is encoded, then the next one, which begins at a token of the first, a little before its end.
2. In the middle half of the overlap both must have the same tokens at the same places, in the same words.
3. The tokens before the middle are taken from the first piece, those after it from the second.
Where they do not agree the overlap grows, then the pieces do, at last to the whole text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from converters.tokens.locality import Locality

PIECE_CHARACTERS = 1 << 18  # a token takes about 260 bytes while it is encoded, a character up to four tokens
OVERLAP_CHARACTERS = 1 << 12
AGREED = 8  # joints that both must have on either side of the middle

Encode = Callable[[str], Any]  # a text to a tokenizers.Encoding


class Placed(NamedTuple):
    """A token and where it stands in the text: characters, and whether a word begins with it."""

    token: int
    start: int
    stop: int
    begins: bool


class Piece(NamedTuple):
    """An encoded piece of a text.

    Attributes:
        start, stop: its characters in the text.
        encoding: its `tokenizers.Encoding`.
        tokens: its tokens.
    """

    start: int
    stop: int
    encoding: Any
    tokens: list[int]

    def placed(self, number: int) -> Placed:
        """Return a token of the piece."""
        start, stop = self.encoding.token_to_chars(number) or (0, 0)
        word = self.encoding.token_to_word(number)
        begins = number == 0 or word != self.encoding.token_to_word(number - 1)
        return Placed(self.tokens[number], self.start + start, self.start + stop, begins)

    def can_join(self, number: int, locality: Locality) -> bool:
        """Return whether a token, not the first, begins where a character does, and a word if it must."""
        token = self.placed(number)
        return token.start >= self.placed(number - 1).stop and (token.begins or not locality.by_words)


def encode_in_pieces(
    text: str,
    encode: Encode,
    locality: Locality,
    dtype: str,
    piece: int = PIECE_CHARACTERS,
    overlap: int = OVERLAP_CHARACTERS,
) -> npt.NDArray[Any]:
    """Return the tokens (tokens,) of a text, those of encoding it whole.

    Takes time linear in the text, and memory for one piece besides the text and its tokens, unless parts of the text
    longer than half a piece have nothing to cut it at, such as one endless word.

    Args:
        text: any text.
        encode: text to `tokenizers.Encoding`, without special tokens added.
        locality: of the tokenizer.
        dtype: of the result.
        piece: characters.
        overlap: characters, at first.
    """
    while piece < len(text):
        parts = _stitched(text, encode, locality, dtype, piece, overlap)
        if parts is not None:
            return np.concatenate(parts)
        piece *= 4
    return np.array(encode(text).ids, dtype=dtype)


def _stitched(
    text: str, encode: Encode, locality: Locality, dtype: str, size: int, overlap: int
) -> list[npt.NDArray[Any]] | None:
    def piece_at(start: int) -> Piece:
        encoding = encode(text[start : start + size])
        return Piece(start, min(start + size, len(text)), encoding, encoding.ids)

    piece, taken, parts = piece_at(0), 0, []
    while piece.stop < len(text):
        width, joint = overlap, None
        while joint is None and width <= size // 2:
            start = _start_of_overlap(piece, taken, width, locality)
            if start is not None:
                following = piece_at(piece.placed(start).start)
                joint = _joint(text, piece, start, following, locality)
            width *= 4
        if joint is None:
            return None
        parts.append(np.array(piece.tokens[taken : joint[0]], dtype=dtype))
        piece, taken = following, joint[1]
    parts.append(np.array(piece.tokens[taken:], dtype=dtype))
    return parts


def _start_of_overlap(piece: Piece, taken: int, width: int, locality: Locality) -> int | None:
    """Return the last token, after those taken, that can begin a piece and leaves an overlap of some characters.

    None where the overlap would be more than twice as long: then a longer one is asked for.
    """
    for number in range(len(piece.tokens) - 1, taken, -1):
        start = piece.placed(number).start
        if start < piece.stop - 2 * width:
            return None
        if start <= piece.stop - width and piece.can_join(number, locality):
            return number
    return None


def _joint(text: str, piece: Piece, start: int, following: Piece, locality: Locality) -> tuple[int, int] | None:
    """Return the token of each piece that begins at a place where one can go on for the other, if they agree on it."""
    quarter = (piece.stop - following.start) // 4
    low, middle, high = following.start + quarter, following.start + 2 * quarter, piece.stop - quarter
    ours = _within(piece, range(start, len(piece.tokens)), low, high, piece.stop)
    theirs = _within(following, range(len(following.tokens)), low, high, piece.stop)
    if list(ours.values()) != list(theirs.values()):
        return None
    joints = [number for number in ours if number - 1 in ours and piece.can_join(number, locality)]
    before = [number for number in joints if ours[number].start < middle]
    after = [number for number in joints if ours[number].start >= middle]
    if min(len(before), len(after)) < AGREED:
        return None
    place = ours[after[0]].start
    if not (locality.forgets(text[low:place]) and locality.forgets(text[place:high])):
        return None
    return after[0], next(iter(theirs)) + after[0] - next(iter(ours))


def _within(piece: Piece, numbers: Iterable[int], low: int, high: int, end: int) -> dict[int, Placed]:
    """Return the tokens that begin from one place to before another, looking at those before the end alone."""
    placed = ((number, piece.placed(number)) for number in numbers)
    known = takewhile(lambda token: token[1].stop <= end, placed)
    return {number: token for number, token in known if low <= token.start < high}
