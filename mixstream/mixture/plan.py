"""plan.json: what was decided for a run, immutable, before anything is read."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from mixstream.formats import FileModel, dump_json, read_json, write_whole
from mixstream.mixture.apportion import MAX_BATCH_SIZE, UNIT
from mixstream.mixture.budget import draw_limits
from mixstream.mixture.lanes import lane_limits
from mixstream.mixture.ledger import Terms
from mixstream.mixture.phases import Phase, phases_of, total_units
from mixstream.mixture.schedule import PlannedChange, phase_weights
from mixstream.mixture.simplex import Float64
from mixstream.streams.index import Int64
from mixstream.streams.manifest import MAX_COUNT, Count, Positive, TokenizerInfo

Share = Annotated[float, Field(ge=0, le=1)]


class PlannedStream(FileModel):
    """What a plan decided for one stream.

    Attributes:
        token_column: the MDS column that holds its tokens.
        num_samples: samples of the length that is read.
        fingerprint: of the stream as it was when the plan was made.
        weight: what was asked for, before the schedule's first change.
        scale: factor on its scheduled weights that keeps it within its repeat budget; 1 without a schedule.
        proportion: its share of the draws, after the floor, the repeat budgets and rounding to 2^-40; under a
            schedule, the mean over the run.
        max_repeats: its repeat budget, None where unlimited.
        samples, tokens: draws of the whole run, to within one sample, and their tokens.
        repeats: draws / samples of the stream.
    """

    name: str
    language: str | None
    domain: str | None
    token_column: str
    num_samples: Positive
    fingerprint: str
    weight: Share
    scale: Share = 1.0
    proportion: Share
    max_repeats: Annotated[float, Field(gt=0)] | None
    samples: Count
    tokens: Count
    repeats: Annotated[float, Field(ge=0)]


class PlanRow(NamedTuple):
    """One line of a plan's table."""

    name: str
    weight: float
    proportion: float
    samples: int
    tokens: int
    repeats: float


class Plan(FileModel):
    """The decided, immutable result of planning a run.

    Attributes:
        root: the folder that holds the streams.
        split: the sub-folder of each that is read, None for the stream itself.
        weights_from: the rule or file that the weights came from, or ``given``.
        entries: one a stream, in the order in which a batch numbers them.
        tokenizer: what made all streams' tokens; None where it is unknown.
        stored_sequence_length: tokens of a row as the streams store it.
        sequence_length: tokens of a sample as it is read: a row is one sample, or several one after the other.
        batch_size: samples of a global batch, over all ranks.
        num_batches: global batches of the run.
        budget_tokens: the token budget asked for; the run reads the whole batches that it pays.
        floor: least proportion of every stream, also of weights set online.
        window_samples: samples among which a stream is shuffled at a time, in whole shards.
        lanes: canonical nodes that each stream's samples are dealt to.
        seed: of everything random in the order of reading.
        schedule: how the weights change in the course of the run.
    """

    format: Literal["mixstream.plan"] = "mixstream.plan"
    version: Literal[1] = 1
    root: str
    split: str | None
    weights_from: str
    tokenizer: TokenizerInfo | None
    stored_sequence_length: Positive
    sequence_length: Positive
    batch_size: Annotated[int, Field(gt=0, le=MAX_BATCH_SIZE)]
    num_batches: Positive
    budget_tokens: Positive
    floor: Share
    window_samples: Positive
    lanes: Positive
    seed: Count
    schedule: tuple[PlannedChange, ...] = ()
    entries: Annotated[tuple[PlannedStream, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Plan:
        if len(set(self.streams)) != len(self.streams):
            raise ValueError("a stream is named twice")
        if self.num_batches * self.batch_size > MAX_COUNT:
            raise ValueError(f"{self.num_batches} batches of {self.batch_size} are more than 2^62 draws")
        if self.batch_size % self.lanes:
            raise ValueError(f"{self.lanes} lanes cannot share batches of {self.batch_size}")
        if self.stored_sequence_length % self.sequence_length:
            raise ValueError(f"rows of {self.stored_sequence_length} tokens hold no samples of {self.sequence_length}")
        if any(change.weights.keys() != set(self.streams) for change in self.schedule):
            raise ValueError("a change of the schedule names other streams than the plan")
        if abs(math.fsum(self.proportions) - 1) > 1e-12:
            raise ValueError(f"proportions sum to {math.fsum(self.proportions)!r}, not to 1")
        means = np.array(total_units(self.phases, self.num_batches), dtype=np.float64) / (self.num_batches * UNIT)
        if (np.abs(means - self.proportions) > 1e-12).any():
            raise ValueError("proportions are not what the schedule comes to")
        return self

    @cached_property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams; a batch's ``stream`` column indexes them."""
        return tuple(entry.name for entry in self.entries)

    @property
    def sizes(self) -> Int64:
        """Samples of each stream, (K,)."""
        return np.array([entry.num_samples for entry in self.entries], dtype=np.int64)

    @property
    def weights(self) -> Float64:
        """Weights asked for, (K,)."""
        return np.array([entry.weight for entry in self.entries])

    @property
    def proportions(self) -> Float64:
        """Shares of what is read, (K,), sum 1; under a schedule, the mean over the run."""
        return np.array([entry.proportion for entry in self.entries])

    @property
    def shares(self) -> Int64:
        """What the run begins with, in units of 2^-40, (K,), sum 2^40; exact."""
        return self.phases[0].shares

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The run as phases of constant shares: one without a schedule."""
        if not self.schedule:
            return (Phase(0, (self.proportions * UNIT).astype(np.int64)),)
        firsts, weights = phase_weights(self.weights, self.schedule, self.streams, self.num_batches)
        scale = np.array([entry.scale for entry in self.entries])
        return phases_of(firsts, weights, scale, self.floor)

    @property
    def terms(self) -> Terms:
        """What the ledger of a run must keep to."""
        budgets = [entry.max_repeats for entry in self.entries]
        limits = draw_limits(self.sizes, budgets, self.num_batches * self.batch_size)
        sizes = {entry.name: entry.num_samples for entry in self.entries}
        lanes = lane_limits(sizes, budgets, self.lanes)
        return Terms(self.batch_size, self.num_batches, limits, lanes, self.floor, self.phases)

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides what a run reads, as JSON: two plans that agree in it read the same."""
        kept = {"name", "token_column", "num_samples", "fingerprint", "weight", "proportion", "max_repeats"}
        whole = {"sequence_length", "batch_size", "num_batches", "floor", "window_samples", "lanes", "seed"}
        identity = self.model_dump(mode="json", include={**dict.fromkeys(whole, True), "entries": {"__all__": kept}})
        return identity | {"schedule": self._schedule_told()}

    def _schedule_told(self) -> str | None:
        """Return the schedule in a few words and the hash of all of it."""
        if not self.schedule:
            return None
        facts = [[entry.scale for entry in self.entries], [change.model_dump() for change in self.schedule]]
        digest = hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()
        return f"changes at batches {', '.join(str(change.at_batch) for change in self.schedule)} ({digest})"

    def table(self) -> list[PlanRow]:
        """Return what was decided, one row a stream."""
        return [PlanRow(*(getattr(entry, key) for key in PlanRow._fields)) for entry in self.entries]

    def save(self, path: str | Path) -> None:
        """Write plan.json, whole or not at all."""
        write_whole(Path(path), dump_json(self))

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read a plan.json.

        Raises:
            FormatError: it is missing or is not one.
        """
        return read_json(Path(path), cls, "`mixstream plan` makes one")


def named(values: Float64, names: tuple[str, ...]) -> Mapping[str, float]:
    """Return a (K,) array as {name: value}."""
    return dict(zip(names, values.tolist(), strict=True))
