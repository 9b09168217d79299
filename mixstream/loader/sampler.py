"""The global batches of a plan, one after the other, and each rank's slice of them."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import DistributedSampler

from mixstream.errors import MixtureError, StateError
from mixstream.loader.order import StreamOrder, key_of, shuffled
from mixstream.loader.state import LoaderState
from mixstream.mixture.ledger import Ledger, draw, open_ledger, reweigh
from mixstream.mixture.plan import Plan
from mixstream.mixture.simplex import check_weights
from mixstream.streams.index import Int64


@dataclass(frozen=True)
class Draws:
    """Draws of one batch, or of a rank's part of it; n rows.

    Attributes:
        stream: (n,) place of the stream in the plan.
        sample: (n,) row in the stream.
        repeat: (n,) how often the row was drawn before.
    """

    stream: Int64
    sample: Int64
    repeat: Int64

    def take(self, rows: Int64 | slice) -> Draws:
        """Return some of the draws."""
        return Draws(self.stream[rows], self.sample[rows], self.repeat[rows])


class GlobalOrder:
    """Global batch b of a plan, given the ledger before it: pure, the same on every rank (M4)."""

    def __init__(self, plan: Plan, orders: Sequence[StreamOrder]) -> None:
        """Join the orders of the plan's streams."""
        self.plan = plan
        self.terms = plan.terms
        self._orders = orders

    def batch(self, ledger: Ledger) -> tuple[Draws, Ledger] | None:
        """Return the draws of the ledger's next batch and the ledger after it, or None at the end.

        Streams are dealt to the batch's rows at random, so that every rank's and every microbatch's share is
        a fair sample (M10); each stream's own draws stay in their order (M2).
        """
        drawn = draw(ledger, self.terms)
        if drawn is None:
            return None
        counts, after = drawn
        places = shuffled(self.plan.batch_size, key_of(self.plan.seed, "batch", ledger.batch))
        stream = np.repeat(np.arange(len(counts)), counts)[places]
        by_stream = np.argsort(stream, kind="stable")
        sample = np.empty_like(stream)
        repeat = np.empty_like(stream)
        own = [order.rows(int(ledger.drawn[i]), int(counts[i])) for i, order in enumerate(self._orders)]
        sample[by_stream] = np.concatenate([rows for rows, _ in own])
        repeat[by_stream] = np.concatenate([repeats for _, repeats in own])
        return Draws(stream, sample, repeat), after

    def reweigh(self, ledger: Ledger, weights: Mapping[str, float]) -> Ledger:
        """Return the ledger with new weights from its next batch on."""
        return reweigh(ledger, self.terms, check_weights(weights, self.plan.streams))


class MixtureSampler(DistributedSampler[Any]):
    """Yields a rank's draws, batch by batch, and knows the state at every batch not yet consumed.

    It is a `DistributedSampler` in name, which Composer asks of a sampler under more than one rank; all of
    it is our own.
    """

    def __init__(self, order: GlobalOrder, rank: int, world_size: int, weight_lag: int) -> None:
        """Walk `order` as rank `rank` of `world_size`; see `MixtureLoader` for `weight_lag`."""
        plan = order.plan
        if world_size < 1 or not 0 <= rank < world_size:
            raise MixtureError(f"rank={rank} of world_size={world_size}; expected a rank below the world size, from 0")
        if plan.batch_size % world_size:
            works = [size for size in range(1, plan.batch_size + 1) if plan.batch_size % size == 0]
            raise MixtureError(
                f"batch_size={plan.batch_size} cannot be dealt to {world_size} ranks evenly; "
                f"it can to {', '.join(map(str, works))}"
            )
        size = plan.batch_size // world_size
        self._order = order
        self._slice = slice(rank * size, (rank + 1) * size)
        self._weight_lag = weight_lag
        self._pending: dict[int, Mapping[str, float]] = {}
        self._ledgers = {0: open_ledger(plan.shares, order.terms)}
        self.consumed = 0
        self.ended = False
        self.walk = 0  # number of the iteration that is going on: older ones are stale
        self.origin = 0  # batches consumed before the trainer's own count began

    def __iter__(self) -> Iterator[Draws]:
        """Yield this rank's draws from the next batch to consume to the end."""
        ledger = self._ledgers[self.consumed]
        ledgers = self._ledgers = {ledger.batch: ledger}  # its own: a stale walk spoils no other's
        while True:
            if ledger.batch in self._pending:
                ledger = self._order.reweigh(ledger, self._pending[ledger.batch])
            step = self._order.batch(ledger)
            if step is None:
                return
            draws, ledger = step
            ledgers[ledger.batch] = ledger
            yield draws.take(self._slice)

    def __len__(self) -> int:
        return self._order.plan.num_batches

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: one run is one epoch."""

    def consume(self) -> None:
        """Note that the training loop has been handed one more batch."""
        self.consumed += 1
        # The batch before is kept: a checkpoint within a batch describes the state before that batch.
        for batch in [batch for batch in self._ledgers if batch < self.consumed - 1]:
            del self._ledgers[batch]
        for batch in [batch for batch in self._pending if batch < self.consumed - 1]:
            del self._pending[batch]

    def set_weights(self, weights: Mapping[str, float], at_batch: int | None) -> int:
        """Note weights that act from a global batch on; see `MixtureLoader.set_weights`."""
        check_weights(weights, self._order.plan.streams)
        earliest = self.consumed + self._weight_lag
        num_batches = self._order.plan.num_batches
        if at_batch is None:
            at_batch = earliest
        elif isinstance(at_batch, bool) or not hasattr(at_batch, "__index__"):
            raise StateError(f"at_batch={at_batch!r}; expected a whole number")
        elif not earliest <= at_batch < num_batches:
            raise StateError(
                f"at_batch={at_batch}, but {self.consumed} of {num_batches} batches are consumed and weights act "
                f"weight_lag={self._weight_lag} batches later at the soonest; choose {earliest} or later, below "
                f"{num_batches}"
            )
        at_batch = operator.index(at_batch)
        if at_batch < num_batches:
            self._pending[at_batch] = {name: float(weight) for name, weight in weights.items()}
        return at_batch

    def ledger(self, consumed: int | None = None) -> Ledger:
        """Return the ledger after `consumed` batches: all that were handed out, or one fewer."""
        return self._ledgers[self.consumed if consumed is None else consumed]

    def state(self, consumed: int | None = None) -> LoaderState:
        """Return the state after `consumed` batches, with the weights that act there or later."""
        ledger = self.ledger(consumed)
        return LoaderState(
            ledger, {batch: weights for batch, weights in self._pending.items() if batch >= ledger.batch}
        )

    def trained_within(self, num_batches: int) -> bool:
        """Return whether a trainer that has trained `num_batches` of its own is within a batch.

        The loader has then handed out one more. At the end of an epoch Composer has set its count back to 0.

        Raises:
            StateError: the trainer's count fits neither: batches were handed out and not trained on.
        """
        trained = num_batches + self.origin
        ended = self.consumed >= self.ledger().end_batch
        if trained == self.consumed or (num_batches == 0 and ended):
            return False
        if trained == self.consumed - 1:
            return True
        raise StateError(
            f"the trainer has trained {num_batches} batches, the loader has handed out {self.consumed}: batches were "
            f"skipped (a second `fit` in Composer does: give its Trainer spin_dataloaders=False)"
        )

    def load(self, state: LoaderState, origin: int) -> None:
        """Continue from a state; `origin` batches of it are not in the trainer's own count."""
        self.consumed = state.ledger.batch
        self.origin = origin
        self.ended = False
        self.walk += 1
        self._ledgers = {self.consumed: state.ledger}
        self._pending = dict(state.pending)
