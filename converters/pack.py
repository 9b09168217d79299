"""Documents to samples of one length: end to end, nothing lost but the last, unfilled sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt


class Packer:
    """Fills samples with documents; O(tokens) whatever the documents' length."""

    def __init__(self, sequence_length: int, dtype: str, eod_token_id: int) -> None:
        """Make samples of `sequence_length` tokens, documents ended by `eod_token_id`."""
        self._sample = np.empty(sequence_length, dtype=dtype)
        self._end = np.array([eod_token_id])
        self.filled = 0

    def add(self, document: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
        """Append a document's tokens (n,) and the end of document; yield every sample that it fills."""
        for tokens in (document, self._end):
            start = 0
            while start < len(tokens):
                taken = min(len(tokens) - start, len(self._sample) - self.filled)
                self._sample[self.filled : self.filled + taken] = tokens[start : start + taken]
                self.filled += taken
                start += taken
                if self.filled == len(self._sample):
                    yield self._sample.copy()
                    self.filled = 0
