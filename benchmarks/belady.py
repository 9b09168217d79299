"""How little a cache could have fetched: Belady's MIN (1966), for a sequence of reads that is known whole."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np


def least_fetches(reads: Sequence[int], room: int) -> int:
    """Return how many fetches a cache with room for so many shards needs at least, all of one size.

    What is read furthest in the future goes first; nothing needs to stay longer than for one read.

    Args:
        reads: the shard of each row read, in order.
        room: shards.
    """
    shards = np.asarray(reads)
    shards = shards[np.append(True, shards[1:] != shards[:-1])]  # rows of one shard in a row are one read
    following = np.full(len(shards), len(shards))
    seen: dict[int, int] = {}
    for place in range(len(shards) - 1, -1, -1):
        following[place] = seen.get(shards[place], len(shards))
        seen[shards[place]] = place
    held: dict[int, int] = {}  # when each is read next
    order: list[tuple[int, int]] = []
    fetches = 0
    for shard, after in zip(shards.tolist(), following.tolist(), strict=True):
        if shard not in held:
            fetches += 1
            while len(held) >= room:
                negative, victim = heapq.heappop(order)
                if held.get(victim) == -negative:
                    del held[victim]
        held[shard] = after
        heapq.heappush(order, (-after, shard))
    return fetches
