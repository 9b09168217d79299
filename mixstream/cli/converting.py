"""The command that makes streams of corpora."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress as Bars

from mixstream.cli.showing import number, progress, say, table
from mixstream.errors import CorpusError

if TYPE_CHECKING:
    from converters.corpus import Corpus, Options
    from converters.encoding import Progress
    from converters.run import Converted
    from mixstream.streams.place import Place

LEFT_OUT = {"duplicate": "duplicates", "outside": "outside the subsample"}  # as the last line tells them
HOW_TO_RUN = ("config", "out", "workers", "cluster", "staging", "overwrite")  # all that may stand beside --config
FIELDS = ("text_field", "id_field", "language", "domain", "language_field", "domain_field", "keep", "document")


def convert(
    context: typer.Context,
    corpora: Annotated[list[str] | None, typer.Argument(help="Files, folders, globs, URLs of them.")] = None,
    out: Annotated[str, typer.Option(help="Where to write: a folder, or a URL such as s3://bucket/streams.")] = "",
    config: Annotated[Path | None, typer.Option(help="corpora.yaml, which says the corpora and their options.")] = None,
    name: Annotated[str | None, typer.Option(help="One stream of all files, LANGUAGE.DOMAIN; or the corpus.")] = None,
    language: Annotated[str | None, typer.Option(help="Language of all documents; needs a domain, too.")] = None,
    domain: Annotated[str | None, typer.Option(help="Domain of all documents; needs a language, too.")] = None,
    language_field: Annotated[str | None, typer.Option(help="Field with the language: a stream for each.")] = None,
    domain_field: Annotated[str | None, typer.Option(help="Field with the domain: a stream for each.")] = None,
    text_field: Annotated[str, typer.Option(help="Field or column of the text; dots name nested ones.")] = "text",
    id_field: Annotated[
        str | None, typer.Option(help="Field of the id, which decides the split; none: id, or the text's hash.")
    ] = None,
    keep: Annotated[list[str] | None, typer.Option(help="Numeric field to keep as a column; may be repeated.")] = None,
    document: Annotated[str, typer.Option(help="What is one document of plain text: line or file.")] = "line",
    tokenizer: Annotated[str, typer.Option(help="byte, a tokenizer.json, or a name on the hub.")] = "byte",
    eod_token: Annotated[str | None, typer.Option(help="Token that ends documents, where it cannot be told.")] = None,
    sequence_length: Annotated[int, typer.Option(help="Tokens of a sample.")] = 2048,
    layout: Annotated[
        str, typer.Option(help="packed: cut out of documents end to end; documents: one a sample, cut off or padded.")
    ] = "packed",
    holdout: Annotated[float, typer.Option(help="Share of documents to hold out.")] = 0.02,
    subsample: Annotated[float | None, typer.Option(help="Share of the other documents to take, for a proxy.")] = None,
    seed: Annotated[int, typer.Option(help="Of the subsample.")] = 0,
    exclude: Annotated[str | None, typer.Option(help="File with ids of documents to leave out, one a line.")] = None,
    deduplicate: Annotated[
        bool, typer.Option(help="Of a stream's documents with the same text take the first.")
    ] = False,
    on_error: Annotated[str, typer.Option(help="stop, or quarantine: bad documents go to rejects.jsonl.")] = "stop",
    max_rejects: Annotated[int | None, typer.Option(help="In quarantine: stop at more bad ones of a corpus.")] = None,
    max_document_bytes: Annotated[int, typer.Option(help="A longer document is a bad one.")] = 16 << 20,
    min_samples: Annotated[int, typer.Option(help="Of a stream; one of fewer is refused.")] = 1,
    shard_bytes: Annotated[int, typer.Option(help="Size at which a shard ends.")] = 1 << 26,
    compression: Annotated[str | None, typer.Option(help="Of shards: zstd, zstd:1 to zstd:22; none: raw.")] = None,
    span_bytes: Annotated[int | None, typer.Option(help="Bytes of sources a task; none: by the corpus's size.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes; none: one a processor, 0: this one.")] = None,
    cluster: Annotated[str | None, typer.Option(help="Dask scheduler, such as tcp://host:8786.")] = None,
    staging: Annotated[
        Path | None, typer.Option(help="Folder for streams on their way to a URL; none: a temporary one.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace streams of these names, made from something else.")] = False,
) -> None:
    """Make MDS streams of corpora, here or in an object store; run again after a stop, it goes on."""
    from converters.corpora import convert_corpora, other_streams
    from converters.tasks.executors import executor_of, processes_for
    from mixstream.streams.place import find_place

    if not out:
        raise CorpusError("--out is missing; give a folder, or a URL such as s3://bucket/streams")
    found, options, ignored = _declared(context, corpora, config, overwrite)
    place = find_place(out)
    if cluster and staging is None and not isinstance(place, Path):
        raise CorpusError(
            f"{out}: streams for a URL are written to a folder first; name one that all workers of the cluster see "
            f"with --staging"
        )
    if workers is None:
        workers = 0 if cluster else processes_for(sum(file.size_bytes for corpus in found for file in corpus.files))
    done = []
    with progress() as bars, executor_of(workers, cluster) as executor:
        told = _bars(bars, len(found))
        for converted in convert_corpora(found, place, options, executor, staging, told):
            done.append(converted)
            bars.advance(bars.task_ids[0])
    _show(done, ignored, place, other_streams(done, place))


def _declared(
    context: typer.Context, paths: list[str] | None, config: Path | None, overwrite: bool
) -> tuple[list[Corpus], Options, list[str]]:
    """Return the corpora, how they are converted, and files that are left out, as a file or the options say."""
    from converters.config import FieldsConfig, OptionsConfig, corpora_of_config, corpora_of_paths, read_config
    from mixstream.formats import parse

    given = {name for name in context.params if _is_given(context, name)}
    if config is not None:
        wrong = sorted(given - {*HOW_TO_RUN})
        if wrong:
            told = ", ".join("files" if name == "corpora" else f"--{name.replace('_', '-')}" for name in wrong)
            raise CorpusError(f"{told}: given beside --config; say it in {config}")
        declared = read_config(config)
        options = declared.options.options(overwrite)
        found, ignored = corpora_of_config(declared)
        return found, options, ignored
    if not paths:
        raise CorpusError("no corpus; give files, folders, globs or URLs, or --config corpora.yaml")
    declaration = next((path for path in paths if path.endswith((".yaml", ".yml"))), None)
    if declaration is not None:
        raise CorpusError(f"{declaration}: holds no text; if it declares corpora, give it as --config {declaration}")
    values: Mapping[str, Any] = context.params
    fields = parse(FieldsConfig, {name: values[name] for name in FIELDS if name in given}, "options")
    known = OptionsConfig.model_fields
    options = parse(OptionsConfig, {name: values[name] for name in known if name in given}, "options").options(
        overwrite
    )
    found, ignored = corpora_of_paths(paths, fields, values["name"])
    return found, options, ignored


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _bars(bars: Bars, num_corpora: int) -> Progress:
    """Return what moves the bars: corpora, megabytes read, documents, megabytes uploaded."""
    from converters.encoding import Progress

    bars.add_task("corpora", total=num_corpora)
    read = bars.add_task("megabytes read", total=0)
    documents = bars.add_task("documents", total=None)
    uploaded = bars.add_task("megabytes uploaded", total=None, visible=False)
    totals = {"read": 0.0}

    def total(size: int) -> None:
        totals["read"] += size / 1e6
        bars.update(read, total=totals["read"])

    def upload(size: int) -> None:
        bars.update(uploaded, advance=size / 1e6, visible=True)

    return Progress(
        total, lambda size: bars.advance(read, size / 1e6), lambda count: bars.advance(documents, count), upload
    )


def _show(done: list[Converted], ignored: list[str], place: Place, others: list[str]) -> None:
    """Print what became of every corpus, and what is in no stream: the last line has all counts."""
    rows = []
    for converted in done:
        for name, splits in converted.manifests.items():
            train, heldout = splits["train"], splits.get("heldout")
            rows.append(
                (
                    name,
                    number(train.num_documents),
                    number(train.num_tokens),
                    number(train.num_samples),
                    number(heldout.num_samples) if heldout else f"none ({number(train.heldout_documents)} documents)",
                    "kept" if converted.kept else "written",
                )
            )
    for path in ignored:
        say(f"ignored {path}: no corpus format")
    table(("stream", "documents", "tokens", "samples", "held-out samples", ""), rows)
    for converted in done:
        for name, samples in converted.too_small.items():
            say(f"no stream {name}: {samples:,} samples are too few (--min-samples)")
        for path in converted.rejects:
            say(f"rejected documents: {path}")
    if others:
        say(f"{place} also holds, from elsewhere: {', '.join(others)}; remove what is not to be read")
    left_out = Counter[str]()
    for converted in done:
        left_out.update(converted.counts)
    told = "".join(f", {count:,} {LEFT_OUT.get(what, what)}" for what, count in sorted(left_out.items()) if count)
    documents = sum(
        (splits["train"].num_documents or 0) + (splits["train"].heldout_documents or 0)
        for one in done
        for splits in one.manifests.values()
    )
    say(f"{documents:,} documents in {len(rows)} {'stream' if len(rows) == 1 else 'streams'} in {place}{told}")
