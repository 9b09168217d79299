"""Losses by source over a run, in a bounded number of points."""

from __future__ import annotations

from typing import Any

import numpy as np

from mixstream.mixture.simplex import Float64

MAX_POINTS = 128


class LossCurve:
    """The losses of K sources by samples read, in fewer than 128 points however long the run.

    A point is the mean of `stride` updates, by source of those that read it. When there are 128, each two
    neighbours become one and the stride doubles: from then on there are 64 to 127, evenly spaced. What does
    not fill a point yet is kept aside as sums.
    """

    def __init__(self) -> None:
        """Begin without a point."""
        self._stride = 1
        self._counts: list[float] = []  # of the points, and
        self._losses: list[Float64] = []  # (K,) each, nan of a source that none of their updates read
        self._members = 0  # updates kept aside: their number,
        self._count_sum = 0.0  # the sum of their counts,
        self._sums = np.zeros((2, 0))  # and (2, K) sums of losses and number of updates that have one

    def add(self, count: float, losses: Float64) -> None:
        """Add an update: `count` samples read of all sources, and (K,) losses with nan of those not read."""
        read = ~np.isnan(losses)
        own = np.stack([np.where(read, losses, 0.0), read.astype(float)])
        self._sums = own if not self._members else self._sums + own
        self._members += 1
        self._count_sum += count
        if self._members == self._stride:
            self._counts.append(self._count_sum / self._members)
            self._losses.append(_means(self._sums))
            self._members, self._count_sum = 0, 0.0
        if len(self._counts) == MAX_POINTS:
            self._halve()

    def points(self) -> tuple[Float64, Float64]:
        """Return (T,) counts, rising, and (T, K) losses."""
        return np.array(self._counts), np.array(self._losses).reshape(len(self._counts), -1)

    def state_dict(self) -> dict[str, Any]:
        """Return the points, None for a loss that is not known, and the sums."""
        return {
            "stride": self._stride,
            "counts": list(self._counts),
            "losses": [[None if np.isnan(loss) else loss for loss in point.tolist()] for point in self._losses],
            "members": self._members,
            "count_sum": self._count_sum,
            "sums": self._sums.tolist() if self._members else [],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._stride = state["stride"]
        self._counts = list(state["counts"])
        self._losses = [np.array(point, dtype=np.float64) for point in state["losses"]]
        self._members, self._count_sum = state["members"], state["count_sum"]
        self._sums = np.array(state["sums"], dtype=np.float64)

    def _halve(self) -> None:
        counts, losses = self.points()
        pairs = losses.reshape(-1, 2, losses.shape[1])
        known = ~np.isnan(pairs)
        sums = np.stack([np.where(known, pairs, 0.0).sum(axis=1), known.sum(axis=1)])
        self._counts = counts.reshape(-1, 2).mean(axis=1).tolist()
        self._losses = list(_means(sums))
        self._stride *= 2


def _means(sums: Float64) -> Float64:
    """Return sums / numbers of (2, ...) both, nan where the number is 0."""
    return np.divide(sums[0], sums[1], out=np.full(sums[0].shape, np.nan), where=sums[1] > 0)
