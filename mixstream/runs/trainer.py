"""A run's recipe and loader become a Composer Trainer, with its loggers, at its checkpoint."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Protocol

import torch
from composer import Trainer
from composer.algorithms import GradientClipping
from composer.core import Callback
from composer.loggers import LoggerDestination
from composer.optim import CosineAnnealingWithWarmupScheduler
from composer.utils import dist
from composer.utils.parallelism import FSDP2Config

from mixstream.callbacks import destinations
from mixstream.callbacks.logs import RunLog
from mixstream.errors import MixstreamError, StateError
from mixstream.loader import MixtureLoader
from mixstream.mixture.plan import Plan
from mixstream.runs.folder import CHECKPOINT_NAME, RunFolder
from mixstream.runs.model import build_model
from mixstream.runs.recipe import RunRecipe
from mixstream.runs.sections import FsdpRecipe


class Running(Protocol):
    """What is trained: a `Run`."""

    @property
    def recipe(self) -> RunRecipe:
        """What was asked."""

    @property
    def plan(self) -> Plan:
        """What it reads."""

    @property
    def folder(self) -> RunFolder:
        """Where it is kept."""


def make_trainer(run: Running, loader: MixtureLoader, callbacks: list[Callback], checkpoint: Path | None) -> Trainer:
    """Return the Trainer of a run, with the checkpoint loaded.

    Raises:
        StateError: the checkpoint is damaged, or of another plan or model.
    """
    try:
        with destinations.told():
            return _build_trainer(run, loader, callbacks, checkpoint)
    except MixstreamError:
        raise
    except (RuntimeError, ValueError, LookupError, EOFError, pickle.UnpicklingError) as problem:
        if checkpoint is None:
            raise
        told = str(problem).strip().splitlines() or [type(problem).__name__]
        raise StateError(
            f"{checkpoint}: cannot be loaded ({told[0]}); remove it to go on from an older one, or remove "
            f"{run.folder.path} to begin anew"
        ) from None


def _build_trainer(run: Running, loader: MixtureLoader, callbacks: list[Callback], checkpoint: Path | None) -> Trainer:
    training = run.recipe.training
    model = build_model(run.recipe.model, run.plan, run.recipe.seed)
    return Trainer(
        model=model,
        train_dataloader=loader,
        max_duration="1ep",  # a run is one epoch: it ends when the plan does
        optimizers=torch.optim.AdamW(
            model.parameters(),
            lr=training.learning_rate,
            weight_decay=training.weight_decay,
            betas=(0.9, 0.95),
        ),
        schedulers=CosineAnnealingWithWarmupScheduler(
            t_warmup=f"{training.warmup_batches}ba", alpha_f=training.final_learning_rate
        ),
        algorithms=[GradientClipping(clipping_type="norm", clipping_threshold=training.max_grad_norm)],
        callbacks=callbacks,
        loggers=[RunLog(run.folder.metrics), *_loggers(run)],
        device=training.device,
        precision=training.precision,
        parallelism_config={"fsdp": _fsdp(training.fsdp)} if training.fsdp else None,
        compile_config={} if training.compile else None,
        device_train_microbatch_size=min(training.microbatch_size, run.plan.batch_size // dist.get_world_size()),
        seed=run.recipe.seed,
        run_name=run.folder.path.name,
        save_folder=str(run.folder.checkpoints),
        save_filename=CHECKPOINT_NAME,
        save_latest_filename=None,
        save_interval=f"{training.checkpoint_batches}ba",
        save_num_checkpoints_to_keep=2,
        save_overwrite=True,
        load_path=str(checkpoint) if checkpoint else None,
        progress_bar=True,
    )


def _loggers(run: Running) -> list[LoggerDestination]:
    """Return the loggers that the recipe asks for; what they write here is in RUN/loggers."""
    asked, folder = run.recipe.loggers, run.folder.loggers
    found: list[LoggerDestination] = []
    if asked is None:
        return found
    if asked.tensorboard is not None:
        log_dir = Path(asked.tensorboard.log_dir or folder / "tensorboard")
        found.append(destinations.tensorboard(log_dir, run.recipe.training.log_batches))
    if asked.wandb is not None:
        found.append(destinations.RunWandb(folder / "wandb", **asked.wandb.model_dump()))
    if asked.mlflow is not None:
        found.append(destinations.RunMlflow(folder / "mlflow", **asked.mlflow.model_dump()))
    if asked.file is not None:
        found.append(destinations.text(folder))
    return found


def _fsdp(recipe: FsdpRecipe) -> FSDP2Config:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FSDP2 Config/APIs are experimental")
        return FSDP2Config(**recipe.model_dump())
