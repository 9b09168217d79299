"""The command that lets a shell complete what is typed."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

PROGRAM = "mixstream"


class Shell(str, Enum):
    """A shell that can complete."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(shell: Annotated[Shell, typer.Argument(help="The shell that is to complete.")]) -> None:
    """Print what a shell must be told to complete commands and options: eval "$(mixstream completion bash)"."""
    from typer._completion_shared import get_completion_script

    print(get_completion_script(prog_name=PROGRAM, complete_var=f"_{PROGRAM.upper()}_COMPLETE", shell=shell.value))
