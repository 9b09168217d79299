"""What came out of an arena: held-out bits/byte by language, over seeds, and beside the reference, seed by seed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Losses = dict[str, float]  # bits/byte by language


@dataclass(frozen=True)
class Ended:
    """One base run that ended.

    Attributes:
        losses: held-out bits/byte by language.
        weights, repeats: by language: its share of what was read, and draws by unique samples.
        seconds, tokens: of the run.
        proxy_seconds, proxy_tokens: of the proxy that learnt its weights; 0 where there is none.
    """

    losses: Losses
    weights: dict[str, float]
    repeats: dict[str, float]
    seconds: float
    tokens: int
    proxy_seconds: float = 0.0
    proxy_tokens: int = 0

    @property
    def mean(self) -> float:
        """Mean over languages, each counting the same."""
        return statistics.fmean(self.losses.values())

    @property
    def worst(self) -> float:
        """The worst language's."""
        return max(self.losses.values())

    @property
    def spread(self) -> float:
        """Standard deviation over languages."""
        return statistics.pstdev(self.losses.values())


@dataclass(frozen=True)
class Told:
    """A figure over seeds: its mean, and standard deviation (nan of one seed)."""

    mean: float
    deviation: float
    count: int

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return self.deviation / math.sqrt(self.count)


def over_seeds(values: Sequence[float]) -> Told:
    """Return mean and sample standard deviation of one number a seed."""
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return Told(statistics.fmean(values), deviation, len(values))


@dataclass
class Line:
    """One method over its seeds.

    Attributes:
        figures: ``mean``, ``worst``, ``spread`` and each language, in bits/byte.
        differences: the same but spread, this method less the reference, seed by seed; below 0 is better.
        weights, repeats: by language, mean over seeds.
        cost: seconds of base run and proxy, mean over seeds, and tokens of both.
    """

    method: str
    seeds: list[int]
    figures: dict[str, Told]
    differences: dict[str, Told]
    weights: dict[str, float]
    repeats: dict[str, float]
    cost: dict[str, float] = field(default_factory=dict)


def lines_of(ended: Mapping[str, Mapping[int, Ended]], reference: str) -> list[Line]:
    """Return one line a method, of {method: {seed: run}}; differences are over the seeds that both have."""
    return [_line(method, runs, ended.get(reference, {})) for method, runs in ended.items() if runs]


def _line(method: str, runs: Mapping[int, Ended], reference: Mapping[int, Ended]) -> Line:
    seeds = sorted(runs)
    columns = [_columns(runs[seed]) for seed in seeds]
    both = [seed for seed in seeds if seed in reference]
    differences = [
        {name: value - _columns(reference[seed])[name] for name, value in _columns(runs[seed]).items()} for seed in both
    ]
    return Line(
        method,
        seeds,
        {name: over_seeds([own[name] for own in columns]) for name in columns[0]},
        {name: over_seeds([own[name] for own in differences]) for name in columns[0] if differences},
        _means([runs[seed].weights for seed in seeds]),
        _means([runs[seed].repeats for seed in seeds]),
        _means([_cost(runs[seed]) for seed in seeds]),
    )


def _columns(run: Ended) -> dict[str, float]:
    return {"mean": run.mean, "worst": run.worst, "spread": run.spread, **run.losses}


def _cost(run: Ended) -> dict[str, float]:
    own = {"seconds": run.seconds, "proxy_seconds": run.proxy_seconds}
    return own | {"tokens": float(run.tokens), "proxy_tokens": float(run.proxy_tokens)}


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.fmean(row[name] for row in rows) for name in rows[0]}


def tables(lines: Sequence[Line], unique: Mapping[str, int], reference: str, markdown: bool = False) -> str:
    """Return the arena's tables as text or Markdown.

    Args:
        lines: of the methods.
        unique: unique tokens of each language, U.
        reference: method that differences are from.
        markdown: whether as Markdown.
    """
    languages = list(unique)
    names = ["mean", "worst", "spread", *languages]
    losses = [[line.method, str(len(line.seeds)), *(_with(line.figures[name]) for name in names)] for line in lines]
    compared = [name for name in names if name != "spread"]
    beside = [[line.method, *(_signed(line.differences[name]) for name in compared)]
              for line in lines if line.differences and line.method != reference]  # fmt: skip
    read = [
        [line.method, *(f"{line.weights[own]:.3f} {line.repeats[own]:.1f}x" for own in languages)] for line in lines
    ]
    cost = [[line.method, *(f"{line.cost[own]:,.0f}" for own in ("seconds", "proxy_seconds", "tokens", "proxy_tokens"))]
            for line in lines]  # fmt: skip
    own_unique = ["unique tokens", *(f"{count:,}" for count in unique.values())]
    parts = {
        "held-out bits/byte: mean over seeds ± standard deviation over seeds; mean, worst, spread (standard deviation) "
        "are over languages": _table(["method", "seeds", *names], losses, markdown),
        f"less {reference} of the same seed: mean ± its standard error; below 0 is better": _table(
            ["method", *compared], beside, markdown
        ),
        "share of what the base run reads, and repeats": _table(["method", *languages], [own_unique, *read], markdown),
        "cost: mean over seeds": _table(["method", "seconds", "of proxy", "tokens", "of proxy"], cost, markdown),
    }
    return "\n\n".join(f"{title}\n{'' if not markdown else chr(10)}{text}" for title, text in parts.items())


def _with(told: Told) -> str:
    return f"{told.mean:.4f}" + ("" if math.isnan(told.deviation) else f" ± {told.deviation:.4f}")


def _signed(told: Told) -> str:
    return f"{told.mean:+.4f}" + ("" if math.isnan(told.error) else f" ± {told.error:.4f}")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool) -> str:
    if markdown:
        head = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
        return "\n".join(head + [f"| {' | '.join(row)} |" for row in rows])
    widths = [max(len(row[i]) for row in [columns, *rows]) for i in range(len(columns))]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in [columns, *rows]
    )


def as_json(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Return the lines as JSON holds them; a deviation of one seed is None."""

    def told(figures: Mapping[str, Told], what: str) -> dict[str, Any]:
        return {
            name: {"mean": own.mean, what: None if math.isnan(own.deviation) else getattr(own, what)}
            for name, own in figures.items()
        }

    return [
        {
            "method": line.method,
            "seeds": line.seeds,
            "bits_per_byte": told(line.figures, "deviation"),
            "differences": told(line.differences, "error"),
            "weights": line.weights,
            "repeats": line.repeats,
            "cost": line.cost,
        }
        for line in lines
    ]
