"""A run's mixture: weights, what was asked and read, repeats against budgets, scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter

import numpy as np

from mixstream.metrics import PROPORTION, READ, REPEAT
from mixstream.mixture.simplex import Float64
from mixstream.report.charts.bars import Bar, marked_bars
from mixstream.report.charts.figure import Figure, Table, told
from mixstream.report.charts.lines import Axes, languages_in, line_panels, lines_table, of_streams
from mixstream.report.read import RunRecord
from mixstream.report.series import Series


def mixture_figures(run: RunRecord) -> Iterator[Figure]:
    """Return what there is to show of a run's mixture."""
    if run.updates:
        yield _weights(run)
    if run.by_stream(READ):
        yield _shares(run)
    if run.by_stream(REPEAT):
        yield _repeats(run)
    scores = scores_of(run)
    if scores:
        yield _scores(run, scores)


def _weights(run: RunRecord) -> Figure:
    """Show the weights from the batch at which they act to the last batch read."""
    end = max(run.batches, run.updates[-1].at_batch)
    batches = np.array([*(update.at_batch for update in run.updates), end], dtype=np.float64)
    names = [name for name in run.plan.streams if name in run.updates[0].weights]
    weights = _columns([update.weights for update in (*run.updates, run.updates[-1])], names)
    series = {name: Series(batches, values) for name, values in zip(names, weights, strict=True)}
    axes = Axes("weight", zero=True, steps=True, rule=run.plan.floor or None, known=languages_in(run.plan))
    lines = of_streams(run.plan, series)
    refused = sum(update.refused is not None for update in run.updates)
    notes = [f"{run.updates[-1].update:,} updates by {run.method}"]
    notes += [f"{refused} of them refused"] if refused else []
    notes += [f"the dotted line is the floor, {run.plan.floor:g}"] if run.plan.floor else []
    if run.updates[-1].apply == "loss":
        notes += ["they weigh the loss: what is read follows the plan"]
    return Figure(
        f"weights-{run.name}",
        "Weights over time",
        f"From the batch at which they act: {'; '.join(notes)}.",
        line_panels(lines, axes),
        lines_table(lines, axes, ".4f"),
    )


def _shares(run: RunRecord) -> Figure:
    """Show shares of the draws since the line before, over the shares asked for."""
    asked, read = run.by_stream(PROPORTION), run.by_stream(READ)
    axes = Axes("share of draws", zero=True, known=languages_in(run.plan))
    lines = [*of_streams(run.plan, asked, pale=True), *of_streams(run.plan, read)]
    return Figure(
        f"shares-{run.name}",
        "Asked and read",
        "Broad and pale: the proportion asked for. Thin: the share of the draws since the line before.",
        line_panels(lines, axes),
        lines_table(lines, axes, ".4f"),
    )


def _repeats(run: RunRecord) -> Figure:
    """Show each stream's repeats so far against its budget."""
    series = run.by_stream(REPEAT)
    entries = [entry for entry in run.plan.entries if entry.name in series]
    drawn = np.array([series[entry.name].last * entry.num_samples for entry in entries])
    shares = drawn / max(1.0, float(drawn.sum()))
    bars, rows = [], []
    for entry, share in zip(entries, shares.tolist(), strict=True):
        repeats, budget = series[entry.name].last, entry.max_repeats
        of_budget = f"{repeats:.2f}" + (f" of {budget:g}" if budget is not None else "")
        bars.append(Bar(entry.name, repeats, budget, of_budget))
        used = repeats / budget if budget is not None else None
        rows.append(
            [
                entry.name,
                f"{repeats:.3f}",
                f"{budget:g}" if budget is not None else "unlimited",
                told(used, ".1%"),
                f"{share * drawn.sum():,.0f}",
                f"{share:.4f}",
                f"{entry.proportion:.4f}",
            ]
        )
    batch = max(int(own.batches[-1]) for own in series.values())
    has_budgets = any(entry.max_repeats is not None for entry in entries)
    note = "A black mark is the budget, where it is near." if has_budgets else "No stream has a budget."
    columns = ("stream", "repeats", "budget", "of it used", "samples read", "share of all read", "planned proportion")
    return Figure(
        f"repeats-{run.name}",
        "Repeats against budgets",
        f"Draws / samples of each stream, up to batch {batch:,}. {note}",
        [marked_bars(bars, "repeats", "a mark is the budget")],
        Table(columns, rows),
    )


def scores_of(run: RunRecord) -> dict[str, Series]:
    """Return what each update was made of, by stream, as far as it was a number."""
    scored = [(update.batch, update.scores) for update in run.updates if update.scores]
    if not scored:
        return {}
    batches = np.array([float(batch) for batch, _ in scored])
    columns = _columns([scores for _, scores in scored], run.plan.streams)
    known = {name: (values, ~np.isnan(values)) for name, values in zip(run.plan.streams, columns, strict=True)}
    return {name: Series(batches[there], values[there]) for name, (values, there) in known.items() if there.any()}


def _columns(rows: Sequence[Mapping[str, float | None]], names: Sequence[str]) -> Float64:
    """Return (K, n) values of `names` in n rows, NaN where a row has none."""
    nothing: dict[str, float | None] = dict.fromkeys(names)
    pick = itemgetter(*names)
    values: Float64 = np.array([pick({**nothing, **row}) for row in rows], dtype=np.float64)
    return values.reshape(len(rows), len(names)).T


def _scores(run: RunRecord, scores: Mapping[str, Series]) -> Figure:
    axes = Axes("score", known=languages_in(run.plan))
    lines = of_streams(run.plan, scores)
    return Figure(
        f"scores-{run.name}",
        "Scores",
        f"The signal of {run.method} that each update was made of: a stream with a high one gains weight.",
        line_panels(lines, axes),
        lines_table(lines, axes),
    )
