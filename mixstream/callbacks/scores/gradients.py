"""The aggregate direction G = sum_j t_j grad l_j of a probe batch, by one backward pass.

    l_j = mean over the rows of source j, of all ranks, of the row's mean token loss
    G   = grad sum_j t_j l_j = sum over ranks of grad sum_rows (t_j / n_j) loss_row ,  n_j rows on all ranks

Plain and under DDP the gradient is taken below the wrapper, so that none of its hooks fires, and summed over
ranks by one reduction. Under FSDP2 only its own backward can reach the shards, and what that gives is G times
a factor: averaged over ranks by NCCL, 1 / ranks; summed by gloo, 1. The factor is measured, once a process.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from composer.core import State
from composer.models import ComposerModel
from composer.utils import dist

from mixstream.callbacks.rows import Batch, looking, over_ranks, row_losses
from mixstream.callbacks.scores.differences import losses_along, wanted_change
from mixstream.callbacks.scores.parameters import (
    Direction,
    check_sharding,
    empty_direction,
    is_sharded,
    local,
    reshard,
    squared_norm,
    trainable,
)
from mixstream.callbacks.scores.probes import Part, Probe, check_counts, probe_of
from mixstream.errors import ScoreError
from mixstream.mixture.simplex import Float64

NEAR = math.sqrt(2)  # a measured factor is taken for one that it differs by less from


class AggregateGradient:
    """Takes G, and remembers by how much this process' sharding scales gradients."""

    def __init__(self) -> None:
        """Nothing is known yet of the factor."""
        self._factor: float | None = None

    def measure(self, state: State, model: ComposerModel, batch: Batch, targets: Float64) -> Direction:
        """Return G of a probe batch over all ranks; the parameters' own gradients stay as they are.

        Args:
            state: Composer's.
            model: at rest.
            batch: this rank's rows.
            targets: (K,) t; a source with t = 0 need not be in the batch.

        Raises:
            ScoreError: a source has no row, the model's loss is not one number a row, or it is sharded in a way
                that is not known.
        """
        check_sharding(model)
        reshard(model)
        probe = probe_of(state, model, batch, len(targets))
        wanted = torch.as_tensor(targets, dtype=torch.float64)
        counts = over_ranks(probe.counts, state)
        check_counts(counts, wanted != 0)
        weights = wanted / counts.clamp(min=1)
        if not is_sharded(model):
            return _whole_gradient(state, model, probe, weights)
        found = _sharded_gradient(state, model, probe, weights)
        if not math.isfinite(found.squared_norm) or found.squared_norm == 0:
            return found
        if self._factor is None:
            self._factor = _factor(state, model, probe, targets, found)
        return found.divided(self._factor)


def weighted_loss(state: State, model: ComposerModel, part: Part, weights: torch.Tensor) -> torch.Tensor:
    """Return the sum of a microbatch's row losses, each times its source's weight (K,)."""
    with looking(state):
        losses = row_losses(model, state.device.batch_to_device(part.batch))
    by_row = torch.zeros(len(losses), dtype=weights.dtype)
    by_row[: part.rows] = weights[part.stream.cpu()]
    return (losses * by_row.to(losses)).sum()


def add_gradient(parts: list[torch.Tensor], loss: torch.Tensor, parameters: list[torch.nn.Parameter]) -> None:
    """Add the gradient of a loss to `parts`, past `.grad` and its hooks; an unused parameter has none."""
    if not loss.requires_grad:
        return
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = [(part, one) for part, one in zip(parts, gradients, strict=True) if one is not None]
    if pairs:
        torch._foreach_add_([part for part, _ in pairs], [one.to(part.dtype) for part, one in pairs])


def _whole_gradient(state: State, model: ComposerModel, probe: Probe, weights: torch.Tensor) -> Direction:
    parameters = trainable(model)
    flat, parts = empty_direction(parameters)
    for part in probe.parts:
        add_gradient(parts, weighted_loss(state, model, part, weights), parameters)
    flat.copy_(over_ranks(flat, state))
    return Direction(parts, squared_norm(parameters, parts, state))


def _sharded_gradient(state: State, model: ComposerModel, probe: Probe, weights: torch.Tensor) -> Direction:
    """Return G times the factor, this rank's shards, by way of `.grad`, which gets back what it had."""
    parameters = trainable(model)
    kept = [parameter.grad for parameter in parameters]
    _, parts = empty_direction(parameters)
    try:
        for parameter in parameters:
            parameter.grad = None
        for part in probe.parts:
            weighted_loss(state, model, part, weights).backward()  # type: ignore[no-untyped-call]
        for parameter, own in zip(parameters, parts, strict=True):
            if parameter.grad is not None:
                own.copy_(local(parameter.grad))
    finally:
        for parameter, gradient in zip(parameters, kept, strict=True):
            parameter.grad = gradient
    reshard(model)
    return Direction(parts, squared_norm(parameters, parts, state))


def _factor(state: State, model: ComposerModel, probe: Probe, targets: Float64, found: Direction) -> float:
    """Return s, of which `found` = v = s G is a multiple, out of 1 / ranks, 1 and ranks.

        (L(theta + h v) - L(theta - h v)) / 2h = < G , v > = |v|^2 / s ,   L = sum_j t_j l_j

    Each s is tried at the step that would change the losses by the wanted change, were it the right one; the
    smallest first, for which a wrong step is too small rather than too large.

    Raises:
        ScoreError: none of them fits.
    """
    ranks = dist.get_world_size()
    told = []
    for less in (1, 8, 64):  # a sharp loss wants smaller steps
        change = wanted_change(state, model) * float(np.abs(targets).sum()) / less
        for factor in (1 / ranks, 1.0, float(ranks)) if ranks > 1 else (1.0,):
            step = change * factor / found.squared_norm
            above, below = losses_along(state, model, probe, found, (step, -step))
            measured = _dot(targets, above - below) / (2 * change)  # 1, if the factor is right
            if 1 / NEAR < measured < NEAR:
                return factor
            told.append(f"{measured:.3g}")
    raise ScoreError(
        f"the factor by which FSDP scales gradients over {ranks} ranks cannot be told: the losses change by "
        f"{', '.join(told)} of what gradients promise, expected 1; is the loss smooth, and are its gradients its own?"
    )


def _dot(targets: Float64, losses: Float64) -> float:
    return float(targets[targets != 0] @ losses[targets != 0])
