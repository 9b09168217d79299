"""How every command ends: what it says of an error, its exit code, and that nothing is said to a reader who has left.

0       done
1       a check found something, or a failure that was not foreseen
2       what was given cannot be used
130     interrupted (Ctrl-C); 128 + number for another signal
141     the reader of the output went away first, as `head` does

An error is one line on standard error, or two: ``--debug`` shows where it came from instead.
"""

from __future__ import annotations

import os
import select
import sys
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import TextIOWrapper
from types import TracebackType
from typing import Any

import typer
from typer.core import TyperGroup

from mixstream.errors import MissingExtraError, MixstreamError, nearest

FOUND, WRONG, READER_LEFT = 1, 2, 141
USAGE_ERROR: Any = typer.BadParameter.__mro__[1]  # click's, which typer has under another name in each version
CLICK_ERROR: Any = typer.BadParameter.__mro__[2]


class Commands(TyperGroup):
    """Commands whose names may be two words, such as `plan diff`; a mistyped one gets the nearest."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return name, command and its arguments: of two words first."""
        two = " ".join(args[:2])
        if len(args) > 1 and two in self.commands:
            return two, self.commands[two], args[2:]
        family = [name for name in self.commands if name.startswith(f"{args[0]} ")]
        are_names = len(args) > 2 and not any(word.startswith("-") for word in args[:3])
        if family and are_names and not ctx.resilient_parsing:
            raise USAGE_ERROR(f"no such command {two!r}{nearest(two, family)}", ctx)
        if not args[0].startswith("-") and args[0] not in self.commands and not ctx.resilient_parsing:
            raise USAGE_ERROR(f"no such command {args[0]!r}{nearest(args[0], self.commands)}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Return what can stand here; of names of two words the first."""
        return [item for item in super().shell_complete(ctx, incomplete) if " " not in item.value]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands and their first sentences, whole."""
        rows = [(name, command.get_short_help_str(400)) for name, command in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> Any:
        """Run a command, and say nothing more to a reader who has left."""
        try:
            result = super().invoke(ctx)
            print(end="", flush=True)  # which knows that there may be no standard output at all
        except BrokenPipeError as problem:
            if not _reader_left():
                raise ConnectionError(f"another process closed its connection ({problem})") from problem
            _let_go_of_output()
            raise typer.Exit(READER_LEFT) from None
        return result


@contextmanager
def told(debug: bool, extras: Mapping[str, str]) -> Iterator[None]:
    """Tell errors of the block, and exit.

    Args:
        debug: show where they come from.
        extras: {package: the extra that brings it}.

    Raises:
        SystemExit: with 2, after an error that a person can mend. What was not foreseen passes, and exits with 1.
    """
    if not debug:
        sys.excepthook = tell_unforeseen
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding does not have
    try:
        with _told_extras(extras):
            yield
    except (MixstreamError, CLICK_ERROR, OSError, typer.Abort) as problem:
        if debug:
            traceback.print_exc()
        if type(problem).__name__ == "NoArgsIsHelpError":  # click's, for a group that was given no command
            print(_message(problem), file=sys.stderr)
            sys.exit(WRONG)
        print(f"error: {_on_one_line(_message(problem))}", file=sys.stderr)
        context = getattr(problem, "ctx", None)
        if context is not None:
            print(f"{context.command_path} --help tells what it takes", file=sys.stderr)
        _let_go_of_output()
        sys.exit(WRONG)


def tell_unforeseen(kind: type[BaseException], problem: BaseException, where: TracebackType | None) -> None:
    """Tell of a failure that nobody foresaw; where it came from is kept in a file."""
    last = traceback.extract_tb(where)[-1:]
    at = f" at {last[0].filename}:{last[0].lineno}" if last else ""
    with tempfile.NamedTemporaryFile("w", prefix="mixstream-", suffix=".txt", delete=False, encoding="utf-8") as file:
        file.writelines(traceback.format_exception(kind, problem, where))
    print(f"not foreseen; the traceback is in {file.name}, and --debug prints it", file=sys.stderr)
    print(f"error: {kind.__name__}{at}: {_on_one_line(str(problem))}", file=sys.stderr)


def _message(problem: Any) -> str:
    """Return what an error says, in one line or more."""
    if isinstance(problem, CLICK_ERROR):
        return str(problem.format_message())
    if isinstance(problem, OSError):  # a folder that may not be written, a full disk
        return f"{problem.filename or 'cannot go on'}: {problem.strerror or problem}"
    return str(problem) or "stopped"


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


def _let_go_of_output() -> None:
    """Write what is still to be written; where that cannot be, forget it, or Python would complain at its very end."""
    try:
        print(end="", flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reader_left() -> bool:
    """Return whether nobody reads standard output any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


@contextmanager
def _told_extras(extras: Mapping[str, str]) -> Iterator[None]:
    """Turn a missing optional dependency into an error that names the extra to install."""
    try:
        yield
    except ModuleNotFoundError as problem:
        package = (problem.name or "").partition(".")[0]
        extra = extras.get(package)
        if extra is None:
            raise
        raise MissingExtraError(
            f"this needs the package {package!r}; install it with pip install 'mixstream-llm[{extra}]'"
        ) from None
