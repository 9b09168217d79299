"""What a run logged, as arrays: metrics.jsonl in one pass, and fewer points of it that still show its extremes."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydantic_core
from pydantic import ConfigDict

from mixstream.formats import FileModel, parse, parse_json
from mixstream.mixture.simplex import Float64
from mixstream.streams.manifest import Count

REMEDY = "remove the line"
MOST_ROWS = 200  # sets of names that are kept as rows


@dataclass(frozen=True)
class Series:
    """One number over a run.

    Attributes:
        batches: (n,) batch of each value.
        values: (n,).
    """

    batches: Float64
    values: Float64

    def __post_init__(self) -> None:
        assert len(self.batches) == len(self.values) > 0

    @property
    def last(self) -> float:
        """The last value."""
        return float(self.values[-1])


class MetricsLine(FileModel):
    """One line of metrics.jsonl.

    Attributes:
        batch: batches trained, the one that it tells of included.
        metrics: what was logged, by name.
    """

    model_config = ConfigDict(allow_inf_nan=True)  # a run that diverged says so

    batch: Count
    metrics: dict[str, Any]


def read_metrics(path: Path) -> dict[str, Series]:
    """Return all numbers of a metrics.jsonl by name; a last line that is being written is left for later.

    Raises:
        FormatError: another line is not one of metrics.
    """
    if not path.exists():
        return {}
    columns = _Columns()
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            columns.add(*_entry(line, f"{path}, line {number}"))
    return columns.series()


class _Columns:
    """Numbers by name, added a line at a time.

    Most lines of a run name the same numbers as one before: those are added as one row, at a tenth of the price.
    """

    def __init__(self) -> None:
        self._rows: dict[tuple[str, ...], tuple[array[float], array[float]]] = {}  # names: batches, values row by row

    def add(self, batch: int, metrics: Mapping[str, Any]) -> None:
        """Add a line; what is no number is left out."""
        names = tuple(metrics)
        try:
            values = array("d", metrics.values())
        except TypeError:
            numbers = {name: value for name, value in metrics.items() if isinstance(value, (int, float))}
            names, values = tuple(numbers), array("d", numbers.values())
        if names not in self._rows and len(self._rows) >= MOST_ROWS:
            for name, value in zip(names, values, strict=True):
                self._put((name,), batch, array("d", [value]))
        else:
            self._put(names, batch, values)

    def _put(self, names: tuple[str, ...], batch: int, values: array[float]) -> None:
        batches, rows = self._rows.setdefault(names, (array("d"), array("d")))
        batches.append(batch)
        rows.extend(values)

    def series(self) -> dict[str, Series]:
        """Return all that was added, in order of batches."""
        parts: dict[str, list[tuple[Float64, Float64]]] = defaultdict(list)
        for names, (batches, rows) in self._rows.items():
            columns = np.array(rows).reshape(len(batches), len(names)).T
            for name, values in zip(names, np.ascontiguousarray(columns), strict=True):
                parts[name].append((np.array(batches), values))
        return {name: _in_order(own) for name, own in parts.items()}


def _in_order(parts: list[tuple[Float64, Float64]]) -> Series:
    if len(parts) == 1:
        return Series(*parts[0])
    batches, values = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    order = np.argsort(batches, kind="stable")
    return Series(batches[order], values[order])


def _entry(line: bytes, where: str) -> tuple[int, Mapping[str, Any]]:
    """Return a line's batch and numbers: a million of them in a second, with no model in between."""
    try:
        content = pydantic_core.from_json(line)
    except ValueError:
        content = None
    if isinstance(content, dict) and content.keys() == {"batch", "metrics"}:
        batch, metrics = content["batch"], content["metrics"]
        if type(batch) is int and batch >= 0 and isinstance(metrics, dict):
            return batch, metrics
    told = parse(MetricsLine, parse_json(line.decode("utf-8", errors="replace"), where, REMEDY), where, REMEDY)
    return told.batch, told.metrics


def thin(series: Series, most: int) -> Series:
    """Return at most `most` points of a series, in order: the first, the last, and of each stretch both extremes.

    The points are dealt to stretches of nearly as many points each. A value that is not a number counts as a highest
    one, so that a run that diverged is seen to.

    Args:
        series: the points.
        most: at least 4.
    """
    count = len(series.values)
    if count <= most:
        return series
    edges = np.linspace(0, count, (most - 2) // 2 + 1).astype(np.int64)
    filled = np.where(np.isnan(series.values), np.inf, series.values)
    kept = {0, count - 1}
    for begin, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        kept |= {begin + int(filled[begin:end].argmin()), begin + int(filled[begin:end].argmax())}
    places = np.array(sorted(kept))
    return Series(series.batches[places], series.values[places])
