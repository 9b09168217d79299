"""Several runs side by side: how they ended, how they got there, and where their time went."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from mixstream.metrics import BATCHES_PER_SECOND, RUN_SECONDS, SECONDS, TRAIN_LOSS, of_stream
from mixstream.report.charts.bars import Dot, Part, dots, stacked
from mixstream.report.charts.figure import Figure, Table, told
from mixstream.report.charts.lines import Axes, Line, line_panels, lines_table, not_drawn
from mixstream.report.charts.losses import BITS, NATS, heldout_languages
from mixstream.report.charts.running import waited_share
from mixstream.report.read import RunRecord
from mixstream.report.series import Series
from mixstream.runs.folder import Loss


def compared_figures(runs: Sequence[RunRecord]) -> Iterator[Figure]:
    """Return what there is to show of all runs together."""
    names = [run.name for run in runs]
    if any(run.languages for run in runs):
        yield _ends(runs)
    means = [Line(run.name, run.name, "", series) for run in runs if (series := _mean_heldout(run)) is not None]
    if means:
        yield _over_tokens(
            "heldout-runs",
            "Held-out loss of the runs",
            "Mean of the languages, each counting the same.",
            means,
            Axes("held-out loss, nats/token", x="tokens", colour="run", known=names),
        )
    logged = [
        Line(run.name, run.name, "", _over(run, run.metrics[TRAIN_LOSS])) for run in runs if TRAIN_LOSS in run.metrics
    ]
    if logged:
        caption = "Of each batch as it was read: runs with other proportions read other text."
        axes = Axes("training loss, nats/token", x="tokens", colour="run", known=names)
        yield _over_tokens("loss-runs", "Training loss of the runs", caption, logged, axes)
    costs = [(run, cost) for run in runs if (cost := cost_of(run)) is not None]
    if costs:
        yield _costs(costs)


def _ends(runs: Sequence[RunRecord]) -> Figure:
    """Show final held-out losses by language and by stream."""
    ended = [run for run in runs if run.result is not None and run.languages]
    panels, rows = [], []
    for unit in (NATS, BITS):
        by_language = [dot for run in ended for dot in _dots(run, run.languages, unit)]
        if by_language:
            by_language.sort(key=lambda dot: dot.row)
            panels.append(dots(by_language, f"held-out loss, {unit}", [run.name for run in runs]))
    streams = sorted({name for run in ended if run.result for name in run.result.heldout})
    for name in streams:
        losses = [run.result.heldout.get(name) if run.result else None for run in ended]
        cells = [
            cell
            for loss in losses
            for cell in (
                told(loss.nats_per_token if loss else None, ".4f"),
                told(loss.bits_per_byte if loss else None, ".4f"),
            )
        ]
        rows.append([name, *cells])
    columns = ["stream", *(f"{run.name}, {unit}" for run in ended for unit in (NATS, BITS))]
    caption = "At the end of each run, by language; lower is better. The table has the streams."
    return Figure("heldout", "Held-out loss at the end", caption, panels, Table(columns, rows))


def _dots(run: RunRecord, losses: Mapping[str, Loss], unit: str) -> list[Dot]:
    values = {name: loss.nats_per_token if unit == NATS else loss.bits_per_byte for name, loss in losses.items()}
    return [Dot(name, run.name, value) for name, value in values.items() if value is not None]


def _mean_heldout(run: RunRecord) -> Series | None:
    """Return the plain mean over languages of held-out loss, over tokens, where it was measured more than once."""
    by_language, _ = heldout_languages(run)
    if not by_language:
        return None
    counts = [set(series.batches.tolist()) for series in by_language.values()]
    common = np.array(sorted(set.intersection(*counts)))
    if len(common) < 2:
        return None
    rows = [series.values[np.searchsorted(series.batches, common)] for series in by_language.values()]
    return _over(run, Series(common, np.mean(rows, axis=0)))


def _over(run: RunRecord, series: Series) -> Series:
    """Return a series over tokens instead of batches."""
    return Series(series.batches * (run.plan.batch_size * run.plan.sequence_length), series.values)


def _over_tokens(name: str, title: str, caption: str, lines: list[Line], axes: Axes) -> Figure:
    caption += not_drawn(lines, axes)
    return Figure(name, title, caption, line_panels(lines, axes), lines_table(lines, axes, ".4f"))


def cost_of(run: RunRecord) -> dict[str, float] | None:
    """Return seconds of one process by what they went to, where the run tells its seconds.

    The seconds of updates are those of rank 0, and waiting is the mean of the ranks; what probes wait for is in both,
    so that the rest is told too small by it.
    """
    ranks = ranks_of(run)
    seconds = run.metrics.get(RUN_SECONDS)
    if seconds is None and run.result is None:
        return None
    whole = seconds.last / ranks if seconds is not None else float(run.result.seconds if run.result else 0)
    updates = run.metrics.get(of_stream(run.method, SECONDS))
    learning = float(updates.values.sum()) if updates is not None else 0.0
    waited = waited_share(run)
    waiting = waited[1] * whole if waited else 0.0
    return {
        "training and measuring": max(0.0, whole - learning - waiting),
        "learning the weights": learning,
        "waiting for data": waiting,
    }


def ranks_of(run: RunRecord) -> int:
    """Return by how many processes a run is made: while it goes on, told by their seconds together against one's."""
    if run.result is not None:
        return run.result.ranks
    together, pace = run.metrics.get(RUN_SECONDS), run.metrics.get(BATCHES_PER_SECOND)
    if together is None or pace is None or len(together.values) != len(pace.values):
        return 1
    alone = np.diff(pace.batches, prepend=0.0) / pace.values
    return max(1, round(float(np.median(np.diff(together.values, prepend=0.0) / alone))))


def _costs(costs: Sequence[tuple[RunRecord, Mapping[str, float]]]) -> Figure:
    parts = [Part(run.name, part, seconds) for run, cost in costs for part, seconds in cost.items()]
    rows = []
    for run, cost in costs:
        whole = sum(cost.values())
        cells = [cell for seconds in cost.values() for cell in (f"{seconds:,.1f}", told(seconds / (whole or 1), ".2%"))]
        rows.append([run.name, f"{whole:,.1f}", *cells])
    columns = ["run", "seconds", *(head for part in costs[0][1] for head in (part, "share"))]
    return Figure(
        "cost",
        "Where the time went",
        "Seconds of one process from its first batch on: the updates of the weights against the whole. A run that was "
        "interrupted and tells no seconds of its own is told by those of the process that ended it.",
        [stacked(parts, "seconds")],
        Table(columns, rows),
    )
