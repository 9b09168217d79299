"""One run: a recipe and streams become a Composer Trainer, trained to its end or on from a checkpoint."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from composer import Trainer
from composer.core import Callback, Event
from composer.utils import dist, get_device

from mixstream.callbacks.exposure import Exposure
from mixstream.callbacks.heldout import Heldout, HeldoutLoss, by_language
from mixstream.callbacks.ledger import ExposureFile
from mixstream.callbacks.pace import Pace
from mixstream.callbacks.positions import Positions
from mixstream.callbacks.traffic import StoreTraffic
from mixstream.errors import RecipeError, StateError
from mixstream.loader import MixtureLoader
from mixstream.loader.dataloader import WEIGHT_LAG
from mixstream.mixture.build import build_plan
from mixstream.mixture.plan import Plan
from mixstream.mixture.simplex import Float64
from mixstream.runs.cache import CacheNeeds, cache_needs, open_store
from mixstream.runs.folder import Loss, Result, RunFolder
from mixstream.runs.learning import (
    check_method,
    check_reference,
    first_weights,
    learner_of,
    learning_callbacks,
    plan_probe,
    targets_of,
)
from mixstream.runs.loggers import check_loggers
from mixstream.runs.migrate import migrate_run
from mixstream.runs.model import check_model
from mixstream.runs.pretrained import tokenizer_files
from mixstream.runs.recipe import MixtureRecipe, RunRecipe
from mixstream.runs.saving import save_model
from mixstream.runs.trainer import make_trainer
from mixstream.streams.catalog import Catalog
from mixstream.streams.place import find_place


@dataclass(frozen=True)
class Run:
    """A run that was planned and not yet started.

    Attributes:
        start: (K,) weights that learning begins with, as if all streams were there from the first.
        changes: in what it differs from the run that the folder holds, which is to be carried over; a sentence each.
        probe: plan of what weights are learnt from, if they are.
        is_cached: whether shards come through a cache.
    """

    recipe: RunRecipe
    plan: Plan
    catalog: Catalog
    folder: RunFolder
    start: Float64
    changes: tuple[str, ...] = ()
    probe: Plan | None = None
    is_cached: bool = False


def plan_run(recipe: RunRecipe, streams: str | Path, out: Path, migrate: bool = False) -> Run:
    """Decide what a run reads, and check all that can be checked before it; nothing is written.

    Args:
        recipe: what to run.
        streams: the folder of streams, or its URL.
        out: the run's folder.
        migrate: whether a run there that began with another recipe or other streams is to be carried over.

    Raises:
        MixstreamError: whatever is wrong with the streams, the mixture, the recipe or the folder.
    """
    check_apart(streams, out)
    catalog = Catalog.open(streams, token_column=recipe.mixture.token_column)
    planned = plan_mixture(recipe, catalog)
    folder = RunFolder(out)
    changes = folder.check(recipe, planned.plan, migrate)
    is_cached = planned.needs.total > 0
    return Run(recipe, planned.plan, catalog, folder, planned.start, changes, planned.probe, is_cached)


def check_apart(streams: str | Path, out: Path) -> None:
    """Refuse to write a run among the streams, or over a folder that holds them.

    Raises:
        StateError: one of the two folders lies in the other.
        RemoteError: streams are named by a URL that is refused.
    """
    place = find_place(streams)
    if not isinstance(place, Path):
        return
    folder, out = place.resolve(), out.resolve()
    if folder == out or folder in out.parents or out in folder.parents:
        raise StateError(f"{out}: the run's folder and the streams' ({folder}) lie in one another; choose another")


class Planned(NamedTuple):
    """What was decided of a run: its plan, the weights that learning begins with, its probes, its cache's needs."""

    plan: Plan
    start: Float64
    probe: Plan | None
    needs: CacheNeeds


def plan_mixture(recipe: RunRecipe, catalog: Catalog) -> Planned:
    """Return what a run reads and needs, if it can be run.

    Raises:
        MixstreamError: whatever is wrong with the streams, the mixture or the recipe.
    """
    plan = _plan(recipe.mixture, catalog, recipe.seed)
    start, probe, method = plan.weights, None, recipe.method
    if method is not None:
        first = first_weights(method, plan)
        if first is not None:
            plan = _plan(recipe.mixture.model_copy(update={"weights": first}), catalog, recipe.seed)
    _check_layouts(plan, catalog)
    _check_lengths(recipe, plan)
    _check_device(recipe)
    check_loggers(recipe.loggers)
    tokenizer = check_model(recipe.model, plan)
    if method is not None:
        check_reference(method, plan, tokenizer)
        learner_of(method, plan, start)
        targets_of(method, plan, start)
        probe = plan_probe(method, plan, catalog)
    return Planned(plan, start, probe, cache_needs(recipe, plan, probe, catalog))


def _plan(mixture: MixtureRecipe, catalog: Catalog, seed: int) -> Plan:
    return build_plan(
        catalog,
        weights=mixture.weights,
        budget_tokens=mixture.budget_tokens,
        batch_size=mixture.batch_size,
        max_repeats=mixture.max_repeats,
        floor=mixture.floor,
        sequence_length=mixture.sequence_length,
        schedule=mixture.schedule,
        lanes=mixture.lanes,
        window_samples=mixture.window_samples,
        seed=seed,
    )


def _check_layouts(plan: Plan, catalog: Catalog) -> None:
    """Refuse streams with padding, which `CausalLM` would learn to write."""
    padded = [name for name in plan.streams if catalog[name].layout == "documents"]
    if padded:
        raise RecipeError(
            f"samples of {', '.join(padded[:3])} are a document and its padding each, and a recipe's model learns from "
            f"every token of a sample; convert them packed, or train a model of your own on MixtureLoader's labels"
        )


def _check_lengths(recipe: RunRecipe, plan: Plan) -> None:
    """Refuse a run that is too short for what it is to do, or that its processes cannot share."""
    training, ranks = recipe.training, dist.get_world_size()
    if training.warmup_batches >= plan.num_batches:
        raise RecipeError(
            f"training.warmup_batches is {training.warmup_batches}, but the run has {plan.num_batches} batches; "
            f"lower it or raise mixture.budget_tokens"
        )
    if plan.batch_size % ranks:
        raise RecipeError(f"mixture.batch_size is {plan.batch_size}, which {ranks} processes cannot share evenly")
    if recipe.method is not None:
        check_method(recipe.method, plan, training.weight_lag)


def _check_device(recipe: RunRecipe) -> None:
    if recipe.training.device == "gpu" and not torch.cuda.is_available():
        raise RecipeError("training.device is 'gpu', but torch finds none; use 'cpu'")
    if recipe.training.fsdp is not None and dist.get_world_size() == 1:
        raise RecipeError(
            "training.fsdp shards the model over processes, but there is one; start several (composer -n 8 "
            "recipes/train.py RECIPE), or leave it out"
        )


def train(run: Run) -> Result:
    """Train a planned run to its end, from its newest checkpoint if there is one, carried over if it has changed.

    Returns:
        How it ended; at once, where it had ended before.

    Raises:
        MixstreamError: whatever is wrong with the streams or the checkpoint, or another process runs here.
    """
    dist.initialize_dist(get_device(run.recipe.training.device))
    _share_cores()
    is_first = dist.get_global_rank() == 0
    dist.barrier()  # every rank has looked at the folder: now it may change
    with run.folder.locked() if is_first else contextlib.nullcontext():
        if run.changes and is_first:
            migrate_run(run.folder, run.recipe, run.plan, [run.catalog[name] for name in run.plan.streams])
        dist.barrier()
        done = run.folder.read_result()
        if done is not None:
            return done
        result = _train(run, is_first)
        if is_first:
            run.folder.end(result)
        dist.barrier()
        return result


def _train(run: Run, is_first: bool) -> Result:
    started = time.perf_counter()
    training = run.recipe.training
    with contextlib.ExitStack() as closing:
        loader = _loader(run, run.plan, num_workers=training.num_workers, weight_lag=training.weight_lag)
        closing.callback(loader.close)
        store = open_store(run.recipe)
        closing.callback(store.close)
        heldout = Heldout(
            run.catalog.heldout(),
            training.microbatch_size,
            training.heldout_batches,
            training.heldout_samples,
            sequence_length=run.plan.sequence_length,
            store=store,
        )
        callbacks: list[Callback] = [Exposure(loader, training.log_batches), heldout]
        callbacks.append(Positions(loader, training.checkpoint_batches, run.folder.positions))
        callbacks.append(ExposureFile(loader, run.folder.exposure, training.checkpoint_batches))
        others: list[Heldout | MixtureLoader] = [heldout]
        if run.recipe.method is not None:
            probe = _loader(run, run.probe) if run.probe else None
            if probe is not None:
                closing.callback(probe.close)
                others.append(probe)
            callbacks += learning_callbacks(run.recipe.method, run.start, loader, probe, run.folder.weights)
        if run.is_cached:
            of_run = run.plan.streams, training.log_batches, run.plan.num_batches
            callbacks.append(StoreTraffic([loader, *others], *of_run))
        callbacks.append(Pace(loader, others, training.log_batches))
        samples = _train_on(run, loader, callbacks, is_first)
    return _result(run, loader.ledger().batch, samples, heldout.losses, time.perf_counter() - started)


def _train_on(run: Run, loader: MixtureLoader, callbacks: list[Callback], is_first: bool) -> int:
    """Train to the end; return the samples that were trained on."""
    checkpoint = run.folder.newest_checkpoint()
    trainer = make_trainer(run, loader, callbacks, checkpoint)
    try:
        if is_first:
            run.folder.keep_only(checkpoint)
            run.folder.begin(run.recipe, run.plan)
        dist.barrier()
        if trainer.state.timestamp.epoch < 1:
            _fit(trainer, run.folder)
        else:  # cut after its last checkpoint, before its result was written
            for event in (Event.FIT_START, Event.FIT_END):
                trainer.engine.run_event(event)
        _save_model(trainer, run)
    finally:
        trainer.close()  # type: ignore[no-untyped-call]
    return int(trainer.state.timestamp.sample)


def _loader(run: Run, plan: Plan, num_workers: int = 0, weight_lag: int = WEIGHT_LAG) -> MixtureLoader:
    training = run.recipe.training
    return MixtureLoader(
        plan,
        num_workers=num_workers,
        cache_dir=training.cache_dir,
        cache_limit=training.cache_limit,
        weight_lag=weight_lag,
        verify_hashes=training.verify_hashes,
        pin_memory=training.device == "gpu",
        labels=False,  # `CausalLM` needs none
    )


def _fit(trainer: Trainer, folder: RunFolder) -> None:
    """Train to the end.

    Raises:
        StateError: a checkpoint cannot be written.
    """
    try:
        trainer.fit()
    except RuntimeError as problem:
        if not any(writer in str(problem) for writer in ("inline_container", "PytorchStreamWriter")):
            raise
        raise StateError(
            f"{folder.checkpoints}: a checkpoint could not be written (the disk may be full); make room, and the "
            f"same command goes on from the one before"
        ) from None


def _save_model(trainer: Trainer, run: Run) -> None:
    assert run.plan.tokenizer is not None, "the model's vocabulary is from it"
    pretrained = run.recipe.model.pretrained
    save_model(trainer.state, run.folder.model, run.plan.tokenizer, tokenizer_files(pretrained) if pretrained else ())


def _share_cores() -> None:
    """Give each of a node's processes its share of the cores, where the user has not."""
    ranks = dist.get_local_world_size()
    if ranks > 1 and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // ranks))


def _result(run: Run, batches: int, samples: int, losses: dict[str, HeldoutLoss], seconds: float) -> Result:
    languages = {entry.name: entry.language or entry.name for entry in run.plan.entries}
    return Result(
        batches=batches,
        tokens=samples * run.plan.sequence_length,
        seconds=seconds,
        ranks=dist.get_world_size(),
        heldout={name: _told(loss) for name, loss in losses.items()},
        languages={name: _told(loss) for name, loss in by_language(losses, languages).items()},
    )


def _told(loss: HeldoutLoss) -> Loss:
    return Loss(num_tokens=loss.num_tokens, nats_per_token=loss.nats_per_token, bits_per_byte=loss.bits_per_byte)
