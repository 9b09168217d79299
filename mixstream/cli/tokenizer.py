"""The commands that make a tokenizer and tell how fair one is."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixstream.cli.manners import Commands
from mixstream.cli.showing import progress, say, table

if TYPE_CHECKING:
    from converters.corpus import Corpus
    from converters.documents import Document, Selection
    from converters.tokens.fertility import FertilityRow
    from converters.tokens.reading import Reading
    from converters.tokens.tokenise import Tokenizer

app = typer.Typer(
    help="Train a tokenizer, and tell how many tokens it makes of each language.",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
)

Corpora = Annotated[list[str] | None, typer.Argument(help="Files, folders, globs, URLs of them.")]
Config = Annotated[Path | None, typer.Option(help="corpora.yaml: says the corpora and their fields.")]
Name = Annotated[str | None, typer.Option(help="Stream, LANGUAGE.DOMAIN, of all files.")]
Language = Annotated[str | None, typer.Option(help="Language of all documents.")]
Domain = Annotated[str | None, typer.Option(help="Domain of all documents.")]
LanguageField = Annotated[str | None, typer.Option(help="Field with the language.")]
DomainField = Annotated[str | None, typer.Option(help="Field with the domain.")]
TextField = Annotated[str, typer.Option(help="Field or column of the text; dots name nested ones.")]
IdField = Annotated[str | None, typer.Option(help="Field that names a document for ever; none: id, or a hash.")]
Unit = Annotated[str, typer.Option("--document", help="Of plain text: line or file.")]
OnError = Annotated[str, typer.Option(help="stop, or skip: bad documents are left out and counted.")]
Holdout = Annotated[float | None, typer.Option(min=0, max=0.99, help="Share held out; none: corpora.yaml's, or 0.02.")]
MostBytes = Annotated[int, typer.Option(min=1, help="Most text of a stream to measure.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the table as JSON.")]

FIELDS = ("text_field", "id_field", "language", "domain", "language_field", "domain_field", "document")


@app.command()
def train(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Where to write tokenizer.json.")],
    corpora: Corpora = None,
    config: Config = None,
    vocab_size: Annotated[int, typer.Option(min=258, max=1 << 24, help="Tokens, with all bytes.")] = 32_000,
    temperature: Annotated[float, typer.Option(min=0, max=1, help="Exponent of language sizes: 1 as they are.")] = 0.3,
    sample_bytes: Annotated[int, typer.Option(min=1, help="Most text to train on.")] = 100_000_000,
    seed: Annotated[int, typer.Option(min=0, max=(1 << 63) - 1, help="Of the choice of documents.")] = 17,
    holdout: Holdout = None,
    most_bytes: MostBytes = 20_000_000,
    name: Name = None,
    language: Language = None,
    domain: Domain = None,
    language_field: LanguageField = None,
    domain_field: DomainField = None,
    text_field: TextField = "text",
    id_field: IdField = None,
    document: Unit = "line",
    on_error: OnError = "stop",
) -> None:
    """Train a byte-level BPE on a sample in which small languages count for more, and measure it on held-out text."""
    from converters.tokens.fertility import measure, rows_of
    from converters.tokens.tokenise import load_tokenizer
    from converters.tokens.training import Training
    from converters.tokens.training import train as train_tokenizer
    from mixstream.formats import write_whole

    found, selection = _declared(context.params)
    reading = _reading(on_error, selection.excluded)
    with progress() as bars:
        documents = bars.add_task("documents read", total=None)

        def read() -> Iterator[Document]:
            for document in reading.documents(found):
                yield document
                bars.advance(documents)

        trained = train_tokenizer(read, Training(vocab_size, temperature, sample_bytes, seed, selection.holdout))
    write_whole(out, trained.json)
    rows = [(name, f"{size:,}", f"{trained.sample_bytes[name]:,}") for name, size in sorted(trained.size_bytes.items())]
    table(("language", "bytes", "bytes trained on"), rows)
    if selection.holdout:
        tokenizer = load_tokenizer(str(out))
        _show(rows_of(measure(reading.documents(found), tokenizer, selection.holdout, most_bytes)), tokenizer)
    _tell_left_out(reading)
    say(f"{vocab_size:,} tokens in {out}")


@app.command()
def fertility(
    context: typer.Context,
    tokenizer: Annotated[str, typer.Argument(help="byte, a tokenizer.json, or a hub name.")],
    corpora: Corpora = None,
    config: Config = None,
    eod_token: Annotated[str | None, typer.Option(help="The tokenizer's end-of-document token.")] = None,
    holdout: Holdout = None,
    most_bytes: MostBytes = 20_000_000,
    name: Name = None,
    language: Language = None,
    domain: Domain = None,
    language_field: LanguageField = None,
    domain_field: DomainField = None,
    text_field: TextField = "text",
    id_field: IdField = None,
    document: Unit = "line",
    on_error: OnError = "stop",
    as_json: AsJson = False,
) -> None:
    """Tell how many tokens a tokenizer makes of a byte and of a word, by language, on held-out documents."""
    from converters.tokens.fertility import measure, rows_of
    from converters.tokens.tokenise import load_tokenizer

    loaded = load_tokenizer(tokenizer, eod_token)
    found, selection = _declared(context.params)
    reading = _reading(on_error, selection.excluded)
    rows = rows_of(measure(reading.documents(found), loaded, selection.holdout, most_bytes))
    if as_json:
        left_out = {"left_out": reading.num_left_out, "first_left_out": reading.first_left_out}
        print(json.dumps({"rows": [row.as_json() for row in rows], **left_out}, indent=1))
        return
    _show(rows, loaded)
    _tell_left_out(reading)


def _declared(values: dict[str, Any]) -> tuple[Sequence[Corpus], Selection]:
    """Return the corpora that a file or the options declare, and which of their documents are held out or left out."""
    from converters.config import FieldsConfig, OptionsConfig, corpora_of_config, corpora_of_paths, read_config
    from converters.documents import Selection, ids_of
    from mixstream.errors import CorpusError
    from mixstream.formats import parse

    if (values["config"] is None) == (not values["corpora"]):
        raise CorpusError("give files, folders, globs or URLs, or else --config corpora.yaml")
    if values["config"] is not None:
        declared = read_config(values["config"])
        corpora, ignored = corpora_of_config(declared)
        options = declared.options
    else:
        fields = parse(FieldsConfig, {field: values[field] for field in FIELDS}, "options")
        corpora, ignored = corpora_of_paths(values["corpora"], fields, values["name"])
        options = OptionsConfig()
    for path in ignored:
        print(f"ignored {path}: no corpus format", file=sys.stderr)
    holdout = options.holdout if values["holdout"] is None else values["holdout"]
    return corpora, Selection(holdout, excluded=ids_of(options.exclude) if options.exclude else frozenset())


def _reading(on_error: str, excluded: frozenset[str]) -> Reading:
    from converters.tokens.reading import Reading
    from mixstream.errors import CorpusError

    if on_error not in ("stop", "skip"):
        raise CorpusError(f"--on-error {on_error}: expected stop or skip")
    return Reading(on_error == "skip", excluded)


def _show(rows: Sequence[FertilityRow], tokenizer: Tokenizer) -> None:
    """Print a fertility table: of a language with several streams also theirs."""
    from collections import Counter

    streams = Counter(row.language for row in rows if row.stream is not None)
    shown = [
        (
            row.stream or row.language,
            f"{row.fertility.documents:,}",
            f"{row.fertility.size_bytes:,}",
            f"{row.fertility.words:,}",
            f"{row.fertility.tokens:,}",
            f"{row.fertility.tokens_per_byte:.4f}",
            f"{row.fertility.tokens_per_word:.3f}",
            f"{row.fertility.bytes_per_word:.3f}",
            f"{row.premium:.3f}",
        )
        for row in rows
        if row.stream is None or streams[row.language] > 1
    ]
    columns = ("documents", "bytes", "words", "tokens", "tokens/byte", "tokens/word", "bytes/word", "premium")
    table(("language or stream", *columns), shown)
    say(
        f"{tokenizer.info.vocab_size:,} tokens; byte-level: 1 token/byte, and of a word as many as it has bytes; "
        f"premium: tokens/byte in those of the language that has the fewest"
    )


def _tell_left_out(reading: Reading) -> None:
    if reading.num_left_out:
        say(f"{reading.num_left_out:,} documents or rests of files left out, first {reading.first_left_out}")
