"""The command that cuts proxy views out of streams."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from mixstream.cli.amounts import parse_amount
from mixstream.cli.showing import number, progress, say, table
from mixstream.cli.streams import Streams
from mixstream.errors import StreamError

if TYPE_CHECKING:
    from converters.tasks.choosing import By
    from converters.view import ProxyView


def view(
    streams: Streams,
    out: Annotated[str, typer.Option(help="Folder for the views.")],
    share: Annotated[
        float | None, typer.Option(help="Of each stream's documents; or --tokens, --target-tokens.")
    ] = None,
    tokens: Annotated[str | None, typer.Option(help="Tokens that the proxy run reads, such as 1.5B.")] = None,
    target_tokens: Annotated[str | None, typer.Option(help="Tokens that the run it tells of reads, as 1T.")] = None,
    seed: Annotated[int, typer.Option(help="Of the choice; views of one seed lie within each other.")] = 0,
    named: Annotated[
        list[str] | None, typer.Option("--streams", help="Name of a stream to cut; may be repeated. None: all.")
    ] = None,
    by: Annotated[str, typer.Option(help="document; or sample, where no documents are known.")] = "document",
    min_samples: Annotated[int, typer.Option(help="Of each view; one of fewer is refused.")] = 1,
    workers: Annotated[int, typer.Option(min=0, help="Processes, a stream each at a time; 0: this one.")] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace other streams of these names.")] = False,
) -> None:
    """Cut views for a proxy run: of every stream the same share of its documents, the held-out split whole."""
    from converters.view import proxy_view, share_of
    from mixstream.streams.remote import is_url

    asked = (share is not None, tokens is not None, target_tokens is not None)
    if asked not in ((True, False, False), (False, True, True)):
        raise typer.BadParameter("give --share, or both --tokens and --target-tokens")
    if share is None:
        share = share_of(parse_amount(tokens or "", "--tokens"), parse_amount(target_tokens or "", "--target-tokens"))
    if is_url(out):
        raise StreamError(f"{out}: views are cut to a folder; give one, then copy it there with mixstream upload")
    with progress() as bars:
        bar = bars.add_task("streams", total=None)
        found = proxy_view(
            streams,
            Path(out),
            share,
            seed,
            min_samples=min_samples,
            streams_named=named,
            by=cast("By", by),
            overwrite=overwrite,
            workers=workers,
            on_done=lambda placed, total: bars.update(bar, completed=placed, total=total),
        )
    _show(found, Path(out), share, seed)


def _show(found: ProxyView, place: Path, share: float, seed: int) -> None:
    rows = [
        (
            name,
            number(manifest.num_documents),
            number(manifest.num_tokens),
            number(manifest.num_samples),
            f"{manifest.num_samples / found.sources[name]:.5f}",
            "kept" if name in found.kept else "written",
        )
        for name, manifest in found.manifests.items()
    ]
    table(("stream", "documents", "tokens", "samples", "of its samples", ""), rows)
    for name, manifest in found.manifests.items():
        if manifest.view is not None and manifest.view.cut_documents:
            say(
                f"{name}: {manifest.view.cut_documents:,} documents at its end are left out: their last tokens are in "
                f"no sample of the stream"
            )
    say(f"views of share {share:.6g} by seed {seed} of {len(rows)} streams in {place}")
