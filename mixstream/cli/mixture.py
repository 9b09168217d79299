"""The commands that decide what is read, and compare what was decided."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixstream.cli.amounts import parse_repeats
from mixstream.cli.manners import FOUND
from mixstream.cli.plans import show_changes, show_difference, show_outlook, show_simulation
from mixstream.cli.showing import say
from mixstream.cli.streams import Streams, TokenColumn

if TYPE_CHECKING:
    from mixstream.methods.rescaling import RescalingMode
    from mixstream.streams.catalog import Catalog

RESCALING: tuple[RescalingMode, ...] = ("keep_total", "keep_largest", "cap")
WINDOW_SAMPLES = 32_768  # mixture.build's, which is not loaded to print a help
Out = Annotated[Path, typer.Option(help="Where to write.")]


def plan(
    streams: Streams,
    budget_tokens: Annotated[
        str, typer.Option(help="Tokens to read; or keep_total, keep_largest, cap: as many as the corpora make.")
    ],
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
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Decide what a run reads, and show it: shares, repeats against budgets, bytes to download (from indexes alone)."""
    from mixstream.formats import dump_json
    from mixstream.mixture.build import build_plan
    from mixstream.mixture.schedule import read_schedule
    from mixstream.mixture.simulate import simulate as simulate_run
    from mixstream.mixture.simulate import working_set_bytes
    from mixstream.report.outlook import look_ahead
    from mixstream.streams.catalog import Catalog

    if json and simulate:
        raise typer.BadParameter("--simulate prints a table, --json what it tells of each stream; choose one of them")
    budgets, budget = parse_repeats(max_repeats), _asked_budget(budget_tokens)
    catalog = Catalog.open(streams, token_column=token_column)
    decided = build_plan(
        catalog,
        weights=weights,
        budget_tokens=budget if isinstance(budget, int) else _rescaled(budget, catalog, weights, budgets),
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
    found = simulate_run(decided, catalog)
    outlook = look_ahead(decided, catalog, found)
    if json:
        print(dump_json(outlook), end="")
        return
    show_outlook(outlook)
    show_changes(decided)
    if simulate:
        show_simulation(found, decided, working_set_bytes(decided, catalog, 1))
    say(f"{decided.num_batches:,} batches of {decided.batch_size} samples; plan in {out}")


def plan_diff(
    before: Annotated[Path, typer.Argument(help="A plan.json, or a run's folder.")],
    now: Annotated[Path, typer.Argument(help="Another one.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show in what two plans differ; exit code 1 where runs of them would read other batches."""
    from mixstream.formats import dump_json
    from mixstream.mixture.comparing import compare_plans
    from mixstream.report.outlook import plan_in

    found = compare_plans(plan_in(before), plan_in(now))
    if json:
        print(dump_json(found), end="")
    else:
        show_difference(found)
    if not found.reads_same:
        raise typer.Exit(FOUND)


def _asked_budget(given: str) -> int | RescalingMode:
    """Return a number of tokens, or how one is to be found."""
    for mode in RESCALING:
        if given == mode:
            return mode
    if not given.isdecimal() or int(given) < 1:
        raise typer.BadParameter(
            f"--budget-tokens {given!r}; expected a whole number of at least 1, or one of {', '.join(RESCALING)}"
        )
    return int(given)


def _rescaled(mode: RescalingMode, catalog: Catalog, weights: str, max_repeats: dict[str, float] | None) -> int:
    """Return the tokens that rescaling the corpora to the weights makes."""
    import numpy as np

    from mixstream.methods.rescaling import target_size
    from mixstream.mixture.budget import repeat_budgets
    from mixstream.mixture.weights import resolve_weights

    sizes = np.array(list(catalog.tokens.values()), dtype=np.int64)
    repeats = None
    if mode == "cap":
        repeats = np.array([math.inf if own is None else own for own in repeat_budgets(max_repeats, catalog.names)])
    asked = resolve_weights(weights, catalog.tokens, int(sizes.sum()))
    return target_size(asked, sizes, mode, max_repeats=repeats, names=catalog.names)
