"""What a run does now, from its own files alone: on any machine that sees its folder, at any moment of its life."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixstream.errors import FormatError
from mixstream.metrics import ANY_METHOD, BATCHES_PER_SECOND, TRAIN_LOSS, current_name
from mixstream.mixture.plan import Plan
from mixstream.report.history import History
from mixstream.report.tail import Tail
from mixstream.runs.folder import Result, RunFolder

SILENT_SECONDS = 60.0  # without a line, or as long as ten batches take
LOCKS = Path("/proc/locks")
FIRST_WRITTEN = ("recipe.yaml", "loggers")  # and hidden files, before a run's plan


@dataclass
class Learning:
    """What weights.jsonl tells of a run.

    Attributes:
        method: what learns; None where nothing does.
        updates: how many, the first weights not counted.
        refused: of them, how many gave no new weights.
        reason: of the last refusal.
        weights: the last, by stream.
    """

    method: str | None = None
    updates: int = 0
    refused: int = 0
    reason: str | None = None
    weights: dict[str, float] = field(default_factory=dict)

    def add(self, line: dict[str, Any]) -> None:
        """Take in one line; what does not fit is left out."""
        weights = line.get("weights")
        if not isinstance(weights, dict):
            return
        self.method = str(line.get("method", "xdoge"))
        self.weights = {str(name): float(weight) for name, weight in weights.items() if _is_number(weight)}
        self.updates += line.get("update") != 0
        if line.get("refused"):
            self.refused += 1
            self.reason = str(line["refused"])


@dataclass(frozen=True)
class Sight:
    """A run at one moment.

    Attributes:
        name: its folder's name.
        state: what it does, in words.
        plan: None before the run has begun.
        carried: batches up to which earlier plans held.
        batch: batches trained.
        metrics: what was logged, by today's names.
        learning: what weights.jsonl tells.
        result: how it ended, if it has.
        eta_seconds: until it ends, at its last pace; None: unknown, or it is not going on.
    """

    name: str
    state: str
    plan: Plan | None
    carried: tuple[int, ...]
    batch: int
    metrics: dict[str, History]
    learning: Learning
    result: Result | None
    eta_seconds: float | None

    @property
    def has_ended(self) -> bool:
        """Whether its result is there."""
        return self.result is not None

    def last(self, name: str) -> float | None:
        """Return the last value logged under a name, if any."""
        history = self.metrics.get(name)
        return history.last if history else None


class Watched:
    """A run's folder, followed: each look reads only what is new."""

    def __init__(self, folder: Path) -> None:
        """Follow a folder, which need not be there yet."""
        self._folder = RunFolder(folder)
        self._lines, self._updates = Tail(self._folder.metrics), Tail(self._folder.weights)
        self._metrics: defaultdict[str, History] = defaultdict(History)
        self._learning = Learning()
        self._batch = 0
        self._plan: tuple[tuple[int, int], Plan] | None = None  # what its file was like when it was read

    def look(self) -> Sight:
        """Return what the run does now.

        Raises:
            FormatError: the folder's plan.json or result.json is not what it should be.
        """
        folder = self._folder
        plan = self._read_plan()
        result = folder.read_result() if plan else None
        if plan:
            self._read_logs()
        state = _state(folder, result is not None, plan is not None, self._pace())
        going = plan is not None and state.startswith("running")
        eta = (plan.num_batches - self._batch) / self._pace() if going and plan and self._pace() else None
        return Sight(
            name=folder.path.name,
            state=state,
            plan=plan,
            carried=_carried(folder.path),
            batch=result.batches if result else self._batch,
            metrics=dict(self._metrics),
            learning=self._learning,
            result=result,
            eta_seconds=eta,
        )

    def _pace(self) -> float:
        history = self._metrics.get(BATCHES_PER_SECOND)
        return history.last if history else 0.0

    def _read_plan(self) -> Plan | None:
        """Return the plan, read again where it has changed: a migration writes another."""
        try:
            told = self._folder.plan.stat()
        except FileNotFoundError:
            return None
        stamp = (told.st_mtime_ns, told.st_size)
        if self._plan is None or self._plan[0] != stamp:
            self._plan = (stamp, Plan.load(self._folder.plan))
        return self._plan[1]

    def _read_logs(self) -> None:
        is_anew, updates = self._updates.read()
        if is_anew:
            self._learning = Learning()
        for update in updates:
            self._learning.add(update)
        is_anew, lines = self._lines.read()
        if is_anew:
            self._metrics.clear()
            self._batch = 0
        method = self._learning.method or ANY_METHOD
        for line in lines:
            self._add(line, method)

    def _add(self, line: dict[str, Any], method: str) -> None:
        batch, metrics = line.get("batch"), line.get("metrics")
        if not isinstance(batch, int) or not isinstance(metrics, dict):
            return
        for name, value in metrics.items():
            if _is_number(value):
                self._metrics[current_name(name, method)].add(batch, float(value))
        if TRAIN_LOSS in metrics:
            self._batch = batch


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _carried(folder: Path) -> tuple[int, ...]:
    found = (re.fullmatch(r"plan-to-ba(\d+)(-\d+)?\.json", path.name) for path in folder.glob("plan-to-ba*.json"))
    return tuple(sorted(int(match[1]) for match in found if match))


def _state(folder: RunFolder, has_ended: bool, has_begun: bool, pace: float) -> str:
    """Return what a run does, as well as its files tell it."""
    if has_ended:
        return "ended"
    lock = folder.path / ".lock"
    try:
        inode = lock.stat().st_ino
    except FileNotFoundError:
        return "stopped; the same command goes on" if has_begun else "has not begun"
    if not has_begun:
        return "begins"
    if _is_held_here(inode):
        return "running"
    files = [path.stat().st_mtime for path in (folder.metrics, folder.plan) if path.exists()]
    silent = time.time() - max(files, default=0.0)
    if silent < max(SILENT_SECONDS, 10 / pace if pace else 0.0):
        return "running"
    return f"silent for {silent:,.0f} s: killed, or in a long step on another machine; the same command goes on"


def _is_held_here(inode: int) -> bool:
    """Return whether a process of this machine holds a lock on a file; False too where that cannot be known."""
    try:
        locks = LOCKS.read_text()
    except OSError:
        return False
    return any(part.endswith(f":{inode}") for line in locks.splitlines() for part in line.split()[4:6])


def runs_in(folder: Path) -> list[Path]:
    """Return the runs that a folder stands for: itself, or those of a chain, as far as they have begun.

    Raises:
        FormatError: it is neither, and no run can begin there either.
    """
    if (folder / "plan.json").exists():
        return [folder]
    if folder.is_dir():
        inner = sorted((path.parent for path in folder.glob("*/plan.json")), key=_begun)
        if inner:
            return inner
        others = [path.name for path in folder.iterdir() if not _may_begin(path)]
        if others:
            raise FormatError(
                f"{folder}: not a run's folder, it holds no plan.json, but {', '.join(sorted(others)[:3])}; give the "
                f"folder of a run, or of a chain of runs"
            )
    elif folder.exists() or not folder.absolute().parent.is_dir():
        raise FormatError(f"{folder}: no such folder; give the folder of a run, or of a chain of runs")
    return [folder]


def _may_begin(path: Path) -> bool:
    """Return whether a run that has no plan yet may have written this, or a chain whose first run has none."""
    if path.name.startswith(".") or path.name in FIRST_WRITTEN:
        return True
    return path.is_dir() and all(own.name.startswith(".") or own.name in FIRST_WRITTEN for own in path.iterdir())


def _begun(folder: Path) -> tuple[float, str]:
    """Return what sorts a chain's runs by when they began; one that has ended is not begun again."""
    return (folder / "plan.json").stat().st_mtime, folder.name


class Watch:
    """Several folders, followed; runs of a chain are found as they begin."""

    def __init__(self, folders: Sequence[Path]) -> None:
        """Follow folders of runs or of chains."""
        self._folders = folders
        self._watched: dict[Path, Watched] = {}

    def look(self) -> list[Sight]:
        """Return what each run does now.

        Raises:
            FormatError: a folder is no run's, or a file in it is not what it should be.
        """
        paths = [path for folder in self._folders for path in runs_in(folder)]
        return [self._watched.setdefault(path, Watched(path)).look() for path in dict.fromkeys(paths)]

    @property
    def may_grow(self) -> bool:
        """Whether more runs may begin: a chain's folder does not tell of its last."""
        return any(runs_in(folder) != [folder] for folder in self._folders)
