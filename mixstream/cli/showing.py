"""What commands print: lines, tables, progress."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

if TYPE_CHECKING:
    from mixstream.methods.learning.averaging import Aggregate
    from mixstream.runs.folder import Result
    from mixstream.streams.survey import StreamSurvey, Survey

Cell = str | Text
SPARE = ("fingerprint", "tokenizer", "tokens/document", "text bytes", "sequence", "tokens/byte", "held-out samples")


class Output(Console):
    """Standard output: colours and bars on a terminal, plain lines of any length in a pipe or a file."""

    def __init__(self) -> None:
        """Ask the environment, NO_COLOR too, what the terminal can do."""
        super().__init__(highlight=False, soft_wrap=True, markup=False, emoji=False)

    def on_broken_pipe(self) -> None:
        """Leave it to the command line's manners, in place of an exit here."""
        raise  # it is called where the error is handled


def say(text: str) -> None:
    """Print one line."""
    print(text)


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], spare: Sequence[str] = ()) -> None:
    """Print a table: the first column to the left, others to the right; no cell is cut off.

    Args:
        columns: titles.
        rows: their cells.
        spare: columns that a narrow terminal, but no pipe, does without, the first one first.
    """
    output = Output()
    plain = [list(columns), *([str(cell) for cell in row] for row in rows)]
    sizes = [[cell_len(cell) for cell in row] for row in plain]
    widths = [max(column) for column in zip(*sizes, strict=True)]
    if not output.is_terminal:
        print("\n".join(_line(row, own, widths) for row, own in zip(plain, sizes, strict=True)))
        return
    shown, gone = list(range(len(columns))), []
    for name in [name for name in spare if name in columns]:
        if sum(widths[place] + 2 for place in shown) - 2 > output.width:
            shown.remove(columns.index(name))
            gone.append(name)
    for row, own in zip([[Text(title, "bold") for title in columns], *rows], sizes, strict=True):
        cells: list[Cell] = list(row)
        output.print(_styled([cells[i] for i in shown], [own[i] for i in shown], [widths[i] for i in shown]))
    if gone:
        say(f"no room for {', '.join(gone)}: a wider terminal, or | cat, has all columns")


def _line(cells: Sequence[str], sizes: Sequence[int], widths: Sequence[int]) -> str:
    """Return cells of these sizes in columns of these widths."""
    spaces = [" " * (width - size) for size, width in zip(sizes, widths, strict=True)]
    rest = (f"  {space}{cell}" for space, cell in zip(spaces[1:], cells[1:], strict=True))
    return f"{cells[0]}{spaces[0]}{''.join(rest)}".rstrip()


def _styled(cells: Sequence[Cell], sizes: Sequence[int], widths: Sequence[int]) -> Text:
    """Return the same with its colours."""
    line = Text.assemble(cells[0], " " * (widths[0] - sizes[0]))
    for cell, size, width in zip(cells[1:], sizes[1:], widths[1:], strict=True):
        line.append(" " * (width - size + 2))
        line = line.append_text(cell) if isinstance(cell, Text) else line.append(cell)
    line.rstrip()
    return line


@contextmanager
def progress() -> Iterator[Progress]:
    """Show bars on standard error while the block runs, if that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    bars = Progress(*columns, console=console)
    if not console.is_terminal:
        yield bars
        return
    with bars:
        yield bars


def number(count: int | None) -> str:
    """Return a count that a manifest may not know."""
    return "unknown" if count is None else f"{count:,}"


def show_survey(survey: Survey) -> None:
    """Show streams, one a row, and languages; what was left out of them, and texts, below."""
    from mixstream.mixture.simulate import told_bytes

    columns = ("stream", "documents", "tokens", "text bytes", "samples", "sequence", "tokens/byte", "tokens/document")
    more = ("held-out samples", "shards", "stored", "tokenizer", "fingerprint")
    rows = [
        (
            own.name,
            number(own.num_documents),
            number(own.num_tokens),
            number(own.num_bytes),
            number(own.num_samples),
            str(own.sequence_length),
            "unknown" if own.tokens_per_byte is None else f"{own.tokens_per_byte:.3f}",
            number(round(own.num_tokens / own.num_documents) if own.num_documents else None),
            number(own.heldout_samples),
            number(own.num_shards),
            told_bytes(own.stored_bytes),
            own.tokenizer or "unknown",
            own.fingerprint,
        )
        for own in survey.streams
    ]
    table((*columns, *more), rows, SPARE)
    _show_languages(survey)
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


def _show_languages(survey: Survey) -> None:
    """Show what each language has, and all together; of a folder of one stream there is nothing to add up."""
    if len(survey.streams) < 2:
        return
    groups: dict[str, list[StreamSurvey]] = {}
    for own in survey.streams:
        groups.setdefault(own.language or "unknown", []).append(own)
    tokens = sum(own.num_tokens for own in survey.streams)
    rows = []
    for name, streams in [*sorted(groups.items()), ("all languages", list(survey.streams))]:
        known = [own.num_documents for own in streams]
        documents = None if None in known else sum(count or 0 for count in known)
        own_tokens = sum(own.num_tokens for own in streams)
        rows.append((name, number(len(streams)), number(documents), number(own_tokens), f"{own_tokens / tokens:.2%}"))
    table(("language", "streams", "documents", "tokens", "of all tokens"), rows)


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
