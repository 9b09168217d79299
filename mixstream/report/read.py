"""A run's files as arrays, for tables and pictures."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
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

    nats_per_token: float
    bits_per_byte: float | None


@dataclass(frozen=True)
class RunRecord:
    """What one run left behind.

    Attributes:
        name: its folder's name.
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


def read_run(folder: Path) -> RunRecord:
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
        name=folder.name,
        plan=Plan.load(folder / "plan.json"),
        updates=read_history(weights) if weights.exists() else [],
        metrics=metrics,
        languages={
            language: Heldout(loss["nats_per_token"], loss["bits_per_byte"])
            for language, loss in result.get("languages", {}).items()
        },
        batches=int(logged.batches[-1]) if logged is not None else 0,
        tokens=result.get("tokens"),
        seconds=result.get("seconds"),
    )


def _read_result(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("format") != "mixstream.result" or content.get("version") != 1:
        raise FormatError(f"{path}: format {content.get('format')!r} {content.get('version')!r}, expected 1")
    return dict(content)


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
