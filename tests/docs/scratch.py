"""Where a page's blocks run: a folder with small recipes, and what the page asks to be given."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from conftest import ENVIRONMENT, REPOSITORY

SECONDS = 400  # of a block, on a machine that does other things too
_SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_layers": 1,
    "num_heads": 2,
    "warmup_batches": 1,
    "microbatch_size": 16,
    "checkpoint_batches": 4,
    "log_batches": 2,
    "heldout_batches": 4,
    "heldout_samples": 4,
    "interval_batches": 2,
    "sequences_per_stream": 2,
    "last_batches": 4,
    "batch_size": 16,
    "budget_tokens": 8 * 16 * 128,
    "max_repeats": 60,
    "target_tokens": 20_000,
    "min_samples": 1,
    "budgets": [8_192, 16_384],
    "alone": [4_096, 8_192, 16_384],
    "seeds": [1],
}


def small(recipe: Any) -> Any:
    """Return a recipe that trains in seconds: the same keys, with small numbers."""
    if not isinstance(recipe, Mapping):
        return recipe
    made = {key: _SMALL[key] if key in _SMALL and value is not None else small(value) for key, value in recipe.items()}
    if "models" in made:  # of proxies: one size will do
        made["models"] = dict(list(made["models"].items())[:1])
    return made


class Scratch:
    """A folder in which blocks run one after the other, with what they exported.

    Attributes:
        folder: the blocks' working directory.
        printed: what the newest block printed, its errors included.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.printed = ""
        paths = [str(REPOSITORY), *filter(None, [ENVIRONMENT.get("PYTHONPATH")])]
        self._environment = {
            **ENVIRONMENT,
            **(environment or {}),
            "PATH": f"{Path(sys.executable).parent}:{ENVIRONMENT['PATH']}",
            "PYTHONPATH": ":".join(paths),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "120",
        }
        shutil.copytree(REPOSITORY / "recipes", folder / "recipes", ignore=shutil.ignore_patterns("__pycache__"))
        for path in (folder / "recipes").glob("*.yaml"):
            path.write_text(yaml.safe_dump(small(yaml.safe_load(path.read_text())), sort_keys=False))
        if (REPOSITORY / "examples").is_dir():
            (folder / "examples").symlink_to(REPOSITORY / "examples")

    def save(self, name: str, content: str) -> None:
        """Save a block under its title."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def bash(self, code: str, exits: int = 0) -> None:
        """Run commands; what they export holds for the next."""
        exported = self.folder / ".exported"
        before = f". {exported}\n" if exported.exists() else ""
        self._run(["bash", "-euo", "pipefail", "-c", f"{before}{code}\nexport -p > {exported}"], exits)

    def python(self, code: str, exits: int = 0) -> None:
        """Run a program of its own."""
        self.save(".block.py", code)
        self._run([sys.executable, ".block.py"], exits)

    def _run(self, command: list[str], exits: int) -> None:
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        self.printed = done.stdout
        assert done.returncode == exits, f"exit code {done.returncode}, not {exits}:\n{done.stdout[-4000:]}"
