"""Arrays to pictures: one figure a question, a language one colour in all of them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mixstream.report.read import RunRecord, Series

Drawing = tuple[str, str, Figure]  # name, caption, picture
Dash = str | tuple[float, tuple[float, ...]]

WIDTH, HEIGHT = 9.0, 3.6
INK, QUIET = "#1f2933", "#8a94a0"
# Okabe and Ito's colours, which remain apart for colour-blind readers, darkened for lines on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b3589a", "#b8860b", "#4a4a4a", "#3a9bd9", "#7a5195", "#6b8e23", "#a0522d")
DASHES: tuple[Dash, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1, 2)))

plt.rcParams.update(
    {
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": QUIET,
        "axes.labelcolor": INK,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e6e9ed",
        "grid.linewidth": 0.6,
        "xtick.color": INK,
        "ytick.color": INK,
        "text.color": INK,
        "legend.frameon": False,
        "figure.dpi": 120,
        "text.parse_math": False,  # names of streams and runs are no formulas
    }
)


def draw_all(runs: Sequence[RunRecord]) -> dict[str, tuple[str, bytes]]:
    """Return {name: (caption, PNG)} of every picture that the runs have data for, the answer first."""
    drawn = [
        *([_heldout(runs)] if any(run.languages for run in runs) else []),
        *(_weights(run) for run in runs if run.updates),
        *(_shares_over_time(run) if run.updates else _shares(run) for run in runs if run.by_stream("exposure/read")),
        *(_repeats(run) for run in runs if run.by_stream("exposure/repeats")),
        *(_losses(run) for run in runs if run.by_stream("exposure/loss")),
        *(_store(run) for run in runs if run.by_stream("store/bytes") and "store/waited_seconds" in run.metrics),
    ]
    return {name.replace("/", "-"): (caption, _png(figure)) for name, caption, figure in drawn}


def _weights(run: RunRecord) -> Drawing:
    """Draw the weights that act at each batch, as steps."""
    figure, axes = _figure("batch", "weight")
    end = run.plan.num_batches
    batches = [update.at_batch for update in run.updates] + [end]
    lines = {}
    for name in run.plan.streams:
        values = [update.weights[name] for update in run.updates]
        lines[name] = Series(np.array(batches, float), np.array([*values, values[-1]], float))
    _lines(axes, run, lines, steps=True)
    if run.plan.floor:
        axes.axhline(run.plan.floor, color=QUIET, linewidth=0.8, linestyle=":")
        axes.annotate("floor", (0, run.plan.floor), xytext=(2, 2), textcoords="offset points", color=QUIET)
    axes.set_ylim(bottom=0)
    return f"weights-{run.name}", f"{run.name}: weights over time, as they act on what is read", figure


def _shares_over_time(run: RunRecord) -> Drawing:
    """Draw shares of what was read, over the shares asked for."""
    figure, axes = _figure("batch", "share of draws")
    read, asked = run.by_stream("exposure/read"), run.by_stream("exposure/asked")
    for name, series in asked.items():
        axes.plot(series.batches, series.values, color=_colour(run, name), linewidth=4, alpha=0.18)
    _lines(axes, run, read)
    axes.set_ylim(bottom=0)
    return f"shares-{run.name}", f"{run.name}: proportions asked (broad, pale) and read (thin)", figure


def _shares(run: RunRecord) -> Drawing:
    """Draw a plan's proportions, and the shares of all that was read."""
    repeats = {name: series.values[-1] for name, series in run.by_stream("exposure/repeats").items()}
    entries = [entry for entry in run.plan.entries if entry.name in repeats]
    drawn = np.array([repeats[entry.name] * entry.num_samples for entry in entries])
    figure, axes = _bars(len(entries))
    names = [entry.name for entry in entries]
    axes.barh(names, [e.proportion for e in entries], color=[_colour(run, name) for name in names], alpha=0.3)
    axes.scatter(drawn / drawn.sum(), names, color=[_colour(run, name) for name in names], s=22, zorder=3)
    for place, (entry, share) in enumerate(zip(entries, drawn / drawn.sum(), strict=True)):
        told = f"{share:.4f} of {entry.proportion:.4f}"
        axes.annotate(
            told, (max(share, entry.proportion), place), xytext=(8, 0), textcoords="offset points", va="center"
        )
    axes.set_xlim(0, 1.3 * max(entry.proportion for entry in entries))
    axes.set_xlabel("share of draws: asked (bar) and read (point), over the whole run so far")
    return f"shares-{run.name}", f"{run.name}: proportions asked and read", figure


def _repeats(run: RunRecord) -> Drawing:
    """Draw each stream's repeats at the end, against its budget."""
    series = run.by_stream("exposure/repeats")
    names = list(series)
    values = [series[name].values[-1] for name in names]
    budgets = {entry.name: entry.max_repeats for entry in run.plan.entries}
    figure, axes = _bars(len(names))
    axes.barh(names, values, color=[_colour(run, name) for name in names], height=0.62)
    shown = 1.35 * max(values)  # a budget far away is told in words only
    axes.set_xlim(0, shown)
    marked = False
    for place, name in enumerate(names):
        budget = budgets[name]
        told = f"{values[place]:.2f}" + (f" of {budget:g}" if budget is not None else "")
        axes.annotate(told, (values[place], place), xytext=(4, 0), textcoords="offset points", va="center")
        if budget is not None and budget <= shown:
            axes.plot([budget, budget], [place - 0.42, place + 0.42], color=INK, linewidth=1.6)
            marked = True
    axes.set_xlabel("repeats (draws / samples of the stream)" + ("; a black mark is the budget" if marked else ""))
    batch = int(series[names[0]].batches[-1])
    return f"repeats-{run.name}", f"{run.name}: repeats against budgets, at batch {batch}", figure


def _losses(run: RunRecord) -> Drawing:
    """Draw the training loss of each stream."""
    figure, axes = _figure("batch", "training loss, nats/token")
    _lines(axes, run, run.by_stream("exposure/loss"))
    return f"loss-{run.name}", f"{run.name}: training loss by stream", figure


def _store(run: RunRecord) -> Drawing:
    """Draw the bytes fetched and the seconds waited so far."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(WIDTH, 0.75 * HEIGHT), layout="constrained")
    fetched = list(run.by_stream("store/bytes").values())
    size, unit = _unit(sum(series.values[-1] for series in fetched))
    left.plot(fetched[0].batches, sum(series.values for series in fetched) / size, color=COLOURS[0], linewidth=1.4)
    left.set_ylabel(f"fetched so far, {unit}")
    waited = run.metrics["store/waited_seconds"]
    right.plot(waited.batches, waited.values, color=COLOURS[1], linewidth=1.4)
    right.set_ylabel("waited so far, s")
    for axes in (left, right):
        axes.set_xlabel("batch")
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
    return f"store-{run.name}", f"{run.name}: bytes fetched, and seconds waited for shards", figure


def _unit(size: float) -> tuple[float, str]:
    """Return a unit in which a number of bytes reads well: (bytes, name)."""
    power = min(4, max(0, int(np.log10(max(size, 1)) // 3)))
    return 1000.0**power, ("B", "kB", "MB", "GB", "TB")[power]


def _heldout(runs: Sequence[RunRecord]) -> Drawing:
    """Draw final held-out losses by language, a run a bar."""
    told = [run for run in runs if run.languages]
    languages = sorted({language for run in told for language in run.languages})
    bits = all(loss.bits_per_byte is not None for run in told for loss in run.languages.values())
    figure, axes = _figure("", "bits/byte" if bits else "nats/token")
    width = 0.8 / len(told)
    for i, run in enumerate(told):
        losses = [run.languages.get(language) for language in languages]
        values = [(loss.bits_per_byte if bits else loss.nats_per_token) if loss else np.nan for loss in losses]
        places = np.arange(len(languages)) + (i - (len(told) - 1) / 2) * width
        bars = axes.bar(places, np.array(values, float), width * 0.92, label=run.name, color=COLOURS[i % len(COLOURS)])
        axes.bar_label(bars, fmt="%.3f", fontsize=7, padding=2)
    axes.set_xticks(np.arange(len(languages)), languages)
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.12)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=len(told))
    return "heldout", "held-out loss by language, at the end of each run (lower is better)", figure


def _figure(x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _bars(count: int) -> tuple[Figure, Axes]:
    """Return an empty picture for `count` bars, the first at the top."""
    figure, axes = plt.subplots(figsize=(WIDTH, 0.6 + 0.26 * count), layout="constrained")
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    return figure, axes


def _lines(axes: Axes, run: RunRecord, lines: Mapping[str, Series], steps: bool = False) -> None:
    """Draw one line a stream: colour by language, dashes by domain."""
    for name, series in lines.items():
        axes.plot(
            series.batches,
            series.values,
            label=name,
            color=_colour(run, name),
            linestyle=_dash(run, name),
            linewidth=1.4,
            drawstyle="steps-post" if steps else "default",
        )
    axes.margins(x=0.01)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)


def _language(run: RunRecord, stream: str) -> str:
    entry = next(entry for entry in run.plan.entries if entry.name == stream)
    return entry.language or entry.name


def _colour(run: RunRecord, stream: str) -> str:
    languages = sorted({entry.language or entry.name for entry in run.plan.entries})
    return COLOURS[languages.index(_language(run, stream)) % len(COLOURS)]


def _dash(run: RunRecord, stream: str) -> Dash:
    domains = {entry.name: entry.domain or "" for entry in run.plan.entries}
    return DASHES[sorted(set(domains.values())).index(domains[stream]) % len(DASHES)]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    return buffer.getvalue()
