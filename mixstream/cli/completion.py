"""The command that lets a shell complete what is typed."""

from __future__ import annotations

import os
from enum import Enum
from typing import Annotated

import typer

PROGRAM = "mixstream"
ASKED = f"_{PROGRAM.upper()}_COMPLETE"  # the variable in which a shell asks what can stand at the cursor


class Shell(str, Enum):
    """A shell that can complete."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="The shell that is to complete.")]) -> None:
    """Print what a shell must be told to complete commands and options: eval "$(mixstream completion bash)"."""
    from typer._completion_shared import get_completion_script

    print(get_completion_script(prog_name=PROGRAM, complete_var=ASKED, shell=shell.value))


def prepare_answer() -> None:
    """Make the shells known that may ask; Typer does so only where it may also write to a person's start-up files."""
    if ASKED in os.environ:
        from typer._completion_classes import completion_init

        completion_init()
