"""In what a recipe and its streams differ from those that a run began with, and what of it may be carried over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mixstream.mixture.differences import KEPT, identity_differences
from mixstream.mixture.plan import Plan
from mixstream.runs.recipe import RunRecipe, all_keys

# What a run may change when it goes on: none of it changes which samples are read. Device, microbatch size, sharding
# and compiling change the last bits of sums, and so, after a while, the weights of a run that learns them.
MAY_CHANGE = frozenset(
    f"training.{key}" for key in ("num_workers", "checkpoint_batches", "cache_dir", "cache_limit", "verify_hashes")
) | {"loggers"}
MAY_CHANGE_UNLESS_LEARNING = MAY_CHANGE | {
    f"training.{key}" for key in ("device", "microbatch_size", "fsdp", "compile")
}

# What a migration carries a run over to: other reading, counted and measured in other ways. What the plan must keep
# is looked up in the plan: a recipe can say the same in several ways.
MAY_MIGRATE = MAY_CHANGE_UNLESS_LEARNING | {
    "seed",
    *(f"mixture.{key}" for key in ("weights", "budget_tokens", "batch_size", "max_repeats", "floor", "schedule")),
    *(f"mixture.{key}" for key in ("window_samples", "lanes", "sequence_length", "token_column")),
    *(f"training.{key}" for key in ("warmup_batches", "log_batches", "heldout_batches", "heldout_samples")),
}

ORDER = "it decides the order of every stream"
LEARNT = "learnt weights belong to what they were learnt over; begin another proxy with them as its mixture.weights"
REASONS = {"model": "the trained parameters have that shape"}
TRAINED = "a migration changes what is read, not how the model is trained"


class Changes(NamedTuple):
    """What differs, a sentence each.

    Attributes:
        told: all of it.
        fixed: what no run can be carried over to, with the reason.
    """

    told: tuple[str, ...]
    fixed: tuple[str, ...]


def changes_of(before: RunRecipe, now: RunRecipe, planned: Plan | None, plan: Plan) -> Changes:
    """Return what differs between the recipe and plan of a run and those to go on with; None: it has no plan yet."""
    old, new = all_keys(before), all_keys(now)
    learns = before.method is not None or now.method is not None
    free = MAY_CHANGE if learns else MAY_CHANGE_UNLESS_LEARNING
    keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key) and not _is_one_of(key, free))
    told = {key: f"{key} was {old.get(key)!r}, is {new.get(key)!r}" for key in keys}
    of_plan = identity_differences(planned.identity, plan.identity) if planned else []
    everything = (*told.values(), *of_plan)
    if learns:
        return Changes(everything, tuple(f"{change} ({LEARNT})" for change in everything))
    fixed = [
        f"{told[key]} ({REASONS.get(key.partition('.')[0], TRAINED)})"
        for key in keys
        if not _is_one_of(key, MAY_MIGRATE)
    ]
    return Changes(everything, (*fixed, *(_fixed_in(planned, plan) if planned else ())))


def _is_one_of(key: str, sections: frozenset[str]) -> bool:
    return any(key == section or key.startswith(f"{section}.") for section in sections)


def _fixed_in(planned: Plan, plan: Plan) -> Iterable[str]:
    """Return what differs between two plans and must not."""
    for key in KEPT:
        if getattr(planned, key) != getattr(plan, key):
            yield f"{key} was {getattr(planned, key)!r}, is {getattr(plan, key)!r} ({ORDER})"
    made_by, makes = (p.tokenizer and p.tokenizer.fingerprint for p in (planned, plan))
    if made_by != makes:
        yield f"the tokenizer's fingerprint was {made_by!r}, is {makes!r} (the model has learnt the other's tokens)"
    columns = {entry.name: entry.token_column for entry in planned.entries}
    for entry in plan.entries:
        if columns.get(entry.name, entry.token_column) != entry.token_column:
            was = columns[entry.name]
            yield f"stream {entry.name} was read from column {was!r}, now from {entry.token_column!r} (other tokens)"
