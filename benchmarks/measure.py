"""What every benchmark shares: taking turns, medians and ratios, peak memory, and telling it.

A benchmark is a list of `Row`s. A row's figures are lists, one number a repeat; repeat n of every contender was
measured in the same turn, so a ratio is made within a turn and its median is told.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FIRST = "mixstream"
Figures = dict[str, list[float]]
_noise: list[float] = []


@dataclass
class Row:
    """One line of the table.

    Attributes:
        what: what was measured.
        unit: of the figures.
        figures: {contender: one number a repeat}; empty where it could not run.
        ratios: {name: median over the repeats of a ratio within a repeat}.
        reach: what is aimed at, in words.
        notes: why a contender is missing, settings.
    """

    what: str
    unit: str
    figures: Figures
    ratios: dict[str, float] = field(default_factory=dict)
    reach: str = ""
    notes: list[str] = field(default_factory=list)

    def ratio(self, name: str, above: str, below: str) -> None:
        """Note the median of `above` / `below`, repeat by repeat, where both ran."""
        pairs = list(zip(self.figures.get(above, []), self.figures.get(below, []), strict=False))
        if pairs and all(bottom for _, bottom in pairs):
            self.ratios[name] = statistics.median(top / bottom for top, bottom in pairs)


def in_turns(
    contenders: Mapping[str, Callable[[], float]], repeats: int, fewer: Mapping[str, int] | None = None
) -> tuple[Figures, list[str]]:
    """Let every contender run once a turn, each turn beginning with another; return figures and who could not.

    Args:
        contenders: {name: measures once}.
        repeats: turns.
        fewer: {name: turns} of those that are too slow for so many.
    """
    figures: Figures = {name: [] for name in contenders}
    missing: dict[str, str] = {}
    for turn in range(repeats):
        names = list(contenders)
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            if name in missing or turn >= (fewer or {}).get(name, repeats):
                continue
            _fixed_work()
            try:
                figures[name].append(contenders[name]())
                print(f"turn {turn + 1}: {name} {brief(figures[name][-1])}", file=sys.stderr, flush=True)
            except Exception as problem:  # noqa: BLE001  a contender that cannot run costs its own row only
                missing[name] = f"{name}: {why_not(problem)}"
                figures[name] = []
                print(missing[name], file=sys.stderr, flush=True)
    return figures, list(missing.values())


def why_not(problem: Exception) -> str:
    """Return why something did not run: it is not there yet, or it failed."""
    said = (str(problem).splitlines() or ["no message"])[0][:200]
    refused = any("mixstream.errors" in text for text in (said, type(problem).__module__))
    missing = refused or isinstance(problem, (ImportError, TypeError))  # TypeError: an option that is new
    return f"{'not built' if missing else 'failed'} ({type(problem).__name__}: {said})"


def rate(batches: Iterable[Any], batch_size: int, seconds: float, warm: float = 0.4) -> float:
    """Return samples per second of a stream of batches, `seconds` long at most, after `warm` seconds of it."""
    iterator = iter(batches)
    for _ in range(2):
        next(iterator)
    begun = started = time.perf_counter()
    read, ended = 0, started
    for _ in iterator:
        ended = time.perf_counter()
        if ended - begun < warm:
            started = ended
            continue
        read += batch_size
        if ended - started > seconds:
            break
    if not read:
        raise RuntimeError(f"the data ended within {warm} seconds of warming up")
    return read / (ended - started)


def fresh(script: str | Path, *arguments: object, timeout: float | None = None) -> Any:
    """Run a script in a process of its own and return the JSON of its last line; at most `timeout` seconds."""
    command = [sys.executable, str(script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])
    return json.loads(done.stdout.strip().splitlines()[-1])


def memory() -> tuple[float, float, float]:
    """Return this process' resident set now, its peak since `forget_peak`, and the mapped files in it now, in MB.

    Mapped files are page cache: other processes share it, and the kernel takes it back when it needs room.
    """
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    now, peak, mapped = (int(status[key].split()[0]) * 1024 / 1e6 for key in ("VmRSS", "VmHWM", "RssFile"))
    return now, peak, mapped


def forget_peak() -> tuple[float, float, float]:
    """Let the peak begin at what is resident now; return `memory`."""
    Path("/proc/self/clear_refs").write_text("5")
    return memory()


def _fixed_work() -> None:
    """Time the same small piece of work again: how much it varies is the machine's noise."""
    numbers = np.arange(1 << 20, dtype=np.int64)
    begun = time.perf_counter()
    for _ in range(8):
        numbers = numbers * 31 % 1_000_003
    _noise.append(time.perf_counter() - begun)


def noise() -> dict[str, float]:
    """Return how long the fixed work took over its fastest, at the median and at worst, and the machine's load."""
    best = min(_noise, default=1.0)
    middle = statistics.median(_noise) if _noise else 1.0
    return {
        "median": round(middle / best, 2),
        "worst": round(max(_noise, default=1.0) / best, 2),
        "load": round(os.getloadavg()[0], 2),
    }


def told(figure: list[float]) -> str:
    """Return the median of a figure with its extremes, in a few characters."""
    if not figure:
        return "not run"
    middle = brief(statistics.median(figure))
    return middle if len(figure) == 1 else f"{middle} ({brief(min(figure))}-{brief(max(figure))})"


def brief(value: float) -> str:
    """Return a number with three figures that count, or whole."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def report(name: str, rows: list[Row], **settings: Any) -> None:
    """Print the rows as text and, as the last line, as JSON."""
    for row in rows:
        print(f"\n{row.what}   [{row.unit}]" + (f"   to reach: {row.reach}" if row.reach else ""))
        for contender, figure in row.figures.items():
            print(f"  {contender:22} {told(figure)}")
        for ratio, value in row.ratios.items():
            print(f"  {ratio:40} {value:.3g}")
        for note in row.notes:
            print(f"  {note}")
    print(f"\nnoise of the machine, a fixed piece of work over its fastest: {noise()}")
    print(json.dumps({"benchmark": name, "settings": settings, "noise": noise(), "rows": [vars(row) for row in rows]}))
