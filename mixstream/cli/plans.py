"""Plans as tables: what a run will read, fetch and repeat, and in what two plans differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from mixstream.cli.showing import Cell, Output, number, say, table

if TYPE_CHECKING:
    from mixstream.mixture.comparing import PlanDifference, StreamChange, StreamState
    from mixstream.mixture.plan import Plan
    from mixstream.mixture.simulate import Simulation
    from mixstream.report.outlook import Outlook, StreamOutlook

BAR_CELLS = 10
SPARE = ("budget", "tokens", "documents", "download", "weight", "first weight")  # left out first where there is no room


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
    show_changes(decided)


def show_changes(decided: Plan) -> None:
    """Show when the weights change."""
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


def show_outlook(found: Outlook) -> None:
    """Show what a run will do, a stream a row; on a terminal with a bar for the budget, as far as columns fit."""
    from mixstream.mixture.simulate import told_bytes

    output = Output()
    bar = ("#-" if output.options.ascii_only else "█░") if output.is_terminal else None
    weights = ("first weight", "mean proportion") if found.scheduled else ("weight", "proportion")
    columns = (
        "stream", "documents", "tokens", *weights, "tokens to read", "repeats", "budget", "of budget", "download",
        "runs dry at batch",
    )  # fmt: skip
    rows: list[tuple[Cell, ...]] = [
        (
            own.name,
            number(own.documents),
            number(own.tokens),
            f"{own.weight:.4f}",
            f"{own.proportion:.4f}",
            number(own.tokens_to_read),
            _repeats(own),
            "unlimited" if own.max_repeats is None else f"{own.max_repeats:g}",
            _used(own, bar),
            told_bytes(own.download_bytes),
            "never" if own.runs_dry_batch is None else number(own.runs_dry_batch),
        )
        for own in found.streams
    ]
    documents = [own.documents for own in found.streams]
    stored, read = (sum(getattr(own, name) for own in found.streams) for name in ("tokens", "tokens_to_read"))
    known = None if None in documents else sum(count or 0 for count in documents)
    sums = ("1.0000", "1.0000", number(read), f"{read / stored:.2f}", "", "")
    download = told_bytes(sum(own.download_bytes for own in found.streams))
    table(columns, [*rows, ("all streams", number(known), number(stored), *sums, download, "")], SPARE)
    for warning in found.warnings:
        output.print(Text.assemble(("warning:", "bold yellow"), " ", warning))


def show_difference(found: PlanDifference) -> None:
    """Show in what two plans differ: settings, then streams, a row each."""
    if found.settings:
        rows = [(own.name, _setting(own.before), _setting(own.now)) for own in found.settings]
        table(("setting", "before", "now"), rows)
    if found.streams:
        pairs = ("weight", "proportion", "repeats", "tokens to read")
        table(("stream", *(f"{one} {when}" for one in pairs for when in ("before", "now")), ""), [
            _changed(own) for own in found.streams
        ])  # fmt: skip
    counts = {"new": len(found.new), "gone": len(found.gone)}
    changed = len(found.streams) - sum(counts.values())
    told = [f"{count} {what}" for what, count in counts.items() if count]
    say(f"streams: {', '.join([*told, f'{changed} of the {found.num_streams} that both have changed'])}")
    say(f"runs of the two plans read {'the very same batches' if found.reads_same else 'other batches'}")


def _changed(stream: StreamChange) -> tuple[Cell, ...]:
    before, now = (_told(state) for state in (stream.before, stream.now))
    return (stream.name, *(cell for pair in zip(before, now, strict=True) for cell in pair), stream.what)


def _told(state: StreamState | None) -> tuple[str, str, str, str]:
    if state is None:
        return ("", "", "", "")
    return (f"{state.weight:.4f}", f"{state.proportion:.4f}", f"{state.repeats:.2f}", f"{state.tokens:,}")


def _setting(value: str | float | None) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else f"{value:,}"


def _repeats(stream: StreamOutlook) -> Cell:
    """Return a stream's repeats, marked by colour where they are many."""
    from mixstream.methods.repeat_warnings import MANY_REPEATS, MOST_REPEATS

    told = f"{stream.repeats:.2f}"
    return (
        told
        if stream.repeats <= MANY_REPEATS
        else Text(told, "bold red" if stream.repeats > MOST_REPEATS else "yellow")
    )


def _used(stream: StreamOutlook, bar: str | None) -> Cell:
    """Return how much of its budget a stream spends: a share, behind a bar of these characters, full and empty."""
    if stream.budget_used is None:
        return ""
    share = f"{stream.budget_used:.0%}"
    if bar is None:
        return share
    cells = min(BAR_CELLS, round(stream.budget_used * BAR_CELLS))
    full = (bar[0] * cells, "yellow" if stream.runs_dry_batch is not None else "cyan")
    return Text.assemble(full, (bar[1] * (BAR_CELLS - cells), "dim"), f" {share:>4}")
