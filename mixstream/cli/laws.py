"""The commands of CLIMB's law: fitted to runs, compared with others, and solved for the proportions of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from mixstream.cli.showing import say, table
from mixstream.formats import write_whole

if TYPE_CHECKING:
    from mixstream.methods.climb import Climb
    from mixstream.methods.planning.answer import Answer
    from mixstream.methods.planning.heldout import HeldOut
    from mixstream.methods.planning.table import RunTable
    from mixstream.mixture.schedule import Change
    from mixstream.mixture.simplex import Float64

SCALES = {"k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def fit(
    runs: Annotated[list[Path], typer.Argument(help="Tables of runs, .parquet or .csv.")],
    out: Annotated[Path, typer.Option(help="Where to write the fitted law.")] = Path("climb.json"),
    form: Annotated[str, typer.Option(help="F1, F2, F3, or auto: by held-out error.")] = "auto",
    folds: Annotated[
        int, typer.Option(min=0, help="Predict each mixture by a fit without it, in so many fits; 0: do not.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of starts and folds.")] = 0,
) -> None:
    """Fit CLIMB's law to a table of runs, and tell how well it predicts those left out."""
    from mixstream.methods.climb import Climb
    from mixstream.methods.climb.file import save
    from mixstream.methods.planning.heldout import held_out
    from mixstream.methods.planning.table_files import read_all

    found = read_all(runs)
    planner = Climb(form=form, seed=seed)
    fitted = planner.fit(found)
    show_law(fitted)
    if folds:
        show_held_out(found, held_out(planner, found, folds, seed))
    save(fitted, out)
    say(f"law of {len(found)} runs in {out}")


def show_law(planner: Climb) -> None:
    """Show a fitted law: each language's parameters, and what each is worth to each other."""
    fitted = planner.fitted
    assert fitted is not None, "it has just been fitted"
    law = fitted.law
    errors = ", ".join(f"{form} {error:.2%}" for form, error in fitted.errors.items())
    say(f"form {law.form}" + (f" (held-out error of each: {errors})" if errors else ""))
    rows = [
        (
            name,
            *(f"{values[i]:.4g}" for values in (law.scale, law.exponent, law.floor, law.saturation)),
            f"{fitted.residual[i]:.2%}",
        )
        for i, name in enumerate(fitted.languages)
    ]
    table((f"L = E + B (r~ D / {law.reference_tokens:,.0f})^-beta", "B", "beta", "E", "eta", "residual"), rows)
    strength = law.strength(float(fitted.pilots.tokens.max()))
    given = [(name, *(f"{value:.3f}" for value in strength[i])) for i, name in enumerate(fitted.languages)]
    table((f"worth at {fitted.pilots.tokens.max():,.0f} tokens, to", *fitted.languages), given)
    for note in fitted.notes:
        say(f"note: {note}")


def show_held_out(runs: RunTable, found: HeldOut) -> None:
    """Show errors on runs that were left out, beside those of the mean of the others."""
    import numpy as np

    rows = [
        (
            name,
            *(
                f"{own(np.abs(errors[:, i])):.2%}"
                for errors in (found.errors, found.of_means)
                for own in (np.nanmedian, np.nanmax)
            ),
        )
        for i, name in enumerate(runs.targets)
    ]
    errors, means = np.abs(found.errors), np.abs(found.of_means)
    total = (np.nanmedian(errors), np.nanmax(errors), np.nanmedian(means), np.nanmax(means))
    rows.append(("all", *(f"{value:.2%}" for value in total)))
    say(f"errors on {len(found.runs)} mixtures, each predicted without it ({found.folds} fits)")
    table(("loss of", "median", "greatest", "median of mean", "greatest of mean"), rows)


def compare(
    law: Annotated[Path, typer.Argument(help="The fitted law, climb.json.")],
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs that have ended.")],
) -> None:
    """Show what a law expects of runs beside what they measured."""
    from mixstream.methods.climb.file import load
    from mixstream.methods.planning.bootstrap import predict_runs
    from mixstream.runs.folder import RunFolder
    from mixstream.runs.pilots.collecting import collect_runs, sources_of

    planner = load(law)
    assert planner.fitted is not None, "a law in a file is fitted"
    folders = {str(path): RunFolder(path) for path in runs}
    by, groups = sources_of(folders, planner.fitted.languages)
    measured = collect_runs(folders, by, groups)
    expected = predict_runs(planner, measured)
    rows: list[tuple[str, ...]] = [
        (
            run if j == 0 else "",
            name,
            f"{measured.proportions[i, j]:.4f}",
            f"{expected[i, j]:.4f}",
            f"{measured.losses[i, j]:.4f}",
            f"{expected[i, j] / measured.losses[i, j] - 1:+.2%}",
        )
        for i, run in enumerate(measured.runs)
        for j, name in enumerate(measured.targets)
    ]
    for i, run in enumerate(measured.runs):
        means = expected[i].mean(), measured.losses[i].mean()
        rows.append((run, "mean", "", *(f"{value:.4f}" for value in means), f"{means[0] / means[1] - 1:+.2%}"))
    table(("run", "loss of", "proportion", "expected", "measured", "error"), rows)


def solve(
    law: Annotated[Path, typer.Argument(help="The fitted law, climb.json.")],
    streams: Annotated[str, typer.Option(help="The streams of the run: a folder, or its URL.")],
    tokens: Annotated[str, typer.Option(help="Tokens of the run, such as 1T, 400k or 250_000_000.")],
    out: Annotated[Path, typer.Option(help="Where to write the weights.")] = Path("weights.json"),
    max_repeats: Annotated[
        list[str] | None, typer.Option(help="Repeat budget: 4, or eu=20, or eu.wiki=20; can be given again.")
    ] = None,
    floor: Annotated[float, typer.Option(min=0, help="Least proportion of every language.")] = 0.0,
    objective: Annotated[
        str | None, typer.Option(help="two_step, sum_loss or max_excess; none: as it was fitted.")
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
    from mixstream.cli.amounts import parse_repeats
    from mixstream.methods.climb.file import load
    from mixstream.methods.planning.answer import answer
    from mixstream.methods.planning.sources import budgets_by_source, sizes_by_source, streams_of, to_streams
    from mixstream.methods.planning.table_files import read_all
    from mixstream.mixture.weights import save_weights
    from mixstream.streams.catalog import Catalog

    planner = load(law)
    if objective is not None:
        planner = replace(planner, objective=objective)
    fitted = planner.fitted
    assert fitted is not None, "a law in a file is fitted"
    catalog, asked = Catalog.open(streams), num_tokens(tokens)
    groups = streams_of(fitted.languages, {stream.name: stream.language for stream in catalog})
    budgets = budgets_by_source(groups, parse_repeats(max_repeats))
    limited = {name: budget for name, budget in budgets.items() if math.isfinite(budget)}
    table_of_runs = read_all(runs) if runs else None
    found = answer(
        planner,
        table_of_runs,
        sizes_by_source(groups, catalog.tokens),
        asked,
        max_repeats=limited or None,
        floor=floor,
        refits=refits if runs else 0,
        pilots=None if runs else fitted.pilots,
    )
    show_answer(found)
    weights, origin = found.weights, f"{law}, for {asked:,} tokens"
    if schedule is not None:
        planned = planner.dynamic(asked, found.run.sizes, found.run.budgets, floor=floor)
        weights, origin = dict(planned.weights), f"{origin}, the first of {schedule}"
        changes = [
            {"at": change.at, "weights": to_streams(own, groups, catalog.tokens)}
            for change, own in zip(planned.changes, _later(planned.changes), strict=True)
        ]
        write_whole(schedule, yaml.safe_dump(changes, sort_keys=False))
        say(
            f"{len(changes)} changes of proportions in {schedule}; what is read is off the best by at most "
            f"{planned.deviation.max():.1%} of the tokens at any of them"
        )
    if beside is not None:
        for one in found.beside:
            shares = dict(zip(found.run.sources, one.proportions.tolist(), strict=True))
            path = beside / f"{one.name.replace(':', '-')}.json"
            save_weights(path, to_streams(shares, groups, catalog.tokens), f"{one.name}, beside {law}")
    save_weights(out, to_streams(weights, groups, catalog.tokens), origin)
    say(f"weights of {len(catalog)} streams in {out}")


def _later(changes: Sequence[Change]) -> list[Mapping[str, float]]:
    weights = [change.weights for change in changes]
    return [own for own in weights if not isinstance(own, str)]


def num_tokens(text: str) -> int:
    """Return a number of tokens as a person writes it: 1T, 1.5B, 400k, 250_000_000.

    Raises:
        BadParameter: it is none.
    """
    told = text.strip().replace("_", "").replace(",", "")
    scale = SCALES.get(told[-1:].lower(), 0)
    try:
        number = Decimal(told[:-1] if scale else told) * (scale or 1)
    except InvalidOperation:
        number = Decimal(0)
    if not (number.is_finite() and 1 <= number < 2**62 and number == int(number)):
        raise typer.BadParameter(f"--tokens {text!r}; expected a whole number of tokens, such as 1T, 1.5B, 400k")
    return int(number)


def show_answer(found: Answer) -> None:
    """Show an answer: proportions, repeats and losses, simple mixtures beside them, and what to be wary of."""
    run, expected = found.run, found.expected
    assert expected is not None, "a law expects losses"
    beside = {one.name: one for one in found.beside}

    def span(bounds: Float64 | None, i: int) -> str:
        return "" if bounds is None else f"{bounds[i, 0]:.3f} to {bounds[i, 1]:.3f}"

    columns = ("language", "proportion", "interval", "repeats", "loss", "interval", *beside)
    rows = [
        (
            name,
            f"{found.proportions[i]:.4f}",
            span(found.intervals, i),
            f"{found.repeats[i]:.2f}",
            f"{expected.losses[i]:.4f}",
            span(expected.loss_intervals, i),
            *(f"{one.proportions[i]:.4f}" for one in beside.values()),
        )
        for i, name in enumerate(run.sources)
    ]
    means = (f"{expected.mean_loss:.4f}", "", *(f"{one.mean_loss:.4f}" for one in beside.values()))
    table(columns, [*rows, ("mean loss", "", "", "", *means)])
    for one in beside.values():
        if not math.isnan(one.wins):
            say(f"{one.wins:.0%} of the refits expect a lower mean loss than that of {one.name}")
    for warning in found.warnings:
        say(f"warning: {warning}")
