"""A run carried over to a changed recipe or changed streams: its newest checkpoint becomes one of the new plan.

The checkpoint is rewritten before a Trainer reads it, so that Composer's counters, the callbacks' and the loader's
agree, and a run that was carried over is a run like any other. Whichever step is the last before a crash, the same
command carries the run over again.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mixstream.errors import StateError
from mixstream.loader.migrate import migrate_state
from mixstream.loader.state import LoaderState, dump_state, read_state
from mixstream.mixture.plan import Plan
from mixstream.runs.folder import CHECKPOINT_NAME, RunFolder
from mixstream.runs.recipe import RunRecipe
from mixstream.streams.catalog import Stream


def migrate_run(folder: RunFolder, recipe: RunRecipe, plan: Plan, streams: Sequence[Stream]) -> None:
    """Carry the run in a folder over to another recipe and plan.

    The plan, recipe and result that held so far stay in the folder, under names that say up to which batch. Where
    the batch size has changed, so does what a batch is: the metrics so far are kept in that way too.

    Args:
        folder: of the run.
        recipe, plan: what to go on with.
        streams: the plan's, in its order.

    Raises:
        StateError: there is no checkpoint, it cannot be read or written, or its state cannot be carried over.
    """
    path = folder.newest_checkpoint()
    if path is None:
        raise StateError(
            f"{folder.checkpoints}: holds no whole checkpoint, so there is nothing to carry over; remove {folder.path} "
            f"to begin anew"
        )
    content = _read(path)
    text = content["state"]["dataset_state"]["train"]
    carried, differences = migrate_state(text, plan, streams)
    if differences:
        saved = read_state(text)
        if carried.ledger.batch >= plan.num_batches:
            raise StateError(
                f"{folder.path}: the run has read {carried.samples * plan.sequence_length:,} tokens, all of the new "
                f"plan's; raise mixture.budget_tokens, which is that of the whole run"
            )
        recounts = saved.plan.batch_size != plan.batch_size
        for file in (folder.plan, folder.recipe, folder.result):
            folder.keep(file, saved.batch)
        if recounts:
            folder.keep(folder.metrics, saved.batch, content["state"]["callbacks"]["RunLog"]["num_lines"])
        folder.result.unlink(missing_ok=True)
        carry_over(content, carried, plan, recounts)
        path = folder.checkpoints / CHECKPOINT_NAME.format(batch=carried.ledger.batch, rank=0)
        _write(content, path)
    folder.keep_only(path)
    folder.begin(recipe, plan)


def carry_over(content: dict[str, Any], carried: LoaderState, plan: Plan, recounts: bool) -> None:
    """Make a Composer checkpoint one of another plan, in place.

    Args:
        content: the checkpoint.
        carried: the loader's state there, carried over to `plan`.
        plan: the plan to go on with.
        recounts: whether batches are of another size, and so counted anew.
    """
    state = content["state"]
    batch, samples = carried.ledger.batch, carried.samples
    tokens = samples * plan.sequence_length
    # One run is one epoch, also one that had ended and goes on.
    state["timestamp"]["Timestamp"] |= {
        **dict.fromkeys(("epoch", "epoch_in_iteration"), 0),
        **dict.fromkeys(("batch", "batch_in_epoch"), batch),
        **dict.fromkeys(("sample", "sample_in_epoch"), samples),
        **dict.fromkeys(("token", "token_in_epoch", "token_in_iteration"), tokens),
    }
    state["dataset_state"]["train"] = dump_state(carried, plan)
    callbacks = state["callbacks"]
    bar = callbacks.get("ProgressBarLogger", {}).get("train_pbar")
    if bar:
        bar |= {"total": plan.num_batches, "n": batch}
    if recounts:
        callbacks["RunLog"] = {"num_lines": 0}
        callbacks["Heldout"] = {"logged_at": None}


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=False)  # as Composer does
    except (RuntimeError, ValueError, LookupError, EOFError, pickle.UnpicklingError) as problem:
        told = str(problem).strip().splitlines() or [type(problem).__name__]
        raise StateError(f"{path}: cannot be loaded ({told[0]}); remove it to go on from an older one") from None
    return content


def _write(content: dict[str, Any], path: Path) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        torch.save(content, part)
        part.replace(path)
    except (OSError, RuntimeError) as problem:
        part.unlink(missing_ok=True)
        told = str(problem).strip().splitlines()[0]
        raise StateError(f"{path}: cannot be written ({told}); make room, and give the same command again") from None
