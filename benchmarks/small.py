"""Streams whose samples are so short that reading them costs next to nothing: what is left is the engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from streams_on_disk import make_large

LENGTH = 8  # tokens of a sample


def make_small(root: Path, streams: int, samples: int = 2000) -> None:
    """Write streams of `samples` rows of 8 tokens each, one shard a stream."""
    make_large(root, streams, 1, samples, LENGTH)


def zipf(count: int) -> list[float]:
    """Return `count` weights in proportion to 1/i, sum 1."""
    weights = 1 / np.arange(1, count + 1)
    return (weights / weights.sum()).tolist()


def small_loader(
    root: Path, weights: Sequence[float] | None, batch_size: int, batches: int = 10**7, **options: Any
) -> Any:
    """Return a MixtureLoader of the streams under `root`; no weights: uniform."""
    from mixstream import Catalog, build_plan
    from mixstream.loader import MixtureLoader

    catalog = Catalog.open(root)
    spec = "uniform" if weights is None else dict(zip(catalog.names, weights, strict=True))
    plan = build_plan(catalog, spec, batches * batch_size * LENGTH, batch_size, **options)
    return MixtureLoader(plan)
