"""Scores by forward mode: one pass with dual numbers gives all K at once, exactly.

    W = d/de l(theta + e G) at e = 0

Every row's loss has a tangent, and the tangents of a source's rows are averaged as the losses are. Each kernel
needs a derivative of forward mode: attention is computed by plain matrix products (memory of T^2 a head), and
what has none, as external attention kernels, is refused.
"""

from __future__ import annotations

from typing import Any

import torch
from composer.core import State
from composer.models import ComposerModel
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from mixstream.callbacks.rows import Batch, at_rest, looking, row_losses, sum_by_source
from mixstream.callbacks.scores.gradients import AggregateGradient
from mixstream.callbacks.scores.parameters import Direction, refuse_sharded
from mixstream.callbacks.scores.probes import Part, Scores, means, probe_of
from mixstream.errors import ScoreError
from mixstream.mixture.simplex import Float64

# How torch says that a kernel has no derivative of forward mode; out of memory is a RuntimeError too.
TOLD_BY = ("forward AD", "forward mode AD", "forward-mode", "functorch", "jvp", "setup_context")


class ForwardMode:
    """Measures scores by forward-mode differentiation; keeps nothing."""

    def __init__(self) -> None:
        """Nothing is kept between measurements."""
        self._gradient = AggregateGradient()

    def measure(self, state: State, scored: Batch, aggregate: Batch | None, targets: Float64) -> Scores:
        """Return the scores of all sources: see `ScoreProvider`.

        Raises:
            ScoreError: parameters are sharded, or a kernel has no derivative of forward mode.
        """
        with at_rest(state) as model:
            refuse_sharded(model, "jvp", "differentiates whole ones")
            direction = self._gradient.measure(state, model, scored if aggregate is None else aggregate, targets)
            probe = probe_of(state, model, scored, len(targets))
            sums = torch.zeros(2, len(targets), dtype=torch.float64)
            for part in probe.parts:
                for own, values in zip(sums, _losses_and_tangents(state, model, part, direction), strict=True):
                    own += sum_by_source(values, part.stream, len(targets))[0]
            losses, scores = means(state, sums, probe)
            return Scores(scores, losses, direction.norm)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is kept."""


class _RowLosses(torch.nn.Module):
    """A model with its loss, as one function of the parameters."""

    def __init__(self, model: ComposerModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> torch.Tensor:
        return row_losses(self.model, batch)


@torch.no_grad()
def _losses_and_tangents(
    state: State, model: ComposerModel, part: Part, direction: Direction
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a microbatch's row losses and how they change along the direction, (rows,) each.

    Raises:
        ScoreError: a kernel has no derivative of forward mode.
    """
    losses_of = _RowLosses(model)
    own = {name: p for name, p in losses_of.named_parameters() if p.requires_grad}  # tied ones by one name
    tangents = {name: v.to(p.dtype) for (name, p), v in zip(own.items(), direction.parts, strict=True)}
    batch = state.device.batch_to_device(part.batch)

    def at(parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        losses: torch.Tensor = functional_call(losses_of, parameters, (batch,))
        return losses

    try:
        with looking(state), sdpa_kernel(SDPBackend.MATH):
            losses, changes = jvp(at, (own,), (tangents,))
            return losses, changes
    except RuntimeError as problem:
        told = str(problem).strip().splitlines()[0] if str(problem).strip() else ""
        if not any(said in str(problem) for said in TOLD_BY):
            raise
        raise ScoreError(f"a part of the model has no derivative of forward mode ({told}); use fd") from None
