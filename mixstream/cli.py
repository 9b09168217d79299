"""The command line: parse, one call, print. Errors of ours are one line and exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from mixstream.errors import MissingExtraError, MixstreamError, StateError
from mixstream.mixture.build import WINDOW_SAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mixstream.mixture.plan import Plan
    from mixstream.mixture.simulate import Simulation
    from mixstream.runs.folder import Result
    from mixstream.runs.train import Run

EXTRAS = {
    "streaming": "convert",
    "pyarrow": "convert",
    "tokenizers": "convert",
    "torch": "train",
    "composer": "train",
    "transformers": "train",
    "matplotlib": "report",
    "jinja2": "report",
}

MAX_CHANGES = 20  # told of a run that is carried over

app = typer.Typer(
    help="Stream, mix and resample multilingual corpora for pre-training.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Out = Annotated[Path, typer.Option(help="Where to write.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 2 with one line for an error of ours, 130 for Ctrl-C."""
    try:
        with _told_extras():
            app(args=arguments)
    except MixstreamError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as problem:  # a folder that may not be written, a full disk
        print(f"error: {problem.filename or 'cannot go on'}: {problem.strerror}", file=sys.stderr)
        sys.exit(2)


@app.command()
def convert(
    corpora: Annotated[list[Path], typer.Argument(help="Corpus files, or folders of them.")],
    out: Out,
    name: Annotated[str | None, typer.Option(help="Make one stream of this name of all files.")] = None,
    tokenizer: Annotated[str, typer.Option(help="byte, a tokenizer.json, or a hub name.")] = "byte",
    eod_token: Annotated[str | None, typer.Option(help="The tokenizer's end-of-document token.")] = None,
    sequence_length: Annotated[int, typer.Option(min=2, max=1 << 24, help="Tokens of a sample.")] = 2048,
    holdout: Annotated[float, typer.Option(min=0, max=0.99, help="Share of documents to hold out.")] = 0.02,
    text_field: Annotated[str, typer.Option(help="Field or column of the text.")] = "text",
    overwrite: Annotated[bool, typer.Option(help="Replace streams made from something else.")] = False,
) -> None:
    """Make MDS streams of JSONL, Parquet and text corpora."""
    from converters.run import Options, convert_corpus, other_streams
    from converters.sources import find_corpora
    from converters.tokenise import load_tokenizer

    found = find_corpora(corpora, name)
    options = Options(load_tokenizer(tokenizer, eod_token), sequence_length, holdout, text_field, overwrite)
    rows = []
    with _progress("documents") as progress:
        streams = progress.add_task("streams", total=len(found.corpora))
        documents = progress.add_task("documents", total=None)
        for corpus in found.corpora:
            converted = convert_corpus(corpus, out, options, lambda n: progress.advance(documents, n))
            train, heldout = converted.manifests["train"], converted.manifests.get("heldout")
            rows.append(
                (
                    corpus.name,
                    _number(train.num_documents),
                    _number(train.num_tokens),
                    _number(train.num_samples),
                    _number(heldout.num_samples) if heldout else f"none ({_number(train.heldout_documents)} documents)",
                    "kept" if converted.kept else "written",
                )
            )
            progress.advance(streams)
    for path in found.ignored:
        _say(f"ignored {path}: no corpus format")
    _table(("stream", "documents", "tokens", "samples", "held-out samples", ""), rows)
    others = other_streams(found, out)
    if others:
        _say(f"{out} also holds, from elsewhere: {', '.join(others)}; remove what is not to be read")
    _say(f"streams of {sequence_length} tokens a sample in {out}")


@app.command()
def inspect(
    streams: Annotated[Path, typer.Argument(help="A folder of streams.")],
    token_column: Annotated[str | None, typer.Option(help="Token column of plain MDS directories.")] = None,
) -> None:
    """Show the streams of a folder, after checking that their shards are there."""
    from mixstream.streams.catalog import Catalog

    catalog = Catalog.open(streams, token_column=token_column)
    for stream in [*catalog, *(catalog.heldout() or [])]:
        stream.check_files()
    _table(
        ("stream", "language", "samples", "sequence", "tokens", "shards", "tokenizer", "fingerprint"),
        [
            (
                stream.name,
                stream.language or "unknown",
                f"{stream.num_samples:,}",
                str(stream.sequence_length),
                f"{stream.num_tokens:,}",
                str(len(stream.index.files)),
                stream.tokenizer.name if stream.tokenizer else "unknown",
                stream.fingerprint,
            )
            for stream in catalog
        ],
    )


@app.command()
def verify(
    streams: Annotated[Path, typer.Argument(help="A folder of streams.")],
    token_column: Annotated[str | None, typer.Option(help="Token column of plain MDS directories.")] = None,
) -> None:
    """Read every shard of a folder's streams: sizes, headers, offsets, noted hashes, tokens."""
    from mixstream.streams.verify import verify_streams

    with _progress("shards") as progress:
        shards = progress.add_task("shards", total=None)
        verdicts = verify_streams(
            streams,
            token_column,
            announce=lambda total: progress.update(shards, total=total),
            advance=lambda done: progress.advance(shards, done),
        )
    rows = [
        (
            verdict.name,
            f"{verdict.num_shards:,}",
            f"{verdict.num_samples:,}",
            f"{verdict.hashed:,}",
            f"{len(verdict.problems):,}" if verdict.problems else "none",
        )
        for verdict in verdicts
    ]
    _table(("stream", "shards", "samples", "hashes checked", "problems"), rows)
    problems = [problem for verdict in verdicts for problem in verdict.problems]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        raise typer.Exit(2)


@app.command()
def plan(
    streams: Annotated[Path, typer.Argument(help="A folder of streams.")],
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
    token_column: Annotated[str | None, typer.Option(help="Token column of plain MDS directories.")] = None,
    simulate: Annotated[bool, typer.Option("--simulate", help="Show what the run fetches and when.")] = False,
) -> None:
    """Decide what a run reads: proportion, samples, tokens and repeats of every stream (from indexes alone)."""
    from mixstream.mixture.build import build_plan
    from mixstream.mixture.schedule import read_schedule
    from mixstream.mixture.simulate import simulate as simulate_run
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
    _show_plan(decided)
    if simulate:
        _show_simulation(simulate_run(decided, catalog), decided)
    _say(f"{decided.num_batches:,} batches of {decided.batch_size} samples; plan in {out}")


@app.command()
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
    _table(("stream", "weight"), [(name, f"{weight:.4f}") for name, weight in learnt.items()])
    _say(f"mean over the last {last:.0%} of {run}; weights in {out}")


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe YAML.")],
    streams: Annotated[Path | None, typer.Option(help="Read these streams instead.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write to this folder instead.")] = None,
    migrate: Annotated[
        bool, typer.Option("--migrate", help="Go on though recipe or streams have changed: every stream where it was.")
    ] = False,
) -> None:
    """Run a recipe: a proxy, a base run, or the chain of both; goes on where it was interrupted."""
    from mixstream.runs.recipe import load_recipe

    asked = load_recipe(recipe, streams, out)
    from mixstream.runs.chain import run_recipe  # torch and Composer: 5 s, after the recipe is known good

    try:
        results = run_recipe(asked, _announce, migrate)
    except (KeyboardInterrupt, SystemExit) as stop:  # Composer makes SystemExit(128 + number) of signals
        print("interrupted; the same command goes on from the newest checkpoint, if there is one", file=sys.stderr)
        code = stop.code if isinstance(stop, SystemExit) else None
        raise typer.Exit(code if isinstance(code, int) else 130) from None
    if _is_first():
        _show_results(results)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Out = Path("report.html"),
) -> None:
    """Write one HTML file, and PNGs, that show what runs did."""
    from mixstream.report.html import write_report

    write_report(runs, out)
    _say(f"report in {out}")


def _announce(name: str, run: Run) -> None:
    """Show what a run is about to read."""
    if not _is_first():
        return
    for change in run.changes[:MAX_CHANGES]:
        _say(f"{name}: to be carried over: {change}")
    if len(run.changes) > MAX_CHANGES:
        _say(f"{name}: to be carried over: and {len(run.changes) - MAX_CHANGES} changes more")
    if run.folder.read_result() is not None and not run.changes:
        _say(f"{name}: complete in {run.folder.path}; remove that folder to run it again")
        return
    checkpoint = run.folder.newest_checkpoint()
    how = f"going on from {checkpoint.name}" if checkpoint else "starting"
    _say(f"{name}: {how}, {run.plan.num_batches:,} batches of {run.plan.batch_size} samples, in {run.folder.path}")
    _show_plan(run.plan)


def _show_plan(decided: Plan) -> None:
    rows = [
        (
            r.name,
            f"{r.weight:.4f}",
            f"{r.proportion:.4f}",
            f"{r.samples:,}",
            f"{r.tokens:,}",
            f"{r.repeats:.2f}",
        )
        for r in decided.table()
    ]
    columns = ("first weight", "mean proportion") if decided.schedule else ("weight", "proportion")
    _table(("stream", *columns, "samples", "tokens", "repeats"), rows)
    for change in decided.schedule:
        how = f"over {change.ramp_batches:,} batches" if change.ramp_batches else "at once"
        _say(f"weights change at batch {change.at_batch:,}, {how}")


def _show_simulation(found: Simulation, decided: Plan) -> None:
    """Show what a run fetches and keeps, and when repeats begin and budgets end."""
    from mixstream.mixture.simulate import told_bytes

    sizes = ("stored_bytes", "once_bytes", "windows_bytes", "cache_bytes")
    rows = [
        (
            stream.name,
            f"{stream.repeats:.2f}",
            ", ".join(f"{batch:,}" for batch in stream.repeat_batches[:3]) + (", ..." if stream.repeats > 4 else ""),
            "" if stream.spent_batch is None else f"{stream.spent_batch:,}",
            *(told_bytes(getattr(stream, size)) for size in sizes),
        )
        for stream in found.streams
    ]
    total = ("all streams", "", "", "", *(told_bytes(found.total(size)) for size in sizes))
    columns = ("stored", "fetched once", "fetched by window", "cache a node")
    _table(("stream", "repeats", "next repeats begin near batch", "budget spent near batch", *columns), [*rows, total])
    _say(
        f"fetched: at most, by {found.lanes} node(s) together, where each shard is kept and where only open windows "
        f"of {decided.window_samples:,} samples are; cache: at most, for the open windows and the next ones"
    )
    spent = f"{len(found.spent)} repeat budgets are spent by then" if found.spent else "no repeat budget is spent"
    _say(
        f"the run ends with batch {found.num_batches - 1:,} after {found.tokens:,} tokens, "
        f"{found.unread_tokens:,} below its token budget; {spent}"
    )


def _show_results(results: Mapping[str, Result]) -> None:
    """Show held-out losses, a language a row, a run a column."""
    languages = sorted({language for result in results.values() for language in result.languages})
    rows = []
    for language in languages:
        losses = [result.languages.get(language) for result in results.values()]
        told = [f"{loss.nats_per_token:.4f}" if loss else "" for loss in losses]
        bits = [f"{loss.bits_per_byte:.4f}" if loss and loss.bits_per_byte is not None else "" for loss in losses]
        rows.append((language, *told, *bits))
    names = list(results)
    if rows:
        _say("held-out loss by language")
        _table(("language", *(f"{n} nats/token" for n in names), *(f"{n} bits/byte" for n in names)), rows)
    for name, result in results.items():
        _say(f"{name}: {result.tokens:,} tokens in {result.seconds:.0f} s on {result.ranks} process(es)")


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


def _is_first() -> bool:
    """Return whether this is the process that speaks: rank 0 of a launcher's, or the only one."""
    return (os.environ.get("RANK") or "0") == "0"


def _number(count: int | None) -> str:
    return "unknown" if count is None else f"{count:,}"


def _say(text: str) -> None:
    Console(soft_wrap=True, highlight=False).print(text, markup=False)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    console.print(table)


@contextmanager
def _progress(what: str) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield progress


@contextmanager
def _told_extras() -> Iterator[None]:
    """Turn a missing optional dependency into an error that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as problem:
        extra = EXTRAS.get((problem.name or "").partition(".")[0])
        if extra is None:
            raise
        raise MissingExtraError(
            f"this needs the package {problem.name!r}; install it with pip install 'mixstream-llm[{extra}]'"
        ) from None


if __name__ == "__main__":
    main()
