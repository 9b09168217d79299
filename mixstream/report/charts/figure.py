"""A figure: one question, answered by one or more panels and by a table for those who cannot see them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]  # of Vega-Lite, data within

INK, QUIET, GRID = "#1f2933", "#5b6570", "#e6e9ed"
# Apart for readers with and without each kind of colour blindness (tests/report/test_colours.py measures it).
COLOURS = ("#0062c8", "#bf4d00", "#009e73", "#b3589a", "#ce9707", "#2b2b2b", "#82a0d9", "#7a2d8a")
DASHES = ([1, 0], [6, 3], [2, 2], [9, 2, 2, 2], [1, 4], [12, 4])
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
DIGITS = 5  # that a chart's numbers are written with
TICKS = ".6~g"  # of axes: with fewer digits ten is 1e+1, and a lone tick of 1.6 is 2
LETTER, SYMBOL, PHONE = 6.5, 45, 300  # pixels of a legend's letter, of what stands beside it, of a chart on a phone


@dataclass(frozen=True)
class Table:
    """Numbers as text.

    Attributes:
        columns: their heads.
        rows: of text, as many as columns each.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """What is shown of one question.

    Attributes:
        name: for files and for links, unlike any other's.
        title: what is shown.
        caption: how to read it.
        panels: Vega-Lite specs, one below the other.
        table: the same in numbers.
    """

    name: str
    title: str
    caption: str
    panels: Sequence[Spec]
    table: Table


def panel(height: int, **parts: Any) -> Spec:
    """Return a spec as wide as its place, in the look that all have."""
    return {
        "width": "container",
        "height": height,
        **parts,
        "config": {
            "background": "white",
            "customFormatTypes": True,
            "font": "system-ui, sans-serif",
            "view": {"stroke": None},
            "axis": {
                "labelColor": INK,
                "titleColor": INK,
                "titleFontWeight": "normal",
                "gridColor": GRID,
                "domainColor": QUIET,
                "tickColor": QUIET,
                "labelLimit": 140,
            },
            "legend": {
                "orient": "bottom",
                "layout": {"bottom": {"anchor": "start", "direction": "vertical"}},
                "labelColor": INK,
                "titleColor": QUIET,
                "titleFontWeight": "normal",
                "symbolOpacity": 1,
            },
            "title": {"color": INK, "fontSize": 12, "anchor": "start", "fontWeight": "normal"},
        },
    }


def legend_room(names: Sequence[str]) -> Spec:
    """Return a legend's columns, as many as fit on a phone, and of a name as much as there is room for.

    A chart's height is settled before its width is known: columns that followed the width would be cut off below.
    """
    widest = SYMBOL + LETTER * max(map(len, names), default=0)
    return {
        "columns": max(1, int(PHONE / widest)),
        "labelLimit": {"expr": f"max({SYMBOL}, width - {SYMBOL})"},
    }


def rounded(value: float) -> float | None:
    """Return a number as a spec holds it: a few digits, none for what is not finite."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def told(value: float | None, form: str = ".4g") -> str:
    """Return a number as a table holds it."""
    return "" if value is None else format(value, form)


def short(value: float, form: str = ".4g") -> str:
    """Return a number that may be large: 1.2 G."""
    for power, unit in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power:
            return f"{value / 10**power:{form}} {unit}"
    return f"{value:{form}}"
