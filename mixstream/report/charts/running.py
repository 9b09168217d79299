"""How a run went: throughput, waiting for data, what came through the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np

from mixstream.metrics import RUN_SECONDS, STORE, STORE_COUNTS, TOKENS_PER_SECOND, WAIT_SECONDS, of_stream
from mixstream.report.charts.figure import Figure, Table, short
from mixstream.report.charts.lines import Axes, Line, line_panels, lines_table
from mixstream.report.read import RunRecord
from mixstream.report.series import Series


@dataclass(frozen=True)
class StreamTraffic:
    """What came through the cache of one stream, over all ranks and the whole run so far."""

    name: str
    bytes: int
    requests: int
    faults: int
    hits: int
    evicted: int


def traffic_of(run: RunRecord) -> list[StreamTraffic]:
    """Return what came through the cache, by stream and in all; nothing where all was read in its place."""
    counts = [column.name for column in fields(StreamTraffic) if column.name != "name"]
    assert set(counts) == set(STORE_COUNTS)
    columns = {count: run.by_stream(of_stream(STORE, count)) for count in counts}
    rows = [
        StreamTraffic(name, **{count: int(series[name].last) for count, series in columns.items()})
        for name in run.plan.streams
        if all(name in series for series in columns.values())
    ]
    total = {count: sum(getattr(row, count) for row in rows) for count in counts}
    return [*rows, StreamTraffic("all streams", **total)] if rows else []


def waited_share(run: RunRecord) -> tuple[float, float] | None:
    """Return the seconds that a run waited for data, all ranks together, and their share of its time, if known."""
    waited, seconds = run.metrics.get(WAIT_SECONDS), run.metrics.get(RUN_SECONDS)
    if waited is None or seconds is None:
        return None
    return waited.last, waited.last / max(seconds.last, 1e-9)


def running_figures(run: RunRecord) -> Iterator[Figure]:
    """Return what there is to show of how a run went."""
    throughput = run.metrics.get(TOKENS_PER_SECOND)
    if throughput is not None:
        yield _over_time(
            run, "throughput", "Throughput", "Tokens that all processes together trained on.", throughput, "tokens/s"
        )
    waiting = waiting_over_time(run)
    if waiting is not None:
        waited, share = waited_share(run) or (0.0, 0.0)
        caption = f"{waited:,.1f} s in all, {share:.1%} of the run's time. Each point: since the line before."
        title = "share of time spent waiting"
        yield _over_time(run, "waiting", "Waiting for data", caption, waiting, title)
    traffic = traffic_of(run)
    if traffic:
        yield _store(run, traffic)


def waiting_over_time(run: RunRecord) -> Series | None:
    """Return the share of the time since the line before that a run waited for data."""
    waited, seconds = run.metrics.get(WAIT_SECONDS), run.metrics.get(RUN_SECONDS)
    if waited is None or seconds is None or len(waited.values) != len(seconds.values):
        return None
    passed = np.diff(seconds.values, prepend=0.0)
    known = passed > 0
    shares = np.diff(waited.values, prepend=0.0)[known] / passed[known]
    return Series(waited.batches[known], shares) if known.any() else None


def _over_time(run: RunRecord, name: str, title: str, caption: str, series: Series, unit: str) -> Figure:
    lines, axes = [Line(run.name, run.name, "", series)], Axes(unit, colour="run", zero=True, large=unit == "tokens/s")
    return Figure(f"{name}-{run.name}", title, caption, line_panels(lines, axes), lines_table(lines, axes))


def _store(run: RunRecord, traffic: list[StreamTraffic]) -> Figure:
    """Show the bytes fetched so far, and all counts as a table."""
    fetched = list(run.by_stream(of_stream(STORE, "bytes")).values())
    same = all(len(series.values) == len(fetched[0].values) for series in fetched)
    whole = run.metrics.get(of_stream(STORE, "bytes"))
    if whole is None:
        whole = Series(fetched[0].batches, np.sum([series.values for series in fetched], axis=0)) if same else None
    axes = Axes("bytes fetched so far", colour="run", zero=True, large=True)
    lines = [Line(run.name, run.name, "", whole)] if whole is not None else []
    counts = ("bytes", "requests", "faults", "hits", "evicted")
    rows = [[row.name, *(f"{getattr(row, count):,}" for count in counts)] for row in traffic]
    return Figure(
        f"store-{run.name}",
        "Store and cache",
        f"{short(float(traffic[-1].bytes))}B came through the cache, all processes, probes and held-out splits "
        "included. Faults are requests that failed and were made again, hits shards that were there already, "
        "evicted those that were removed to make room.",
        line_panels(lines, axes) if lines else [],
        Table(("stream", *counts), rows),
    )
