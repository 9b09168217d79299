"""How well a stream is shuffled: MixtureLoader's order against StreamingDataset's py1e.

Isolates the order of one stream of 256 shards of 4,096 rows: where the rows r and r + 1 of a shard, neighbours where
the corpus was written, land when it is read. Told of each order: the distance between them (quantiles), the share of
them that land within 64 samples of each other, the chance that a sample and the next are of one shard, over what it
would be if the whole stream were shuffled (1 is best), and the shards that must be open, or in the cache, at once.
Orders are to be compared where they need equally many shards. No shard is read; orders are exact, so one repeat.

    python benchmarks/shuffle.py
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
from measure import Row, report
from streams_on_disk import make_empty, scratch

SHARDS, SAMPLES, LENGTH, BATCH = 256, 4096, 8, 4096
NEAR = 64  # samples: a batch


def order_of_mixstream(root: Path, window_samples: int) -> np.ndarray:
    """Return the rows of the stream in the order in which they are read, (n,)."""
    from mixstream import Catalog, build_plan
    from mixstream.loader import MixtureLoader

    catalog = Catalog.open(root)
    tokens = sum(catalog.tokens.values())
    loader = MixtureLoader(build_plan(catalog, "natural", tokens, BATCH, window_samples=window_samples))
    return np.concatenate([draws.sample for draws in loader.batch_sampler])


def order_of_streaming(block_size: int) -> np.ndarray:
    """Return the rows of the stream in py1e's order, (n,)."""
    from streaming.base.shuffle import get_shuffle

    return get_shuffle("py1e", np.full(SHARDS, SAMPLES), 1, 9176, 0, block_size)


def quality(order: np.ndarray) -> dict[str, list[float]]:
    """Return what is told of an order."""
    if not np.array_equal(np.sort(order), np.arange(SHARDS * SAMPLES)):
        raise ValueError("the order does not read every row once")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    by_shard = place.reshape(SHARDS, SAMPLES)
    apart = np.abs(np.diff(by_shard, axis=1)).ravel()
    shard = order // SAMPLES
    first, last = by_shard.min(axis=1), by_shard.max(axis=1)
    opened = np.bincount(first, minlength=len(order) + 1).cumsum()
    closed = np.bincount(last + 1, minlength=len(order) + 1).cumsum()
    return {
        "distance, 5 %": [float(np.quantile(apart, 0.05))],
        "distance, median": [float(np.median(apart))],
        "distance, 95 %": [float(np.quantile(apart, 0.95))],
        f"within {NEAR} samples, %": [float(100 * (apart < NEAR).mean())],
        "next of one shard": [float((shard[1:] == shard[:-1]).mean() * SHARDS)],
        "shards open at once": [float((opened - closed).max())],
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    warnings.filterwarnings("ignore", message="Shuffle block size")
    with scratch() as root:
        make_empty(root, 1, SHARDS, SAMPLES, LENGTH)
        orders = {
            f"shuffle, mixstream, window_samples {size:,}": order_of_mixstream(root, size)
            for size in (1 << 14, 1 << 15, 1 << 17)
        }
    for size in (1 << 14, 1 << 15, 1 << 17, 1 << 18):
        orders[f"shuffle, streaming py1e, shuffle_block_size {size:,}"] = order_of_streaming(size)
    report("shuffle", [Row(name, "samples", quality(order)) for name, order in orders.items()], shards=SHARDS)


if __name__ == "__main__":
    main()
