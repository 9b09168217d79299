"""positions.jsonl: where a run was from time to time, so that no batch of it need be counted to from its first.

A run that was carried over to another plan (`mixstream train --migrate`) has several legs, each with a plan of its own;
what a line says is in the plan of its leg.
"""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from mixstream.formats import FileModel
from mixstream.loader.order import Growth
from mixstream.loader.state import SavedGrowth, growth_of, read_state
from mixstream.mixture.plan import Plan
from mixstream.mixture.position import Position
from mixstream.streams.manifest import Count, Positive


class PositionLine(FileModel):
    """One line of positions.jsonl.

    Attributes:
        leg: how often the run had been carried over to another plan before.
        plan: digest of that leg's plan, see `plan_digest`.
        ranks: processes that trained then.
        samples: samples trained on, of all legs.
        position: the loader's account before a batch.
        pending: weights that were to act at that batch or later: (batch, {stream: weight}).
        growth: how streams had grown on the way, by name.
    """

    format: Literal["mixstream.position"] = "mixstream.position"
    version: Literal[1] = 1
    leg: Count
    plan: str
    ranks: Positive
    samples: Count
    position: Position
    pending: tuple[tuple[Count, dict[str, float]], ...]
    growth: dict[str, tuple[SavedGrowth, ...]]

    def grown(self) -> dict[str, tuple[Growth, ...]]:
        """Return how streams had grown, as the order wants it."""
        return {name: tuple(growth_of(one) for one in own) for name, own in self.growth.items()}


def plan_digest(plan: Plan) -> str:
    """Return a short name of all that decides what a plan's run reads: the same for two plans that read the same."""
    text = json.dumps(plan.identity, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def line_of(state: str, digest: str, leg: int, ranks: int) -> PositionLine:
    """Return the line that a loader's `state_dict` comes to."""
    saved = read_state(state)
    keys = ("batch", "end_batch", "scheduled", "cursors", "owed", "shares")
    return PositionLine(
        leg=leg,
        plan=digest,
        ranks=ranks,
        samples=saved.samples,
        position=Position(**{key: getattr(saved, key) for key in keys}),
        pending=saved.pending,
        growth=saved.growth,
    )
