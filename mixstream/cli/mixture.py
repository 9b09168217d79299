"""The commands that decide what is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mixstream.cli.showing import say, show_plan, show_simulation, table
from mixstream.cli.streams import Streams, TokenColumn
from mixstream.errors import StateError
from mixstream.mixture.build import WINDOW_SAMPLES

Out = Annotated[Path, typer.Option(help="Where to write.")]


def plan(
    streams: Streams,
    budget_tokens: Annotated[int, typer.Option(min=1, help="Tokens to read.")],
    batch_size: Annotated[int, typer.Option(min=1, help="Samples of a global batch.")],
    out: Out = Path("plan.json"),
    weights: Annotated[
        str, typer.Option(help="natural, uniform, temperature:EXPONENT, unimax:REPEATS, or a file.")
    ] = "natural",
    max_repeats: Annotated[
        list[str] | None, typer.Option(help="Repeat budget: 4, or eu.wiki=20; can be given again.")
    ] = None,
    floor: Annotated[float, typer.Option(min=0, help="Least proportion of every stream.")] = 0.0,
    schedule: Annotated[Path | None, typer.Option(help="YAML or JSON list of changes: at, weights, ramp.")] = None,
    sequence_length: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a sample, if shorter than stored; must divide it.")
    ] = None,
    lanes: Annotated[int, typer.Option(min=1, help="Nodes that each stream is dealt to; must divide the batch.")] = 1,
    window_samples: Annotated[int, typer.Option(min=1, help="Samples that are shuffled at a time.")] = WINDOW_SAMPLES,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of reading.")] = 17,
    token_column: TokenColumn = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="Show what the run fetches and when.")] = False,
) -> None:
    """Decide what a run reads: proportion, samples, tokens and repeats of every stream (from indexes alone)."""
    from mixstream.mixture.build import build_plan
    from mixstream.mixture.schedule import read_schedule
    from mixstream.mixture.simulate import simulate as simulate_run
    from mixstream.mixture.simulate import working_set_bytes
    from mixstream.streams.catalog import Catalog

    budgets = _max_repeats(max_repeats)
    catalog = Catalog.open(streams, token_column=token_column)
    decided = build_plan(
        catalog,
        weights=weights,
        budget_tokens=budget_tokens,
        batch_size=batch_size,
        max_repeats=budgets,
        floor=floor,
        schedule=read_schedule(schedule) if schedule else None,
        sequence_length=sequence_length,
        lanes=lanes,
        window_samples=window_samples,
        seed=seed,
    )
    decided.save(out)
    show_plan(decided)
    if simulate:
        show_simulation(simulate_run(decided, catalog), decided, working_set_bytes(decided, catalog, 1))
    say(f"{decided.num_batches:,} batches of {decided.batch_size} samples; plan in {out}")


def weights(
    run: Annotated[Path, typer.Argument(help="A proxy run's folder.")],
    out: Out = Path("weights.json"),
    last: Annotated[float, typer.Option(min=0.0001, max=1, help="Share of the run, at its end.")] = 0.5,
) -> None:
    """Average the weights that a proxy run learnt."""
    from mixstream.methods.history import learnt_weights
    from mixstream.mixture.weights import save_weights
    from mixstream.runs.folder import RunFolder

    result = RunFolder(run).read_result()
    if result is None:
        raise StateError(f"{run}: holds no run that has ended (no result.json); let it go on to its end")
    learnt = learnt_weights(run, last, result.batches)
    save_weights(out, learnt, str(run))
    table(("stream", "weight"), [(name, f"{weight:.4f}") for name, weight in learnt.items()])
    say(f"mean over the last {last:.0%} of {run}; weights in {out}")


def _max_repeats(given: list[str] | None) -> dict[str, float] | None:
    """Return repeat budgets from options such as ``4`` and ``eu.wiki=20``."""
    budgets: dict[str, float] = {}
    for option in given or []:
        name, _, value = option.rpartition("=")
        if (name or "*") in budgets:
            raise typer.BadParameter(f"{option!r}; the budget of {name or 'all streams'} is given twice")
        try:
            budgets[name or "*"] = float(value)
        except ValueError:
            raise typer.BadParameter(f"{option!r}; expected a number or STREAM=NUMBER") from None
    return budgets or None
