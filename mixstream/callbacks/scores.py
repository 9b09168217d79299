"""Gradient-alignment scores by K backward passes: the reference that faster ways are compared with.

    l_i = mean over the rows of source i, of all ranks, of the row's mean token loss
    W_i = < grad l_i (B) , sum_j grad l_j (A) >

with A and B two independent probe batches (cross-fitted), or one and the same (the papers' form).
Parameters are the model's own, so that no hook of a distributed wrapper fires; each gradient is summed
over ranks by one reduction. Costs K reductions of P numbers and, in the same-batch form, K x P of memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from composer.core import State
from composer.models import ComposerModel

from mixstream.callbacks.rows import Batch, measuring, over_ranks, row_losses, sum_by_source
from mixstream.errors import ScoreError
from mixstream.methods.xdoge import alignment_scores
from mixstream.mixture.simplex import Float64


@dataclass(frozen=True)
class Scores:
    """What the probes measured; K sources.

    Attributes:
        scores: (K,) W.
        losses: (K,) l_i of the batch whose gradients are scored, in nats/token.
    """

    scores: Float64
    losses: Float64
    gradient_norm: float = 0.0


def backward_scores(state: State, scored: Batch, aggregate: Batch | None, num_sources: int) -> Scores:
    """Return the scores of all sources.

    Args:
        state: Composer's; its model is used, its gradients are not touched.
        scored: probe batch B of this rank, whose g_i are scored.
        aggregate: probe batch A of this rank, which gives G; None: B again (the papers' same-batch form).
        num_sources: K; every source must have a row on some rank.

    Raises:
        ScoreError: a source without a row, or a model whose loss is not one number a row.
    """
    with measuring(state) as model:
        if aggregate is None:
            gradients, losses = _source_gradients(state, model, scored, num_sources)
            matrix = torch.stack(gradients).double().cpu().numpy()
            return Scores(alignment_scores(matrix, matrix.sum(axis=0)), losses)
        total = _total_gradient(state, model, aggregate, num_sources).double()
        counts = _counts(state, scored, num_sources)
        measured = [_source_gradient(state, model, scored, i, float(counts[i])) for i in range(num_sources)]
        scores = np.array([float(gradient.double() @ total) for gradient, _ in measured])
        return Scores(scores, np.array([loss for _, loss in measured]))


def _source_gradients(
    state: State, model: ComposerModel, batch: Batch, num_sources: int
) -> tuple[list[torch.Tensor], Float64]:
    counts = _counts(state, batch, num_sources)
    measured = [_source_gradient(state, model, batch, i, float(counts[i])) for i in range(num_sources)]
    return [gradient for gradient, _ in measured], np.array([loss for _, loss in measured])


def _source_gradient(
    state: State, model: ComposerModel, batch: Batch, source: int, count: float
) -> tuple[torch.Tensor, float]:
    """Return grad l_i (P,) and l_i, over all ranks; `count` is the source's rows on all of them."""
    own = batch["stream"] == source
    rows = state.device.batch_to_device({key: column[own] for key, column in batch.items()})
    parameters = [p for p in model.parameters() if p.requires_grad]
    if own.any():
        loss = row_losses(model, rows).sum() / count
        gradient = _flat(torch.autograd.grad(loss, parameters), parameters)
        told = loss.detach().double().reshape(1).cpu()
    else:
        gradient = torch.zeros(sum(p.numel() for p in parameters), device=parameters[0].device)
        told = torch.zeros(1, dtype=torch.float64)
    return over_ranks(gradient, state), float(over_ranks(told, state)[0])


def _total_gradient(state: State, model: ComposerModel, batch: Batch, num_sources: int) -> torch.Tensor:
    """Return sum_j grad l_j (P,) over all ranks, by one backward pass."""
    counts = _counts(state, batch, num_sources)
    rows = state.device.batch_to_device(batch)
    parameters = [p for p in model.parameters() if p.requires_grad]
    losses = row_losses(model, rows)
    weights = (1 / counts)[batch["stream"]].to(losses)
    return over_ranks(_flat(torch.autograd.grad((losses * weights).sum(), parameters), parameters), state)


def _flat(gradients: tuple[torch.Tensor, ...], parameters: list[torch.nn.Parameter]) -> torch.Tensor:
    return torch.cat([g.reshape(-1).to(p.dtype) for g, p in zip(gradients, parameters, strict=True)])


def _counts(state: State, batch: Batch, num_sources: int) -> torch.Tensor:
    """Return the rows of each source on all ranks, (K,)."""
    stream = batch["stream"]
    counts = over_ranks(sum_by_source(torch.zeros(len(stream)), stream, num_sources)[1], state)
    if (counts == 0).any():
        missing = torch.nonzero(counts == 0).flatten().tolist()
        raise ScoreError(f"sources number {missing} have no row in the probe batch; make it larger")
    return counts


class _KBackward:
    def measure(self, state, scored, aggregate, targets):  # type: ignore
        one = backward_scores(state, scored, aggregate, len(targets))
        return Scores(one.scores, one.losses, 1.0)

    def state_dict(self):  # type: ignore
        return {}

    def load_state_dict(self, state):  # type: ignore
        pass


ScoreProvider = _KBackward


def provider_of(name):  # type: ignore
    return _KBackward()
