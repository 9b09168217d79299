"""weights.jsonl: what a method has learnt, one line an update."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from mixstream.errors import FormatError
from mixstream.formats import FileModel, parse, parse_json
from mixstream.mixture.position import Position
from mixstream.mixture.weights import Weight
from mixstream.streams.manifest import Count


class WeightsUpdate(FileModel):
    """One line of weights.jsonl.

    Attributes:
        update: number of the update; 0 is what the run began with.
        batch: batches trained when it was computed.
        at_batch: global batch from which it acts.
        weights: by stream, sum 1.
        scores, probe_losses: by stream, the method's signal and the losses that it was measured at; None for update 0,
            and for a number that is not finite.
        eta: learning rate of the update.
        mu: mirror-descent step, in lines of version 1.
        method: which one.
        refused: why there are no new weights, if there are none: the old ones go on.
        apply: what they act on: the loader, or the loss, while the loader goes on with its plan's.
        position: the loader's account before global batch number `batch`, streams in the plan's order; None in lines
            of versions 1 and 2.
    """

    format: Literal["mixstream.weights_update"] = "mixstream.weights_update"
    version: Literal[1, 2, 3] = 3
    method: str = "xdoge"
    update: Count
    batch: Count
    at_batch: Count
    weights: dict[str, Weight]
    scores: dict[str, float | None] | None
    probe_losses: dict[str, float | None] | None
    eta: float | None
    mu: float | None = None
    refused: str | None = None
    apply: Literal["sampling", "loss"] = "sampling"
    position: Position | None = None


def read_history(path: Path) -> list[WeightsUpdate]:
    """Return the updates of a weights.jsonl, in order.

    Raises:
        FormatError: the file is missing or empty, or a line is not an update.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as problem:
        raise FormatError(f"{path}: {problem.strerror}; a proxy run writes it") from None
    except UnicodeDecodeError as problem:
        raise FormatError(f"{path}: not UTF-8 ({problem}); the run was damaged") from None
    if not lines:
        raise FormatError(f"{path}: empty; the proxy run has not begun")
    updates = []
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        updates.append(parse_update(line, where))
        if updates[-1].weights.keys() != updates[0].weights.keys():
            raise FormatError(f"{where}: weights of other streams than in line 1; two runs wrote to this folder")
    return updates


def parse_update(line: str, where: str) -> WeightsUpdate:
    """Return the update that a line tells of.

    Raises:
        FormatError: it is none.
    """
    try:
        return WeightsUpdate.model_validate_json(line, strict=True)
    except ValidationError:  # told in our words
        remedy = "bring the file back, or run the proxy anew"
        return parse(WeightsUpdate, parse_json(line, where, remedy), where, remedy)
