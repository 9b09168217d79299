"""The commands of CLIMB's law: fitted to runs, and compared with others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixstream.cli.showing import say, table

if TYPE_CHECKING:
    from mixstream.methods.climb import Climb
    from mixstream.methods.planning.heldout import HeldOut
    from mixstream.methods.planning.table import RunTable


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
