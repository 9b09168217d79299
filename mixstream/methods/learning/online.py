"""What every online method has in common: it is told what a run has seen, and says which weights it wants.

A method decides in numbers only; floors, caps and stages are laid on what it wants afterwards
(`mixstream.methods.learning.bounds`), so that they hold for all methods alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from mixstream.mixture.simplex import Float64
from mixstream.streams.index import Int64

Signal = Literal["alignment", "excess", "losses"]


@dataclass(frozen=True)
class Observation:
    """What a run tells a method at an update; K sources, in the plan's order.

    Attributes:
        batch: batches trained.
        num_batches: batches of the run.
        eta: learning rate of the model at this step.
        weights: (K,) alpha > 0 or 0, sum 1: what the update starts from.
        shares: (K,) share of the draws since the last update, sum 1: the probability p that each source was
            sampled with.
        drawn: (K,) samples drawn so far.
        sizes: (K,) samples of one repeat.
        signal: (K,) what the method asks for, by its `signal`:
            ``alignment``: ``W_i = <grad l_i, G>``; ``excess``: mean over tokens of max(0, loss - reference's loss);
            ``losses``: mean training loss since the last update, nan of a source that was not read. None where
            the method asks for nothing.
    """

    batch: int
    num_batches: int
    eta: float
    weights: Float64
    shares: Float64
    drawn: Int64
    sizes: Int64
    signal: Float64 | None


class Method(Protocol):
    """Learns weights online; all that it keeps between updates is in its state."""

    @property
    def needs(self) -> Signal | None:
        """What it has to be told at each update."""
        ...

    def update(self, seen: Observation) -> Float64:
        """Return the weights that it wants now, (K,), sum 1, before floors and caps.

        Raises:
            ScoreError: the signal is not finite; nothing has changed then.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what it keeps between updates, as JSON holds it."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...
