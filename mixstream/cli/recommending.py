"""The command that recommends proportions and repeats for sizes, a token budget and a model size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixstream.cli.amounts import parse_amount, parse_repeats, parse_sizes
from mixstream.cli.showing import say, table
from mixstream.cli.streams import TokenColumn

if TYPE_CHECKING:
    from mixstream.methods.recommend import Recommendation
    from mixstream.mixture.simplex import Float64


def recommend(
    tokens: Annotated[str, typer.Option(help="Tokens of the run, such as 1T, 20B, 300M.")],
    parameters: Annotated[str | None, typer.Option(help="Parameters of the model, such as 7B.")] = None,
    streams: Annotated[str | None, typer.Option(help="A folder of streams, or its URL, whose sizes count.")] = None,
    size: Annotated[
        list[str] | None, typer.Option(help="Or a source and its unique tokens, as eu=2B; can be given again.")
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(help="Learn from a table of runs; can be given again. Else published constants."),
    ] = None,
    max_repeats: Annotated[
        list[str] | None, typer.Option(help="Repeat budget: 4, or eu=20; can be given again. 40 unless told.")
    ] = None,
    floor: Annotated[float, typer.Option(min=0, help="Least proportion of every source.")] = 0.0,
    bootstrap: Annotated[int, typer.Option(min=2, help="Refits to resampled runs.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of the resampling.")] = 0,
    token_column: TokenColumn = None,
) -> None:
    """Recommend proportions and repeats by the repetition law, with what is expected and how sure that is."""
    from mixstream.methods.planning.table_files import read_all
    from mixstream.methods.recommend import recommend as asked
    from mixstream.methods.repeat_warnings import MOST_REPEATS

    if (streams is None) == (size is None):
        raise typer.BadParameter("give --streams, or --size NAME=TOKENS for each source")
    learnt = read_all(runs) if runs else None
    budgets: Mapping[str, float] = {"*": MOST_REPEATS} | (parse_repeats(max_repeats) or {})
    if streams is not None:
        sizes, budgets = _of_streams(streams, token_column, learnt.sources if learnt else None, budgets)
    else:
        sizes = parse_sizes(size or [])
    amount = parse_amount(tokens, "--tokens")
    found = asked(
        sizes,
        amount,
        parameters=math.nan if parameters is None else parse_amount(parameters, "--parameters"),
        runs=learnt,
        max_repeats=budgets,
        floor=floor,
        refits=bootstrap,
        seed=seed,
    )
    _show(found, sizes, amount)


def _of_streams(
    streams: str, token_column: str | None, sources: tuple[str, ...] | None, max_repeats: Mapping[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the tokens and the repeat budgets of each stream, or of each source of the runs."""
    from mixstream.methods.planning.sources import budgets_by_source, sizes_by_source, streams_of
    from mixstream.streams.catalog import Catalog

    catalog = Catalog.open(streams, token_column=token_column)
    names = tuple(catalog.tokens) if sources is None else sources
    groups = streams_of(names, {one.name: one.language for one in catalog})
    return sizes_by_source(groups, catalog.tokens), budgets_by_source(groups, max_repeats)


def _show(found: Recommendation, sizes: dict[str, float], tokens: int) -> None:
    rows = []
    for i, source in enumerate(found.sources):
        share = float(found.proportions[i])
        rows.append(
            (
                source,
                f"{sizes[source]:,.0f}",
                f"{share:.4f}",
                _between(found.proportions_between[:, i]),
                f"{share * tokens:,.0f}",
                f"{found.repeats[i]:.3g}",
                _between(found.repeats_between[:, i], 3),
            )
        )
    table(("source", "unique tokens", "proportion", "between", "tokens", "repeats", "between"), rows)
    losses = [
        (name, f"{found.losses[i]:.4f}", _between(found.losses_between[:, i])) for i, name in enumerate(found.targets)
    ]
    table(("expected loss of", "nats/token", "between"), losses)
    say(f"between: {found.between}")
    for warning in found.warnings:
        say(f"warning: {warning}")


def _between(ends: Float64, digits: int = 4) -> str:
    return f"{ends[0]:.{digits}g} - {ends[1]:.{digits}g}"
