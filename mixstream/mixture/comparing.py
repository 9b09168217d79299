"""Two plans side by side: what a person wants to know before one of them is run instead of the other."""

from __future__ import annotations

from typing import Any, Literal

from mixstream.formats import FileModel
from mixstream.mixture.plan import Plan, PlannedStream

SETTINGS = (
    "root",
    "split",
    "weights_from",
    "stored_sequence_length",
    "sequence_length",
    "batch_size",
    "num_batches",
    "budget_tokens",
    "floor",
    "window_samples",
    "lanes",
    "seed",
)


class SettingChange(FileModel):
    """A setting of the whole run that is another one."""

    name: str
    before: str | int | float | None
    now: str | int | float | None


class StreamState(FileModel):
    """What one plan has decided for a stream.

    Attributes:
        weight, proportion, samples, tokens, repeats, max_repeats: as in plan.json.
        stored_samples: of the stream, in samples of the length that is read.
        fingerprint: of its shards.
    """

    weight: float
    proportion: float
    samples: int
    tokens: int
    repeats: float
    max_repeats: float | None
    stored_samples: int
    fingerprint: str


class StreamChange(FileModel):
    """A stream that two plans do not treat alike; None where a plan does not have it."""

    name: str
    before: StreamState | None
    now: StreamState | None

    @property
    def what(self) -> str:
        """Return what cannot be told by numbers side by side, in words."""
        if self.before is None:
            return "new"
        if self.now is None:
            return "gone"
        told = []
        if self.before.fingerprint != self.now.fingerprint:
            told.append(f"other shards ({self.before.stored_samples:,} samples, now {self.now.stored_samples:,})")
        if self.before.max_repeats != self.now.max_repeats:
            told.append(f"budget {_budget(self.before.max_repeats)}, now {_budget(self.now.max_repeats)}")
        return "; ".join(told)


class PlanDifference(FileModel):
    """What `mixstream plan diff --json` prints.

    Attributes:
        reads_same: whether runs of the two would read the very same batches.
        settings: those that differ; where the streams lie and where weights come from change nothing that is read.
        num_streams: that both have, whether they differ or not.
        streams: those that differ, in the order of their names.
    """

    format: Literal["mixstream.plan-difference"] = "mixstream.plan-difference"
    version: Literal[1] = 1
    reads_same: bool
    settings: tuple[SettingChange, ...]
    num_streams: int
    streams: tuple[StreamChange, ...]

    @property
    def new(self) -> tuple[str, ...]:
        """Streams that only the second plan has."""
        return tuple(stream.name for stream in self.streams if stream.before is None)

    @property
    def gone(self) -> tuple[str, ...]:
        """Streams that only the first plan has."""
        return tuple(stream.name for stream in self.streams if stream.now is None)


def compare_plans(before: Plan, now: Plan) -> PlanDifference:
    """Return in what `now` differs from `before`."""
    first, second = ({entry.name: _state(entry) for entry in plan.entries} for plan in (before, now))
    names = sorted(first.keys() | second.keys())
    told = [SettingChange(name=name, before=own, now=other) for name, own, other in _settings(before, now)]
    return PlanDifference(
        reads_same=before.identity == now.identity,
        settings=tuple(change for change in told if change.before != change.now),
        num_streams=len(first.keys() & second.keys()),
        streams=tuple(
            StreamChange(name=name, before=first.get(name), now=second.get(name))
            for name in names
            if first.get(name) != second.get(name)
        ),
    )


def _settings(before: Plan, now: Plan) -> list[tuple[str, Any, Any]]:
    """Return (name, value, value) of all settings."""
    own = [(name, getattr(before, name), getattr(now, name)) for name in SETTINGS]
    tokenizers = (plan.tokenizer.fingerprint if plan.tokenizer else None for plan in (before, now))
    schedules = (plan.identity["schedule"] for plan in (before, now))
    columns = (", ".join(sorted({entry.token_column for entry in plan.entries})) for plan in (before, now))
    common = set(before.streams) & set(now.streams)
    first, second = ([name for name in plan.streams if name in common] for plan in (before, now))
    order = "the first plan's"
    return [
        *own,
        ("tokenizer", *tokenizers),
        ("schedule", *schedules),
        ("token_column", *columns),
        ("order of streams", order, order if first == second else "another"),
    ]


def _state(entry: PlannedStream) -> StreamState:
    same = ("weight", "proportion", "samples", "tokens", "repeats", "max_repeats", "fingerprint")
    return StreamState(stored_samples=entry.num_samples, **{name: getattr(entry, name) for name in same})


def _budget(max_repeats: float | None) -> str:
    return "none" if max_repeats is None else f"{max_repeats:g}"
