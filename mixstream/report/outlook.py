"""What a run will read, fetch and repeat, told before it begins: the answer of `mixstream plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from mixstream.errors import FormatError
from mixstream.formats import FileModel
from mixstream.methods.repeat_warnings import told_of_many
from mixstream.mixture.plan import Plan, PlannedStream
from mixstream.mixture.simulate import Simulation, StreamForecast
from mixstream.streams.catalog import Catalog, Stream

PLAN_NAME = "plan.json"


class StreamOutlook(FileModel):
    """What a run does with one stream; None: unknown, unlimited, or never.

    Attributes:
        documents, tokens: that the stream holds.
        weight: what was asked for, before a schedule's first change.
        proportion: its share of what is read; under a schedule, the mean over the run.
        samples_to_read, tokens_to_read: draws of the whole run, and their tokens.
        repeats: draws / samples of the stream.
        max_repeats: its repeat budget.
        budget_used: share of that budget that is spent.
        download_bytes: to fetch from where the streams lie, at most, where every shard that was fetched is kept.
        runs_dry_batch: global batch, from 0, in which the repeat budget is spent.
    """

    name: str
    language: str | None
    domain: str | None
    documents: int | None
    tokens: int
    weight: float
    proportion: float
    samples_to_read: int
    tokens_to_read: int
    repeats: float
    max_repeats: float | None
    budget_used: float | None
    download_bytes: int
    runs_dry_batch: int | None


class Outlook(FileModel):
    """What `mixstream plan --json` prints.

    Attributes:
        root: where the streams lie.
        weights_from: the rule or file that the weights came from.
        num_batches, batch_size, sequence_length: of the run.
        tokens_to_read: of the whole run; unread_tokens: of its budget, too few for one more batch.
        scheduled: whether the weights change on the way.
        streams: one a stream, in the plan's order.
        warnings: what should be looked at before the run begins, a sentence each.
    """

    format: Literal["mixstream.outlook"] = "mixstream.outlook"
    version: Literal[1] = 1
    root: str
    weights_from: str
    num_batches: int
    batch_size: int
    sequence_length: int
    tokens_to_read: int
    unread_tokens: int
    scheduled: bool
    streams: tuple[StreamOutlook, ...]
    warnings: tuple[str, ...]


def look_ahead(plan: Plan, catalog: Catalog, found: Simulation) -> Outlook:
    """Return what a run of a plan comes to, a stream a row.

    Args:
        plan: the decided run.
        catalog: of its streams.
        found: the plan's run, walked.
    """
    return Outlook(
        root=plan.root,
        weights_from=plan.weights_from,
        num_batches=plan.num_batches,
        batch_size=plan.batch_size,
        sequence_length=plan.sequence_length,
        tokens_to_read=found.tokens,
        unread_tokens=found.unread_tokens,
        scheduled=bool(plan.schedule),
        streams=tuple(
            _outlook(entry, catalog[entry.name], own) for entry, own in zip(plan.entries, found.streams, strict=True)
        ),
        warnings=tuple(warnings_of(plan)),
    )


def warnings_of(plan: Plan) -> list[str]:
    """Return what should be looked at before a plan is run: repeats beyond what was found useful, streams not read."""
    read = [entry for entry in plan.entries if entry.samples]
    told = told_of_many([entry.name for entry in read], np.array([entry.repeats for entry in read]))
    unread = [entry.name for entry in plan.entries if entry.weight > 0 and not entry.samples]
    if unread:
        more = f" and {len(unread) - 3} more" if len(unread) > 3 else ""
        told.append(
            f"never read: {', '.join(unread[:3])}{more}, of weight above 0 and yet below one sample of the run; raise "
            f"weight or floor, or leave out what is not wanted"
        )
    return told


def plan_in(path: Path) -> Plan:
    """Return the plan of a file, or of a run's folder.

    Raises:
        FormatError: there is none.
    """
    if not path.is_dir():
        return Plan.load(path)
    if (path / PLAN_NAME).exists():
        return Plan.load(path / PLAN_NAME)
    inside = sorted(str(found.parent) for found in path.glob(f"*/{PLAN_NAME}"))
    if inside:
        raise FormatError(f"{path}: holds {len(inside)} runs and is none; choose one of them: {', '.join(inside[:5])}")
    raise FormatError(
        f"{path}: no run's folder, it has no {PLAN_NAME}; `mixstream plan` and `mixstream train` make one"
    )


def _outlook(entry: PlannedStream, stream: Stream, found: StreamForecast) -> StreamOutlook:
    limit = None if entry.max_repeats is None else entry.max_repeats * entry.num_samples
    return StreamOutlook(
        name=entry.name,
        language=entry.language,
        domain=entry.domain,
        documents=stream.num_documents,
        tokens=stream.num_tokens,
        weight=entry.weight,
        proportion=entry.proportion,
        samples_to_read=entry.samples,
        tokens_to_read=entry.tokens,
        repeats=entry.repeats,
        max_repeats=entry.max_repeats,
        budget_used=None if limit is None else entry.samples / limit,
        download_bytes=found.once_bytes,
        runs_dry_batch=found.spent_batch,
    )
