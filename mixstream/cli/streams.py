"""The commands that make streams, copy them and look at them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mixstream.cli.showing import number, progress, say, table

Streams = Annotated[str, typer.Argument(help="A folder of streams, or its URL, such as s3://bucket/streams.")]
TokenColumn = Annotated[str | None, typer.Option(help="Token column of plain MDS directories.")]
Staging = Annotated[Path | None, typer.Option(help="Folder for streams on their way to a URL; none: a temporary one.")]
Overwrite = Annotated[bool, typer.Option(help="Replace streams made from something else.")]


def convert(
    corpora: Annotated[list[Path], typer.Argument(help="Corpus files, or folders of them.")],
    out: Annotated[str, typer.Option(help="Where to write: a folder, or a URL such as s3://bucket/streams.")],
    name: Annotated[str | None, typer.Option(help="Make one stream of this name of all files.")] = None,
    tokenizer: Annotated[str, typer.Option(help="byte, a tokenizer.json, or a hub name.")] = "byte",
    eod_token: Annotated[str | None, typer.Option(help="The tokenizer's end-of-document token.")] = None,
    sequence_length: Annotated[int, typer.Option(min=2, max=1 << 24, help="Tokens of a sample.")] = 2048,
    holdout: Annotated[float, typer.Option(min=0, max=0.99, help="Share of documents to hold out.")] = 0.02,
    text_field: Annotated[str, typer.Option(help="Field or column of the text.")] = "text",
    shard_bytes: Annotated[int, typer.Option(min=1 << 10, max=1 << 31, help="Size at which a shard ends.")] = 1 << 26,
    overwrite: Overwrite = False,
    staging: Staging = None,
) -> None:
    """Make MDS streams of JSONL, Parquet and text corpora, here or in an object store."""
    from converters.corpora import convert_corpora, other_streams
    from converters.run import Options
    from converters.sources import find_corpora
    from converters.tokenise import load_tokenizer
    from mixstream.streams.place import find_place

    found = find_corpora(corpora, name)
    place = find_place(out)
    options = Options(
        load_tokenizer(tokenizer, eod_token), sequence_length, holdout, text_field, overwrite, shard_bytes
    )
    rows = []
    with progress() as bars:
        streams = bars.add_task("streams", total=len(found.corpora))
        documents = bars.add_task("documents", total=None)
        uploaded = None if isinstance(place, Path) else bars.add_task("megabytes uploaded", total=None)
        for converted in convert_corpora(
            found,
            place,
            options,
            staging,
            on_documents=lambda count: bars.advance(documents, count),
            on_bytes=lambda size: None if uploaded is None else bars.advance(uploaded, size / 1e6),
        ):
            train, heldout = converted.manifests["train"], converted.manifests.get("heldout")
            rows.append(
                (
                    converted.name,
                    number(train.num_documents),
                    number(train.num_tokens),
                    number(train.num_samples),
                    number(heldout.num_samples) if heldout else f"none ({number(train.heldout_documents)} documents)",
                    "kept" if converted.kept else "written",
                )
            )
            bars.advance(streams)
    for path in found.ignored:
        say(f"ignored {path}: no corpus format")
    table(("stream", "documents", "tokens", "samples", "held-out samples", ""), rows)
    others = other_streams(found, place)
    if others:
        say(f"{place} also holds, from elsewhere: {', '.join(others)}; remove what is not to be read")
    say(f"streams of {sequence_length} tokens a sample in {place}")


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
) -> None:
    """Show the streams of a folder, after checking that their shards are there."""
    from mixstream.streams.catalog import Catalog

    catalog = Catalog.open(streams, token_column=token_column)
    if isinstance(catalog.root, Path) or catalog.root.root.lists:
        for stream in [*catalog, *(catalog.heldout() or [])]:
            stream.check_files()
    else:
        say(f"{catalog.root.root.scheme}: cannot list what is there, so that no size of a shard was checked")
    table(
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


def verify(
    streams: Streams,
    token_column: TokenColumn = None,
) -> None:
    """Read every shard of a folder's streams: sizes, headers, offsets, noted hashes, tokens."""
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
            f"{len(verdict.problems):,}" if verdict.problems else "none",
        )
        for verdict in verdicts
    ]
    table(("stream", "shards", "samples", "hashes checked", "problems"), rows)
    problems = [problem for verdict in verdicts for problem in verdict.problems]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        raise typer.Exit(2)
