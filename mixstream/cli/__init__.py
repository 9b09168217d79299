"""The command line: parse, one call, print. Errors of ours are one line and exit code 2.

converting  convert
streams     upload, inspect, verify
views       view
mixture     plan
weights     weights: computed by a method, or averaged over runs
recommending recommend
runs        train, report
climb       climb pilots, climb run, climb collect
laws        climb fit, climb compare
solving     climb solve
tokenizer   tokenizer train, tokenizer fertility
amounts     numbers as people write them
planning    from a question to weights.json
answers     what planners answer, as tables
showing     what the others print
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import typer

from mixstream.cli import climb, converting, mixture, recommending, runs, streams, tokenizer, views, weights
from mixstream.errors import MissingExtraError, MixstreamError

EXTRAS = {
    "streaming": "convert",
    "pyarrow": "convert",
    "tokenizers": "convert",
    "orjson": "convert",
    "warcio": "convert",
    "xxhash": "convert",
    "zstd": "convert",
    "huggingface_hub": "convert",
    "torch": "train",
    "composer": "train",
    "transformers": "train",
    "matplotlib": "report",
    "jinja2": "report",
    "lightgbm": "regmix",
}

app = typer.Typer(
    help="Stream, mix and resample multilingual corpora for pre-training.",
    no_args_is_help=True,
    add_completion=True,
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
    weights.weights,
    recommending.recommend,
    runs.train,
    runs.report,
):
    app.command()(_command)
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(climb.app, name="climb")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 2 with one line for an error of ours, 130 for Ctrl-C."""
    try:
        with _told_extras():
            app(args=arguments)
    except MixstreamError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as problem:  # a folder that may not be written, a full disk
        print(f"error: {problem.filename or 'cannot go on'}: {problem.strerror}", file=sys.stderr)
        sys.exit(2)


@contextmanager
def _told_extras() -> Iterator[None]:
    """Turn a missing optional dependency into an error that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as problem:
        extra = EXTRAS.get((problem.name or "").partition(".")[0])
        if extra is None:
            raise
        raise MissingExtraError(
            f"this needs the package {problem.name!r}; install it with pip install 'mixstream-llm[{extra}]'"
        ) from None
