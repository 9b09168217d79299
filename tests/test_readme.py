"""The README is true: its example runs, its commands and files exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY
from typer.main import get_command

from mixstream.cli import app

README = (REPOSITORY / "README.md").read_text()


def test_the_example_of_the_loader_runs(tmp_path):
    mixstream = Path(sys.executable).parent / "mixstream"
    quickstart = REPOSITORY / "recipes" / "quickstart"
    subprocess.run(
        [mixstream, "convert", quickstart, "--out", "streams", "--sequence-length", "128"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(example.splitlines()) <= 22
    check = "\nassert at_batch == 29\nassert step == 194\nassert loss < 4\n"
    done = subprocess.run(
        [sys.executable, "-c", example + check], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_every_command_and_option_it_names_exists():
    commands = get_command(app).commands  # type: ignore[attr-defined]
    named = re.findall(r"^(?:mixstream|composer -n 2 recipes/)(?:train\.py)? ?(\w+)?(.*)$", README, flags=re.MULTILINE)
    assert len(named) >= 6
    for line in re.findall(r"^mixstream (\w+)(.*)$", README, flags=re.MULTILINE):
        command, rest = line
        known = {option for parameter in commands[command].params for option in parameter.opts}
        for option in re.findall(r"--[\w-]+", rest):
            assert option in known, f"mixstream {command} {option}"


def test_it_is_short_and_its_files_exist():
    assert len(README.splitlines()) <= 150
    (file_map,) = re.findall(r"## File map\n\n```\n(.*?)```", README, flags=re.DOTALL)
    for line in file_map.splitlines():
        folder = line.split()[0]
        assert (REPOSITORY / folder).exists(), folder
        if folder.endswith("/"):
            for name in re.findall(r"[\w/-]+\.(?:py|html|md|yaml)", line.split(maxsplit=1)[1]):
                candidates = [REPOSITORY / folder / name, REPOSITORY / name, REPOSITORY / "converters" / name]
                assert any(path.exists() for path in candidates), name
    for room in ("streams", "mixture", "methods", "loader", "callbacks", "runs", "report"):
        for module in (REPOSITORY / "mixstream" / room).glob("[a-z]*.py"):
            assert module.name in file_map, module
    for room in ("", "sources", "tasks", "tokens"):
        for module in (REPOSITORY / "converters" / room).glob("[a-z]*.py"):
            assert module.name in file_map, module
    for link in re.findall(r"\]\((docs/[\w.]+)\)", README):
        assert (REPOSITORY / link).exists()
