"""Charts and tables to one self-contained page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from mixstream.errors import FormatError
from mixstream.formats import write_whole
from mixstream.report.charts.compared import compared_figures
from mixstream.report.charts.figure import Figure
from mixstream.report.charts.losses import loss_figures
from mixstream.report.charts.mixture import mixture_figures
from mixstream.report.charts.running import running_figures
from mixstream.report.images import check_format, write_images
from mixstream.report.read import RunRecord, read_runs
from mixstream.report.tables import heldout_table, pairs, settings_table

BUNDLED = "window.vegaEmbed = vegaEmbed;"  # what the page calls of the libraries in it


class Section(NamedTuple):
    """A run's figures; of no run, those of all runs together."""

    run: RunRecord | None
    figures: Sequence[Figure]


def write_report(folders: Sequence[Path], out: Path, images: Path | None = None, image_format: str = "svg") -> None:
    """Write the report of some runs to `out`.

    Args:
        folders: of the runs, or of chains of runs.
        out: the HTML file.
        images: a folder for the charts as pictures; None: none are made.
        image_format: of the pictures, ``svg`` or ``png``.

    Raises:
        FormatError: a folder is not a run's, `out` is not named .html or is a folder, `images` is a file, or
            their format is unknown.
    """
    if out.suffix != ".html":
        name = f"{out.stem or 'report'}.html"
        raise FormatError(f"{out}: a report is an HTML file; give a name such as {name}")
    if images is not None:
        check_format(image_format)
    import vl_convert

    runs = read_runs(folders)
    with ThreadPoolExecutor(1) as aside:
        script = aside.submit(vl_convert.javascript_bundle, BUNDLED)  # a second or two, while figures are made
        sections = sections_of(runs)
        write_whole(out, render(runs, sections, script.result()))
    if images is not None:
        write_images([figure for section in sections for figure in section.figures], images, image_format)


def sections_of(runs: Sequence[RunRecord]) -> list[Section]:
    """Return all figures: those of all runs together first."""
    own = [Section(run, [*mixture_figures(run), *loss_figures(run), *running_figures(run)]) for run in runs]
    return [Section(None, [*compared_figures(runs)]), *own]


def render(runs: Sequence[RunRecord], sections: Sequence[Section], script: str) -> str:
    """Return the page: numbers, and the script that draws them, within it; nothing is loaded from anywhere."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string(files("mixstream.report").joinpath("page.html").read_text(encoding="utf-8"))
    specs = [spec for section in sections for figure in section.figures for spec in figure.panels]
    page = template.render(
        runs=runs,
        told=[run for run in runs if run.languages],
        pairs=pairs(runs),
        heldout=heldout_table(runs),
        settings=settings_table(runs),
        sections=sections,
        specs=as_script(specs),
        vega=script,
    )
    return str(page)


def as_script(content: object) -> str:
    """Return JSON that may stand in a script element: no name in it can end that."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
