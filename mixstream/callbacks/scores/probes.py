"""A probe batch as a rank looks at it, and what is measured on probes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from composer.core import State
from composer.models import ComposerModel
from composer.utils import dist

from mixstream.callbacks.rows import Batch, looking, microbatches, over_ranks, row_losses, sum_by_source
from mixstream.callbacks.scores.parameters import is_sharded, reshard
from mixstream.errors import ScoreError
from mixstream.mixture.simplex import Float64


@dataclass(frozen=True)
class Scores:
    """What the probes measured; K sources.

    Attributes:
        scores: (K,) W_i = < grad l_i (B), G (A) >, G = sum_j targets_j grad l_j.
        losses: (K,) l_i of the batch whose losses or gradients are scored, in nats/token.
        gradient_norm: |G|.
    """

    scores: Float64
    losses: Float64
    gradient_norm: float


class ScoreProvider(Protocol):
    """A way to measure scores; training is left as it was found."""

    def measure(self, state: State, scored: Batch, aggregate: Batch | None, targets: Float64) -> Scores:
        """Return the scores of all K sources, the same on every rank; nan where a loss or G is not finite.

        Args:
            state: Composer's, between two batches.
            scored: probe batch B of this rank, of which the l_i are; every source has a row on some rank.
            aggregate: probe batch A of this rank, which gives G; None: B again (the papers' same-batch form).
            targets: (K,) how much each source's loss counts in G: 1 each in the papers, 1 of the targets and 0 of
                the others for transfer to some (DoGE's out-of-domain form).

        Raises:
            ScoreError: a source without a row, a model whose loss is not one number a row, or one that scores
                cannot be measured on in this way.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what is kept between measurements, as JSON holds it."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        ...


@dataclass(frozen=True)
class Part:
    """A microbatch of a probe.

    Attributes:
        batch: its rows.
        rows: how many of them count; 0 where this rank only keeps others company.
    """

    batch: Batch
    rows: int

    @property
    def stream(self) -> torch.Tensor:
        """Return the source numbers of the rows that count."""
        return self.batch["stream"][: self.rows]


@dataclass(frozen=True)
class Probe:
    """This rank's rows of a probe batch.

    Attributes:
        parts: in microbatches; under FSDP as many on every rank, since each forward gathers parameters from all.
        counts: (K,) float64, this rank's rows of each source.
    """

    parts: tuple[Part, ...]
    counts: torch.Tensor


def probe_of(state: State, model: ComposerModel, batch: Batch, num_sources: int) -> Probe:
    """Return a batch as a probe of `num_sources` sources."""
    parts = [Part(own, len(own["stream"])) for own in microbatches(batch, state)]
    if is_sharded(model):
        number = state.device.tensor_to_device(torch.tensor([len(parts)]))
        dist.all_reduce(number, reduce_operation="MAX")
        idle = {key: column.new_zeros((1, *column.shape[1:])) for key, column in batch.items()}
        parts += [Part(idle, 0)] * (int(number) - len(parts))
    stream = batch["stream"]
    return Probe(tuple(parts), sum_by_source(torch.zeros(len(stream)), stream, num_sources)[1])


def check_counts(counts: torch.Tensor, needed: torch.Tensor | None = None) -> None:
    """Refuse a probe in which a source is missing.

    Args:
        counts: (K,) rows of each source on all ranks.
        needed: (K,) which sources have to be there; None: all.

    Raises:
        ScoreError: one has no row.
    """
    is_missing = counts == 0 if needed is None else (counts == 0) & needed
    if is_missing.any():
        missing = torch.nonzero(is_missing).flatten().tolist()
        raise ScoreError(f"sources number {missing} have no row in the probe batch; make it larger")


@torch.no_grad()
def loss_sums(state: State, model: ComposerModel, probe: Probe) -> torch.Tensor:
    """Return the sums of this rank's row losses by source, (K,) float64."""
    sums = torch.zeros_like(probe.counts)
    with looking(state):
        for part in probe.parts:
            losses = row_losses(model, state.device.batch_to_device(part.batch))
            sums += sum_by_source(losses[: part.rows], part.stream, len(sums))[0]
    reshard(model)
    return sums


def means(state: State, sums: torch.Tensor, probe: Probe) -> Float64:
    """Return sums over the rows of each source, (n, K) of this rank, as means over all ranks: one reduction.

    Sums and counts are added up in float64 and then divided: right however uneven the ranks are.

    Raises:
        ScoreError: a source has no row on any rank.
    """
    reduced = over_ranks(torch.cat([sums, probe.counts[None]]), state)
    check_counts(reduced[-1])
    return np.asarray((reduced[:-1] / reduced[-1]).numpy(), dtype=np.float64)
