"""A run's files as arrays, for tables and pictures."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixstream.errors import FormatError
from mixstream.methods.history import WeightsUpdate, read_history
from mixstream.mixture.plan import Plan
from mixstream.mixture.simplex import Float64


@dataclass(frozen=True)
class Series:
    """One number over a run.

    Attributes:
        batches: (n,) batch of each value.
        values: (n,).
    """

    batches: Float64
    values: Float64


@dataclass(frozen=True)
class Heldout:
    """A final held-out loss; bits a byte is None where the tokens of a byte are not known."""

    num_tokens: int
    nats_per_token: float
    bits_per_byte: float | None


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
    languages: Mapping[str, Heldout]
    batches: int
    tokens: int | None
    seconds: float | None

    def by_stream(self, what: str) -> dict[str, Series]:
        """Return the series logged as ``what/STREAM``, by stream, in the plan's order."""
        found = {name: self.metrics.get(f"{what}/{name}") for name in self.plan.streams}
        return {name: series for name, series in found.items() if series is not None}


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
    result = _read_result(folder / "result.json")
    metrics = _read_metrics(folder / "metrics.jsonl")
    logged = metrics.get("loss/train/total")
    return RunRecord(
        name=name or folder.name,
        plan=Plan.load(folder / "plan.json"),
        updates=read_history(weights) if weights.exists() else [],
        metrics=metrics,
        languages={
            language: Heldout(loss["num_tokens"], loss["nats_per_token"], loss["bits_per_byte"])
            for language, loss in result.get("languages", {}).items()
        },
        batches=int(logged.batches[-1]) if logged is not None else 0,
        tokens=result.get("tokens"),
        seconds=result.get("seconds"),
    )


def _read_result(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as problem:
        raise FormatError(f"{path}: not JSON ({problem}); let the run end again") from None
    if content.get("format") != "mixstream.result" or content.get("version") != 1:
        raise FormatError(f"{path}: format {content.get('format')!r} {content.get('version')!r}, expected 1")
    return content


def _read_metrics(path: Path) -> dict[str, Series]:
    if not path.exists():
        return {}
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                entry = json.loads(line)
                for name, value in entry["metrics"].items():
                    if isinstance(value, (int, float)):
                        found[name].append((entry["batch"], value))
            except (ValueError, KeyError, TypeError):
                if line.endswith("\n"):  # a last line without its end: the run is writing it
                    raise FormatError(f"{path}, line {number}: not a line of metrics") from None
    return {name: Series(*np.array(points, dtype=np.float64).T) for name, points in found.items()}
