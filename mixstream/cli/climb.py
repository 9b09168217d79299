"""The commands of CLIMB: pilots are written and run, their losses collected, a law fitted, and proportions found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixstream.cli import laws, solving
from mixstream.cli.manners import Commands
from mixstream.cli.runs import announce
from mixstream.cli.showing import say, table

if TYPE_CHECKING:
    from mixstream.methods.planning.table import RunTable
    from mixstream.runs.folder import Result
    from mixstream.runs.pilots.written import PilotsFolder

app = typer.Typer(
    help="Pilots, the laws that are fitted to them, and the proportions that these find best (CLIMB).",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
)
MAX_ROWS = 40  # of a table of runs that is shown

for _command in (laws.fit, laws.compare, solving.solve):
    app.command()(_command)

PilotsOut = Annotated[Path, typer.Argument(help="The folder of the pilots.")]


@app.command()
def pilots(
    recipe: Annotated[Path, typer.Argument(help="The recipe YAML, of kind pilots.")],
    streams: Annotated[str | None, typer.Option(help="Read these streams instead: a folder, or its URL.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write to this folder instead.")] = None,
) -> None:
    """Write the recipes of a design's pilots, the views that they read, and slurm.sh."""
    from mixstream.runs.pilots.recipe import load_pilots
    from mixstream.runs.pilots.writing import write_pilots

    asked = load_pilots(recipe, streams, out)

    def cut(*view: Any) -> object:
        from converters.view import proxy_view

        *options, min_samples = view
        return proxy_view(*options, min_samples=min_samples)

    written = write_pilots(asked, cut)
    rows = [
        (own.name, f"{own.budget_tokens:,}", *(f"{share:.4f}" for share in own.proportions.values()))
        for own in written.pilots[:MAX_ROWS]
    ]
    table(("pilot", "tokens", *written.sources), rows)
    if len(written.pilots) > MAX_ROWS:
        say(f"and {len(written.pilots) - MAX_ROWS} pilots more")
    total = sum(own.budget_tokens for own in written.pilots)
    say(f"{len(written.pilots)} pilots of {total:,} tokens together; `mixstream climb run {asked.out}` trains them")


@app.command()
def run(
    out: PilotsOut,
    cluster: Annotated[str | None, typer.Option(help="Dask scheduler, such as tcp://host:8786.")] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Let one that fails not stop the others; told at the end.")
    ] = False,
) -> None:
    """Train the pilots that have not ended; run again after a stop, it goes on."""
    from mixstream.runs.pilots.cluster import run_on_cluster
    from mixstream.runs.pilots.written import PilotsFolder

    folder = PilotsFolder(out)
    told = _Told(folder)
    try:
        if cluster is not None:
            run_on_cluster(folder, cluster, told.ended, keep_going)
        else:
            from mixstream.runs.pilots.running import run_pilots  # torch and Composer: 5 s

            run_pilots(folder, announce, told.ended, keep_going)
    except (KeyboardInterrupt, SystemExit) as stop:  # Composer makes SystemExit(128 + number) of signals
        print("interrupted; the same command goes on with what is done", file=sys.stderr)
        code = stop.code if isinstance(stop, SystemExit) else None
        raise typer.Exit(code if isinstance(code, int) else 130) from None
    say(f"all {told.total} pilots have ended; `mixstream climb collect {out}` makes a table of them")


class _Told:
    """Tells of each pilot that ends, and counts them."""

    def __init__(self, folder: PilotsFolder) -> None:
        pilots = folder.read().pilots
        self.total = len(pilots)
        self._done = sum(folder.is_done(own.name) for own in pilots)
        if self._done:
            say(f"{self._done} of {self.total} pilots have ended before")

    def ended(self, name: str, result: Result) -> None:
        """Tell of one."""
        self._done += 1
        losses = ", ".join(f"{language} {loss.nats_per_token:.3f}" for language, loss in result.languages.items())
        say(f"{name}: {self._done} of {self.total}, {result.tokens:,} tokens in {result.seconds:.0f} s; {losses}")


@app.command()
def collect(
    out: PilotsOut,
    to: Annotated[Path, typer.Option("--out", help="Where to write: .parquet or .csv.")] = Path("runs.parquet"),
    allow_unfinished: Annotated[
        bool, typer.Option("--allow-unfinished", help="Leave out pilots that have not ended, and tell them.")
    ] = False,
) -> None:
    """Write what finished pilots read, and their losses, as a table of runs."""
    from mixstream.methods.planning.table_files import write_runs
    from mixstream.runs.pilots.collecting import collect_pilots
    from mixstream.runs.pilots.written import PilotsFolder

    found, unfinished = collect_pilots(PilotsFolder(out), allow_unfinished)
    write_runs(to, found)
    _show_runs(found)
    for name in unfinished:
        say(f"left out: {name} has not ended")
    say(f"{len(found)} runs in {to}")


def _show_runs(found: RunTable) -> None:
    """Show a table of runs: what was read, and the losses."""
    columns = ("run", "tokens", *found.sources, *(f"loss {name}" for name in found.targets))
    rows = [
        (
            found.runs[i],
            f"{found.tokens[i]:,.0f}",
            *(f"{share:.4f}" for share in found.proportions[i]),
            *(f"{loss:.4f}" for loss in found.losses[i]),
        )
        for i in range(min(len(found), MAX_ROWS))
    ]
    table(columns, rows)
    if len(found) > MAX_ROWS:
        say(f"and {len(found) - MAX_ROWS} runs more")
