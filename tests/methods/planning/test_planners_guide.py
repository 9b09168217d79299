"""docs/planners.md is true: its methods and options are there, its example of code plans."""

from __future__ import annotations

import re
import shlex

import numpy as np
import typer
from conftest import REPOSITORY

from mixstream.cli import app
from mixstream.methods.planning.designs import climb_design, monolingual_design
from mixstream.methods.planning.registry import NAMES
from mixstream.methods.planning.table import table_of
from mixstream.methods.planning.table_files import write_runs

GUIDE = (REPOSITORY / "docs" / "planners.md").read_text()
NAMED = ("ca", "eu")


def test_every_method_is_told():
    cells = re.findall(r"^\| (`.*?) \|", GUIDE, flags=re.MULTILINE)
    told = {name.partition(":")[0] for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    assert told == set(NAMES)


def test_its_commands_have_these_options():
    commands = typer.main.get_command(app).commands
    lines = [line for block in re.findall(r"```bash\n(.*?)```", GUIDE, flags=re.DOTALL) for line in block.splitlines()]
    told = [shlex.split(line, comments=True) for line in lines if line.startswith("mixstream ")]
    assert len(told) >= 10
    for _, name, *rest in told:
        command, given = commands[name], rest
        if hasattr(command, "commands"):
            command, given = command.commands[rest[0]], rest[1:]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in given if word.startswith("--")} <= known, (name, given)
    inline = set(re.findall(r"`(--[\w-]+)", GUIDE)) | set(re.findall(r"`climb solve `?(--[\w-]+)", GUIDE))
    known = {o for c in (commands["weights"], commands["climb"].commands["solve"]) for p in c.params for o in p.opts}
    assert inline <= known


def test_the_example_of_code_plans(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mixed, alone = climb_design(NAMED, (100_000, 200_000)), monolingual_design(NAMED, (50_000, 100_000, 200_000))
    shares = np.vstack([mixed.proportions, alone.proportions])
    tokens = np.concatenate([mixed.tokens, alone.tokens]).astype(float)
    ratios = np.maximum(shares + 0.1 * shares * -np.expm1(-3 * shares[:, ::-1]), 1e-3)
    losses = np.array([1.2, 0.9]) + np.array([1.5, 2.0]) * (ratios * tokens[:, None] / 1e5) ** -0.3
    write_runs(tmp_path / "runs.parquet", table_of(NAMED, shares, tokens, losses, runs=[*mixed.runs, *alone.runs]))
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    known: dict[str, object] = {}
    exec(example, known)
    assert known["losses"].shape == (1, 2)
    assert abs(known["shares"].sum() - 1) < 1e-9
    assert known["shares"].min() >= 0.05 - 1e-12
    assert known["found"].intervals.shape == (2, 2)
