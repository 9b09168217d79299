"""What the samples of a shard must be, by the documents that they were made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mixstream.errors import ShardError
from mixstream.streams.documents import Float64, sample_means
from mixstream.streams.index import Int64
from mixstream.streams.manifest import DOCUMENTS_NAME, StreamManifest
from mixstream.streams.place import Place
from mixstream.streams.shard import Tokens

_EXACT = 1e-9  # of the values: a mean may be summed in another order


@dataclass(frozen=True)
class Reaching:
    """The documents of which some samples have a token; n of them.

    Attributes:
        manifest: of their stream.
        samples: numbers of the samples.
        first: number of the first document.
        begin, num_tokens: (n,) as documents.parquet tells them.
        fields: {name: (n,) values} of the kept fields, NaN where there is none.
    """

    manifest: StreamManifest
    samples: range
    first: int
    begin: Int64
    num_tokens: Int64
    fields: Mapping[str, Float64]


def check_ends(path: Place, row: int, tokens: Tokens, documents: Reaching) -> None:
    """Check that documents end where they are told to and nowhere else, and that all behind them is padding.

    Args:
        path: the shard.
        row: number in the shard of the first row.
        tokens: (n, sequence_length).
        documents: of the shard.

    Raises:
        ShardError: naming the first token that is another one.
    """
    manifest = documents.manifest
    length, eod = manifest.sequence_length, manifest.tokenizer.eod_token_id
    first = (documents.samples.start + row) * length
    is_end, ends = tokens == eod, documents.begin + documents.num_tokens - 1
    if manifest.layout == "documents":
        ends = ends[documents.num_tokens <= length]
        own = documents.num_tokens[row : row + len(tokens)]
        padded = np.arange(length) >= own[:, None]
        wrong = padded & (tokens != manifest.pad_token_id)
        if wrong.any():
            sample, column = np.argwhere(wrong)[0]
            raise ShardError(
                f"{path}: row {row + sample} has token {tokens[sample, column]} at {column}, behind the {own[sample]} "
                f"tokens of its document; expected the padding, {manifest.pad_token_id}"
            )
        is_end &= ~padded
    found = first + np.flatnonzero(is_end)
    expected = ends[(ends >= first) & (ends < first + tokens.size)]
    if np.array_equal(found, expected):
        return
    place = int(np.setxor1d(found, expected)[0])
    sample, column = divmod(place - first, length)
    document = documents.first + int(np.searchsorted(documents.begin, place, side="right")) - 1
    told = f"where document {document} ends; expected the end-of-document token, {eod}"
    if place not in expected:
        told = f"an end-of-document token, but document {document} does not end there"
    raise ShardError(
        f"{path}: row {row + sample} has token {tokens[sample, column]} at {column}, {told}; {DOCUMENTS_NAME} is of "
        f"another conversion, or the shard is damaged"
    )


def check_field(path: Place, name: str, found: Float64, documents: Reaching) -> None:
    """Check a kept field of all rows of a shard, (n,): the document's value, or the mean over the sample's tokens.

    Raises:
        ShardError: naming the first row with another one.
    """
    values, length = documents.fields[name], documents.manifest.sequence_length
    expected, slack = values, np.zeros(len(values))
    if documents.manifest.layout == "packed":
        where = documents.begin, documents.num_tokens
        expected = sample_means(*where, values, documents.samples, length)
        slack = _EXACT * sample_means(*where, np.abs(values), documents.samples, length)
    with np.errstate(invalid="ignore"):
        same = (found == expected) | (np.isnan(found) & np.isnan(expected)) | (np.abs(found - expected) <= slack)
    if not same.all():
        row = int(np.argmin(same))
        raise ShardError(
            f"{path}: row {row} has {name} {found[row]}, its documents {expected[row]}; {DOCUMENTS_NAME} is of another "
            f"conversion, or the shard is damaged"
        )
