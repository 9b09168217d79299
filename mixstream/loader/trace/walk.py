"""The batches of a run counted through again, from any of its positions on: no shard is opened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from operator import itemgetter

from mixstream.loader.batches import Decided, GlobalOrder
from mixstream.mixture.ledger import Ledger, advance, draw, enter_phase, next_phase
from mixstream.mixture.simplex import Float64
from mixstream.streams.index import Int64

Change = tuple[int, Float64]  # the batch at which weights (K,) act

STEP = 4096  # batches that are counted at a time


@dataclass(frozen=True)
class Start:
    """A position to count from, and the weights that act there or later, in order."""

    ledger: Ledger
    changes: Iterator[Change]


@dataclass(frozen=True)
class Block:
    """Batches that were counted with the same shares.

    Attributes:
        ledger: before the first of them.
        counts: (n, L, K) draws.
    """

    ledger: Ledger
    counts: Int64

    @property
    def end(self) -> int:
        """The batch after the last."""
        return self.ledger.batch + len(self.counts)


def walk(order: GlobalOrder, start: Start, until: int) -> Iterator[Block]:
    """Yield the batches from a position up to `until` - 1, or to the end of the run."""
    ledger, coming = start.ledger, next(start.changes, None)
    while ledger.batch < until:
        while coming is not None and coming[0] <= ledger.batch:
            if coming[0] == ledger.batch:
                ledger = order.reweigh(ledger, coming[1])
            coming = next(start.changes, None)
        ledger = enter_phase(ledger, order.terms)
        stop = min(until, next_phase(ledger, order.terms), until if coming is None else coming[0])
        block = Block(ledger, draw(ledger, order.terms, min(STEP, stop - ledger.batch)))
        if not len(block.counts):
            return
        yield block
        ledger = advance(ledger, order.terms, block.counts)


def ledger_before(order: GlobalOrder, start: Start, batch: int) -> Ledger:
    """Return the account before a batch, or at the end of a run that does not come to it."""
    ledger = start.ledger
    for block in walk(order, start, batch):
        ledger = advance(block.ledger, order.terms, block.counts)
    return ledger


def decide_batch(order: GlobalOrder, start: Start, batch: int) -> Decided | None:
    """Return a batch, or None where the run does not come to it, or the position is a later one."""
    for block in walk(order, start, batch + 1):
        if block.ledger.batch <= batch < block.end:
            return decide_within(order, block, batch)
    return None


def decide_within(order: GlobalOrder, block: Block, batch: int) -> Decided | None:
    """Return a batch of a block."""
    return order.decide(advance(block.ledger, order.terms, block.counts[: batch - block.ledger.batch]), 1)


def in_order(*changes: Iterator[Change]) -> Iterator[Change]:
    """Return changes of several logs, each in order, as one; of those at one batch the last log's comes last."""
    return merge(*changes, key=itemgetter(0))
