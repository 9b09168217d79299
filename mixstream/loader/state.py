"""The loader's position as one JSON string (M5), and the check that it belongs to the plan at hand.

A string, since sharded Composer checkpoints take one as a leaf: of a dict they drop the keys that the
fresh process lacks and refuse those that are new.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mixstream.errors import FormatError, StateError
from mixstream.formats import FileModel, parse, parse_json
from mixstream.loader.order import Growth
from mixstream.mixture.apportion import UNIT
from mixstream.mixture.differences import identity_differences
from mixstream.mixture.ledger import Ledger
from mixstream.mixture.plan import Plan
from mixstream.mixture.position import Position
from mixstream.mixture.simplex import check_weights
from mixstream.streams.manifest import Count, Positive

PendingWeights = Mapping[int, Mapping[str, float]]


@dataclass(frozen=True)
class LoaderState:
    """What the training loop has consumed, and the weight changes that are still to act.

    Attributes:
        ledger: the position before the next batch to consume.
        samples: samples consumed, of streams that are gone too; batch x batch size, unless the plan was changed
            on the way.
        pending: {global batch at which they act: weights}.
        growth: how streams have grown on the way, by name.
        dropped: where streams were that the plan has no more, by name.
    """

    ledger: Ledger
    samples: int = 0
    pending: PendingWeights = field(default_factory=dict)
    growth: Mapping[str, tuple[Growth, ...]] = field(default_factory=dict)
    dropped: Mapping[str, DroppedStream] = field(default_factory=dict)


class SavedGrowth(FileModel):
    """A `Growth` as JSON."""

    num_samples: Positive
    positions: tuple[Count, ...]


class DroppedStream(FileModel):
    """Where a stream was when the plan was changed to one without it.

    Attributes:
        num_samples, fingerprint: the stream as it was.
        cursors: draws in each lane.
        growth: how it had grown.
    """

    num_samples: Positive
    fingerprint: str
    cursors: tuple[Count, ...]
    growth: tuple[SavedGrowth, ...]


class SavedStream(FileModel):
    """What decided how a stream was read: see `PlannedStream`."""

    name: str
    token_column: str
    num_samples: Positive
    fingerprint: str
    weight: float
    proportion: float
    max_repeats: float | None


class SavedPlan(FileModel):
    """A plan's `identity`: all that decides what its run reads."""

    sequence_length: Positive
    batch_size: Positive
    num_batches: Positive
    floor: float
    window_samples: Positive
    lanes: Positive
    seed: Count
    schedule: str | None
    entries: tuple[SavedStream, ...]


class SavedState(Position):
    """The JSON of a state."""

    format: Literal["mixstream.state"]
    version: Literal[1]
    samples: Count
    pending: tuple[tuple[Count, dict[str, float]], ...]
    growth: dict[str, tuple[SavedGrowth, ...]]
    dropped: dict[str, DroppedStream]
    plan: SavedPlan


def dump_state(state: LoaderState, plan: Plan) -> str:
    """Return a state as one JSON string that names the plan's streams, sizes and fingerprints."""
    saved = SavedState(
        **dict(Position.of(state.ledger)),
        format="mixstream.state",
        version=1,
        samples=state.samples,
        pending=tuple(sorted((batch, dict(weights)) for batch, weights in state.pending.items())),
        growth={name: tuple(saved_growth_of(grown) for grown in growth) for name, growth in state.growth.items()},
        dropped=dict(state.dropped),
        plan=SavedPlan.model_validate(plan.identity),
    )
    return saved.model_dump_json()


def parse_state(text: str, plan: Plan) -> LoaderState:
    """Return the state that `dump_state` wrote for the same plan.

    Raises:
        StateError: it is no such state, or one of another plan: the difference is told.
    """
    saved = read_state(text)
    differences = state_differences(saved, plan)
    if differences:
        more = f" and {len(differences) - 3} more" if len(differences) > 3 else ""
        raise StateError(
            f"the state belongs to another plan: {'; '.join(differences[:3])}{more}; resume with the plan it "
            f"was saved under, start anew in another folder, or carry it over (migrate)"
        )
    check_account(saved, plan.batch_size, plan.streams, plan.lanes, plan.num_batches)
    growth = {name: tuple(growth_of(grown) for grown in own) for name, own in saved.growth.items()}
    return LoaderState(saved.ledger(), saved.samples, dict(saved.pending), growth, saved.dropped)


def read_state(text: str) -> SavedState:
    """Return what a state says, of whatever plan.

    Raises:
        StateError: it is no state.
    """
    try:
        if not isinstance(text, str):
            raise FormatError(f"{type(text).__name__}, expected the string that state_dict() returned")
        remedy = "load one that state_dict() returned"
        return parse(SavedState, parse_json(text, "it", remedy), "it", remedy)
    except FormatError as problem:
        raise StateError(f"not a state of mixstream's loader: {problem}") from None


def state_differences(saved: SavedState, plan: Plan) -> list[str]:
    """Return in what a state's plan differs from `plan`, a sentence each; what explains the others comes first."""
    return identity_differences(saved.plan.model_dump(mode="json"), plan.identity)


def check_account(saved: SavedState, batch_size: int, streams: Sequence[str], lanes: int, num_batches: int) -> None:
    """Refuse an account that no run of such a plan can have come to.

    Raises:
        StateError: telling what does not add up.
    """
    read = sum(map(sum, saved.cursors)) + sum(sum(stream.cursors) for stream in saved.dropped.values())
    found_lanes = {len(saved.cursors), *(len(stream.cursors) for stream in saved.dropped.values())}
    found_lanes |= {len(grown.positions) for growth in saved.growth.values() for grown in growth}
    told = {
        "streams counted": ({len(saved.owed), len(saved.shares), *map(len, saved.cursors)}, {len(streams)}),
        "lanes": (found_lanes, {lanes}),
        "streams that have grown": (set(saved.growth) <= set(streams), True),
        "draws": (read, saved.samples),
        "samples of its batches": (0 <= saved.batch * batch_size - saved.samples < batch_size, True),
        "units owed": (sum(saved.owed), 0),
        "units of shares": (sum(saved.shares), UNIT),
        "batches up to its end": (saved.batch <= saved.end_batch <= num_batches, True),
    }
    for what, (found, expected) in told.items():
        if found != expected:
            raise StateError(f"the state does not add up: {what} are {found}, expected {expected}; it is damaged")
    for batch, weights in saved.pending:
        check_weights(weights, streams)
        if not saved.batch <= batch < num_batches:
            raise StateError(f"the state has weights for batch {batch} of a run at {saved.batch}; it is damaged")


def saved_growth_of(growth: Growth) -> SavedGrowth:
    """Return a growth as JSON."""
    return SavedGrowth(num_samples=growth.num_samples, positions=growth.positions)


def growth_of(saved: SavedGrowth) -> Growth:
    """Return a growth from JSON."""
    return Growth(saved.num_samples, saved.positions)
