"""Lines over time: colour by language (or by run), dash by domain, so many in a panel as can be told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from mixstream.mixture.plan import Plan
from mixstream.mixture.simplex import Float64
from mixstream.report.charts.figure import COLOURS, DASHES, QUIET, TICKS, Spec, Table, legend_room, panel, rounded, told
from mixstream.report.series import Series, thin

POINTS = 11_000  # of a figure's lines together
LEAST, MOST = 40, 500  # points of a line
ON_CANVAS = 1_500  # points of a panel, above which it is drawn as an image
# Vega-Lite 6.4 looks for unformatted text in the wrong place where the nearest point is asked for.
AS_TEXT = {"formatType": "toString", "format": "s"}
COLUMNS = 5  # batches that a table tells of
NAMED = 3  # lines that a caption names


class Line(NamedTuple):
    """One line.

    Attributes:
        name: what it is of.
        colour: what its colour stands for: a language, or a run.
        dash: what its dash stands for: a domain.
        series: its points.
        pale: drawn broad and pale, below the others: what was asked for.
    """

    name: str
    colour: str
    dash: str
    series: Series
    pale: bool = False


@dataclass(frozen=True)
class Axes:
    """What lines are drawn against.

    Attributes:
        y: title of the values.
        x: title of the batches.
        colour, dash: titles of the legends.
        zero: whether the values' axis begins at 0.
        steps: whether a value holds until the next.
        rule: a value that is marked.
        known: all that a colour stands for in some figures, so that it is the same in each of them.
        large: whether the values may be large: 70k.
    """

    y: str
    x: str = "batch"
    colour: str = "language"
    dash: str = "domain"
    zero: bool = False
    steps: bool = False
    rule: float | None = None
    known: Sequence[str] = ()
    large: bool = False


def of_streams(plan: Plan, series: Mapping[str, Series], pale: bool = False) -> list[Line]:
    """Return a line of each stream that there is a series of."""
    return [
        Line(entry.name, entry.language or entry.name, entry.domain or "", series[entry.name], pale)
        for entry in plan.entries
        if entry.name in series
    ]


def line_panels(lines: Sequence[Line], axes: Axes) -> list[Spec]:
    """Return panels of lines, all with the same axes: a colour stands for one thing in each of them."""
    drawn = {line.colour for line in lines}
    colours = list(dict.fromkeys([*axes.known, *(line.colour for line in lines)]))
    dashes = list(dict.fromkeys(line.dash for line in lines))
    groups = [
        list(group) for group in np.array_split(np.array(colours, dtype=object), -(-len(colours) // len(COLOURS)))
    ]
    palettes = [
        {name: colour for name, colour in zip(group, COLOURS, strict=False) if name in drawn} for group in groups
    ]
    palettes = [palette for palette in palettes if palette]
    is_drawn = any(np.isfinite(line.series.values).any() for line in lines)
    limits = _limits(lines, axes) if len(palettes) > 1 or not is_drawn else {}
    thinned = _thinned(lines)
    return [
        _panel([line for line in thinned if line.colour in palette], axes, palette, dashes, limits)
        for palette in palettes
    ]


def languages_in(plan: Plan) -> list[str]:
    """Return the languages of a plan's streams, of which lines of a run have their colours."""
    return sorted({entry.language or entry.name for entry in plan.entries})


def _thinned(lines: Sequence[Line]) -> list[Line]:
    """Return lines of fewer points; a pale one has those of the line that it is below, so that they differ in truth."""
    each = max(LEAST, min(MOST, POINTS // len(lines)))
    drawn = {line.name: thin(line.series, each) for line in lines if not line.pale}
    below = [line._replace(series=_at_each(line.series, drawn[line.name].batches)) for line in lines if line.pale]
    return [*below, *(line._replace(series=drawn[line.name]) for line in lines if not line.pale)]


def _at_each(series: Series, batches: Float64) -> Series:
    places = np.searchsorted(series.batches, batches, side="right").clip(min=1) - 1
    return Series(batches, series.values[places])


def not_drawn(lines: Sequence[Line], axes: Axes) -> str:
    """Return a sentence on values that are no numbers, as of a run that diverged; nothing where there are none."""
    firsts = {}
    for line in lines:
        broken = ~np.isfinite(line.series.values)
        if broken.any() and not line.pale:
            firsts[line.name] = line.series.batches[broken][0]
    if not firsts:
        return ""
    named = [f"of {name} first at {axes.x} {first:,.0f}" for name, first in list(firsts.items())[:NAMED]]
    more = [f"and of {len(firsts) - NAMED} more"] if len(firsts) > NAMED else []
    return f" Values that are not finite are not drawn: {', '.join([*named, *more])}."


def lines_table(lines: Sequence[Line], axes: Axes, form: str = ".4g") -> Table:
    """Return the lines in numbers: at a few batches, and their extremes; of pale ones the last."""
    batches = np.unique(np.concatenate([line.series.batches for line in lines if not line.pale]))
    chosen = batches[np.unique(np.linspace(0, len(batches) - 1, COLUMNS).astype(int))]
    asked = {line.name: line.series.last for line in lines if line.pale}
    columns = [axes.y, *(f"{axes.x} {batch:,.0f}" for batch in chosen), "least", "most", *(["asked"] if asked else [])]
    rows = []
    for line in lines:
        if line.pale:
            continue
        values = line.series.values[np.isfinite(line.series.values)]
        extremes = [told(float(values.min()), form), told(float(values.max()), form)] if len(values) else ["", ""]
        cells = [told(_at(line.series, batch), form) for batch in chosen.tolist()]
        rows.append([line.name, *cells, *extremes, *([told(asked.get(line.name), form)] if asked else [])])
    return Table(columns, rows)


def _at(series: Series, batch: float) -> float | None:
    """Return the value that was the last at a batch, None before the first."""
    place = int(np.searchsorted(series.batches, batch, side="right")) - 1
    return float(series.values[place]) if place >= 0 else None


def _limits(lines: Sequence[Line], axes: Axes) -> dict[str, list[float]]:
    """Return the ends of both axes, for panels that share them."""
    values = np.concatenate([line.series.values for line in lines])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    last = max(float(line.series.batches[-1]) for line in lines)
    return {"x": [0.0, last], "y": [0.0 if axes.zero else low, high]}


def _panel(
    lines: Sequence[Line],
    axes: Axes,
    palette: Mapping[str, str],
    dashes: Sequence[str],
    limits: Mapping[str, Sequence[float]],
) -> Spec:
    points = sum(len(line.series.values) for line in lines)
    encoding = {
        "x": _scaled("batch", axes.x, {"nice": False}, limits.get("x"), {"format": "~s", "tickCount": 6}),
        "y": _scaled(
            "value",
            axes.y,
            {"zero": axes.zero},
            limits.get("y"),
            {"format": "~s" if axes.large else TICKS, "tickCount": 5},
        ),
        "color": _legend(
            "colour", axes.colour, list(palette), list(palette.values()), len(palette) > 1 or bool(limits)
        ),
    }
    return panel(
        260,
        data={"values": [_row(line) for line in lines]},
        transform=[{"flatten": ["batch", "value"]}],
        layer=[
            *([_pale(axes, encoding)] if any(line.pale for line in lines) else []),
            _drawn(axes, encoding, dashes),
            _hovered(axes, encoding),
            *([_rule(axes.rule)] if axes.rule else []),
        ],
        usermeta={"embedOptions": {"renderer": "canvas" if points > ON_CANVAS else "svg"}},
    )


def _scaled(
    field: str, title: str, scale: Mapping[str, Any], domain: Sequence[float] | None, axis: Mapping[str, Any]
) -> dict[str, Any]:
    ends = {"domain": domain} if domain else {}
    return {"field": field, "type": "quantitative", "title": title, "scale": {**scale, **ends}, "axis": axis}


def _row(line: Line) -> dict[str, Any]:
    return {
        "name": line.name,
        "colour": line.colour,
        "dash": line.dash,
        "pale": line.pale,
        "batch": [int(batch) for batch in line.series.batches.tolist()],
        "value": [rounded(value) for value in line.series.values.tolist()],
    }


def _legend(field: str, title: str, names: Sequence[str], values: Sequence[Any], shown: bool) -> dict[str, Any]:
    scale = {"domain": list(names), "range": [values[place % len(values)] for place in range(len(names))]}
    legend = {"title": title, **legend_room(names), "symbolType": "stroke", "symbolStrokeWidth": 3} if shown else None
    return {"field": field, "type": "nominal", "scale": scale, "legend": legend}


def _interpolated(axes: Axes) -> str:
    return "step-after" if axes.steps else "linear"


def _pale(axes: Axes, encoding: Spec) -> Spec:
    return {
        "transform": [{"filter": "datum.pale"}],
        "mark": {"type": "line", "interpolate": _interpolated(axes), "strokeWidth": 5, "opacity": 0.25, "clip": True},
        "encoding": {**encoding, "detail": {"field": "name"}},
    }


def _drawn(axes: Axes, encoding: Spec, dashes: Sequence[str]) -> Spec:
    """Return the lines; a touch on an entry of the legend shows those of it alone."""
    chosen = {"param": "chosen", "value": 1}
    return {
        "params": [{"name": "chosen", "select": {"type": "point", "fields": ["colour"]}, "bind": "legend"}],
        "transform": [{"filter": "!datum.pale"}],
        "mark": {"type": "line", "interpolate": _interpolated(axes), "strokeWidth": 1.6, "clip": True},
        "encoding": {
            **encoding,
            "detail": {"field": "name"},
            "strokeDash": _legend("dash", axes.dash, dashes, DASHES, len(dashes) > 1),
            "opacity": {"condition": chosen, "value": 0.1},
        },
    }


def _hovered(axes: Axes, encoding: Spec) -> Spec:
    """Return the points, seen only where they are pointed at, which then tell their values."""
    nearest = {
        "type": "point",
        "on": "pointerover",
        "nearest": True,
        "clear": "pointerout",
        "fields": ["name", "batch"],
    }
    return {
        "params": [{"name": "near", "select": nearest}],
        "transform": [{"filter": "!datum.pale && isValid(datum.value)"}],
        "mark": {"type": "point", "filled": True, "size": 45, "clip": True},
        "encoding": {
            **encoding,
            "opacity": {"condition": {"param": "near", "empty": False, "value": 1}, "value": 0},
            "tooltip": [
                {"field": "name", "title": axes.colour if axes.colour == "run" else "of", **AS_TEXT},
                {"field": "batch", "type": "quantitative", "title": axes.x, "format": ",d"},
                {"field": "value", "type": "quantitative", "title": axes.y},
            ],
        },
    }


def _rule(value: float) -> Spec:
    return {
        "data": {"values": [{"at": rounded(value)}]},
        "mark": {"type": "rule", "strokeDash": [2, 3], "color": QUIET},
        "encoding": {"y": {"field": "at", "type": "quantitative"}},
    }
