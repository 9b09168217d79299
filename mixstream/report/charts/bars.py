"""Bars and dots: one value a stream, a language or a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mixstream.report.charts.figure import COLOURS, INK, SHAPES, TICKS, Spec, legend_room, panel, rounded

STEP = 20  # pixels of a bar
PADDING = 64  # pixels for axis and legend
AXIS = {"tickCount": 6, "format": TICKS}


class Bar(NamedTuple):
    """One bar; `mark` is a value to compare it with, `told` what is written beside it."""

    name: str
    value: float
    mark: float | None
    told: str


class Dot(NamedTuple):
    """One dot of a row."""

    row: str
    run: str
    value: float


class Part(NamedTuple):
    """A part of a run's bar."""

    run: str
    part: str
    value: float


def marked_bars(bars: Sequence[Bar], title: str, mark: str) -> Spec:
    """Return bars with marks; a mark far beyond all bars is told in words only."""
    longest = max(bar.value for bar in bars) or 1.0
    shown = 1.35 * longest
    rows = [
        {
            "name": bar.name,
            "value": rounded(bar.value),
            "mark": rounded(bar.mark) if bar.mark is not None and bar.mark <= shown else None,
            "told": bar.told,
        }
        for bar in bars
    ]
    scale = {"domain": [0, rounded(1.12 * shown)]}
    told = f"{title}; {mark}" if any(row["mark"] is not None for row in rows) else title
    x = {"field": "value", "type": "quantitative", "title": told, "scale": scale, "axis": AXIS}
    tooltip = [{"field": "name", "title": "of"}, {"field": "told", "title": title}]
    return panel(
        STEP * len(bars) + PADDING,
        data={"values": rows},
        encoding={"y": _names("name"), "x": x, "tooltip": tooltip},
        layer=[
            {"mark": {"type": "bar", "color": COLOURS[0], "opacity": 0.85, "height": {"band": 0.7}}},
            {
                "mark": {"type": "tick", "color": INK, "thickness": 2, "height": {"band": 0.9}},
                "transform": [{"filter": "isValid(datum.mark)"}],
                "encoding": {"x": {**x, "field": "mark"}},
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 4, "color": INK, "fontSize": 10},
                "encoding": {"text": {"field": "told"}},
            },
        ],
    )


def dots(values: Sequence[Dot], title: str, runs: Sequence[str]) -> Spec:
    """Return a row of dots for each name, a run a colour and a shape: the same whichever of `runs` have dots."""
    shown = [run for run in runs if run in {dot.run for dot in values}]
    rows = [{"row": dot.row, "run": dot.run, "value": rounded(dot.value)} for dot in values]
    x = {"field": "value", "type": "quantitative", "title": title, "scale": {"zero": False, "padding": 12}}
    return panel(
        max(STEP, 7 * len(shown)) * len({dot.row for dot in values}) + PADDING,
        data={"values": rows},
        mark={"type": "point", "filled": True, "size": 80, "opacity": 0.9},
        encoding={
            "y": {**_names("row"), "axis": {"grid": True, "tickBand": "extent"}},
            "yOffset": {"field": "run", "scale": {"domain": shown}},
            "x": {**x, "axis": AXIS},
            "color": _of_run(runs, shown, COLOURS),
            "shape": _of_run(runs, shown, SHAPES),
            "tooltip": [
                {"field": "row", "title": "of"},
                {"field": "run"},
                {"field": "value", "type": "quantitative", "title": title},
            ],
        },
    )


def stacked(parts: Sequence[Part], title: str) -> Spec:
    """Return a bar for each run, of parts one after the other."""
    names = list(dict.fromkeys(part.part for part in parts))
    rows = [{"run": part.run, "part": part.part, "value": rounded(part.value)} for part in parts]
    colour = {
        "field": "part",
        "type": "nominal",
        "scale": {"domain": names, "range": list(COLOURS[: len(names)])},
        "legend": {"title": None, **legend_room(names)},
    }
    return panel(
        28 * len({part.run for part in parts}) + PADDING,
        data={"values": rows},
        transform=[{"calculate": f"indexof({names!r}, datum.part)", "as": "place"}],
        mark={"type": "bar", "stroke": "white", "strokeWidth": 1},
        encoding={
            "y": _names("run"),
            "x": {"field": "value", "type": "quantitative", "title": title, "stack": "zero", "axis": {"tickCount": 6}},
            "color": colour,
            "order": {"field": "place", "type": "quantitative"},
            "tooltip": [
                {"field": "run"},
                {"field": "part"},
                {"field": "value", "type": "quantitative", "title": title},
            ],
        },
    )


def _names(field: str) -> dict[str, Any]:
    return {"field": field, "type": "nominal", "sort": None, "title": None}


def _of_run(runs: Sequence[str], shown: Sequence[str], values: Sequence[str]) -> dict[str, Any]:
    scale = {"domain": list(runs), "range": [values[place % len(values)] for place in range(len(runs))]}
    legend = {"title": None, "values": shown, **legend_room(shown)}
    return {"field": "run", "type": "nominal", "scale": scale, "legend": legend}
