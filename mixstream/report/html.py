"""Pictures and tables to one self-contained page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from mixstream.formats import write_whole
from mixstream.report.plots import draw_all
from mixstream.report.read import RunRecord, read_run


def write_report(folders: Sequence[Path], out: Path) -> None:
    """Write the report of some runs to `out`, and its pictures as PNGs to a folder beside it.

    Args:
        folders: of the runs.
        out: the HTML file; the PNGs go to a folder named after it.

    Raises:
        FormatError: a folder is not a run's.
    """
    runs = [read_run(folder) for folder in folders]
    pictures = draw_all(runs)
    beside = out.with_suffix("")
    beside.mkdir(parents=True, exist_ok=True)
    for name, (_, png) in pictures.items():
        (beside / f"{name}.png").write_bytes(png)
    write_whole(out, render(runs, pictures))


def render(runs: Sequence[RunRecord], pictures: dict[str, tuple[str, bytes]]) -> str:
    """Return the page: every picture within it, nothing loaded from anywhere."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(files("mixstream.report").joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(
        runs=runs,
        heldout=heldout_table(runs),
        pictures=[
            {"name": name, "caption": caption, "data": base64.b64encode(png).decode()}
            for name, (caption, png) in pictures.items()
        ],
    )


def heldout_table(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return one row a language, and one of their plain mean: each run's losses, the least one marked."""
    told = [run for run in runs if run.languages]
    languages = sorted({language for run in told for language in run.languages})
    rows = [_row(language, [run.languages.get(language) for run in told]) for language in languages]
    if len(languages) > 1 and all(cell["nats"] is not None for row in rows for cell in row["cells"]):
        rows.append(_mean_row(rows))
    return rows


def _row(language: str, losses: Sequence[Any]) -> dict[str, Any]:
    cells = [
        {"nats": loss.nats_per_token if loss else None, "bits": loss.bits_per_byte if loss else None} for loss in losses
    ]
    return _marked(language, cells)


def _mean_row(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    columns = list(zip(*(row["cells"] for row in rows), strict=True))
    cells = [{key: _mean([cell[key] for cell in column]) for key in ("nats", "bits")} for column in columns]
    return _marked("mean of languages", cells)


def _marked(language: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    known = [cell["nats"] for cell in cells if cell["nats"] is not None]
    for cell in cells:
        cell["best"] = len(known) > 1 and cell["nats"] == min(known)
    return {"language": language, "cells": cells}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
