"""Weights on their way through a run: what a method wants, within bounds, of the streams that are there.

Two vectors are kept apart. The learnt weights are what the method goes on from, as if all streams were there from the
first; the acting ones are those of the streams that have joined by now, and what is read or weighed follows them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mixstream.methods.learning.bounds import Bounds
from mixstream.methods.learning.online import Method, Observation, Signal
from mixstream.methods.learning.stages import Stages, neutral_scores, present_weights
from mixstream.mixture.simplex import Float64
from mixstream.streams.index import Int64


class Learner:
    """The weights of K streams, and all that their next update depends on.

    Attributes:
        acting: (K,) the weights that act.
    """

    def __init__(self, method: Method, bounds: Bounds, stages: Stages, start: Float64) -> None:
        """Begin with `start` (K,), sum 1.

        Raises:
            MixtureError: bounds that `start`, or what of it is there at some time, cannot be brought within.
        """
        bounds.apply(start)  # streams without weight or floor may leave too little room under the caps
        for batch in stages.first_batches if stages.joins else ():
            self._within(bounds, stages, batch, start)
        self._method = method
        self._bounds = bounds
        self._stages = stages
        self._learnt = start
        self._drawn = np.zeros(len(start), dtype=np.int64)  # at the last update
        self.acting = self._at(0)

    @property
    def needs(self) -> Signal | None:
        """What the method has to be told."""
        return self._method.needs

    def presence(self, batch: int) -> Float64:
        """Return how much each stream is there at a batch, (K,) from 0 to 1."""
        return self._stages.presence(batch)

    def neutral(self, batch: int, signal: Float64) -> Float64:
        """Return a signal (K,) that says nothing of streams that are not there.

        Raises:
            WeightsError: no stream that is there has weight.
        """
        if self._method.needs == "losses":  # of what was not read there are none
            return signal
        return neutral_scores(signal, self._learnt, self.presence(batch))

    def wish(
        self, batch: int, num_batches: int, eta: float, drawn: Int64, sizes: Int64, signal: Float64 | None
    ) -> Float64:
        """Return the weights that the method wants, (K,), sum 1: see `Observation`.

        Args:
            drawn: (K,) samples drawn so far; the shares that the method is told are those since the last wish.

        Raises:
            ScoreError: the signal is not finite; the weights stay as they are.
        """
        read, self._drawn = drawn - self._drawn, drawn
        shares = read / max(1, int(read.sum()))
        return self._method.update(Observation(batch, num_batches, eta, self._learnt, shares, drawn, sizes, signal))

    def follow(self, batch: int, wish: Float64) -> None:
        """Take what a method wants, within bounds."""
        self._learnt = self._bounds.apply(wish)
        self.acting = self._at(batch)

    def let_join(self, batch: int) -> bool:
        """Change the acting weights as stages ask for, with nothing learnt; tell whether they have changed."""
        before, self.acting = self.acting, self._at(batch)
        return not np.array_equal(before, self.acting)

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next updates depend on, as JSON holds it."""
        return {
            "learnt": self._learnt.tolist(),
            "acting": self.acting.tolist(),
            "drawn": self._drawn.tolist(),
            "method": self._method.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._learnt, self.acting = np.array(state["learnt"]), np.array(state["acting"])
        self._drawn = np.array(state["drawn"], dtype=np.int64)
        self._method.load_state_dict(state["method"])

    def _at(self, batch: int) -> Float64:
        return self._within(self._bounds, self._stages, batch, self._learnt)

    @staticmethod
    def _within(bounds: Bounds, stages: Stages, batch: int, learnt: Float64) -> Float64:
        """Return the weights of the streams that are there at a batch."""
        presence = stages.presence(batch)
        if (presence == 1).all():
            return learnt
        return bounds.present(presence).apply(present_weights(learnt, presence))
