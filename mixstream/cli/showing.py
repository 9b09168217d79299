"""What commands print: lines, tables, progress."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from mixstream.methods.learning.averaging import Aggregate
    from mixstream.mixture.plan import Plan
    from mixstream.mixture.simulate import Simulation
    from mixstream.runs.folder import Result
    from mixstream.streams.survey import Survey


def say(text: str) -> None:
    """Print one line."""
    Console(soft_wrap=True, highlight=False).print(text, markup=False)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column to the left, numbers to the right."""
    shown = Table(box=None, pad_edge=False)
    for i, column in enumerate(columns):
        shown.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    console.print(shown)


@contextmanager
def progress() -> Iterator[Progress]:
    """Show bars on standard error while the block runs."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        yield bars


def number(count: int | None) -> str:
    """Return a count that a manifest may not know."""
    return "unknown" if count is None else f"{count:,}"


def show_survey(survey: Survey) -> None:
    """Show streams, one a row; what was left out of them, and texts, below."""
    columns = ("stream", "documents", "tokens", "text bytes", "samples", "sequence", "tokens/byte", "held-out samples")
    rows = [
        (
            own.name,
            number(own.num_documents),
            number(own.num_tokens),
            number(own.num_bytes),
            number(own.num_samples),
            str(own.sequence_length),
            "unknown" if own.tokens_per_byte is None else f"{own.tokens_per_byte:.3f}",
            number(own.heldout_samples),
            number(own.num_shards),
            own.tokenizer or "unknown",
            own.fingerprint,
        )
        for own in survey.streams
    ]
    table((*columns, "shards", "tokenizer", "fingerprint"), rows)
    for own in survey.streams:
        counts = {
            "rejected": own.rejected_documents,
            "duplicate": own.duplicate_documents,
            "excluded": own.excluded_documents,
        }
        left_out = [f"{count:,} {what}" for what, count in counts.items() if count]
        if left_out:
            say(f"{own.name}: left out {', '.join(left_out)} documents")
    for own in survey.streams:
        if own.no_texts:
            say(f"{own.name}: no texts: {own.no_texts}")
        for text in own.texts:
            say(f"--- {own.name}, sample {text.sample}")
            say(text.text)


def show_plan(decided: Plan) -> None:
    """Show what a plan reads, a stream a row."""
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
    table(("stream", *columns, "samples", "tokens", "repeats"), rows)
    for change in decided.schedule:
        how = f"over {change.ramp_batches:,} batches" if change.ramp_batches else "at once"
        say(f"weights change at batch {change.at_batch:,}, {how}")


def show_simulation(found: Simulation, decided: Plan, least_cache: int) -> None:
    """Show what a run fetches and keeps (`least_cache` bytes on a node), when repeats begin and budgets end."""
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
    table(("stream", "repeats", "next repeats begin near batch", "budget spent near batch", *columns), [*rows, total])
    say(
        f"fetched: at most, by {found.lanes} node(s) together, where each shard is kept and where only open windows "
        f"of {decided.window_samples:,} samples are; cache: at most, for the open windows and the next ones"
    )
    say(
        f"the smallest cache_limit of a node that reads one lane: {least_cache:,} bytes, and what probes and held-out "
        f"splits need"
    )
    spent = f"{len(found.spent)} repeat budgets are spent by then" if found.spent else "no repeat budget is spent"
    say(
        f"the run ends with batch {found.num_batches - 1:,} after {found.tokens:,} tokens, "
        f"{found.unread_tokens:,} below its token budget; {spent}"
    )


def show_learnt(learnt: Aggregate) -> None:
    """Show learnt weights, a stream a row; of several runs their spread too."""
    if learnt.std is None:
        table(("stream", "weight"), [(name, f"{weight:.4f}") for name, weight in learnt.weights.items()])
        return
    columns = (learnt.weights, learnt.std, learnt.least, learnt.greatest)
    rows = [(name, *(f"{column[name]:.4f}" for column in columns)) for name in learnt.weights]
    table(("stream", "weight", "spread", "least", "greatest"), rows)


def show_results(results: Mapping[str, Result]) -> None:
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
        say("held-out loss by language")
        table(("language", *(f"{n} nats/token" for n in names), *(f"{n} bits/byte" for n in names)), rows)
    for name, result in results.items():
        say(f"{name}: {result.tokens:,} tokens in {result.seconds:.0f} s on {result.ranks} process(es)")
