"""plan.json: what was decided for a run, immutable, before anything is read."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from mixstream.errors import BudgetError, MixtureError
from mixstream.formats import FileModel, dump_json, read_json, write_whole
from mixstream.mixture.apportion import MAX_BATCH_SIZE, UNIT, round_to
from mixstream.mixture.budget import (
    MaxRepeats,
    check_floor_within,
    check_supply,
    draw_limits,
    repeat_budgets,
    share_caps,
    shares_within,
)
from mixstream.mixture.lanes import lane_limits
from mixstream.mixture.ledger import Terms
from mixstream.mixture.simplex import Float64
from mixstream.mixture.weights import WeightsSpec, resolve_weights
from mixstream.streams.catalog import Catalog
from mixstream.streams.index import Int64
from mixstream.streams.manifest import MAX_COUNT, Count, Positive, TokenizerInfo

WINDOW_SAMPLES = 32_768

Share = Annotated[float, Field(ge=0, le=1)]


class PlannedStream(FileModel):
    """What a plan decided for one stream.

    Attributes:
        token_column: the MDS column that holds its tokens.
        num_samples, fingerprint: the stream as it was when the plan was made.
        weight: what was asked for.
        proportion: its share of the draws, after the floor, the repeat budgets and rounding to 2^-40.
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
        sequence_length: tokens of a sample.
        batch_size: samples of a global batch, over all ranks.
        num_batches: global batches of the run.
        budget_tokens: the token budget asked for; the run reads the whole batches that it pays.
        floor: least proportion of every stream, also of weights set online.
        window_samples: samples among which a stream is shuffled at a time, in whole shards.
        lanes: canonical nodes that shards are dealt to.
        seed: of everything random in the order of reading.
    """

    format: Literal["mixstream.plan"] = "mixstream.plan"
    version: Literal[1] = 1
    root: str
    split: str | None
    weights_from: str
    tokenizer: TokenizerInfo | None
    sequence_length: Positive
    batch_size: Annotated[int, Field(gt=0, le=MAX_BATCH_SIZE)]
    num_batches: Positive
    budget_tokens: Positive
    floor: Share
    window_samples: Positive
    lanes: Positive
    seed: Count
    entries: Annotated[tuple[PlannedStream, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Plan:
        if len(set(self.streams)) != len(self.streams):
            raise ValueError("a stream is named twice")
        if int(self.shares.sum()) != UNIT:
            raise ValueError(f"proportions sum to {math.fsum(self.proportions)!r}, not to 1")
        if self.num_batches * self.batch_size > MAX_COUNT:
            raise ValueError(f"{self.num_batches} batches of {self.batch_size} are more than 2^62 draws")
        return self

    @property
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
        """Shares of what is read, (K,), sum 1."""
        return np.array([entry.proportion for entry in self.entries])

    @property
    def shares(self) -> Int64:
        """Proportions in units of 2^-40, (K,), sum 2^40; exact."""
        return (self.proportions * UNIT).astype(np.int64)

    @property
    def terms(self) -> Terms:
        """What the ledger of a run must keep to."""
        budgets = [entry.max_repeats for entry in self.entries]
        limits = draw_limits(self.sizes, budgets, self.num_batches * self.batch_size)
        lanes = lane_limits(self.sizes, budgets, self.lanes)
        return Terms(self.batch_size, self.num_batches, limits, lanes, self.floor, ((0, self.shares),))

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides what a run reads, as JSON: two plans that agree in it read the same."""
        return self.model_dump(
            mode="json",
            include={
                "sequence_length": True,
                "batch_size": True,
                "num_batches": True,
                "floor": True,
                "window_samples": True,
                "lanes": True,
                "seed": True,
                "entries": {
                    "__all__": {
                        "name",
                        "token_column",
                        "num_samples",
                        "fingerprint",
                        "weight",
                        "proportion",
                        "max_repeats",
                    }
                },
            },
        )

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


def build_plan(
    catalog: Catalog,
    weights: WeightsSpec,
    budget_tokens: int,
    batch_size: int,
    sequence_length: int | None = None,
    max_repeats: MaxRepeats = None,
    floor: float = 0.0,
    schedule: None = None,
    lanes: int = 1,
    window_samples: int = WINDOW_SAMPLES,
    seed: int = 17,
) -> Plan:
    """Decide what a run reads: each stream's proportion, samples, tokens and repeats.

    A stream that its weight would push past its repeat budget is held at it, evenly over the whole run,
    and the others get the rest in proportion (M3).

    Args:
        catalog: the streams.
        weights: {name: weight} that sums to 1, or ``natural``, ``uniform``, ``temperature:0.3``,
            ``unimax:4``, or the path of a weights file.
        budget_tokens: tokens to read at most; the run is the whole batches that they pay.
        batch_size: samples of a global batch, over all ranks.
        sequence_length: tokens of a sample; None: as the streams store them.
        max_repeats: repeat budget of every stream, or {name: budget, "*": budget of the rest}; None:
            unlimited.
        floor: least proportion of every stream.
        schedule: not built yet; only None.
        lanes: not built yet; only 1.
        window_samples: samples among which a stream is shuffled at a time.
        seed: of everything random in the order of reading.

    Raises:
        StreamError: streams of different tokenizers or sequence lengths.
        WeightsError, FloorError, BudgetError: with the numbers and the ways out.
        FormatError: the weights file is not one.
        MixtureError: an option that this version does not have.
    """
    budget_tokens = _whole_number("budget_tokens", budget_tokens, least=1)
    batch_size = _whole_number("batch_size", batch_size, least=1)
    window_samples = _whole_number("window_samples", window_samples, least=1)
    seed = _whole_number("seed", seed, least=0)
    _check_options(catalog, sequence_length, schedule, lanes, batch_size)
    first = next(iter(catalog))
    num_batches = _num_batches(budget_tokens, batch_size, first.sequence_length)
    num_draws = num_batches * batch_size
    sizes = np.array(list(catalog.sizes.values()), dtype=np.int64)
    asked = resolve_weights(weights, catalog.tokens, budget_tokens)
    budgets = repeat_budgets(max_repeats, catalog.names)
    limits = draw_limits(sizes, budgets, num_draws)
    check_floor_within(floor, limits / num_draws, catalog.names)
    check_supply(limits, asked + floor, num_draws, batch_size, first.sequence_length, catalog.sizes)
    proportions = shares_within(asked, floor, share_caps(limits, num_draws)) / UNIT
    samples = np.minimum(round_to(num_draws, proportions), limits)
    return Plan(
        root=str(catalog.root.absolute()),
        split=catalog.split,
        weights_from="given" if isinstance(weights, Mapping) else str(weights),
        tokenizer=first.tokenizer,
        sequence_length=first.sequence_length,
        batch_size=batch_size,
        num_batches=num_batches,
        budget_tokens=budget_tokens,
        floor=floor,
        window_samples=window_samples,
        lanes=lanes,
        seed=seed,
        entries=tuple(
            PlannedStream(
                name=stream.name,
                language=stream.language,
                domain=stream.domain,
                token_column=stream.column.name,
                num_samples=stream.num_samples,
                fingerprint=stream.fingerprint,
                weight=float(asked[i]),
                proportion=float(proportions[i]),
                max_repeats=budgets[i],
                samples=int(samples[i]),
                tokens=int(samples[i]) * stream.sequence_length,
                repeats=int(samples[i]) / stream.num_samples,
            )
            for i, stream in enumerate(catalog)
        ),
    )


def _whole_number(name: str, value: object, least: int) -> int:
    """Return an option's value, if it is a whole number that can be counted with.

    Raises:
        MixtureError: it is not, or is below `least`.
    """
    number = int(value) if isinstance(value, numbers.Integral) and not isinstance(value, bool) else None
    if number is None or not least <= number <= MAX_COUNT:
        raise MixtureError(f"{name}={value!r}; expected a whole number of at least {least}, below 2^62")
    return number


def _check_options(
    catalog: Catalog, sequence_length: int | None, schedule: object, lanes: int, batch_size: int
) -> None:
    if not len(catalog):
        raise MixtureError("the catalog holds no stream")
    catalog.check_alike()
    stored = next(iter(catalog)).sequence_length
    if sequence_length not in (None, stored):
        raise MixtureError(
            f"sequence_length={sequence_length}, the streams store {stored}; this version reads them as stored, "
            f"leave it out or convert with --sequence-length {sequence_length}"
        )
    if schedule is not None:
        raise MixtureError("schedule: this version keeps a plan's proportions for the whole run; leave it out")
    if batch_size > MAX_BATCH_SIZE:
        raise MixtureError(f"batch_size={batch_size}; expected 1 to {MAX_BATCH_SIZE:,}")


def _num_batches(budget_tokens: int, batch_size: int, sequence_length: int) -> int:
    num_batches = budget_tokens // (batch_size * sequence_length)
    if num_batches < 1:
        raise BudgetError(
            f"budget_tokens={budget_tokens:,} does not pay one batch of {batch_size} samples of "
            f"{sequence_length} tokens ({batch_size * sequence_length:,}); raise it or make the batch smaller"
        )
    return num_batches


def named(values: Float64, names: tuple[str, ...]) -> Mapping[str, float]:
    """Return a (K,) array as {name: value}."""
    return dict(zip(names, values.tolist(), strict=True))
