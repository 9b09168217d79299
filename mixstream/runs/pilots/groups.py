"""What the proportions of pilots are of: languages, each of one stream or several, or streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mixstream.errors import StreamError
from mixstream.mixture.simplex import Float64
from mixstream.streams.catalog import Catalog

By = Literal["language", "stream"]


@dataclass(frozen=True)
class Groups:
    """K groups of streams: what is mixed.

    Attributes:
        of: {stream: its group}.
        tokens: {stream: its unique tokens}.
    """

    of: Mapping[str, str]
    tokens: Mapping[str, int]

    @property
    def names(self) -> tuple[str, ...]:
        """The K groups, in the order of their names."""
        return tuple(sorted(set(self.of.values())))

    @property
    def sizes(self) -> Float64:
        """(K,) U, unique tokens of each group."""
        return self.sums(self.tokens)

    def sums(self, by_stream: Mapping[str, float]) -> Float64:
        """Return (K,) sums over the streams of each group."""
        names = self.names
        totals = np.zeros(len(names))
        for stream, value in by_stream.items():
            totals[names.index(self.of[stream])] += value
        return totals

    def spread(self, proportions: Sequence[float] | Float64) -> dict[str, float]:
        """Return {stream: weight}: in a group each stream has its share of the group's tokens, its natural one."""
        share = dict(zip(self.names, proportions, strict=True))
        size = dict(zip(self.names, self.sizes.tolist(), strict=True))
        return {stream: float(share[own] * self.tokens[stream] / size[own]) for stream, own in self.of.items()}


def groups_of(catalog: Catalog, by: By) -> Groups:
    """Return the groups of a catalog's streams.

    Raises:
        StreamError: a stream does not say its language, where groups are languages.
    """
    if by == "stream":
        return Groups({name: name for name in catalog.names}, catalog.tokens)
    unknown = [stream.name for stream in catalog if not stream.language]
    if unknown:
        raise StreamError(
            f"{catalog.root}: stream {unknown[0]!r} does not say its language (no stream.json); give it one, or mix "
            f"by: stream"
        )
    return Groups({stream.name: str(stream.language) for stream in catalog}, catalog.tokens)
