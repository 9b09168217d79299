"""A run's files as arrays, for tables and pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict

from mixstream.errors import FormatError
from mixstream.formats import FileModel, parse, parse_json
from mixstream.methods.learning.history import WeightsUpdate, read_history
from mixstream.mixture.plan import Plan
from mixstream.mixture.simplex import Float64
from mixstream.runs.folder import Loss, RunFolder
from mixstream.streams.manifest import Count


@dataclass(frozen=True)
class Series:
    """One number over a run.

    Attributes:
        batches: (n,) batch of each value.
        values: (n,).
    """

    batches: Float64
    values: Float64


class MetricsLine(FileModel):
    """One line of metrics.jsonl.

    Attributes:
        batch: batches trained, the one that it tells of included.
        metrics: what was logged, by name.
    """

    model_config = ConfigDict(allow_inf_nan=True)  # a run that diverged says so

    batch: Count
    metrics: dict[str, Any]


@dataclass(frozen=True)
class RunRecord:
    """What one run left behind.

    Attributes:
        name: its folder's name, with as much of the path as tells it from the others.
        plan: what it was to read.
        updates: weights learnt online, if any.
        metrics: what was logged, by name.
        languages: final held-out loss by language, empty where the run has not ended.
        batches: batches read, as far as is logged.
        tokens, seconds: of a run that has ended, else None.
    """

    name: str
    plan: Plan
    updates: list[WeightsUpdate]
    metrics: Mapping[str, Series]
    languages: Mapping[str, Loss]
    batches: int
    tokens: int | None
    seconds: float | None

    def by_stream(self, what: str) -> dict[str, Series]:
        """Return the series logged as ``what/STREAM``, by stream, in the plan's order."""
        found = {name: self.metrics.get(f"{what}/{name}") for name in self.plan.streams}
        return {name: series for name, series in found.items() if series is not None}


@dataclass(frozen=True)
class StreamTraffic:
    """What came through the cache of one stream, over all ranks and the whole run so far."""

    name: str
    bytes: int
    requests: int
    faults: int
    hits: int
    evicted: int


def traffic_of(run: RunRecord) -> list[StreamTraffic]:
    """Return what came through the cache, by stream and in all; nothing where all was read in its place."""
    counts = [column.name for column in fields(StreamTraffic) if column.name != "name"]
    columns = {count: run.by_stream(f"store/{count}") for count in counts}
    rows = [
        StreamTraffic(name, **{count: int(series[name].values[-1]) for count, series in columns.items()})
        for name in run.plan.streams
        if all(name in series for series in columns.values())
    ]
    total = {count: sum(getattr(row, count) for row in rows) for count in counts}
    return [*rows, StreamTraffic("all streams", **total)] if rows else []


def waited_share(run: RunRecord) -> tuple[float, float] | None:
    """Return the seconds that a run waited for shards, all ranks together, and their share of its time, if known."""
    waited, seconds = run.metrics.get("store/waited_seconds"), run.metrics.get("store/seconds")
    if waited is None or seconds is None:
        return None
    return float(waited.values[-1]), float(waited.values[-1] / max(seconds.values[-1], 1e-9))


def read_runs(folders: Sequence[Path]) -> list[RunRecord]:
    """Read runs' folders, each named by the shortest end of its path that no other has.

    Raises:
        FormatError: a folder is not a run's, or is given twice.
    """
    paths = [folder.absolute() for folder in folders]
    if len(set(paths)) != len(paths):
        raise FormatError(f"{', '.join(map(str, folders))}: a run is named twice; name each once")
    return [read_run(folder, _shortest(path, paths)) for folder, path in zip(folders, paths, strict=True)]


def _shortest(path: Path, paths: Sequence[Path]) -> str:
    for length in range(1, len(path.parts)):
        end = path.parts[-length:]
        if sum(other.parts[-length:] == end for other in paths) == 1:
            return "/".join(end)
    return str(path)


def read_run(folder: Path, name: str | None = None) -> RunRecord:
    """Read a run's folder, ended or not.

    Raises:
        FormatError: the folder is not a run's, or one of its files is not what it should be.
    """
    if not (folder / "plan.json").exists():
        raise FormatError(f"{folder}: not a run's folder, it holds no plan.json; `mixstream train` makes one")
    weights = folder / "weights.jsonl"
    result = RunFolder(folder).read_result()
    metrics = _read_metrics(folder / "metrics.jsonl")
    logged = metrics.get("loss/train/total")
    return RunRecord(
        name=name or folder.name,
        plan=Plan.load(folder / "plan.json"),
        updates=read_history(weights) if weights.exists() else [],
        metrics=metrics,
        languages=result.languages if result else {},
        batches=int(logged.batches[-1]) if logged is not None else 0,
        tokens=result.tokens if result else None,
        seconds=result.seconds if result else None,
    )


def _read_metrics(path: Path) -> dict[str, Series]:
    if not path.exists():
        return {}
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    lines = path.read_bytes().decode("utf-8", errors="replace").splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            break  # the run is writing it
        where, remedy = f"{path}, line {number}", "remove the line"
        entry = parse(MetricsLine, parse_json(line, where, remedy), where, remedy)
        for name, value in entry.metrics.items():
            if isinstance(value, (int, float)):
                found[name].append((entry.batch, value))
    return {name: Series(*np.array(points, dtype=np.float64).T) for name, points in found.items()}
