"""One picture of what runs do now, for a terminal or as plain text."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from mixstream.metrics import (
    HELDOUT_BITS,
    HELDOUT_NATS,
    LOSS,
    PROPORTION,
    READ,
    REFUSED,
    REPEAT,
    RUN_SECONDS,
    STORE,
    TOKENS_PER_SECOND,
    TRAIN_LOSS,
    WAIT_SECONDS,
    of_stream,
)
from mixstream.mixture.plan import Plan, PlannedStream
from mixstream.report.history import BLOCKS, LETTERS
from mixstream.report.watch import Sight

NARROW, BAR, SPARK = 110, 12, 14
SPARE = ("", "budget", "bits/byte", "proportion", "read", "held-out")  # left out first where there is no room
BUDGETS = ("of", "budget")  # columns of a run that has some
GAP, SHORT_NAME, LEAST_NAME = 2, 24, 8  # letters between columns; of names, before columns are left out, and after


@dataclass(frozen=True)
class Canvas:
    """What is drawn on.

    Attributes:
        width: columns; in few of them histories are left out.
        height: lines for all runs; None: as many as they take.
        is_ascii: whether it knows no letters but ASCII's.
    """

    width: int
    height: int | None = None
    is_ascii: bool = False

    @property
    def spark(self) -> int:
        """Letters of a history."""
        return SPARK if self.width >= NARROW else 0

    def bar(self, share: float, width: int = BAR) -> str:
        """Return a bar that is full at 1."""
        done = round(width * min(1.0, max(0.0, share)))
        full, empty = ("#", ".") if self.is_ascii else ("█", "░")
        return full * done + empty * (width - done)

    def letters(self) -> str:
        """Return those that histories are drawn of."""
        return LETTERS if self.is_ascii else BLOCKS


def frame(runs: Sequence[Sight], canvas: Canvas) -> Group:
    """Return a picture of all runs; where the lines are few, the streams that are read most are shown."""
    rows = None
    if canvas.height is not None:
        each = canvas.height // max(1, len(runs))
        rows = max(1, (each - 10) // 2)  # of a run's streams, and of its languages; the rest are lines of text
    return Group(*(part for run in runs for part in _run(run, canvas, rows)))


def _run(run: Sight, canvas: Canvas, rows: int | None) -> list[RenderableType]:
    style = {"running": "bold green", "ended": "bold blue"}.get(run.state, "bold yellow")
    title = Text.assemble((run.name, "bold"), "  ", (run.state, style))
    if run.plan is None:
        return [title, Text()]
    parts: list[RenderableType] = [title, *map(Text, _told(run, run.plan, canvas))]
    parts += _streams(run, run.plan, canvas, rows)
    if len(_languages(run.plan)) < len(run.plan.streams):
        parts += _by_language(run, run.plan, canvas, rows)
    return [*parts, Text()]


def _told(run: Sight, plan: Plan, canvas: Canvas) -> list[str]:
    """Return the lines above the tables: how far, how fast, how well."""
    share = run.batch / plan.num_batches
    tokens = run.batch * plan.batch_size * plan.sequence_length
    far = f"batch {run.batch:,} of {plan.num_batches:,} ({share:.1%})  {tokens:,} tokens"
    eta = "" if run.eta_seconds is None else f"  {clock(run.eta_seconds)} to go"
    lines = [f"{canvas.bar(share, 30)}  {far}{eta}"]
    if run.carried:
        lines.append(f"carried over to another plan at batch {', '.join(f'{batch:,}' for batch in run.carried)}")
    pace, waited, seconds = (run.last(name) for name in (TOKENS_PER_SECOND, WAIT_SECONDS, RUN_SECONDS))
    how = [] if pace is None else [f"{pace:,.0f} tokens/s {_spark(run, TOKENS_PER_SECOND, canvas)}".rstrip()]
    if waited is not None and seconds:
        how.append(f"waited for data {waited / seconds:.1%} of the time")
    fetched = run.last(f"{STORE}/bytes")
    if fetched is not None:
        how.append(f"fetched {fetched / 1e6:,.1f} MB")
    loss = run.last(TRAIN_LOSS)
    if loss is not None:
        how.append(f"loss {loss:.4f} {_spark(run, TRAIN_LOSS, canvas)}".rstrip())
    return [*lines, *(["  ".join(how)] if how else []), *_learning(run)]


def _learning(run: Sight) -> list[str]:
    learning = run.learning
    if learning.method is None:
        return []
    line = f"{learning.method}: {learning.updates:,} updates, {learning.refused:,} refused"
    in_a_row = run.last(f"{learning.method}/{REFUSED}")
    if in_a_row:
        line += f", the last {in_a_row:.0f} in a row"
    return [line + (f" ({learning.reason})" if learning.reason else "")]


def _streams(run: Sight, plan: Plan, canvas: Canvas, rows: int | None) -> list[RenderableType]:
    shown = sorted(plan.entries, key=lambda entry: -entry.proportion)[:rows]
    kept = [entry for entry in plan.entries if entry in shown] if rows is not None else list(plan.entries)
    has_heldout = any(of_stream(HELDOUT_NATS, name) in run.metrics for name in plan.streams)
    columns = ["stream", "weight", "", "proportion", "read", "loss", ""]
    columns += ["held-out", "bits/byte"] if has_heldout else []
    lines = []
    for entry in kept:
        cells = [
            entry.name,
            _number(run.learning.weights.get(entry.name, entry.weight)),
            _spark(run, of_stream(PROPORTION, entry.name), canvas),
            _number(run.last(of_stream(PROPORTION, entry.name))),
            _number(run.last(of_stream(READ, entry.name))),
            _number(run.last(of_stream(LOSS, entry.name))),
            _spark(run, of_stream(LOSS, entry.name), canvas),
        ]
        if has_heldout:
            cells += [_number(run.last(of_stream(what, entry.name))) for what in (HELDOUT_NATS, HELDOUT_BITS)]
        lines.append([*cells, *_repeats(run, entry, canvas)])
    table = _table([*columns, "repeats", "of", "budget"], lines, canvas.width)
    return [table, *_rest(len(plan.entries) - len(kept))]


def _repeats(run: Sight, entry: PlannedStream, canvas: Canvas) -> tuple[str, str, str]:
    repeats = run.last(of_stream(REPEAT, entry.name))
    if repeats is None:
        return "", "", ""
    if entry.max_repeats is None:
        return f"{repeats:.2f}", "", ""
    return f"{repeats:.2f}", f"{entry.max_repeats:g}", canvas.bar(repeats / entry.max_repeats)


def _rest(num_left_out: int) -> list[RenderableType]:
    return [Text(f"and {num_left_out} more (--once shows all)")] if num_left_out else []


def _by_language(run: Sight, plan: Plan, canvas: Canvas, rows: int | None) -> list[RenderableType]:
    """Return losses by language: of training, each stream by what was read of it; held out, of its streams' mean."""
    lines = []
    ended = run.result.languages if run.result else {}
    languages = _languages(plan)
    for language, names in list(languages.items())[:rows]:
        read = {name: run.last(of_stream(READ, name)) or 0.0 for name in names}
        heldout, bits = (_mean(run, what, dict.fromkeys(names, 1.0)) for what in (HELDOUT_NATS, HELDOUT_BITS))
        if language in ended:  # exactly, by tokens
            heldout, bits = ended[language].nats_per_token, ended[language].bits_per_byte
        lines.append([language, *map(_number, (sum(read.values()), _mean(run, LOSS, read), heldout, bits))])
    table = _table(["language", "read", "loss", "held-out", "bits/byte"], lines, canvas.width)
    return [table, *_rest(len(languages) - len(lines))]


def _mean(run: Sight, what: str, weights: Mapping[str, float]) -> float | None:
    """Return the weighted mean of the last values of several streams, of those that have one."""
    values = {name: run.last(of_stream(what, name)) for name in weights}
    known = {name: value for name, value in values.items() if value is not None and weights[name] > 0}
    total = sum(weights[name] for name in known)
    return sum(weights[name] * value for name, value in known.items()) / total if total else None


def _languages(plan: Plan) -> dict[str, list[str]]:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for entry in plan.entries:
        found[entry.language or entry.name].append(entry.name)
    return dict(sorted(found.items()))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Table:
    """Return a table of at most `width` letters a line: numbers are whole or left out, names are cut if they must."""
    sizes = [max(map(cell_len, column)) for column in zip(columns, *rows, strict=True)]
    used = {place for row in rows for place, cell in enumerate(row) if cell}
    shown = [place for place, size in enumerate(sizes) if size and (place in used or columns[place] not in BUDGETS)]

    def left(names: int) -> int:
        return width - names - sum(GAP + sizes[place] for place in shown[1:])

    for place in [place for name in SPARE for place in shown if columns[place] == name]:
        if left(min(SHORT_NAME, sizes[0])) < 0:
            shown.remove(place)
    names = max(LEAST_NAME, left(0))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for place in shown:
        is_text = place == 0 or columns[place] in ("", "budget")  # a name, a history or a bar
        justify: JustifyMethod = "left" if is_text else "right"
        table.add_column(columns[place], justify=justify, no_wrap=True)
    for row in rows:
        cells = [Text(row[place]) for place in shown]
        cells[0].truncate(names, overflow="ellipsis")
        table.add_row(*cells)
    return table


def _spark(run: Sight, name: str, canvas: Canvas) -> str:
    history = run.metrics.get(name)
    return history.spark(canvas.spark, canvas.letters()) if history and canvas.spark else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def clock(seconds: float) -> str:
    """Return seconds as people read them: 59 s, 12:05, 3:12:05, 2 d 03:12."""
    if not math.isfinite(seconds):
        return "unknown"
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours:02}:{minutes:02}"
    if hours:
        return f"{hours}:{minutes:02}:{whole % 60:02}"
    return f"{minutes}:{whole % 60:02}" if minutes else f"{whole} s"
