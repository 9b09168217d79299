"""The command line: parse, one call, print. Errors are one line or two, and an exit code (manners).

converting  convert
streams     upload, inspect, verify
views       view
mixture     plan, plan diff
weights     weights: computed by a method, or averaged over runs
recommending recommend
runs        train, report
watching    watch
tracing     trace
climb       climb pilots, climb run, climb collect
laws        climb fit, climb compare
solving     climb solve
tokenizer   tokenizer train, tokenizer fertility
completion  completion
manners     exit codes, errors
amounts     numbers as people write them
planning    from a question to weights.json
answers     what planners answer, as tables
plans       plans, and in what two differ, as tables
showing     what the others print
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from mixstream.cli import (
    climb,
    completion,
    converting,
    mixture,
    recommending,
    runs,
    streams,
    tokenizer,
    tracing,
    views,
    watching,
    weights,
)
from mixstream.cli.manners import Commands, told

EXTRAS = {
    "streaming": "convert",
    "pyarrow": "convert",
    "tokenizers": "convert",
    "orjson": "convert",
    "warcio": "convert",
    "xxhash": "convert",
    "zstd": "convert",
    "huggingface_hub": "convert",
    "obstore": "remote",
    "torch": "train",
    "composer": "train",
    "transformers": "train",
    "vl_convert": "report",
    "jinja2": "report",
    "duckdb": "sql",
    "lightgbm": "regmix",
}

app = typer.Typer(
    help="Stream, mix and resample multilingual corpora for pre-training.",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,  # what Typer installs misses the first tab of every zsh; `mixstream completion` does not
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _command in (
    converting.convert,
    streams.upload,
    streams.inspect,
    streams.verify,
    views.view,
    mixture.plan,
    mixture.plan_diff,
    weights.weights,
    recommending.recommend,
    runs.train,
    watching.watch,
    runs.report,
    tracing.trace,
    completion.completion,
):
    app.command(_command.__name__.replace("_", " "))(_command)
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(climb.app, name="climb")


def _version(asked: bool) -> None:
    if asked:
        from mixstream import __version__

        print(f"mixstream {__version__}")
        raise typer.Exit


@app.callback()
def _any_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from; of any command.")] = False,
) -> None:
    """Stream, mix and resample multilingual corpora for pre-training."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit, by the codes of `manners`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    asked = [argument for argument in given if argument != "--debug"]
    completion.prepare_answer()
    with told(len(asked) < len(given), EXTRAS):
        command = typer.main.get_command(app)  # not `app()`, which would show failures in a way of its own
        sys.exit(command(args=asked, prog_name=completion.PROGRAM, standalone_mode=False) or 0)
