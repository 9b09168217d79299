"""The commands that run recipes and tell of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixstream.cli.plans import show_plan
from mixstream.cli.showing import say, show_results

if TYPE_CHECKING:
    from mixstream.runs.train import Run

MAX_CHANGES = 20  # told of a run that is carried over


def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe YAML.")],
    streams: Annotated[str | None, typer.Option(help="Read these streams instead: a folder, or its URL.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write to this folder instead.")] = None,
    cache_dir: Annotated[
        str | None, typer.Option(help="Keep shards of a store in this folder instead, on a disk of this machine.")
    ] = None,
    cache_limit: Annotated[
        str | None, typer.Option(help="Let that folder grow to so many bytes instead, such as '200 GB'.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Read by these weights instead: a file, or natural, uniform, ...")
    ] = None,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Go on though recipe or streams have changed: every stream where it was.")
    ] = False,
) -> None:
    """Run a recipe: a proxy, a base run, or the chain of both; goes on where it was interrupted."""
    from mixstream.runs.recipe import load_recipe

    asked = load_recipe(recipe, streams, out, cache_dir, cache_limit, weights)
    from mixstream.runs.chain import run_recipe  # torch and Composer: 5 s, after the recipe is known good

    try:
        results = run_recipe(asked, announce, migrate)
    except (KeyboardInterrupt, SystemExit) as stop:  # Composer makes SystemExit(128 + number) of signals
        print("interrupted; the same command goes on from the newest checkpoint, if there is one", file=sys.stderr)
        code = stop.code if isinstance(stop, SystemExit) else None
        raise typer.Exit(code if isinstance(code, int) else 130) from None
    if _is_first():
        show_results(results)


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold runs.")],
    out: Annotated[Path, typer.Option(help="Where to write.")] = Path("report.html"),
    images: Annotated[Path | None, typer.Option(help="Write the charts as pictures to this folder too.")] = None,
    image_format: Annotated[str, typer.Option(help="Of the pictures: svg or png.")] = "svg",
) -> None:
    """Write one HTML file that shows what runs did, with all that it needs in it."""
    from mixstream.report.html import write_report

    write_report(runs, out, images, image_format)
    say(f"report in {out}" + (f", pictures in {images}" if images is not None else ""))


def announce(name: str, run: Run) -> None:
    """Show what a run is about to read."""
    if not _is_first():
        return
    for change in run.changes[:MAX_CHANGES]:
        say(f"{name}: to be carried over: {change}")
    if len(run.changes) > MAX_CHANGES:
        say(f"{name}: to be carried over: and {len(run.changes) - MAX_CHANGES} changes more")
    if run.folder.read_result() is not None and not run.changes:
        say(f"{name}: complete in {run.folder.path}; remove that folder to run it again")
        return
    checkpoint = run.folder.newest_checkpoint()
    how = f"going on from {checkpoint.name}" if checkpoint else "starting"
    say(f"{name}: {how}, {run.plan.num_batches:,} batches of {run.plan.batch_size} samples, in {run.folder.path}")
    show_plan(run.plan)


def _is_first() -> bool:
    """Return whether this is the process that speaks: rank 0 of a launcher's, or the only one."""
    return (os.environ.get("RANK") or "0") == "0"
