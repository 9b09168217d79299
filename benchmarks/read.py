"""Steady reading of local streams: MixtureLoader against StreamingDataset and against the ceiling.

Isolates: the order, the gather and the copy to an int64 `input_ids` tensor, page cache warm, 0 workers. Six streams
of raw MDS shards, 2048 uint16 tokens a sample, weights .4 .25 .15 .1 .06 .04. The ceiling is a bare memory map of the
same bytes: the same number of random rows gathered and converted, no order, no mixture. Contenders take turns, three
times or more; medians are printed, ratios last, as JSON.

    python benchmarks/read.py [--samples 4000] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from streaming import MDSWriter, Stream, StreamingDataset
from torch.utils.data import DataLoader

from mixstream import Catalog, build_plan
from mixstream.loader import MixtureLoader

LENGTH = 2048
WEIGHTS = (0.4, 0.25, 0.15, 0.1, 0.06, 0.04)


def make_streams(root: Path, samples: int) -> None:
    rng = np.random.default_rng(0)
    for number in range(len(WEIGHTS)):
        columns = {"tokens": f"ndarray:uint16:{LENGTH}"}
        with MDSWriter(out=str(root / f"l{number}.web"), columns=columns, size_limit=1 << 24) as writer:
            for _ in range(samples):
                writer.write({"tokens": rng.integers(0, 50_000, LENGTH, dtype=np.uint16)})


def ours(root: Path, batch_size: int, batches: int) -> Iterator[torch.Tensor]:
    catalog = Catalog.open(root)
    weights = dict(zip(catalog.names, WEIGHTS, strict=True))
    plan = build_plan(catalog, weights, batches * batch_size * LENGTH, batch_size)
    for batch in MixtureLoader(plan):
        yield batch["input_ids"]


def streamings(root: Path, batch_size: int, batches: int) -> Iterator[torch.Tensor]:
    streams = [
        Stream(local=str(path), proportion=weight) for path, weight in zip(sorted(root.iterdir()), WEIGHTS, strict=True)
    ]
    dataset = StreamingDataset(
        streams=streams, batch_size=batch_size, shuffle=True, epoch_size=batches * batch_size, num_canonical_nodes=1
    )

    def collate(samples: list[dict[str, np.ndarray]]) -> torch.Tensor:
        return torch.from_numpy(np.stack([sample["tokens"] for sample in samples]).astype(np.int64))

    yield from DataLoader(dataset, batch_size=batch_size, collate_fn=collate)


def ceiling(root: Path, batch_size: int, batches: int) -> Iterator[torch.Tensor]:
    path = root.parent / "flat.bin"
    if not path.exists():
        with path.open("wb") as flat:
            for shard in sorted(root.glob("*/*.mds")):
                content = shard.read_bytes()
                num_samples = int.from_bytes(content[:4], "little")
                flat.write(content[-2 * LENGTH * num_samples :])
    rows = np.memmap(path, dtype=np.uint16, mode="r").reshape(-1, LENGTH)
    order = np.random.default_rng(1).integers(0, len(rows), (batches, batch_size))
    for own in order:
        yield torch.from_numpy(rows[own].astype(np.int64))


def samples_per_second(
    contender: Callable[[Path, int, int], Iterator[torch.Tensor]], root: Path, batch_size: int, batches: int
) -> float:
    """Return the rate after the first tenth of the batches."""
    warm = batches // 10
    started, read = 0.0, 0
    for number, batch in enumerate(contender(root, batch_size, batches)):
        assert batch.dtype == torch.int64
        assert batch.shape == (batch_size, LENGTH)
        if number == warm:
            started = time.perf_counter()
        elif number > warm:
            read += batch_size
    return read / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=4000, help="samples of each stream")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    contenders = {"mixstream": ours, "streaming": streamings, "memmap": ceiling}
    told = []
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "streams"
        make_streams(root, arguments.samples)
        for batch_size in (8, 64):
            batches = arguments.samples * 4 // batch_size
            rates: dict[str, list[float]] = {name: [] for name in contenders}
            for _ in range(arguments.repeats):
                for name, contender in contenders.items():
                    rates[name].append(samples_per_second(contender, root, batch_size, batches))
            medians = {name: round(statistics.median(own)) for name, own in rates.items()}
            for name, own in rates.items():
                print(f"batch {batch_size:3} {name:10} {medians[name]:9,} samples/s ({min(own):,.0f}-{max(own):,.0f})")
            told.append(
                {
                    "batch_size": batch_size,
                    "samples_per_second": medians,
                    "of_streaming": round(medians["mixstream"] / medians["streaming"], 2),
                    "of_memmap": round(medians["mixstream"] / medians["memmap"], 2),
                }
            )
    print(json.dumps({"benchmark": "read", "sequence_length": LENGTH, "results": told}))


if __name__ == "__main__":
    main()
