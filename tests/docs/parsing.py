"""What can be said of a block without running it: its syntax, and that what it names exists."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import subprocess
from pathlib import Path

import yaml
from conftest import REPOSITORY
from pages import Block
from pydantic import TypeAdapter
from typer.main import get_command

from mixstream.cli import app
from mixstream.mixture.schedule import Change
from mixstream.runs.recipe import RunRecipe

PROGRAMS = {"mixstream", "make", "pip", "composer", "torchrun", "python", "sbatch"}
PROGRAMS |= {"bash", "echo", "eval", "export", "mkdir", "source"}
OTHERS = {"train_loader"}  # sections of a YAML of LLM Foundry


def parse(block: Block) -> None:
    """Check a block that is not run; an assertion tells what is wrong."""
    if block.language == "python":
        check_python(block.code)
    elif block.language == "bash":
        check_bash(block.code)
    elif block.language == "yaml":
        check_yaml(block.code)
    elif block.language == "json":
        json.loads(block.code)


def check_python(code: str) -> None:
    """Check the syntax, and that the names of mixstream that it imports exist."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("mixstream", "converters"):
            module = importlib.import_module(str(node.module))
            for name in node.names:
                assert hasattr(module, name.name), f"{node.module} has no {name.name}"


def check_yaml(code: str) -> None:
    """Check the syntax, and that sections of a recipe, or a schedule, are such."""
    for content in yaml.safe_load_all(code):
        if isinstance(content, list):
            TypeAdapter(tuple[Change, ...]).validate_python(content)
            continue
        for key, section in content.items():
            assert key in {*RunRecipe.model_fields, *OTHERS}, f"a recipe has no section {key}"
            if key not in OTHERS:
                TypeAdapter(RunRecipe.model_fields[key].annotation).validate_python(section)


def check_bash(code: str) -> None:
    """Check the syntax, the options of mixstream and of our programs, the targets of make, the extras of pip."""
    done = subprocess.run(["bash", "-n"], input=code, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    for words in _commands(code):
        program = Path(words[0]).name
        assert program in PROGRAMS, f"no page speaks of {program}"
        if program == "mixstream":
            check_mixstream(words[1:])
        elif "recipes/train.py" in words:
            check_mixstream(["train", *words[words.index("recipes/train.py") + 1 :]])
        elif program == "make":
            targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
            for word in words[1:]:
                assert "=" in word or word.startswith("-") or word in targets, f"make {word}"
        elif program == "pip":
            extras = re.findall(r"^(\w+) = \[", (REPOSITORY / "pyproject.toml").read_text(), flags=re.MULTILINE)
            for named in re.findall(r"\[([\w,]+)\]", " ".join(words)):
                assert set(named.split(",")) <= set(extras), named
        for word in words:
            if re.fullmatch(r"(?:recipes|examples|benchmarks)/[\w./-]+", word):
                assert (REPOSITORY / word).exists(), f"there is no {word}"
        for at, word in enumerate(words):
            if re.fullmatch(r"examples/\w+\.py", word):
                check_example(word, words[at + 1 :])


def check_example(name: str, words: list[str]) -> None:
    """Check that one of the examples has these options."""
    known = re.findall(r'add_argument\("(--[\w-]+)"', (REPOSITORY / name).read_text())
    for word in words:
        assert not word.startswith("--") or word in known, f"{name} has no {word}"


def check_mixstream(words: list[str]) -> None:
    """Check that a command, its subcommand and its options exist."""
    command, path = get_command(app), "mixstream"
    words = [" ".join(words[:2]), *words[2:]] if " ".join(words[:2]) in command.commands else words  # `plan diff`
    while words and words[0] in getattr(command, "commands", {}):
        command, path, words = command.commands[words[0]], f"{path} {words[0]}", words[1:]  # type: ignore[attr-defined]
    assert not getattr(command, "commands", {}) or not words or words[0].startswith("-"), f"{path} {words[0]}"
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in known | {"--help", "--debug"}, f"{path} has no {word}"


def _commands(code: str) -> list[list[str]]:
    """Return the words of each simple command, without the assignments and launchers in front of it."""
    found = []
    code = re.sub(r'"\$\((.*?)\)"', r"; \1 ;", code.replace("\\\n", " "))  # what a command's words are made of
    for line in code.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;"):
                found.append(words)
                words = []
            elif words or not (re.match(r"\w+=", word) or word in ("srun", "time", "then", "do", "exec")):
                words.append(word)
    return [words for words in found if words]
