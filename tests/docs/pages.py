"""Reading a page of the documentation: its code blocks, and what comments say of how to test them.

A comment in front of a block, which no reader sees, holds directives, one a line:

    <!-- test: replace `-n 8` by `-n 2` -->
    <!-- test:
    parse only: it needs SLURM
    -->

given THING, THING        what the page's folder holds before its first block (``scratch.GIVEN``), anywhere on the page
replace `A` by `B`        B is run where the reader sees A; A must be there
parse only: WHY           nothing is run: syntax, and that the commands, options, files and names it uses exist
goes on                   a Python block that begins with the Python blocks in front of it
exits N                   the block ends with this code, not 0
printed                   a text block is what the block in front of it printed; a line ``...`` stands for any lines,
                          and `...` in a line for any characters

A block with a title (```` ```yaml title="recipe.yaml" ````) is saved under that name, and what a later block runs.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

LANGUAGES = ("bash", "python", "yaml", "json", "toml", "text")
_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<info>[^`\n]*)$")
_COMMENT = re.compile(r"<!-- test:(.*?)-->", re.DOTALL)
_REPLACE = re.compile(r"^replace `(.+)` by `(.*)`$")


@dataclass(frozen=True)
class Block:
    """A code block of a page, and how it is tested.

    Attributes:
        line: number of its first line on the page, from 1.
        language: the fence's first word.
        shown: what a reader sees.
        title: the name under which it is saved, or nothing.
        only_parsed: why it is not run, or nothing.
    """

    line: int
    language: str
    shown: str
    title: str = ""
    only_parsed: str = ""
    goes_on: bool = False
    exits: int = 0
    printed: bool = False
    replacements: tuple[tuple[str, str], ...] = ()

    @property
    def code(self) -> str:
        """What is run: the shown code with its replacements."""
        code = self.shown
        for old, new in self.replacements:
            assert old in code, f"line {self.line}: nothing to replace: the block does not have {old!r}"
            code = code.replace(old, new)
        return code


@dataclass(frozen=True)
class Page:
    """A page's blocks in order, and what it asks to be given."""

    path: Path
    blocks: tuple[Block, ...]
    given: tuple[str, ...] = ()


def read_page(path: Path) -> Page:
    """Read a page; a directive that means nothing fails."""
    blocks: list[Block] = []
    given: list[str] = []
    pending: list[str] = []
    lines = path.read_text().split("\n")
    number = 0
    while number < len(lines):
        if "<!-- test:" in lines[number]:
            end = next(at for at in range(number, len(lines)) if "-->" in lines[at])
            for directive in _directives("\n".join(lines[number : end + 1])):
                (given if directive.startswith("given ") else pending).append(directive)
            number = end + 1
        elif fence := _FENCE.match(lines[number]):
            end = next(at for at in range(number + 1, len(lines)) if lines[at].strip() == fence["ticks"])
            shown = textwrap.dedent("\n".join(lines[number + 1 : end]) + "\n")
            blocks.append(_block(number + 1, fence["info"].strip(), shown, pending))
            pending = []
            number = end + 1
        else:
            assert not (pending and lines[number].strip()), f"{path}: no block follows the directive {pending[0]!r}"
            number += 1
    assert not pending, f"{path}: no block follows the directive {pending[0]!r}"
    things = [thing.strip() for line in given for thing in line.removeprefix("given ").split(",")]
    return Page(path, tuple(blocks), tuple(things))


def _directives(comment: str) -> list[str]:
    match = _COMMENT.search(comment)
    assert match, comment
    return [line.strip() for line in match[1].splitlines() if line.strip()]


@dataclass
class _Told:
    only_parsed: str = ""
    goes_on: bool = False
    exits: int = 0
    printed: bool = False
    replacements: list[tuple[str, str]] = field(default_factory=list)

    def hear(self, directive: str) -> None:
        if replace := _REPLACE.match(directive):
            self.replacements.append((replace[1], replace[2]))
        elif directive.startswith("parse only: "):
            self.only_parsed = directive.removeprefix("parse only: ")
        elif re.fullmatch(r"exits \d+", directive):
            self.exits = int(directive.split()[1])
        elif directive in ("goes on", "printed"):
            setattr(self, directive.replace(" ", "_"), True)
        else:
            raise AssertionError(f"no such directive: {directive!r}; see tests/docs/pages.py")


def _block(line: int, info: str, shown: str, directives: list[str]) -> Block:
    language, _, attributes = info.partition(" ")
    assert language in LANGUAGES, f"line {line}: a block is one of {', '.join(LANGUAGES)}, not {language!r}"
    title = re.search(r'title="([^"]+)"', attributes)
    told = _Told()
    for directive in directives:
        told.hear(directive)
    assert not (told.printed and language != "text"), f"line {line}: only text is printed"
    return Block(
        line,
        language,
        shown,
        title[1] if title else "",
        told.only_parsed,
        told.goes_on,
        told.exits,
        told.printed,
        tuple(told.replacements),
    )


def prints(expected: str, output: str) -> bool:
    """Tell whether lines, in which ``...`` stands for anything, are in an output, spaces aside."""

    def pattern(line: str) -> str:
        if line.strip() == "...":
            return r"(?:.*\n)*?"
        parts = [r"\s+".join(map(re.escape, part.split())) for part in line.strip().split("...")]
        return r"\s*" + r".*".join(parts).replace(".*", r"\s*.*?\s*") + r"\s*\n"

    whole = "".join(pattern(line) for line in expected.splitlines() if line.strip())
    lines = "".join(f"{line}\n" for line in output.splitlines() if line.strip())
    return re.search(rf"^{whole}", lines, flags=re.MULTILINE) is not None
