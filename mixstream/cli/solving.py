"""The command that asks a fitted law of CLIMB for the proportions of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixstream.cli.amounts import parse_amount, parse_repeats, parse_weights
from mixstream.cli.answers import show_answer, show_streams
from mixstream.cli.showing import say
from mixstream.errors import FitError

if TYPE_CHECKING:
    from mixstream.methods.climb import Climb
    from mixstream.methods.planning.answer import Answer
    from mixstream.methods.planning.sources import Groups
    from mixstream.streams.catalog import Catalog


def solve(
    law: Annotated[Path, typer.Argument(help="The fitted law, climb.json.")],
    streams: Annotated[str, typer.Option(help="The streams of the run: a folder, or its URL.")],
    tokens: Annotated[str, typer.Option(help="Tokens of the run, such as 1T, 400k or 250_000_000.")],
    out: Annotated[Path, typer.Option(help="Where to write the weights.")] = Path("weights.json"),
    max_repeats: Annotated[
        list[str] | None, typer.Option(help="Repeat budget: 4, or eu=20, or eu.wiki=20; can be given again.")
    ] = None,
    floor: Annotated[float, typer.Option(min=0, help="Least proportion of every language.")] = 0.0,
    parameters: Annotated[str | None, typer.Option(help="Parameters of the model, such as 7B.")] = None,
    objective: Annotated[
        str | None, typer.Option(help="two_step, sum_loss or max_excess; none: as it was fitted.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="A language that counts, as eu or eu=2; can be given again; none: all.")
    ] = None,
    neighbour: Annotated[
        list[str] | None,
        typer.Option(help="A language without pilots, and those like it: gl=pt,es."),
    ] = None,
    runs: Annotated[
        list[Path] | None, typer.Option(help="Tables that it was fitted to: it is fitted again, with intervals.")
    ] = None,
    refits: Annotated[int, typer.Option(min=0, help="Of the bootstrap of those tables.")] = 20,
    beside: Annotated[
        Path | None, typer.Option(help="Write natural, uniform and UniMax to this folder too, to compare with.")
    ] = None,
    schedule: Annotated[
        Path | None, typer.Option(help="Write here how proportions change in the course of the run.")
    ] = None,
) -> None:
    """Write the proportions that a fitted law finds best for a run, and tell what it expects and how sure that is."""
    from mixstream.methods.climb.file import load
    from mixstream.methods.planning.answer import answer
    from mixstream.methods.planning.sources import budgets_by_source, sizes_by_source, streams_of, to_streams
    from mixstream.methods.planning.table_files import read_all
    from mixstream.mixture.weights import save_weights
    from mixstream.streams.catalog import Catalog

    planner = _asked(load(law), objective, target, neighbour)
    fitted = planner.fitted
    assert fitted is not None, "a law in a file is fitted"
    catalog, asked = Catalog.open(streams), parse_amount(tokens, "--tokens")
    catalog.check_alike()
    table = read_all(runs) if runs else None
    strange = set(table.runs) ^ set(fitted.pilots.runs) if table is not None else set()
    if strange:
        raise FitError(
            f"the tables of --runs are not what {law} was fitted to: run {min(strange)!r} ({len(strange)} such) is in "
            f"one of the two only; give the same tables, or fit a law to these"
        )
    groups = streams_of(fitted.languages, {stream.name: stream.language for stream in catalog})
    budgets = budgets_by_source(groups, parse_repeats(max_repeats))
    found = answer(
        planner,
        table,
        sizes_by_source(groups, catalog.tokens),
        asked,
        max_repeats={name: budget for name, budget in budgets.items() if math.isfinite(budget)} or None,
        floor=floor,
        parameters=math.nan if parameters is None else parse_amount(parameters, "--parameters"),
        refits=refits if runs else 0,
        pilots=None if runs else fitted.pilots,
    )
    show_answer(found)
    for name, guess in fitted.guesses.items():
        say(f"warning: no pilot tells of {name}: its law is the mean of {', '.join(guess.neighbours)}")
    given = _Given(law, asked, catalog, groups)
    weights, origin = found.weights, f"{law}, for {asked:,} tokens"
    if schedule is not None:
        weights, origin = _schedule(planner, found, given, floor, schedule), f"{origin}, the first of {schedule}"
    if beside is not None:
        for one in found.beside:
            shares = dict(zip(found.run.sources, one.proportions.tolist(), strict=True))
            path = beside / f"{one.name.replace(':', '-')}.json"
            save_weights(path, given.to_streams(shares), f"{one.name}, beside {law}")
    spread = None
    if found.spread is not None and schedule is None:
        by_source = dict(zip(found.run.sources, found.spread.tolist(), strict=True))
        spread = to_streams(by_source, groups, catalog.tokens)
    by_stream = given.to_streams(weights)
    save_weights(out, by_stream, origin, spread)
    show_streams(by_stream, spread)
    say(f"weights of {len(catalog)} streams in {out}")


@dataclass(frozen=True)
class _Given:
    """What a law is asked about: its file, the tokens of the run, the streams, and those of each language."""

    law: Path
    tokens: int
    catalog: Catalog
    groups: Groups

    def to_streams(self, shares: Mapping[str, float]) -> dict[str, float]:
        """Deal languages' shares to their streams; the sum is 1."""
        from mixstream.methods.planning.sources import to_streams

        dealt = to_streams(shares, self.groups, self.catalog.tokens)
        total = math.fsum(dealt.values())
        return {name: share / total for name, share in dealt.items()}


def _asked(planner: Climb, objective: str | None, target: list[str] | None, neighbour: list[str] | None) -> Climb:
    """Return the planner with what was asked for in place of what it was fitted with."""
    if objective is not None:
        planner = replace(planner, objective=objective)
    if target:
        planner = replace(planner, targets=parse_weights(target))
    return planner.extended(_neighbours(neighbour)) if neighbour else planner


def _neighbours(given: Sequence[str]) -> dict[str, list[str]]:
    """Return languages and those like them, from options such as ``gl=pt,es``."""
    found: dict[str, list[str]] = {}
    for option in given:
        name, _, others = option.partition("=")
        like = [other for other in others.split(",") if other]
        if not name or not like or name in found:
            raise typer.BadParameter(f"--neighbour {option!r}; expected each language once, as gl=pt,es")
        found[name] = like
    return found


def _schedule(planner: Climb, found: Answer, given: _Given, floor: float, path: Path) -> dict[str, float]:
    """Write how proportions change in the course of the run; return those of its first phase."""
    import yaml

    from mixstream.formats import write_whole

    planned = planner.dynamic(given.tokens, found.run.sizes, found.run.budgets, floor=floor)
    changes = [
        {"at": change.at, "weights": given.to_streams(change.weights)}
        for change in planned.changes
        if not isinstance(change.weights, str)  # a rule's name; these are numbers
    ]
    write_whole(path, yaml.safe_dump(changes, sort_keys=False))
    say(
        f"{len(changes)} changes of proportions in {path}; what is read is off the best by at most "
        f"{planned.deviation.max():.1%} of the tokens at any of them"
    )
    return dict(planned.weights)
