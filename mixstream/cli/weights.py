"""The command that computes weights: by a method, from sizes and finished runs, or as the mean of what runs learnt."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from mixstream.cli.amounts import parse_amount, parse_repeats, parse_weights
from mixstream.cli.showing import say, show_learnt
from mixstream.cli.streams import TokenColumn
from mixstream.errors import StateError, nearest

Given = Mapping[str, object]  # options by their flags; None: not given
LAST = 0.5
SHOWN = (
    "natural, uniform, temperature:EXPONENT, unimax:REPEATS, fixed:FILE, climb, repetition, mixing-law, log-linear, "
    "regmix, atlas"
)


def weights(
    asked: Annotated[list[str], typer.Argument(metavar="METHOD|RUN...", help=f"{SHOWN}; or folders of runs.")],
    out: Annotated[Path, typer.Option(help="Where to write.")] = Path("weights.json"),
    streams: Annotated[str | None, typer.Option(help="METHOD: a folder of streams, or its URL.")] = None,
    tokens: Annotated[str | None, typer.Option(help="METHOD: tokens of the run to be, such as 1T or 300M.")] = None,
    max_repeats: Annotated[
        list[str] | None, typer.Option(help="METHOD: repeat budget: 4, or eu.wiki=20; can be given again.")
    ] = None,
    floor: Annotated[float | None, typer.Option(min=0, help="METHOD: least proportion of every source.")] = None,
    parameters: Annotated[str | None, typer.Option(help="METHOD: parameters of the model, such as 7B.")] = None,
    token_column: TokenColumn = None,
    runs: Annotated[list[Path] | None, typer.Option(help="To learn from: a table of runs; can be given again.")] = None,
    rounded: Annotated[
        bool, typer.Option("--rounded", help="Proportions of the runs are rounded: divide them by their sum.")
    ] = False,
    bootstrap: Annotated[int | None, typer.Option(min=0, help="Refits for intervals, 20; 0: none.")] = None,
    resample: Annotated[str | None, typer.Option(help="What refits draw: runs, or residuals.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="A target that counts, as eu or eu=2; can be given again.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of a method that learns, and of its refits.")] = None,
    objective: Annotated[str | None, typer.Option(help="climb: two_step, sum_loss or max_excess.")] = None,
    form: Annotated[str | None, typer.Option(help="climb: F1, F2, F3 or auto.")] = None,
    kl: Annotated[float | None, typer.Option(min=0, help="mixing-law, log-linear: pull to the prior.")] = None,
    prior: Annotated[
        Path | None, typer.Option(help="mixing-law, log-linear, regmix: weights of the sources to stay near.")
    ] = None,
    pilot_tokens: Annotated[
        str | None, typer.Option(help="mixing-law, log-linear, regmix: fit only the runs of so many tokens.")
    ] = None,
    saturation: Annotated[
        float | None, typer.Option(help="repetition, atlas: repeats R* after which more is worth 1/e.")
    ] = None,
    transfer: Annotated[
        Path | None, typer.Option(help="atlas: JSON of what is not fitted, {source: {target: worth}}.")
    ] = None,
    last: Annotated[float | None, typer.Option(min=0.0001, max=1, help="RUN: share of each, at its end, 0.5.")] = None,
    last_batches: Annotated[
        int | None, typer.Option(min=1, help="RUN: so many batches of each, at its end, instead of a share.")
    ] = None,
) -> None:
    """Compute weights by a METHOD for streams and a token budget; or average what RUNs learnt."""
    from mixstream.methods.planning.registry import LEARNING, NAMES

    averaging: Given = {"--last": last, "--last-batches": last_batches}
    planning: Given = {
        "--streams": streams,
        "--tokens": tokens,
        "--max-repeats": max_repeats,
        "--floor": floor,
        "--parameters": parameters,
        "--token-column": token_column,
    }
    fitting: Given = {"--runs": runs, "--rounded": rounded or None, "--bootstrap": bootstrap, "--resample": resample}
    options: Mapping[str, tuple[str, object]] = {
        "targets": ("--target", parse_weights(target)),
        "objective": ("--objective", objective),
        "form": ("--form", form),
        "kl": ("--kl", kl),
        "prior": ("--prior", prior),
        "budget": ("--pilot-tokens", None if pilot_tokens is None else parse_amount(pilot_tokens, "--pilot-tokens")),
        "saturation": ("--saturation", saturation),
        "transfer": ("--transfer", transfer),
        "seed": ("--seed", seed),
    }
    own: Given = dict(options.values())
    name = asked[0].partition(":")[0]
    if name not in NAMES:
        _check_there(asked)
        _refuse(
            {**planning, **fitting, **own}, "is for a METHOD; what runs learnt is averaged by --last or --last-batches"
        )
        _average([Path(run) for run in asked], out, last, last_batches)
        return
    _refuse(averaging, "is for the mean of runs, not for a METHOD")
    if len(asked) > 1:
        raise typer.BadParameter(
            f"{' '.join(asked)}; expected one METHOD, or folders of runs (one called so is ./{name})"
        )
    if streams is None or tokens is None:
        raise typer.BadParameter(f"{name} needs --streams and --tokens")
    if name not in LEARNING:
        _refuse({**fitting, **own}, f"is for methods that learn from runs ({', '.join(LEARNING)}), not for {name}")
    elif not runs:
        raise typer.BadParameter(f"{name} learns from runs; give --runs FILE")
    else:
        refused = {
            flag: value for key, (flag, value) in options.items() if key not in (*LEARNING[name].options, "seed")
        }
        _refuse(refused, f"is not for {name}")

    from mixstream.cli.planning import Question, plan_weights

    plan_weights(
        Question(
            method=asked[0],
            streams=streams,
            token_column=token_column,
            tokens=parse_amount(tokens, "--tokens"),
            parameters=None if parameters is None else parse_amount(parameters, "--parameters"),
            max_repeats=parse_repeats(max_repeats),
            floor=floor or 0.0,
            runs=tuple(runs or ()),
            rounded=rounded,
            options={key: value for key, (_, value) in options.items() if value is not None},
            refits=bootstrap,
            resample=resample or "runs",
        ),
        out,
    )


def _refuse(options: Given, why: str) -> None:
    """Refuse options that were given.

    Raises:
        typer.BadParameter: with the first.
    """
    for flag, value in options.items():
        if value is not None:
            raise typer.BadParameter(f"{flag} {why}")


def _check_there(runs: list[str]) -> None:
    """Refuse what is neither a method nor there, before its options are refused: most often a method's name mistyped.

    Raises:
        StateError: with the nearest method.
    """
    from mixstream.methods.planning.registry import NAMES

    for run in runs:
        if not Path(run).exists():
            raise StateError(
                f"{run}: neither a run's folder nor a method ({SHOWN}){nearest(run.partition(':')[0], NAMES)}"
            )


def _average(runs: list[Path], out: Path, last: float | None, last_batches: int | None) -> None:
    """Average the weights that runs learnt: over the batches of each, and over the runs."""
    from mixstream.methods.learning.averaging import aggregate
    from mixstream.runs.learnt import learnt_by, save_aggregate
    from mixstream.runs.sections import AverageRecipe

    share = LAST if last is None else last
    part = f"the last {share:.0%}" if last_batches is None else f"the last {last_batches:,} batches"
    average = AverageRecipe(last=share) if last_batches is None else AverageRecipe(last_batches=last_batches)
    found = aggregate({str(run): learnt_by(run, average, _batches_of(run)) for run in runs})
    save_aggregate(out, found, ", ".join(map(str, runs)))
    show_learnt(found)
    say(f"mean over {part} of {', '.join(map(str, runs))}; weights in {out}")


def _batches_of(run: Path) -> int:
    from mixstream.runs.folder import RunFolder

    result = RunFolder(run).read_result()
    if result is None:
        raise StateError(f"{run}: holds no run that has ended (no result.json); let it go on to its end")
    return result.batches
