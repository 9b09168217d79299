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
from torch.nn.parallel import DistributedDataParallel

from mixstream.errors import ScoreError

Batch = dict[str, torch.Tensor]


def own_model(state: State) -> ComposerModel:
    """Return the model without the wrapper that reduces gradients over ranks."""
    model = state.model
    return cast(ComposerModel, model.module if isinstance(model, DistributedDataParallel) else model)


def row_losses(model: ComposerModel, batch: Batch) -> torch.Tensor:
    """Return the mean token loss of each row of a batch, (rows,), in nats/token.

    Raises:
        ScoreError: the model's loss is not one number a row.
    """
    return check_rows(model.loss(model.forward(batch), batch), batch)


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
    model = own_model(state)
    was_training = model.training
    model.eval()
    try:
        with get_precision_context(state.precision):
            yield model
    finally:
        model.train(was_training)


def microbatches(batch: Batch, state: State) -> Iterator[Batch]:
    """Yield a batch in parts of as many rows as training takes at a time."""
    size = state.device_train_microbatch_size
    rows = len(batch["stream"])
    for start in range(0, rows, int(size) if isinstance(size, int | float) else max(1, rows)):
        yield {
            key: column[start : start + int(size)] if isinstance(size, int | float) else column
            for key, column in batch.items()
        }


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
