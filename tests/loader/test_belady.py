"""A cache that fetches and evicts by what is foretold, against Belady's optimum, which knows what was read.

Shards are of one size; all shards of a window must be there while it is read. No file is touched.
"""

from __future__ import annotations

import numpy as np
import pytest
from conftest import fake_catalog

from mixstream import build_plan
from mixstream.loader.batches import GlobalOrder
from mixstream.loader.foresight import Forecaster
from mixstream.loader.sampler import Walk
from mixstream.mixture.ledger import open_ledger

SHARDS = {"a.a": 20, "b.a": 40, "c.a": 60, "d.a": 100, "e.a": 180}  # of 20 samples
WINDOW = 40
LAG = 8  # batches by which weights are known before they act
LINK = 4  # shards that can be fetched while a batch is trained on
AHEAD = 4  # batches: the further ahead shards are fetched, the more room they take from what is kept
CACHE = sum(SHARDS.values()) // 10


def weights_of(*values):
    return dict(zip(SHARDS, values, strict=True))


class Read:
    """A run whose weights change on the way: its ledgers, and the windows that each batch reads."""

    def __init__(self, weights, changes, batches=600, lanes=1):
        catalog = fake_catalog({name: [20] * count for name, count in SHARDS.items()})
        self.plan = build_plan(catalog, weights, batches * 32 * 8, 32, lanes=lanes, window_samples=WINDOW // lanes)
        self.samples = [stream.index.shard_samples for stream in catalog]
        self.changes = {batch: np.array(list(new.values())) for batch, new in changes.items()}
        order = GlobalOrder(self.plan, self.samples, {})
        walk = Walk(order, open_ledger(order.terms), self.changes, 0, lambda draws: None)
        self.ledgers = [walk.ledger(0)]
        self.windows = []
        while walk.draws(len(self.windows), 1) is not None:
            self.ledgers.append(walk.ledger(len(self.windows) + 1))
            self.windows.append([*self._windows(order, *self.ledgers[-2:])])

    def _windows(self, order, before, after):
        for lane, stream in zip(*np.nonzero(after.cursors - before.cursors), strict=True):
            position = before.cursors[lane, stream]
            while position < after.cursors[lane, stream]:
                window = order.orders[stream].window(lane, int(position))
                rows = window.read(window.start, window.end - window.start)
                yield (lane, stream, window.start), {(int(stream), shard) for shard in np.unique(rows // 20).tolist()}
                position = window.end

    def known(self, batch):
        """Return the weights to come that are known before a batch."""
        return {at: new for at, new in self.changes.items() if at <= batch + LAG}


def optimum(read):
    """Return the shards that Belady's rule fetches: each when its window opens, in place of those needed last."""
    uses, events, begun = {}, [], set()
    for windows in read.windows:
        here = [shards for key, shards in windows if key not in begun]
        begun |= {key for key, _ in windows}
        for shards in here:
            for shard in shards:
                uses.setdefault(shard, []).append(len(events))
            events.append((shards, set().union(*(own for _, own in windows))))
    cache, fetched = set(), 0
    for number, (shards, in_use) in enumerate(events):
        for shard in shards:
            while uses[shard] and uses[shard][0] <= number:
                uses[shard].pop(0)
        for shard in shards - cache:
            if len(cache) == CACHE:
                cache.remove(max(cache - in_use, key=lambda own: uses[own][0] if uses[own] else np.inf))
            cache.add(shard)
            fetched += 1
    return fetched, len(uses)


def foretold(read):
    """Return the shards fetched, and how many of them were not there at the beginning of the batch that reads them."""
    forecaster = Forecaster(read.plan, read.samples, {}, range(read.plan.lanes))
    cache, fetched, late = set(), 0, 0
    for batch, windows in enumerate(read.windows):
        outlook = forecaster.look(read.ledgers[batch], read.known(batch))
        uses = [outlook.next_use(stream) for stream in range(len(SHARDS))]
        in_use = set().union(*(shards for _, shards in windows))

        def put(shard, by, cache=cache, uses=uses, in_use=in_use):
            """Put a shard in where there is room, or in place of one that is needed later than `by`."""
            if len(cache) == CACHE:
                last = max(cache - in_use, key=lambda own: uses[own[0]][own[1]])
                if uses[last[0]][last[1]] <= by:
                    return False
                cache.remove(last)
            cache.add(shard)
            return True

        for shard in in_use - cache:
            assert put(shard, -1)
            fetched, late = fetched + 1, late + 1
        wanted = []
        for need in outlook.upcoming():
            if need.batch > batch + AHEAD:
                break
            wanted += [need] if (need.stream, need.shard) not in cache else []
        for stream, shard, at, _ in wanted[:LINK]:
            if (stream, shard) not in cache:  # of two lanes, or of two repeats
                if not put((stream, shard), at):
                    break
                fetched += 1
        assert len(cache) <= CACHE
    return fetched, late


EVEN = weights_of(0.2, 0.2, 0.2, 0.2, 0.2)
STEEP = weights_of(0.05, 0.05, 0.1, 0.2, 0.6)
OTHER = weights_of(0.4, 0.3, 0.2, 0.1, 0.0)


@pytest.mark.parametrize(
    ("weights", "changes", "lanes"),
    [
        (EVEN, {}, 1),
        (STEEP, {}, 1),
        (EVEN, {100: STEEP, 300: OTHER, 450: EVEN}, 1),
        (OTHER, {50 * i: [EVEN, OTHER, STEEP][i % 3] for i in range(1, 12)}, 1),
        (EVEN, {100: STEEP, 300: OTHER, 450: EVEN}, 2),
    ],
)
def test_downloads_come_near_the_optimum(weights, changes, lanes):
    """A tenth of the data in the cache: at most 1.1 times as many shards come again, and hardly one comes late."""
    read = Read(weights, changes, lanes=lanes)
    best, distinct = optimum(read)
    fetched, late = foretold(read)
    assert fetched - distinct <= 1.1 * (best - distinct)
    assert late <= 12  # ten open windows of the first batches
