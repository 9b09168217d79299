"""Losses beside where the model stands: at theta + h v, for some steps h along a direction v.

Parameters are moved in their place, each rank its own shards, and come back from copies: adding what was
subtracted would not bring back their last bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from composer.core import Precision, State
from composer.models import ComposerModel

from mixstream.callbacks.rows import looking
from mixstream.callbacks.scores.parameters import Direction, local, reshard, trainable
from mixstream.callbacks.scores.probes import Probe, loss_sums, means
from mixstream.mixture.simplex import Float64

CHANGE = 1e-2  # nats/token that a source's loss should change by, for float32
LOW_PRECISION_CHANGE = 5e-2  # and where weights or activations have fewer bits: below it, rounding hides the change


@torch.no_grad()
def losses_along(
    state: State, model: ComposerModel, probe: Probe, direction: Direction, steps: Sequence[float]
) -> Float64:
    """Return l_i(theta + h v) for each step h, (len(steps), K), by as many forward passes and one reduction.

    The parameters are afterwards what they were, bit by bit, also where a forward fails.

    Raises:
        ScoreError: a source has no row on any rank, or the model's loss is not one number a row.
    """
    reshard(model)
    places = [local(parameter) for parameter in trainable(model)]
    saved = [place.clone() for place in places]
    sums = []
    try:
        for step in steps:
            if places and step:
                torch._foreach_copy_(places, saved)
                torch._foreach_add_(places, direction.parts, alpha=step)
            sums.append(loss_sums(state, model, probe))
    finally:
        reshard(model)
        if places:
            torch._foreach_copy_(places, saved)
    return means(state, torch.stack(sums), probe)


def wanted_change(state: State, model: ComposerModel) -> float:
    """Return the change of each target's loss, in nats/token, at which central differences are at their best.

    Too large a step and the loss is no cubic any more, too small a one and rounding hides the change.

    Source: measured on small transformers (errors below 1 % at both; one-sided differences are ten times worse).
    """
    device = next((parameter.device.type for parameter in model.parameters()), "cpu")
    with looking(state):
        is_cast = torch.is_autocast_enabled(device)
    is_low = state.precision != Precision.FP32 or any(p.dtype.itemsize < 4 for p in trainable(model))
    return LOW_PRECISION_CHANGE if is_cast or is_low else CHANGE
