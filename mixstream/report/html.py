"""Pictures and tables to one self-contained page."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from mixstream.errors import FormatError
from mixstream.formats import write_whole
from mixstream.report.plots import draw_all
from mixstream.report.read import RunRecord, read_runs, traffic_of, waited_share


def write_report(folders: Sequence[Path], out: Path) -> None:
    """Write the report of some runs to `out`, and its pictures as PNGs to a folder beside it.

    Args:
        folders: of the runs.
        out: the HTML file; the PNGs go to a folder named after it.

    Raises:
        FormatError: a folder is not a run's, or `out` is not named .html or is a folder.
    """
    if out.suffix != ".html":
        name = f"{out.stem or 'report'}.html"
        raise FormatError(f"{out}: a report is an HTML file and a folder beside it; give a name such as {name}")
    runs = read_runs(folders)
    pictures = draw_all(runs)
    write_whole(out, render(runs, pictures))
    beside = out.with_suffix("")
    beside.mkdir(parents=True, exist_ok=True)
    for name, (_, png) in pictures.items():
        (beside / f"{name}.png").write_bytes(png)


def render(runs: Sequence[RunRecord], pictures: dict[str, tuple[str, bytes]]) -> str:
    """Return the page: every picture within it, nothing loaded from anywhere."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(files("mixstream.report").joinpath("page.html").read_text(encoding="utf-8"))
    drawn = [
        {"name": name, "caption": caption, "data": base64.b64encode(png).decode()}
        for name, (caption, png) in pictures.items()
    ]
    return template.render(
        runs=runs,
        told=[run for run in runs if run.languages],
        pairs=pairs(runs),
        heldout=heldout_table(runs),
        stores=[(run, rows, waited_share(run)) for run in runs if (rows := traffic_of(run))],
        answer=[picture for picture in drawn if picture["name"] == "heldout"],
        pictures=[picture for picture in drawn if picture["name"] != "heldout" and not _is_of_store(picture)],
        of_stores=[picture for picture in drawn if _is_of_store(picture)],
    )


def _is_of_store(picture: dict[str, str]) -> bool:
    return picture["name"].startswith("store-")


def pairs(runs: Sequence[RunRecord]) -> list[tuple[RunRecord, RunRecord]]:
    """Return the runs to compare: those that differ in their weights alone, the first with each of the others."""
    ended = [run for run in runs if run.languages]
    found = []
    for i, run in enumerate(ended):
        alike = [other for other in ended[i + 1 :] if _setting(other) == _setting(run)]
        if not any(_setting(earlier) == _setting(run) for earlier in ended[:i]):
            found += [(run, other) for other in alike]
    return found


def _setting(run: RunRecord) -> tuple[Any, ...]:
    plan = run.plan
    return run.tokens, plan.seed, plan.batch_size, plan.sequence_length, plan.streams, bool(run.updates)


def heldout_table(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return one row a language, and one of their plain mean.

    A row has ``language``, ``tokens`` (held out), ``cells`` (a run's ``nats`` and ``bits``) and
    ``differences`` (nats/token of each pair of `pairs`, first less second).
    """
    told = [run for run in runs if run.languages]
    languages = sorted({language for run in told for language in run.languages})
    rows = []
    for language in languages:
        losses = {run.name: run.languages.get(language) for run in told}
        cells = [
            {"nats": loss.nats_per_token if loss else None, "bits": loss.bits_per_byte if loss else None}
            for loss in losses.values()
        ]
        differences = [
            first.nats_per_token - second.nats_per_token
            if (first := losses[one.name]) is not None and (second := losses[other.name]) is not None
            else None
            for one, other in pairs(runs)
        ]
        tokens = max(loss.num_tokens for loss in losses.values() if loss is not None)
        rows.append({"language": language, "tokens": tokens, "cells": cells, "differences": differences})
    return [*rows, _mean_row(rows)] if len(rows) > 1 else rows


def _mean_row(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    cells = [
        {key: _mean([cell[key] for cell in column]) for key in ("nats", "bits")}
        for column in zip(*(row["cells"] for row in rows), strict=True)
    ]
    differences = [_mean(column) for column in zip(*(row["differences"] for row in rows), strict=True)]
    tokens = sum(row["tokens"] for row in rows)
    return {"language": "mean of languages", "tokens": tokens, "cells": cells, "differences": differences}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
