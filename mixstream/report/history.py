"""One number over a run, as few enough means of it to be drawn, however long the run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

MOST = 64  # means kept

BLOCKS, LETTERS = "▁▂▃▄▅▆▇█", "_.-=+*%#"


@dataclass
class History:
    """A number's last value, and means of all its values, each of as many of them as the others.

    Attributes:
        last: the newest value; nan before the first.
        batch: that it is of.
        means: of `each` values; the last mean, which grows, is left out.
        each: values of a mean, a power of two.
    """

    last: float = math.nan
    batch: int = 0
    means: list[float] = field(default_factory=list)
    each: int = 1
    _sum: float = 0.0
    _count: int = 0

    def add(self, batch: int, value: float) -> None:
        """Add the newest value; one that is not finite is the last, and in no mean."""
        self.batch, self.last = batch, value
        if not math.isfinite(value):
            return
        self._sum, self._count = self._sum + value, self._count + 1
        if self._count == self.each:
            self.means.append(self._sum / self.each)
            self._sum, self._count = 0.0, 0
        if len(self.means) == MOST:
            self.means = [(one + other) / 2 for one, other in zip(self.means[::2], self.means[1::2], strict=True)]
            self.each *= 2

    def spark(self, width: int, letters: str = BLOCKS) -> str:
        """Return the means as a line of at most `width` letters, the least and the greatest as the outer ones."""
        values = _fewer(self.means, width)
        if not values:
            return ""
        low, high = min(values), max(values)
        steps = len(letters) - 1
        middle = steps // 2
        return "".join(
            letters[middle if high == low else round(steps * ((value - low) / (high - low)))] for value in values
        )


def _fewer(values: list[float], width: int) -> list[float]:
    """Return means of `values`, evenly, where there are more than `width`."""
    if len(values) <= width:
        return values
    edges = [place * len(values) // width for place in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
