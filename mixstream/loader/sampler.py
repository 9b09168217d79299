"""The walk through a plan: batches decided ahead, given to a rank, consumed, and weights that change on the way."""

from __future__ import annotations

import dataclasses
import operator
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from torch.utils.data import DistributedSampler

from mixstream.errors import MixtureError, StateError
from mixstream.loader.batches import Decided, Draws, GlobalOrder
from mixstream.loader.order import Growth
from mixstream.loader.state import LoaderState
from mixstream.mixture.ledger import Ledger, open_ledger
from mixstream.mixture.simplex import Float64, check_weights

DECIDED_ROWS = 1024  # decided at a time, while weights stay: enough to make numpy's calls cheap
STALE = "this iterator is stale: the loader was given a state or iterated anew since"


class Walk:
    """The batches of an order from a ledger on, decided some at a time, and each ledger on the way.

    Deciding reads nothing, so it may run ahead of what weights allow: `change` takes back what it overtakes.
    """

    def __init__(
        self,
        order: GlobalOrder,
        ledger: Ledger,
        pending: Mapping[int, Float64],
        ahead: int,
        decided: Callable[[Draws], object],
    ) -> None:
        """Begin before the ledger's batch.

        Args:
            order: decides.
            ledger: before the first batch.
            pending: {batch: (K,) weights} that are looked up as the batches come.
            ahead: batches to decide beyond those asked for.
            decided: is called with the draws (batches, B) of what is decided.
        """
        self._order = order
        self._ahead = ahead
        self._decided = decided
        self._start = ledger
        self._pending = pending
        self._blocks: deque[Decided] = deque()  # each from where the one before ends
        self._most = 1

    def draws(self, batch: int, most: int) -> Draws | None:
        """Return the draws of `batch` and the next ones, (batches, B): up to `most`; None at the end of the run."""
        while (not self._blocks or self._blocks[-1].end <= batch + self._ahead) and self._decide():
            pass
        block = next((block for block in self._blocks if batch < block.end), None)
        if block is None:
            return None
        first = batch - block.ledger.batch
        return block.draws.take(slice(first, first + most))

    def ledger(self, batch: int) -> Ledger:
        """Return the ledger before a batch that has been decided, or after the last of them."""
        if batch == self._start.batch:
            return self._start
        return self._order.after(next(block for block in self._blocks if batch <= block.end), batch)

    def change(self, batch: int) -> None:
        """Take back what was decided from a batch on, since its weights have changed."""
        while self._blocks and self._blocks[-1].end > batch:
            block = self._blocks.pop().before(batch)
            if len(block.counts):
                self._blocks.append(block)

    def forget(self, batch: int) -> None:
        """Forget what comes before a batch."""
        while self._blocks and self._blocks[0].end < batch:
            self._start = self._order.after(self._blocks.popleft())

    def _decide(self) -> bool:
        """Decide the next block; return whether there was one."""
        ledger = self._order.after(self._blocks[-1]) if self._blocks else self._start
        if ledger.batch in self._pending:
            ledger = self._order.reweigh(ledger, self._pending[ledger.batch])
            self._most = 1
        changes = [batch - ledger.batch for batch in self._pending if batch > ledger.batch]
        block = self._order.decide(ledger, min([self._most, *changes]))
        if block is None:
            return False
        self._most = min(2 * self._most, max(1, DECIDED_ROWS // self._order.plan.batch_size))
        self._blocks.append(block)
        self._decided(block.draws)
        return True


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
        self.walks = 0  # iterations begun: older ones are stale
        self.watchers: list[Callable[[int, Draws], object]] = []
        self.load(LoaderState(open_ledger(order.terms)), samples_before=0)

    def __iter__(self) -> Iterator[Draws]:
        """Yield this rank's draws from the next batch to consume to the end."""
        walk = self.start()
        batch = self.consumed
        while (draws := self.draw(walk, batch, 1)) is not None:
            yield draws.take(0)
            batch += 1

    def start(self, decided: Callable[[Draws], object] = lambda draws: None) -> Walk:
        """Begin a walk at the next batch to consume, which tells what it decides; the one before is stale."""
        self.walk = Walk(self._order, self.ledger(), self._pending, self._weight_lag, decided)
        return self.walk

    def __len__(self) -> int:
        return self._order.plan.num_batches

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: one run is one epoch."""

    def draw(self, walk: Walk, batch: int, most: int) -> Draws | None:
        """Return this rank's draws of `batch` and the next ones, (batches, rows): up to `most`; None at the end.

        Raises:
            StateError: another walk has begun, or a state was loaded.
        """
        if walk is not self.walk:
            raise StateError(STALE)
        # The batch before is kept: a checkpoint within a batch describes the state before that batch.
        walk.forget(self.consumed - 1)
        for past in [past for past in self._pending if past < self.consumed - 1]:
            del self._pending[past]
        draws = walk.draws(batch, most)
        return None if draws is None else self.part(draws)

    def part(self, draws: Draws) -> Draws:
        """Return this rank's part of draws (batches, B)."""
        return Draws(*(np.ascontiguousarray(column[:, self._slice]) for column in draws))

    def consume(self) -> None:
        """Note that the training loop has been handed one more batch, and show it to those who watch."""
        if self.watchers:
            draws = self.walk.draws(self.consumed, 1)
            assert draws is not None, "it was handed out"
            for watcher in self.watchers:
                watcher(self.consumed, draws.take(0))
        self.consumed += 1

    def samples(self, consumed: int) -> int:
        """Return the samples of all ranks in `consumed` batches, those of streams that are gone included."""
        return self._loaded.samples + (consumed - self._loaded.ledger.batch) * self._order.plan.batch_size

    def set_weights(self, weights: Mapping[str, float], at_batch: int | None) -> int:
        """Note weights that act from a global batch on; see `MixtureLoader.set_weights`."""
        checked = check_weights(weights, self._order.plan.streams)
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
            self._pending[at_batch] = checked
            self.walk.change(at_batch)
        return at_batch

    def ledger(self, consumed: int | None = None) -> Ledger:
        """Return the ledger after `consumed` batches: all that were handed out, or one fewer."""
        return self.walk.ledger(self.consumed if consumed is None else consumed)

    def ahead(self) -> tuple[Ledger, dict[int, Float64]]:
        """Return what is known of the batches to come: the ledger before them, and weights (K,) by their batch."""
        return self.ledger(), dict(self._pending)

    @property
    def growth(self) -> Mapping[str, tuple[Growth, ...]]:
        """How streams have grown on the way, those that have."""
        return self._order.growth

    def state(self, consumed: int | None = None) -> LoaderState:
        """Return the state after `consumed` batches, with the weights that act there or later."""
        ledger = self.ledger(consumed)
        return dataclasses.replace(
            self._loaded,
            ledger=ledger,
            samples=self.samples(ledger.batch),
            pending={
                batch: dict(zip(self._order.plan.streams, weights.tolist(), strict=True))
                for batch, weights in self._pending.items()
                if batch >= ledger.batch
            },
        )

    def trained_within(self, num_samples: int) -> bool:
        """Return whether a trainer that has trained `num_samples` of its own is within a batch.

        The loader has then handed out one more. At the end of an epoch Composer has set its count back to 0.

        Raises:
            StateError: the trainer's count fits neither: batches were handed out and not trained on.
        """
        start = self._loaded.ledger.batch
        trained = start + (num_samples - self._samples_before) // self._order.plan.batch_size
        ended = self.consumed >= self.ledger().end_batch
        if trained == self.consumed or (num_samples == 0 and ended):
            return False
        if trained == self.consumed - 1:
            return True
        raise StateError(
            f"the trainer has trained {trained} batches, the loader has handed out {self.consumed}: batches were "
            f"skipped (a second `fit` in Composer does: give its Trainer spin_dataloaders=False)"
        )

    def load(self, state: LoaderState, samples_before: int) -> None:
        """Continue from a state; a trainer's own count has come to `samples_before` there."""
        self._order = self._order.grown(state.growth)
        self._loaded = state
        self._samples_before = samples_before
        streams = self._order.plan.streams
        self._pending = {batch: check_weights(weights, streams) for batch, weights in state.pending.items()}
        self.walk = Walk(self._order, state.ledger, self._pending, 0, lambda draws: None)
        self.consumed = state.ledger.batch
        self.ended = False
        self.walks += 1
