"""The command that tells what a batch of a run was made of, and at which batches a document was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mixstream.cli.showing import say, table
from mixstream.errors import MixtureError, QueryError

if TYPE_CHECKING:
    from mixstream.report.traced import BatchShown, DrawsShown, RowShown
    from mixstream.streams.survey import FindDecoder

EXCERPT = 100  # characters of a text that a table tells
MAX_DRAWS = 1000  # of a document that a table tells


def trace(
    run: Annotated[Path, typer.Argument(help="A run's folder, or one of its plans, such as RUN/plan-to-ba300.json.")],
    batch: Annotated[int | None, typer.Option(min=0, help="Show this global batch, counted from 0.")] = None,
    rank: Annotated[int | None, typer.Option(min=0, help="Only this rank's part of the batch.")] = None,
    world_size: Annotated[
        int | None, typer.Option(min=1, help="Ranks that share a batch, if not as many as trained.")
    ] = None,
    document: Annotated[str | None, typer.Option(help="Show the batches that read the document of this id.")] = None,
    sample: Annotated[
        int | None, typer.Option(min=0, help="Show the batches that read this sample of a stream (--stream).")
    ] = None,
    stream: Annotated[str | None, typer.Option(help="The stream that the document or sample is in.")] = None,
    streams: Annotated[str | None, typer.Option(help="Where the streams are now: a folder, or its URL.")] = None,
    text: Annotated[
        bool | None, typer.Option("--text/--no-text", help="Whole texts, or none; beginnings, if neither is given.")
    ] = None,
    sql: Annotated[str | None, typer.Option(help="Ask the run's exposure ledger a question in SQL.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Show what a batch was made of, or when a document was read: from plan, logs and streams, without the run."""
    asked = {"--batch": batch, "--document": document, "--sample": sample, "--sql": sql}
    given = [name for name, value in asked.items() if value is not None]
    if len(given) != 1:
        raise MixtureError(f"{' and '.join(given) or 'nothing'} was asked for; give one of {', '.join(asked)}")
    _refuse_idle(given[0], {"--rank": rank, "--world-size": world_size, "--stream": stream})
    if sql is not None:
        _query(run, sql, json)
        return
    from mixstream.formats import dump_json
    from mixstream.loader.trace import History
    from mixstream.report.tracing import show_batch, show_document, show_sample

    history = History.open(run, streams)
    if batch is not None:
        decoder = None if text is False else cache(_decoder())
        shown = show_batch(history, batch, rank, world_size, decoder)
        print(dump_json(shown), end="") if json else _say_batch(shown, bool(text))
        return
    if document is not None:
        found = show_document(history, document, stream)
    elif sample is not None and stream is not None:
        found = show_sample(history, stream, sample)
    else:
        raise MixtureError(f"--sample {sample}: of which stream? give --stream too")
    print(dump_json(found), end="") if json else _say_draws(found)


def _refuse_idle(asked: str, options: Mapping[str, object]) -> None:
    """Refuse options that say nothing to what is asked for, rather than to leave them out without a word."""
    of_batch = ("--rank", "--world-size")
    heeded = {"--batch": of_batch, "--document": ("--stream",), "--sample": ("--stream",)}.get(asked, ())
    for name in (name for name, value in options.items() if value is not None and name not in heeded):
        place = "--batch" if name in of_batch else "--document or --sample"
        raise MixtureError(f"{name} says nothing to {asked}; it goes with {place}, leave it out")


def _decoder() -> FindDecoder:
    from mixstream.cli.texts import find_decoder

    return find_decoder


def _say_batch(shown: BatchShown, whole: bool) -> None:
    part = "" if shown.rank is None else f", rank {shown.rank} of {shown.world_size}"
    leg = f", after the run was carried over {shown.leg} time(s)" if shown.leg else ""
    say(f"{shown.run}: batch {shown.batch:,}{part}, {len(shown.rows):,} samples{leg}")
    if shown.trained is False:
        say("the run has not come to this batch: it will be this one, if weights stay as they are")
    columns = ["row", "stream", "shard", "row in shard", "sample", "seen before", "documents"]
    columns += ["part of row"] * any(row.part for row in shown.rows)
    rows = [
        (
            str(row.row),
            row.stream,
            row.shard,
            f"{row.shard_row:,}",
            f"{row.sample:,}",
            f"{row.seen:,}",
            "unknown" if row.documents is None else " ".join(one.id for one in row.documents),
            *([str(row.part)] if len(columns) > 7 else []),
        )
        for row in shown.rows
    ]
    table(columns, rows)
    if shown.losses:
        told = (f"{one.batch:,}: {one.loss:.4f}" + " <--" * (one.batch == shown.batch) for one in shown.losses)
        say(f"training loss by batch: {', '.join(told)}")
    for stream, reason in shown.missing.items():
        say(f"{stream}: {reason}")
    _say_texts(shown.rows, whole)


def _say_texts(rows: Sequence[RowShown], whole: bool) -> None:
    for row in rows:
        if row.text is None:
            continue
        if whole:
            say(f"--- row {row.row}, {row.stream}, sample {row.sample}")
            say(row.text)
        else:
            text = " ".join(row.text[: 2 * EXCERPT].split())
            say(f"row {row.row}, {row.stream}: {text[:EXCERPT]}" + "..." * (len(text) > EXCERPT))


def _say_draws(shown: DrawsShown) -> None:
    for place in shown.places:
        if not place.samples:
            say(f"{place.stream}: the document lies in what was left over at the end: no sample has it")
        elif place.document is not None:
            samples = f"sample {place.samples[0]:,}" + f" to {place.samples[-1]:,}" * (len(place.samples) > 1)
            say(f"{place.stream}: document number {place.document:,}, {place.num_tokens:,} tokens, in {samples}")
    for stream, reason in shown.missing.items():
        say(f"{stream}: not looked through: {reason}")
    told = "by the whole plan" if shown.trained is None else f"in {shown.trained:,} batches"
    say(f"{shown.run}: read {len(shown.draws):,} times {told}")
    has_legs = any(draw.leg for draw in shown.draws)
    rows = [
        (
            f"{draw.batch:,}",
            f"{draw.row:,}",
            draw.stream,
            f"{draw.sample:,}",
            f"{draw.seen:,}",
            *([str(draw.leg)] if has_legs else []),
        )
        for draw in shown.draws[:MAX_DRAWS]
    ]
    if rows:
        columns = ("batch", "row", "stream", "sample", "seen before", *(["carried over"] if has_legs else []))
        table(columns, rows)
    if len(shown.draws) > MAX_DRAWS:
        say(f"and {len(shown.draws) - MAX_DRAWS:,} times more: --json tells all")


def _query(run: Path, question: str, as_json: bool) -> None:
    from mixstream.report.sql import query

    columns, rows = query(run, question)
    if as_json:
        import json

        twice = [name for number, name in enumerate(columns) if name in columns[:number]]
        if twice:
            raise QueryError(
                f"--json: {len(columns)} columns, of which {columns.count(twice[0])} are named {twice[0]!r}; give each "
                f"a name of its own (AS)"
            )
        told = [dict(zip(columns, map(_as_json, row), strict=True)) for row in rows]
        print(json.dumps(told, default=str))
    else:
        table(list(columns), [[str(value) for value in row] for row in rows])


def _as_json(value: object) -> object:
    """Return a value for JSON, which has only null for a number that is not finite, and only texts for keys."""
    if isinstance(value, float):
        return value if isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_as_json(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _as_json(one) for key, one in value.items()}
    return value
