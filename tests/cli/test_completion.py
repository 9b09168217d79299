"""Completion in the shells themselves: a real zsh at a terminal, a real fish."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ENVIRONMENT

COMPLETED = {
    "mixstream pl": "mixstream plan",
    "mixstream plan diff --j": "mixstream plan diff --json",
    "mixstream completion z": "mixstream completion zsh",
    "mixstream watch runs/": "mixstream watch runs/mine/",
    "mixstream inspect streams/eu.w": "mixstream inspect streams/eu.wiki/",
}

# Ctrl-X puts down what has been typed and completed, and begins another line.
ZSHRC = r"""
autoload -Uz compinit; compinit -u -d "$HOME/dump"
eval "$(mixstream completion zsh)"
put_down() { print -r -- "$BUFFER" >> "$HOME/lines"; BUFFER= }
zle -N put_down; bindkey '^X' put_down
PS1='ready> '
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a run and a stream in it."""
    for made in ("runs/mine", "streams/eu.wiki"):
        (tmp_path / "here" / made).mkdir(parents=True)
    return tmp_path / "here"


def environment(program: Path, home: Path) -> dict[str, str]:
    home.mkdir()
    own = {"HOME": str(home), "ZDOTDIR": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "TERM": "xterm"}
    return ENVIRONMENT | {"PATH": f"{program.parent}:{ENVIRONMENT['PATH']}", "XDG_DATA_HOME": str(home)} | own


def read_until(terminal: int, is_enough: Callable[[bytes], bool], seconds: float = 100) -> None:
    """Read what a terminal shows, which must go on being read, until it is enough.

    Raises:
        AssertionError: with what was shown, when the time is over.
    """
    shown, end = b"", time.monotonic() + seconds
    while not is_enough(shown):
        assert time.monotonic() < end, shown.decode(errors="replace")
        if select.select([terminal], [], [], 0.05)[0]:
            shown += os.read(terminal, 1 << 16)


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_completes_from_the_first_tab_on(program, folder, tmp_path):
    home = tmp_path / "home"
    known = environment(program, home)
    (home / ".zshrc").write_text(ZSHRC)
    lines = home / "lines"
    ours, its = pty.openpty()
    with subprocess.Popen(
        ["zsh", "-d", "-i"], stdin=its, stdout=its, stderr=its, env=known, cwd=folder, start_new_session=True
    ) as zsh:
        os.close(its)
        try:
            read_until(ours, lambda shown: b"ready> " in shown)
            for number, typed in enumerate(COMPLETED, start=1):
                os.write(ours, f"{typed}\t\x18".encode())
                read_until(ours, lambda _: lines.exists() and len(lines.read_text().splitlines()) == number)  # noqa: B023
        finally:
            zsh.kill()
            os.close(ours)
    assert [line.rstrip() for line in lines.read_text().splitlines()] == list(COMPLETED.values())


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes(program, folder, tmp_path):
    known = environment(program, tmp_path / "home")
    told = subprocess.run([program, "completion", "fish"], env=known, capture_output=True, text=True, check=True).stdout
    completions = tmp_path / "home" / ".config" / "fish" / "completions"
    completions.mkdir(parents=True)
    (completions / "mixstream.fish").write_text(told)
    script = "\n".join(f"complete --do-complete '{typed}'; echo +" for typed in COMPLETED)
    done = subprocess.run(
        ["fish", "-c", script], env=known, cwd=folder, capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stderr == ""
    *answers, nothing = done.stdout.split("+\n")
    assert nothing == ""
    found = [[line.partition("\t")[0] for line in answer.splitlines()] for answer in answers]
    assert found == [[line.split()[-1]] for line in COMPLETED.values()]
