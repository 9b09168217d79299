"""The commands that copy streams and look at them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mixstream.cli.manners import FOUND
from mixstream.cli.showing import number, progress, say, show_survey, table

Streams = Annotated[str, typer.Argument(help="A folder of streams, or its URL, such as s3://bucket/streams.")]
TokenColumn = Annotated[str | None, typer.Option(help="Token column of plain MDS directories.")]


def upload(
    streams: Annotated[str, typer.Argument(help="A folder of streams.")],
    url: Annotated[str, typer.Argument(help="Where to, such as s3://bucket/streams.")],
    overwrite: Annotated[bool, typer.Option(help="Replace other streams of the same names.")] = False,
) -> None:
    """Copy streams to an object store, each whole or not at all; writes catalog.json beside them."""
    from mixstream.streams.upload import upload_streams

    with progress() as bars:
        sent = bars.add_task("megabytes", total=None)
        uploaded = upload_streams(
            streams,
            url,
            overwrite,
            announce=lambda size: bars.update(sent, total=size / 1e6),
            advance=lambda size: bars.advance(sent, size / 1e6),
        )
    rows = [(one.name, f"{one.num_files:,}", f"{one.size_bytes:,}", "kept" if one.kept else "sent") for one in uploaded]
    table(("stream", "files", "bytes", ""), rows)
    say(f"{len(uploaded)} streams in {url}")


def inspect(
    streams: Streams,
    token_column: TokenColumn = None,
    stream: Annotated[list[str] | None, typer.Option(help="Show this stream only; can be given again.")] = None,
    texts: Annotated[int, typer.Option(min=0, help="Samples of each stream to show as text.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")] = False,
) -> None:
    """Show the streams of a folder, and what each language has, after checking that their shards are there."""
    from mixstream.cli.texts import find_decoder
    from mixstream.formats import dump_json
    from mixstream.streams.catalog import Catalog
    from mixstream.streams.survey import survey_streams

    catalog = Catalog.open(streams, token_column=token_column)
    catalog = catalog.only(stream) if stream else catalog
    if isinstance(catalog.root, Path) or catalog.root.root.lists:
        for own in [*catalog, *(catalog.heldout() or [])]:
            own.check_files()
    elif not json:
        say(f"{catalog.root.root.scheme}: cannot list what is there, so that no size of a shard was checked")
    survey = survey_streams(catalog, texts, find_decoder)
    if json:
        print(dump_json(survey), end="")
    else:
        show_survey(survey)


def verify(
    streams: Streams,
    token_column: TokenColumn = None,
) -> None:
    """Read every shard of a folder's streams: sizes, headers, offsets, noted hashes, tokens, where documents end."""
    from mixstream.streams.verify import verify_streams

    with progress() as bars:
        shards = bars.add_task("shards", total=None)
        verdicts = verify_streams(
            streams,
            token_column,
            announce=lambda total: bars.update(shards, total=total),
            advance=lambda done: bars.advance(shards, done),
        )
    rows = [
        (
            verdict.name,
            f"{verdict.num_shards:,}",
            f"{verdict.num_samples:,}",
            f"{verdict.hashed:,}",
            number(verdict.documents),
            f"{len(verdict.problems):,}" if verdict.problems else "none",
        )
        for verdict in verdicts
    ]
    table(("stream", "shards", "samples", "hashes checked", "documents checked", "problems"), rows)
    problems = [problem for verdict in verdicts for problem in verdict.problems]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        raise typer.Exit(FOUND)
