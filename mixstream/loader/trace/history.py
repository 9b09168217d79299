"""A run as its files tell it: its legs, oldest first."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mixstream.errors import FormatError, StateError
from mixstream.loader.positions import PositionLine, plan_digest
from mixstream.loader.trace.legs import Leg, Logs
from mixstream.loader.trace.lines import SortedLines
from mixstream.mixture.plan import Plan

PLAN_NAME = "plan.json"


@dataclass(frozen=True)
class History:
    """What a run read, leg by leg.

    Attributes:
        path: what was asked for: a run's folder, or a plan.
        folder: where its logs are.
        legs: oldest first; at least one.
        trained: batches that the last leg has come to; None: nobody noted it, as of a plan that was not run.
    """

    path: Path
    folder: Path
    legs: tuple[Leg, ...]
    trained: int | None

    @classmethod
    def open(cls, path: str | Path, streams: str | None = None) -> History:
        """Read what a run left behind: only its plans, and of its logs a few lines.

        Args:
            path: the run's folder, or a plan.json of a run, beside which its logs lie, if it has any.
            streams: the folder of streams, or its URL, where they have been moved since.

        Raises:
            FormatError: it is neither, or a file is not what it should be, or the run was carried over by a version
                that noted no positions.
        """
        path = Path(path)
        own = path / PLAN_NAME if path.is_dir() else path
        if path.is_dir() and not own.exists():
            raise FormatError(f"{path}: not a run's folder, it holds no {PLAN_NAME}{_runs_in(path)}")
        plan, folder = Plan.load(own), own.parent
        logs = Logs(SortedLines(folder / "positions.jsonl"), SortedLines(folder / "weights.jsonl"))
        kept = _kept(folder)
        legs = _legs(plan, kept, folder, logs, streams)
        if own == path:  # one plan of a run: its own legs
            digest = plan_digest(plan)
            legs = [leg for leg in legs if plan_digest(leg.plan) == digest]
            if not legs and (not kept or digest == plan_digest(next(iter(kept.values())))):
                leg = Leg(0, plan, _roots(plan, plan, streams), Logs.none(), _metrics(path), None, True, None)
                return cls(path, folder, (leg,), None)
        if not legs and not kept:
            raise FormatError(
                f"{folder}: positions.jsonl tells of plan {logs.positions.parse(0, PositionLine).plan}, {own.name} is "
                f"{plan_digest(plan)}; one of the two is of another run, bring the right one back"
            )
        if not legs:
            raise FormatError(
                f"{path}: was carried over to another plan, and nobody noted where it was then; its first plan, "
                f"{folder / next(iter(kept))}, can be traced instead"
            )
        return cls(path, folder, tuple(legs), _trained(folder, logs) if legs[-1].end is None else legs[-1].end)

    def leg_of(self, batch: int) -> Leg:
        """Return the leg that read a batch: of two that count it, the newer.

        Raises:
            StateError: none does.
        """
        for leg in reversed(self.legs):
            if leg.first <= batch < (leg.plan.num_batches if leg.end is None else leg.end):
                return leg
        spans = ", ".join(
            f"{leg.first} to {(leg.plan.num_batches if leg.end is None else leg.end) - 1}" for leg in self.legs
        )
        raise StateError(f"{self.path}: has no batch {batch}; its batches are {spans}, counted from 0")


def _kept(folder: Path) -> dict[str, Plan]:
    """Return the plans that held before, by the names of their files, the first one first."""
    found = [(path, re.fullmatch(r"plan-to-ba(\d+)(?:-\d+)?", path.stem)) for path in folder.glob("plan-to-ba*.json")]
    plans = [(int(match[1]), path.name, Plan.load(path)) for path, match in found if match]
    return {name: plan for batch, name, plan in sorted(plans, key=lambda one: (one[0] * one[2].batch_size, one[1]))}


def _metrics(path: Path) -> Path:
    """Return where what was read by a plan of its own logged its metrics, if they were put aside with it."""
    if any(path.parent.glob("metrics-to-ba*.jsonl")):
        return path.with_name(re.sub(r"plan(-to-ba\d+).*", r"metrics\1.jsonl", path.name))
    return path.with_name("metrics.jsonl")


def _legs(plan: Plan, kept: Mapping[str, Plan], folder: Path, logs: Logs, streams: str | None) -> list[Leg]:
    """Return the legs whose plans and beginnings are known; `plan` is the newest, or one of those that were kept."""
    metrics = folder / "metrics.jsonl"
    firsts = list(_first_lines(logs.positions))
    if not firsts:
        return [] if kept else [Leg(0, plan, _roots(plan, plan, streams), logs, metrics, None, True, None)]
    newest = Plan.load(folder / PLAN_NAME) if (folder / PLAN_NAME).exists() else plan
    plans = {plan_digest(one): one for one in (*kept.values(), newest, plan)}
    is_whole = {plan_digest(one) for one in kept.values()} <= {line.plan for line in firsts}
    legs: list[Leg] = []
    for line, following in reversed(list(zip(firsts, [*firsts[1:], None], strict=True))):
        own = plans.get(line.plan)
        if own is not None:
            read = None if following is None else (following.samples - line.samples) // own.batch_size
            end = None if read is None else line.position.batch + read
            if legs and legs[-1].plan.batch_size != own.batch_size:  # batches were counted anew: metrics were put aside
                metrics = folder / f"metrics-to-ba{end}.jsonl"
            roots = _roots(own, newest, streams)
            legs.append(Leg(line.leg, own, roots, logs, metrics, line, is_whole and line.leg == 0, end))
    return legs[::-1]


def _roots(own: Plan, newest: Plan, streams: str | None) -> dict[str, str]:
    """Return where a leg's streams are now: the newest plan knows best, of those that it still has."""
    if streams is not None:
        return dict.fromkeys(own.streams, streams)
    return {name: newest.root for name in own.streams if name in set(newest.streams)}


def _first_lines(log: SortedLines) -> Iterator[PositionLine]:
    """Yield the first line of each leg in positions.jsonl."""
    start = 0
    while start < log.end:
        line = log.parse(start, PositionLine)
        yield line
        start = max(log.after(start), log.count_up_to(lambda one: one["leg"], line.leg))


def _trained(folder: Path, logs: Logs) -> int | None:
    """Return the batches that a run has come to, as far as it was noted."""
    noted = [(SortedLines(folder / "metrics.jsonl"), lambda line: int(line["batch"]))]
    noted += [(logs.positions, lambda line: int(line["position"]["batch"]))]
    noted += [(logs.weights, lambda line: int(line["batch"]))]
    batches = [log.key(log.before(log.end), key) for log, key in noted if log.end]
    return max(batches, default=None)


def _runs_in(path: Path) -> str:
    runs = sorted(child.parent.name for child in path.glob(f"*/{PLAN_NAME}"))
    return f"; it holds the runs {', '.join(runs[:5])}: name one of them" if runs else "; `mixstream train` makes one"
