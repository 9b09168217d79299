"""The loader's position as one JSON string (M5), and the check that it belongs to the plan at hand.

A string, since sharded Composer checkpoints take one as a leaf: of a dict they drop the keys that the
fresh process lacks and refuse those that are new.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixstream.errors import StateError
from mixstream.mixture.ledger import Ledger
from mixstream.mixture.plan import Plan

FORMAT = "mixstream.state"
VERSION = 1

PendingWeights = Mapping[int, Mapping[str, float]]


@dataclass(frozen=True)
class LoaderState:
    """What the training loop has consumed, and the weight changes that are still to act.

    Attributes:
        ledger: the position before the next batch to consume.
        pending: {global batch at which they act: weights}.
    """

    ledger: Ledger
    pending: PendingWeights = field(default_factory=dict)


def dump_state(state: LoaderState, plan: Plan) -> str:
    """Return a state as one JSON string that names the plan's streams, sizes and fingerprints."""
    ledger = state.ledger
    content = {
        "format": FORMAT,
        "version": VERSION,
        "batch": ledger.batch,
        "end_batch": ledger.end_batch,
        "drawn": ledger.drawn.tolist(),
        "owed": ledger.owed.tolist(),
        "shares": ledger.shares.tolist(),
        "pending": [[batch, dict(weights)] for batch, weights in sorted(state.pending.items())],
        "plan": plan.identity,
    }
    return json.dumps(content, separators=(",", ":"))


def parse_state(text: str, plan: Plan) -> LoaderState:
    """Return the state that `dump_state` wrote for the same plan.

    Raises:
        StateError: it is no such state, or one of another plan: the difference is told.
    """
    try:
        content = json.loads(text)
        found = (content["format"], content["version"])
    except (TypeError, ValueError, KeyError) as problem:
        raise StateError(f"not a state of mixstream's loader: {problem!r}") from None
    if found != (FORMAT, VERSION):
        raise StateError(f"the state has format {found[0]!r} version {found[1]!r}, expected {FORMAT!r} {VERSION}")
    differences = _differences(content["plan"], plan.identity)
    differences.sort(key=lambda told: not told.endswith(("is gone", "is new")))  # what explains the others
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise StateError(
            f"the state belongs to another plan: {'; '.join(differences[:3])}{more}; resume with the plan it "
            f"was saved under, or start anew in another folder"
        )
    arrays = {key: np.array(content[key], dtype=np.int64) for key in ("drawn", "owed", "shares")}
    ledger = Ledger(batch=content["batch"], end_batch=content["end_batch"], **arrays)
    return LoaderState(ledger, dict(content["pending"]))


def _differences(saved: Any, here: Any, where: str = "") -> list[str]:
    """Return what differs between two JSON values, one sentence each."""
    if isinstance(saved, dict) and isinstance(here, dict):
        keys = [*saved, *(key for key in here if key not in saved)]
        return [told for key in keys for told in _differences(saved.get(key), here.get(key), f"{where}{key} ")]
    if isinstance(saved, list) and isinstance(here, list):
        by_name = [{entry["name"]: entry for entry in entries} for entries in (saved, here)]
        names = [*by_name[0], *(name for name in by_name[1] if name not in by_name[0])]
        return [
            told
            for name in names
            for told in _differences(by_name[0].get(name), by_name[1].get(name), f"stream {name} ")
        ]
    if saved == here:
        return []
    if saved is None and where.startswith("stream") and isinstance(here, dict):
        return [f"{where}is new"]
    if here is None and where.startswith("stream") and isinstance(saved, dict):
        return [f"{where}is gone"]
    return [f"{where}was {saved!r}, is {here!r}"]
