"""One reading of streams in a process of its own, by MixtureLoader or StreamingDataset; prints what it took as JSON.

    python benchmarks/bucket_reads.py '{"contender": "mixstream", "root": "s3://bucket/streams", ...}'

The clock runs from the call that opens the streams, imports done before.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from contenders import to_batch


@dataclass(frozen=True)
class Reading:
    """What is read, and how.

    Attributes:
        contender: mixstream or streaming.
        root: URL or folder of the streams.
        names: of the streams.
        cache: folder where shards go.
        samples: to read, of all streams together.
        length: tokens of a sample.
        batch_size: samples of a batch.
        weights: of the streams; none: their sizes.
        turned: whether the weights are turned around half way.
        window: window_samples; the shuffle block of streaming is that of all streams together.
        workers: of the loader.
        predownload: of streaming, samples; None: its default.
        cache_limit: bytes; None: none.
        pace: samples a second of a consumer that sleeps; None: it does not.
        seconds: after which the reading ends, whatever was read; None: not.
        digest: whether to hash what was read.
        drawn: where to save (stream, sample) of all draws; empty: nowhere.
        steady: seconds for which samples a second are measured, without end; None: not.
    """

    contender: str
    root: str
    names: tuple[str, ...]
    cache: str
    samples: int
    length: int
    batch_size: int = 64
    weights: tuple[float, ...] = ()
    turned: bool = False
    window: int = 2048
    workers: int = 0
    predownload: int | None = None
    cache_limit: int | None = None
    pace: float | None = None
    seconds: float | None = None
    digest: bool = False
    drawn: str = ""
    steady: float | None = None

    def told(self) -> str:
        """Return what `main` is given."""
        return json.dumps(asdict(self))


Batches = Iterator[dict[str, torch.Tensor]]


def open_mixstream(asked: Reading) -> tuple[Any, Batches]:
    """Return the loader and its batches."""
    from mixstream import Catalog, build_plan
    from mixstream.loader import MixtureLoader

    catalog = Catalog.open(asked.root)
    weights: Any = dict(zip(asked.names, asked.weights, strict=True)) if asked.weights else "natural"
    tokens = asked.samples * asked.length
    plan = build_plan(catalog, weights, tokens, asked.batch_size, window_samples=asked.window)
    options = {"num_workers": asked.workers, "cache_dir": asked.cache, "cache_limit": asked.cache_limit}
    loader = MixtureLoader(plan, labels=False, **options)
    return loader, iter(loader)


def open_streaming(asked: Reading) -> tuple[Any, Batches]:
    """Return a loader of StreamingDataset, and its batches."""
    from streaming import Stream, StreamingDataset
    from torch.utils.data import DataLoader

    parts = {name: {"proportion": own} for name, own in zip(asked.names, asked.weights, strict=False)}
    streams = [
        Stream(remote=f"{asked.root}/{name}", local=f"{asked.cache}/{name}", **parts.get(name, {}))
        for name in asked.names
    ]
    dataset = StreamingDataset(
        streams=streams,
        batch_size=asked.batch_size,
        shuffle=True,
        num_canonical_nodes=1,
        predownload=asked.predownload,
        shuffle_block_size=asked.window * len(asked.names),
        epoch_size=asked.samples if asked.weights else None,
        cache_limit=asked.cache_limit,
    )
    loader = DataLoader(dataset, batch_size=asked.batch_size, num_workers=asked.workers, collate_fn=_collate)
    return loader, iter(loader)


def _collate(samples: list[dict[str, np.ndarray]]) -> dict[str, torch.Tensor]:
    return {"input_ids": to_batch([sample["tokens"] for sample in samples])}


@dataclass
class Taken:
    """What a reading took.

    Attributes:
        first: seconds to the first batch.
        all: seconds to the last one.
        samples: that were read.
        next_seconds: spent in the calls for all batches but the first.
        longest: of these calls, seconds.
        waited: seconds that mixstream says it waited after the first batch.
        cpu: seconds of processor of this process.
        first_rows: (stream, sample) of each row of the first batch; mixstream only.
        digest: of all that was read, in order.
        rate: samples a second, where that was asked for.
    """

    first: float = 0.0
    all: float = 0.0
    samples: int = 0
    next_seconds: float = 0.0
    longest: float = 0.0
    waited: float = 0.0
    cpu: float = 0.0
    first_rows: list[tuple[int, int]] = field(default_factory=list)
    digest: str = ""
    rate: float = 0.0


def read(asked: Reading) -> Taken:
    """Read as asked."""
    taken, hashed = Taken(), hashlib.blake2b()
    draws: list[np.ndarray] = []
    begun = time.perf_counter()
    loader, batches = (open_mixstream if asked.contender == "mixstream" else open_streaming)(asked)
    waited_first = 0.0
    while True:
        called = time.perf_counter()
        if asked.seconds is not None and called - begun > asked.seconds:
            break
        if (batch := next(batches, None)) is None:
            break
        now = time.perf_counter()
        if not taken.samples:
            taken.first = now - begun
            waited_first = getattr(loader, "waited_seconds", 0.0)
            if "sample" in batch:
                taken.first_rows = list(zip(batch["stream"].tolist(), batch["sample"].tolist(), strict=True))
        else:
            taken.next_seconds += now - called
            taken.longest = max(taken.longest, now - called)
        taken.samples += len(batch["input_ids"])
        if asked.digest:
            hashed.update(batch["stream"].numpy().tobytes() + batch["sample"].numpy().tobytes())
            hashed.update(batch["input_ids"].numpy().tobytes())
        if asked.drawn:
            draws.append(np.stack([batch["stream"].numpy(), batch["sample"].numpy()]))
        half = asked.samples // 2
        if asked.turned and taken.samples - len(batch["input_ids"]) < half <= taken.samples:
            loader.set_weights(dict(zip(asked.names, asked.weights[::-1], strict=True)))
        if asked.pace:
            time.sleep(asked.batch_size / asked.pace)
    taken.all = time.perf_counter() - begun
    taken.waited = getattr(loader, "waited_seconds", 0.0) - waited_first
    taken.digest = hashed.hexdigest()
    used = resource.getrusage(resource.RUSAGE_SELF)
    taken.cpu = used.ru_utime + used.ru_stime
    if asked.drawn:
        np.save(asked.drawn, np.concatenate(draws, axis=1))
    return taken


def main() -> None:
    warnings.filterwarnings("ignore")
    asked = json.loads(sys.argv[1])
    asked = Reading(**{key: tuple(value) if isinstance(value, list) else value for key, value in asked.items()})
    if asked.contender == "mixstream":
        import obstore  # noqa: F401

        import mixstream.loader  # noqa: F401
    else:
        import boto3  # noqa: F401
        import streaming  # noqa: F401
        import torch.utils.data  # noqa: F401
    if asked.steady is None:
        taken = read(asked)
    else:
        from measure import rate

        batches = (item["input_ids"] for item in open_mixstream(asked)[1])
        taken = Taken(rate=rate(batches, asked.batch_size, asked.steady))
    Path(asked.cache).mkdir(exist_ok=True)
    print(json.dumps(asdict(taken)), flush=True)
    os._exit(0)  # streaming's threads and shared memory may hold the end up, which is not what is measured


if __name__ == "__main__":
    main()
