"""A run's folder: recipe.yaml, plan.json, logs, checkpoints, and when it is done the model and result.json."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import Field

from mixstream.errors import StateError
from mixstream.formats import FileModel, dump_json, parse, read_json, write_whole
from mixstream.mixture.plan import Plan
from mixstream.runs.changes import changes_of
from mixstream.runs.recipe import RunRecipe, dump_yaml
from mixstream.runs.versions import note_versions

CHECKPOINT_NAME = "ba{batch}-rank{rank}.pt"


class Loss(FileModel):
    """A held-out loss as result.json tells it."""

    num_tokens: int
    nats_per_token: float
    bits_per_byte: float | None


class Result(FileModel):
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
        self.positions = path / "positions.jsonl"
        self.exposure = path / "exposure.parquet"
        self.loggers = path / "loggers"
        self.result = path / "result.json"
        self.versions = path / "versions.json"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"

    def check(self, recipe: RunRecipe, plan: Plan, migrate: bool = False) -> tuple[str, ...]:
        """Return in what the recipe and its streams differ from those that the run began with, a sentence each.

        Raises:
            StateError: they do, and that is not wanted (`migrate`), or no migration carries a run over to them.
        """
        if not self.recipe.exists():
            return ()
        planned = Plan.load(self.plan) if self.plan.exists() else None
        changes = changes_of(self._read_recipe(), recipe, planned, plan)
        if changes.told and not migrate:
            instead = "" if changes.fixed else "carry this run over to it (--migrate), "
            raise StateError(
                f"{self.path}: holds a run of another recipe: {'; '.join(changes.told[:3])}; {instead}choose another "
                f"folder (--out), or remove this one to begin anew"
            )
        if changes.fixed:
            raise StateError(
                f"{self.path}: this run cannot be carried over: {'; '.join(changes.fixed[:3])}; leave it as it was, or "
                f"choose another folder (--out)"
            )
        return changes.told

    def _read_recipe(self) -> RunRecipe:
        try:
            content = yaml.safe_load(self.recipe.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as problem:
            raise StateError(f"{self.recipe}: damaged ({problem}); remove {self.path} to begin anew") from None
        return parse(RunRecipe, content, str(self.recipe), f"remove {self.path} to begin anew")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against other processes; a folder in which nothing was written is removed again.

        Raises:
            StateError: another process runs here.
        """
        lock = self.path / ".lock"
        while True:
            self.path.mkdir(parents=True, exist_ok=True)
            file = lock.open("a+")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read() or "unknown"
                file.close()
                raise StateError(
                    f"{self.path}: process {holder} is running here; wait for it, or choose another folder (--out)"
                ) from None
            if lock.exists() and lock.stat().st_ino == os.fstat(file.fileno()).st_ino:
                break
            file.close()  # the one who held it has removed it: another file is the lock now
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            lock.unlink()
            file.close()
            with contextlib.suppress(OSError):
                self.path.rmdir()

    def begin(self, recipe: RunRecipe, plan: Plan) -> None:
        """Note what the run is."""
        write_whole(self.recipe, dump_yaml(recipe))
        plan.save(self.plan)  # again at each start: the streams may have been moved
        note_versions(self.versions)

    def keep(self, path: Path, batch: int, num_lines: int | None = None) -> None:
        """Copy a file of the run, if it is there, or its first lines, to a name that says up to which batch it held."""
        if not path.exists():
            return
        stem = f"{path.stem}-to-ba{batch}"
        stems = (f"{stem}-{number}" if number > 1 else stem for number in count(1))
        free = next(name for name in map(path.with_stem, stems) if not name.exists())
        write_whole(free, "".join(path.read_text(encoding="utf-8").splitlines(keepends=True)[:num_lines]))

    def end(self, result: Result) -> None:
        """Note how the run ended."""
        write_whole(self.result, dump_json(result))

    def read_result(self) -> Result | None:
        """Return how the run ended, or None where it has not."""
        remedy = "remove it, and `mixstream train` ends the run again"
        return read_json(self.result, Result, remedy) if self.result.exists() else None

    def newest_checkpoint(self) -> Path | None:
        """Return the newest checkpoint that was written to its end, or None where there is none yet.

        A checkpoint is a zip archive, whose directory comes last: one that a crash cut short has none.

        Raises:
            StateError: there are several, all of them damaged: not what a crash leaves.
        """
        found = self._checkpoints()
        whole = [path for path in found if zipfile.is_zipfile(path)]
        if len(found) > 1 and not whole:
            raise StateError(
                f"{self.checkpoints}: none of its {len(found)} checkpoints is whole; bring one back, or remove "
                f"{self.path} to begin anew"
            )
        return whole[-1] if whole else None

    def keep_only(self, checkpoint: Path | None) -> None:
        """Remove all checkpoints but one: older ones of earlier processes, and what a crash cut short."""
        for path in self._checkpoints():
            if path != checkpoint:
                path.unlink()

    def _checkpoints(self) -> list[Path]:
        """Return the checkpoints, the newest last."""
        named = [(re.fullmatch(r"ba(\d+)-rank0\.pt", path.name), path) for path in self.checkpoints.glob("*.pt")]
        return [path for _, path in sorted((int(match[1]), path) for match, path in named if match)]
