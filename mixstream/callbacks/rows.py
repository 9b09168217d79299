"""Losses by row and by source, over all ranks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from composer.core import State
from composer.core.precision import get_precision_context
from composer.models import ComposerModel
from composer.utils import dist
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from mixstream.errors import ScoreError

Batch = dict[str, torch.Tensor]


def own_model(state: State) -> ComposerModel:
    """Return the model without the wrappers that reduce gradients over ranks or compile it."""
    model: torch.nn.Module = state.model
    while isinstance(model, (OptimizedModule, DistributedDataParallel)):
        model = model._orig_mod if isinstance(model, OptimizedModule) else model.module
    return cast(ComposerModel, model)


def microbatches(batch: Batch, state: State) -> Iterator[Batch]:
    """Yield a batch's rows as the run's microbatches take them; a batch without rows has none."""
    size, rows = state.device_train_microbatch_size, len(batch["stream"])
    step = max(1, int(size)) if isinstance(size, (int, float)) else max(1, rows)  # `auto` is not known yet
    for start in range(0, rows, step):
        yield {key: column[start : start + step] for key, column in batch.items()}


def row_losses(model: ComposerModel, batch: Batch) -> torch.Tensor:
    """Return the mean token loss of each row of a batch, (rows,), in nats/token.

    Raises:
        ScoreError: the model's loss is not one number a row.
    """
    return check_rows(model.loss(model(batch), batch), batch)


def check_rows(losses: Any, batch: Batch) -> torch.Tensor:
    """Return `losses` if there is one a row of `batch`.

    Raises:
        ScoreError: there is not.
    """
    rows = len(batch["stream"])
    shape = tuple(losses.shape) if isinstance(losses, torch.Tensor) else type(losses).__name__
    if shape != (rows,):
        raise ScoreError(
            f"the model's loss is {shape}, expected one number for each of {rows} rows: let its `loss` return "
            f"the mean token loss of every row (mixstream.runs.model.CausalLM does)"
        )
    return cast(torch.Tensor, losses)


@contextmanager
def measuring(state: State) -> Iterator[ComposerModel]:
    """Give the model in evaluation mode and at the run's precision, and put it back after."""
    with at_rest(state) as model, looking(state):
        yield model


@contextmanager
def at_rest(state: State) -> Iterator[ComposerModel]:
    """Give the model in evaluation mode and not compiled, and put each of its modules back in its own mode.

    Compiled code would be compiled once more for evaluation, and again for forward mode, to run a few times.
    """
    model = own_model(state)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.compiler.set_stance("force_eager"):
            yield model
    finally:
        for module, was_training in modes:
            module.training = was_training


@contextmanager
def looking(state: State) -> Iterator[None]:
    """Be at the run's precision, with no weight cast before or kept after, and leave random numbers as they were.

    Within one region autocast casts a weight once: after the weight has changed, it would go on with the old one.
    """
    gpus = [torch.cuda.current_device()] if state.device.name == "gpu" else []
    torch.clear_autocast_cache()  # of a region around this one
    try:
        with torch.random.fork_rng(devices=gpus), get_precision_context(state.precision, state.precision_config):
            yield
    finally:
        torch.clear_autocast_cache()


def sum_by_source(values: torch.Tensor, source: torch.Tensor, num_sources: int) -> torch.Tensor:
    """Return sums of `values` (n,) and counts by `source` (n,), as (2, num_sources) float64 on the CPU."""
    sums = torch.zeros(2, num_sources, dtype=torch.float64)
    source = source.cpu()
    sums[0].index_add_(0, source, values.detach().double().cpu())
    sums[1].index_add_(0, source, torch.ones(len(source), dtype=torch.float64))
    return sums


def over_ranks(values: torch.Tensor, state: State) -> torch.Tensor:
    """Return the sum of a tensor over all ranks, where it was.

    Sums and counts are reduced before they are divided: the mean is right however uneven the ranks are.
    """
    there = state.device.tensor_to_device(values.clone())
    dist.all_reduce(there, reduce_operation="SUM")
    return there.to(values.device)
