"""Where a stream keeps its tokens: one column, a row of integers a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mixstream.errors import StreamError
from mixstream.streams.index import MdsIndex

TOKEN_COLUMNS = ("tokens", "input_ids")
TOKEN_DTYPES = ("uint8", "uint16", "uint32", "int16", "int32", "int64")


@dataclass(frozen=True)
class TokenColumn:
    """Where the tokens of a sample are.

    Attributes:
        name: the column's name.
        dtype: type of a token on disk, little-endian.
        sequence_length: tokens in every sample, None where each sample brings its own shape.
        position: the column's place among a sample's columns.
        sizes: bytes of each column of a sample, None where they vary.
    """

    name: str
    dtype: np.dtype[Any]
    sequence_length: int | None
    position: int
    sizes: tuple[int | None, ...]


def find_token_column(index: MdsIndex, where: str, name: str | None = None) -> TokenColumn:
    """Return the token column of a stream: `name`, or else ``tokens`` or ``input_ids``.

    Raises:
        StreamError: no such column, both of them, or one that does not hold a row of integers.
    """
    known = index.column_names
    wanted = [name] if name is not None else list(TOKEN_COLUMNS)
    found = [column for column in wanted if column in known]
    if len(found) != 1:
        raise StreamError(
            f"{where}: {len(found)} of the token columns {', '.join(wanted)} among its columns "
            f"{', '.join(known)}; name the one to read (token_column)"
        )
    position = known.index(found[0])
    kind, _, rest = index.column_encodings[position].partition(":")
    dtype, _, shape = rest.partition(":")
    size = index.column_sizes[position]
    fixed = shape.isdecimal() and size == int(shape) * np.dtype(dtype if dtype in TOKEN_DTYPES else "u1").itemsize
    if kind != "ndarray" or dtype not in TOKEN_DTYPES or not (fixed or (shape == "" and not size)):
        raise StreamError(
            f"{where}: column {found[0]} is encoded as {index.column_encodings[position]!r} of {size} bytes; "
            f"expected ndarray:DTYPE:LENGTH or ndarray:DTYPE, one row of integers"
        )
    return TokenColumn(
        name=found[0],
        dtype=np.dtype(dtype).newbyteorder("<"),
        sequence_length=int(shape) if shape else None,
        position=position,
        sizes=index.column_sizes,
    )
