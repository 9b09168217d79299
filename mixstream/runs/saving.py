"""The trained model as a Hugging Face folder: there whole or not at all."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from composer.core import State
from composer.utils import dist
from safetensors import SafetensorError
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from mixstream.callbacks.rows import own_model
from mixstream.errors import StateError
from mixstream.formats import dump_json, write_whole
from mixstream.runs.pretrained import NOTE_NAME, ModelNote
from mixstream.streams.manifest import TokenizerInfo


def save_model(state: State, folder: Path, tokenizer: TokenizerInfo, files: Iterable[Path] = ()) -> None:
    """Write the model that was trained, as `transformers` reads it; one that was there is replaced.

    All ranks call it, since each may hold a part of the model; rank 0 writes. Whatever is killed in its course,
    `folder` is the old model, or nothing, or the new one.

    Args:
        state: Composer's.
        folder: where to.
        tokenizer: what made the tokens that it has learnt.
        files: more to lay beside it: the tokenizer's.

    Raises:
        StateError: it cannot be written.
    """
    model: Any = own_model(state).model
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: dict[str, Any] = get_model_state_dict(model, options=options)  # of all ranks, on rank 0
    if dist.get_global_rank() == 0:
        made = folder.with_name(f".{folder.name}.making")
        try:
            shutil.rmtree(made, ignore_errors=True)  # of a run that was killed
            _write(model, _with_ties(model, weights), made)
            for file in files:
                shutil.copyfile(file, made / file.name)
            write_whole(made / NOTE_NAME, dump_json(ModelNote(tokenizer=tokenizer)))
            _put_in_place(made, folder)
        except (OSError, SafetensorError) as problem:
            told = str(problem).strip().splitlines()[0]
            raise StateError(
                f"{folder}: the trained model cannot be written ({told}); make room, and the same command writes it"
            ) from None
    dist.barrier()


def _write(model: Any, weights: dict[str, Any], folder: Path) -> None:
    model.save_pretrained(folder, state_dict=weights, safe_serialization=True)
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__.removeprefix("FSDP")]  # FSDP gives it a class of its own
    config.save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        shutil.copymode(folder / "config.json", path)  # it is written for its owner alone


def _with_ties(model: torch.nn.Module, weights: dict[str, Any]) -> dict[str, Any]:
    """Return the weights such that those that are one in the model are one here: they are written once."""
    first: dict[int, str] = {}
    one = {name: first.setdefault(id(weight), name) for name, weight in model.named_parameters(remove_duplicate=False)}
    return {name: weights[one.get(name, name)] for name in weights}


def _put_in_place(made: Path, final: Path) -> None:
    for path in [*made.iterdir(), made]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # a machine that stops must not leave their names alone
        finally:
            os.close(descriptor)
    replaced = final.with_name(f".{final.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if final.exists():
        final.rename(replaced)
    made.rename(final)
    shutil.rmtree(replaced, ignore_errors=True)
