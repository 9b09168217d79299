"""A run's folder: recipe.yaml, plan.json, logs, checkpoints, and result.json when it is done."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field

from mixstream.errors import StateError
from mixstream.formats import Document, dump_json, parse, read_json, write_whole
from mixstream.mixture.plan import Plan
from mixstream.runs.recipe import RunRecipe, all_keys, dump_yaml

CHECKPOINT_NAME = "ba{batch}-rank{rank}.pt"

# What a run may change when it goes on: none of it changes which samples are read.
MAY_CHANGE = (
    "training.device",
    "training.num_workers",
    "training.microbatch_size",
    "training.checkpoint_batches",
)


class Loss(Document):
    """A held-out loss as result.json tells it."""

    num_tokens: int
    nats_per_token: float
    bits_per_byte: float | None


class Result(Document):
    """result.json: how a run ended.

    Attributes:
        batches, tokens: what was read.
        seconds: wall time of the process that ended it; of all of it, if the run was never interrupted.
        ranks: processes.
        heldout: loss by stream.
        languages: loss by language.
    """

    format: Literal["mixstream.result"] = "mixstream.result"
    version: Literal[1] = 1
    batches: int
    tokens: int
    seconds: Annotated[float, Field(ge=0)]
    ranks: int
    heldout: dict[str, Loss]
    languages: dict[str, Loss]


class RunFolder:
    """The places of one run, and what may be done there."""

    def __init__(self, path: Path) -> None:
        """Describe the run in `path`."""
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.plan = path / "plan.json"
        self.weights = path / "weights.jsonl"
        self.metrics = path / "metrics.jsonl"
        self.result = path / "result.json"
        self.checkpoints = path / "checkpoints"

    def check(self, recipe: RunRecipe, plan: Plan) -> None:
        """Refuse to go on with another recipe or other streams than the run began with.

        Raises:
            StateError: the first keys that differ, with both values.
        """
        if not self.recipe.exists():
            return
        saved = parse(RunRecipe, yaml.safe_load(self.recipe.read_text(encoding="utf-8")), str(self.recipe))
        before, now = all_keys(saved), all_keys(recipe)
        keys = [k for k in now.keys() | before.keys() if before.get(k) != now.get(k) and k not in MAY_CHANGE]
        told = [f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in sorted(keys)]
        if not told and self.plan.exists() and Plan.load(self.plan).identity != plan.identity:
            told = ["its streams have changed since"]
        if told:
            raise StateError(
                f"{self.path}: holds a run of another recipe: {'; '.join(told[:3])}; choose another folder "
                f"(--out), or remove this one to begin anew"
            )

    def begin(self, recipe: RunRecipe, plan: Plan) -> None:
        """Note what the run is."""
        write_whole(self.recipe, dump_yaml(recipe))
        if not self.plan.exists():
            plan.save(self.plan)

    def end(self, result: Result) -> None:
        """Note how the run ended."""
        write_whole(self.result, dump_json(result))

    def read_result(self) -> Result | None:
        """Return how the run ended, or None where it has not."""
        return read_json(self.result, Result, "") if self.result.exists() else None

    def newest_checkpoint(self) -> Path | None:
        """Return the newest checkpoint that was written to its end.

        A checkpoint is a zip archive, whose directory comes last: one that a crash cut short has none.
        """
        found = [
            (int(match[1]), path)
            for path in self.checkpoints.glob("ba*-rank0.pt")
            if (match := re.match(r"ba(\d+)-", path.name)) and zipfile.is_zipfile(path)
        ]
        return max(found)[1] if found else None
