"""What is measured for an online method: alignment of gradients, excess over a reference, or training losses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from composer.core import State
from composer.models import ComposerModel

from mixstream.callbacks.rows import (
    Batch,
    check_rows,
    measuring,
    microbatches,
    over_ranks,
    sum_by_source,
)
from mixstream.callbacks.scores.probes import ScoreProvider
from mixstream.errors import ScoreError
from mixstream.loader import MixtureLoader
from mixstream.methods.learning.online import Signal
from mixstream.mixture.simplex import Float64

Probes = Literal["crossfit", "same_batch", "half_split"]


@dataclass(frozen=True)
class Measured:
    """What was measured at an update; K sources.

    Attributes:
        signal: (K,) what the method is told; None where it asks for nothing.
        losses: (K,) losses that it was measured at, in nats/token.
        metrics: more of it, for the logs.
    """

    signal: Float64 | None
    losses: Float64 | None = None
    metrics: dict[str, float] = field(default_factory=dict)


class SignalSource(Protocol):
    """Measures one kind of signal; all ranks call it at the same batches."""

    signal: Signal | None

    def after_loss(self, state: State) -> None:
        """See a training microbatch, with its row losses."""
        ...

    def batch_end(self, state: State) -> None:
        """See that a training batch has ended."""
        ...

    def measure(self, state: State, targets: Float64) -> Measured:
        """Measure, for an update; `targets` (K,) weighs the sources whose losses are to fall."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what it keeps between updates, the same on every rank, as JSON holds it."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        ...


class NoSignal:
    """For a method that asks for nothing; and the base of those that see no training batches."""

    signal: Signal | None = None

    def after_loss(self, state: State) -> None:
        """Nothing."""

    def batch_end(self, state: State) -> None:
        """Nothing."""

    def measure(self, state: State, targets: Float64) -> Measured:
        """Return nothing."""
        return Measured(None)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""


class _Probing(NoSignal):
    """Draws balanced probe batches from a loader of a uniform plan, whose position is its state."""

    def __init__(self, probe: MixtureLoader) -> None:
        self._probe = probe
        self._batches: Iterator[Batch] | None = None

    def next_probe(self) -> Batch:
        """Return this rank's part of the next probe batch."""
        if self._batches is None:
            self._batches = iter(self._probe)
        return next(self._batches)

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the probes."""
        return {"probe": self._probe.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with the probe after the last one."""
        self._probe.load_state_dict(state["probe"])
        self._batches = None


class Alignment(_Probing):
    """``W_i = <grad l_i(B), G(A)>`` of two independent probe batches, or of one.

    ``crossfit``: A and B are two probes. ``same_batch``: B is A, the papers' form, which noise makes too large.
    ``half_split``: two probes, of half the rows where a recipe asks for it, by turns:
    ``W = (<grad l_i(B), G(A)> + <grad l_i(A), G(B)>) / 2``, unbiased as cross-fitting is.
    """

    signal: Signal | None = "alignment"

    def __init__(self, probe: MixtureLoader, provider: ScoreProvider, probes: Probes) -> None:
        """Measure by `provider` on batches of `probe`."""
        super().__init__(probe)
        self._provider = provider
        self._probes: Probes = probes

    def measure(self, state: State, targets: Float64) -> Measured:
        """Return the scores W of all sources."""
        first = self.next_probe()
        pairs: list[tuple[Batch, Batch | None]] = [(first, None)]  # what is scored, and what gives G
        if self._probes != "same_batch":
            second = self.next_probe()
            pairs = [(second, first), (first, second)] if self._probes == "half_split" else [(second, first)]
        measured = [self._provider.measure(state, scored, aggregate, targets) for scored, aggregate in pairs]
        return Measured(
            np.mean([one.scores for one in measured], axis=0),
            np.mean([one.losses for one in measured], axis=0),
            {"gradient_norm": float(np.mean([one.gradient_norm for one in measured]))},
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the probes, and the provider's state."""
        return super().state_dict() | {"provider": self._provider.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        super().load_state_dict(state)
        self._provider.load_state_dict(state["provider"])


class Excess(_Probing):
    """max(0, loss - the reference model's loss) of a token, in the mean over each source's tokens of a probe.

    DoReMi (arXiv 2305.10429) measures it on training batches, at every step; ours measures it on balanced probes, so
    that no source is missing, and at updates only.
    """

    signal: Signal | None = "excess"

    def __init__(self, probe: MixtureLoader, reference: ComposerModel) -> None:
        """Compare with `reference`, a model over the same tokens."""
        super().__init__(probe)
        self._reference = reference.eval()
        self._is_placed = False

    @torch.no_grad()
    def measure(self, state: State, targets: Float64) -> Measured:
        """Return the excess losses of all sources, in nats/token."""
        if not self._is_placed:
            state.device.module_to_device(self._reference)
            self._is_placed = True
        sums = torch.zeros(3, len(targets), dtype=torch.float64)
        for batch in microbatches(self.next_probe(), state):
            on_device = state.device.batch_to_device(batch)
            with measuring(state) as model:
                losses = token_losses(model, on_device)
                excess = (losses - token_losses(self._reference, on_device)).clamp(min=0)
            sums[:2] += sum_by_source(excess.mean(dim=1), batch["stream"], len(targets))
            sums[2] += sum_by_source(losses.mean(dim=1), batch["stream"], len(targets))[0]
        excess_sums, counts, loss_sums = over_ranks(sums, state).numpy()
        return Measured(excess_sums / counts, loss_sums / counts)


def token_losses(model: ComposerModel, batch: Batch) -> torch.Tensor:
    """Return the loss of each predicted token, (rows, T - 1), in nats.

    Raises:
        ScoreError: the model does not tell them.
    """
    tell = getattr(model, "token_losses", None)
    losses = None if tell is None else tell(model(batch), batch)
    if losses is None or losses.dim() != 2 or len(losses) != len(batch["stream"]):
        found = "no method token_losses" if losses is None else f"token_losses of shape {tuple(losses.shape)}"
        raise ScoreError(
            f"{type(model).__name__} has {found}, and the excess loss is one of tokens: give it "
            f"token_losses(outputs, batch), which returns (rows, tokens) (mixstream.runs.model.CausalLM has it)"
        )
    return cast(torch.Tensor, losses)


class TrainingLosses(NoSignal):
    """The mean training loss of each source since the last update; costs one reduction of 2K numbers a batch."""

    signal: Signal | None = "losses"

    def __init__(self, num_sources: int) -> None:
        """Tell the losses of `num_sources` sources."""
        self._batch_sums = torch.zeros(2, num_sources, dtype=torch.float64)  # losses and rows: of this batch and rank,
        self._sums = torch.zeros(2, num_sources, dtype=torch.float64)  # and of all ranks since the last update

    def after_loss(self, state: State) -> None:
        """Add a microbatch's row losses to their sources'."""
        self._batch_sums += sum_by_source(
            check_rows(state.loss, state.batch), state.batch["stream"], self._sums.shape[1]
        )

    def batch_end(self, state: State) -> None:
        """Add up over ranks."""
        self._sums += over_ranks(self._batch_sums, state)
        self._batch_sums = torch.zeros_like(self._batch_sums)

    def measure(self, state: State, targets: Float64) -> Measured:
        """Return the mean losses, nan of a source that was not read, and begin anew."""
        sums, counts = self._sums.numpy()
        self._sums = torch.zeros_like(self._sums)
        losses = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
        return Measured(losses)

    def state_dict(self) -> dict[str, Any]:
        """Return the sums since the last update."""
        return {"sums": self._sums.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on adding up."""
        self._sums = torch.tensor(state["sums"], dtype=torch.float64)
