"""A run's folder as one record, for tables and charts; a chain's folder as its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mixstream.errors import FormatError
from mixstream.methods.learning.history import WeightsUpdate, parse_update
from mixstream.metrics import ANY_METHOD, TRAIN_LOSS, current_name
from mixstream.mixture.plan import Plan
from mixstream.report.series import Series, read_metrics
from mixstream.runs.folder import Loss, Result, RunFolder
from mixstream.runs.versions import read_versions

FIRST = ("proxy", "base")  # of a chain's runs, the order in which they were made


@dataclass(frozen=True)
class RunRecord:
    """What one run left behind.

    Attributes:
        name: its folder's name, with as much of the path as tells it from the others.
        plan: what it was to read.
        updates: weights learnt online, if any.
        metrics: what was logged, by today's names.
        result: how it ended, None where it has not.
        recipe: its settings by dotted key, as far as they can be read.
        versions: of what ran it at each start, where it is noted.
    """

    name: str
    plan: Plan
    updates: list[WeightsUpdate]
    metrics: Mapping[str, Series]
    result: Result | None
    recipe: Mapping[str, Any]
    versions: Sequence[Mapping[str, str]]

    @property
    def languages(self) -> Mapping[str, Loss]:
        """Final held-out loss by language, empty where the run has not ended."""
        return self.result.languages if self.result else {}

    @property
    def batches(self) -> int:
        """Batches read, as far as is logged."""
        if self.result is not None:
            return self.result.batches
        logged = self.metrics.get(TRAIN_LOSS)
        return int(logged.batches[-1]) if logged is not None else 0

    @property
    def method(self) -> str:
        """What learns the weights."""
        return self.updates[-1].method if self.updates else ANY_METHOD

    def by_stream(self, what: str) -> dict[str, Series]:
        """Return the series logged as ``what/STREAM``, by stream, in the plan's order."""
        found = {name: self.metrics.get(f"{what}/{name}") for name in self.plan.streams}
        return {name: series for name, series in found.items() if series is not None}


def read_runs(folders: Sequence[Path]) -> list[RunRecord]:
    """Read runs' folders, each named by the shortest end of its path that no other has.

    Args:
        folders: of runs, or of chains: those stand for all runs in them.

    Raises:
        FormatError: a folder is neither, or a run is named twice.
    """
    paths = [run for folder in folders for run in _runs_in(folder.absolute())]
    if len(set(paths)) != len(paths):
        raise FormatError(f"{', '.join(map(str, folders))}: a run is named twice; name each once")
    return [read_run(path, _shortest(path, paths)) for path in paths]


def _runs_in(folder: Path) -> list[Path]:
    """Return a folder itself, or where it holds runs and is none, those."""
    if RunFolder(folder).plan.exists() or not folder.is_dir():
        return [folder]
    inner = sorted(path.parent for path in folder.glob("*/plan.json"))
    return sorted(inner, key=lambda path: FIRST.index(path.name) if path.name in FIRST else len(FIRST)) or [folder]


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
    files = RunFolder(folder)
    if not files.plan.exists():
        raise FormatError(f"{folder}: not a run's folder, {_what_it_is(files)}; `mixstream train` makes one")
    updates = _read_updates(files.weights)
    return RunRecord(
        name=name or folder.name,
        plan=Plan.load(files.plan),
        updates=updates,
        metrics=_of_today(read_metrics(files.metrics), updates[-1].method if updates else ANY_METHOD),
        result=files.read_result(),
        recipe=_read_recipe(files.recipe),
        versions=read_versions(files.versions),
    )


def _what_it_is(files: RunFolder) -> str:
    if not files.path.exists():
        return "there is no such folder"
    if not files.path.is_dir():
        return "it is a file"
    if files.recipe.exists():
        return "its run stopped before it had written plan.json"
    return "it holds no plan.json"


def _read_updates(path: Path) -> list[WeightsUpdate]:
    """Return the lines of a weights.jsonl; a last one that is being written is left for later."""
    if not path.exists():
        return []
    lines = path.read_bytes().decode("utf-8", errors="replace").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    return [parse_update(line, f"{path}, line {number}") for number, line in enumerate(whole, start=1)]


def _of_today(metrics: Mapping[str, Series], method: str) -> dict[str, Series]:
    """Return what was logged by today's names; what a run logged under both, one after the other."""
    found: dict[str, Series] = {}
    for name, series in metrics.items():
        now = current_name(name, method)
        found[now] = _joined(found[now], series) if now in found else series
    return found


def _joined(one: Series, other: Series) -> Series:
    batches = np.concatenate([one.batches, other.batches])
    order = np.argsort(batches, kind="stable")
    return Series(batches[order], np.concatenate([one.values, other.values])[order])


def _read_recipe(path: Path) -> dict[str, Any]:
    """Return a recipe's settings by dotted key; of an older version's too, whose keys are not today's.

    Raises:
        FormatError: it is not YAML.
    """
    if not path.exists():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as problem:
        told = " ".join(str(problem).split())
        raise FormatError(f"{path}: not YAML ({told}); bring the file back, or remove it") from None
    return flat(content)


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted key."""
    if not isinstance(content, dict) or not content:
        return {prefix: content} if prefix else {}
    inner = [flat(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in content.items()]
    return {key: value for part in inner for key, value in part.items()}
