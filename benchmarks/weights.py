"""New weights at every batch against never: samples per second.

Isolates `set_weights`: 6 raw streams of 2048 tokens, 0 workers, page cache warm, two loaders of one plan; one is given
other weights after each batch (two vectors, one after the other), the other none. They take turns.

    python benchmarks/weights.py [--batches 8,64,512,2048] [--repeats 5] [--seconds 1]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from contenders import ENDLESS, WEIGHTS
from measure import Row, in_turns, rate, report
from streams_on_disk import make_streams, scratch

LENGTH = 2048


def batches(root: Path, batch_size: int, often: bool) -> Iterator[object]:
    """Yield a loader's batches, with new weights after each where `often`."""
    from mixstream import Catalog, build_plan
    from mixstream.loader import MixtureLoader

    catalog = Catalog.open(root)
    vectors = [dict(zip(catalog.names, own, strict=True)) for own in (WEIGHTS, WEIGHTS[::-1])]
    loader = MixtureLoader(build_plan(catalog, vectors[0], ENDLESS * LENGTH, batch_size))
    for number, batch in enumerate(loader):
        if often:
            loader.set_weights(vectors[number % 2])
        yield batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", default="8,64,512,2048")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    asked = parser.parse_args()
    rows = []
    with scratch() as root:
        make_streams(root, [8000] * len(WEIGHTS), LENGTH)
        for size in map(int, asked.batches.split(",")):
            ways = {
                name: lambda often=often, size=size: rate(batches(root, size, often), size, asked.seconds)
                for name, often in (("every batch", True), ("never", False))
            }
            figures, notes = in_turns(ways, asked.repeats)
            row = Row(f"set_weights, batch {size}, 0 workers", "samples/s", figures, reach="0.95", notes=notes)
            row.ratio("every batch / never", "every batch", "never")
            rows.append(row)
            pairs = zip(figures["every batch"], figures["never"], strict=False)
            extra = {"mixstream": [1e6 * size * (1 / often - 1 / never) for often, never in pairs]}
            rows.append(Row(f"what a change costs, batch {size}", "microseconds", extra))
    report("weights", rows, repeats=asked.repeats, seconds=asked.seconds)


if __name__ == "__main__":
    main()
