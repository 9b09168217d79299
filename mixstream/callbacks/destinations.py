"""Composer's own loggers, so that a run that goes on is still one run in each of them."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

from composer.core import State
from composer.loggers import FileLogger, Logger, LoggerDestination, MLFlowLogger, TensorboardLogger, WandBLogger
from composer.utils import dist

from mixstream.errors import RecipeError
from mixstream.formats import write_whole

RUN_ID = "MLFLOW_RUN_ID"  # MLflow's own variable


class RunTensorboard(TensorboardLogger):
    """TensorBoard, which hides what the run had logged after the checkpoint that it goes on from."""

    def fit_start(self, state: State, logger: Logger) -> None:
        """Begin another event file, that says from which step on older ones do not count."""
        from torch.utils.tensorboard import SummaryWriter

        batch = int(state.timestamp.batch)
        if batch and self.writer is not None:
            folder = self.writer.get_logdir()  # type: ignore[no-untyped-call]
            self.writer.close()  # type: ignore[no-untyped-call]
            self.writer = SummaryWriter(folder, purge_step=batch + 1)  # type: ignore[no-untyped-call]


class RunWandb(WandBLogger):
    """Weights & Biases, where a run keeps the id that it began with; with clients newer than those Composer knows."""

    def __init__(
        self, folder: Path, project: str, entity: str | None, group: str | None, tags: tuple[str, ...], mode: str
    ) -> None:
        """Log to W&B, or if `mode` is ``offline`` to `folder`, which holds the id."""
        super().__init__(project)
        self._folder = folder
        self._own: dict[str, Any] = {
            "project": project,
            "entity": entity,
            "group": group,
            "tags": list(tags) or None,
            "mode": mode,
        }
        if mode == "online":
            self._own["resume"] = "allow"

    def init(self, state: State, logger: Logger) -> None:
        """Go on with the run of that id, or begin one, on rank 0."""
        if dist.get_global_rank() > 0:
            return
        import wandb

        kept = self._folder / "run_id"
        if not kept.exists():
            write_whole(kept, uuid4().hex[:12])
        number = kept.read_text(encoding="utf-8")
        run = wandb.init(id=number, name=state.run_name, dir=str(self._folder), **self._own)
        self.run_dir, self.run_url, self.entity, self.project = run.dir, run.url, run.entity, run.project
        atexit.register(self._set_is_in_atexit)  # W&B ends the run itself then


class RunMlflow(MLFlowLogger):
    """MLflow, where a run keeps the id that it began with, and is told no step twice."""

    def __init__(self, folder: Path, tracking_uri: str | None, experiment: str) -> None:
        """Log to a server, or to `folder`, which holds the id."""
        self._id = folder / "run_id"
        self._last_steps: dict[str, int] = {}  # of each name, as MLflow has them of a run that goes on
        uri = tracking_uri or (folder / "store").resolve().as_uri()
        super().__init__(
            experiment_name=experiment,
            tracking_uri=uri,
            log_system_metrics=False,
            log_duplicated_metric_every_n_steps=1,  # a number that stays the same is told too
        )

    def init(self, state: State, logger: Logger) -> None:
        """Go on with the run of that id, or begin one."""
        import mlflow

        kept = self._id.read_text(encoding="utf-8") if self._id.exists() else None
        with _environment(RUN_ID, os.environ.get(RUN_ID, kept)):
            super().init(state, logger)
        active = mlflow.active_run()
        if active is not None:  # of rank 0
            write_whole(self._id, active.info.run_id)
            known: Any = mlflow.MlflowClient(self.tracking_uri).get_run(active.info.run_id).data
            self._last_steps = {metric.key: metric.step for metric in known.to_proto().metrics}

    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        """Log what MLflow does not have: of batches after the checkpoint, which come again, it may have some."""
        step = step or 0
        new = {name: value for name, value in metrics.items() if step > self._last_steps.get(name, -1)}
        super().log_metrics(new, step)

    def state_dict(self) -> dict[str, Any]:
        """Write what still waits to be: a run that goes on from this checkpoint does not log it again."""
        import mlflow

        if dist.get_global_rank() == 0:
            mlflow.flush_async_logging()
        return {}


@contextmanager
def _environment(name: str, value: str | None) -> Iterator[None]:
    before = os.environ.get(name)
    if value is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)


def tensorboard(log_dir: Path, flush_batches: int) -> LoggerDestination:
    """Return a logger to event files in a folder of the run's name in `log_dir`."""
    return RunTensorboard(str(log_dir), flush_interval=flush_batches)


def text(folder: Path) -> LoggerDestination:
    """Return a logger to a text file of this rank, another at each start."""
    stem = f"log-rank{dist.get_global_rank()}"
    names = (f"{stem}.txt" if number == 1 else f"{stem}-{number}.txt" for number in count(1))
    path = next(path for path in (folder / name for name in names) if not path.exists())
    plain = str(path).replace("{", "{{").replace("}", "}}")  # Composer fills in what is in braces
    return FileLogger(plain, capture_stdout=False, capture_stderr=False, log_traces=False)


@contextmanager
def told() -> Iterator[None]:
    """Turn a refusal of Weights & Biases or of MLflow into an error of ours.

    Raises:
        RecipeError: what it said.
    """
    try:
        yield
    except _refusals() as problem:
        name = type(problem).__module__.partition(".")[0]
        lines = str(problem).strip().splitlines() or [type(problem).__name__]
        raise RecipeError(
            f"loggers.{name}: {lines[0]}; see to it, or take it out of the recipe: the same command goes on"
        ) from None


def _refusals() -> tuple[type[Exception], ...]:
    """Return what the loggers that are loaded raise."""
    found: list[type[Exception]] = []
    if "wandb" in sys.modules:
        from wandb.errors import Error

        found.append(Error)
    if "mlflow" in sys.modules:
        from mlflow.exceptions import MlflowException

        found.append(MlflowException)
    return tuple(found)
