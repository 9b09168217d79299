"""What tracing tells, as JSON."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict

from mixstream.formats import FileModel


class DocumentShown(FileModel):
    """What a sample has of a document: its tokens `start` to `stop` - 1, of which `offset` came before."""

    id: str
    start: int
    stop: int
    offset: int
    num_tokens: int


class RowShown(FileModel):
    """One row of a batch.

    Attributes:
        row: in the global batch.
        stream, shard, shard_row: where it is; `part` of the shard's row, where rows are read as several samples.
        sample: in the stream.
        repeat: of the stream; `seen`: how often the run had read this sample before.
        documents: None where nobody wrote them down.
        text: decoded; None where it was not asked for, or cannot be.
    """

    row: int
    stream: str
    shard: str
    shard_row: int
    part: int
    sample: int
    repeat: int
    seen: int
    documents: tuple[DocumentShown, ...] | None
    text: str | None


class LossShown(FileModel):
    """The training loss of a batch; in JSON null, where it was not finite."""

    model_config = ConfigDict(allow_inf_nan=True)  # a run that diverged is what is looked into

    batch: int
    loss: float


class BatchShown(FileModel):
    """What `mixstream trace RUN --batch N --json` prints.

    Attributes:
        run: what was traced.
        leg: how often the run had been carried over to another plan before.
        batch: counted from 0, by that leg's plan.
        rank, world_size: whose part of the batch it is; None: all of it.
        trained: whether the run has come to the batch; None where nobody noted how far it came.
        losses: of the batch and those around it, as far as the run noted them.
        missing: why texts or documents of a stream are missing, by stream.
        rows: in order.
    """

    format: Literal["mixstream.trace"] = "mixstream.trace"
    version: Literal[1] = 1
    run: str
    leg: int
    batch: int
    rank: int | None
    world_size: int | None
    trained: bool | None
    losses: tuple[LossShown, ...]
    missing: dict[str, str]
    rows: tuple[RowShown, ...]


class DrawShown(FileModel):
    """One time that a sample was read: the row of the batch, and how often the run had read it before."""

    stream: str
    leg: int
    batch: int
    row: int
    sample: int
    repeat: int
    seen: int


class PlaceShown(FileModel):
    """Where what was asked for is: the samples of a stream that have tokens of it, none where it was cut off."""

    stream: str
    document: int | None
    num_tokens: int | None
    samples: tuple[int, ...]


class DrawsShown(FileModel):
    """What `mixstream trace RUN --document ID --json` prints.

    Attributes:
        run: what was traced.
        id: of the document; None where a sample was asked for.
        trained: batches that the run has come to; None: nobody noted it, and all of the plan is told.
        missing: why a stream could not be looked through, by stream.
        places: where the document is.
        draws: every time that it was read, in order.
    """

    format: Literal["mixstream.trace_document"] = "mixstream.trace_document"
    version: Literal[1] = 1
    run: str
    id: str | None
    trained: int | None
    missing: dict[str, str]
    places: tuple[PlaceShown, ...]
    draws: tuple[DrawShown, ...]
