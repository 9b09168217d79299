"""1,000 streams against 6: microseconds a draw.

Isolates deciding what is read. Through the loader: samples of 8 tokens, 0 workers, so that next to nothing is read;
what is measured is the time of a batch over its samples. The sampler alone: the loader's batch sampler, which decides
and opens no shard. Weights 1/i and uniform. A third of each measurement is warm-up: what a stream's first draw costs
beyond the next is spread over a second of draws and more.

    python benchmarks/many_streams.py [--batches 64,512] [--repeats 3] [--seconds 3]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from measure import Row, in_turns, rate, report
from small import make_small, small_loader, zipf
from streams_on_disk import scratch


def microseconds(root: Path, count: int, even: bool, batch_size: int, alone: bool, seconds: float) -> float:
    """Return the time of one draw."""
    loader = small_loader(root / str(count), None if even else zipf(count), batch_size)
    return 1e6 / rate(loader.batch_sampler if alone else loader, batch_size, seconds, warm=seconds / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", default="6,1000")
    parser.add_argument("--batches", default="64,512")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    asked = parser.parse_args()
    counts = [int(count) for count in asked.counts.split(",")]
    rows = []
    with scratch() as root:
        for count in counts:
            make_small(root / str(count), count)
        for size in map(int, asked.batches.split(",")):
            for even in (False, True):
                for alone in (False, True):
                    ways: dict[str, Callable[[], float]] = {
                        f"{count} streams": lambda count=count, size=size, even=even, alone=alone: microseconds(
                            root, count, even, size, alone, asked.seconds
                        )
                        for count in counts
                    }
                    figures, notes = in_turns(ways, asked.repeats)
                    row = Row(
                        f"a draw, {'sampler alone' if alone else 'loader'}, batch {size}, weights "
                        f"{'uniform' if even else '1/i'}",
                        "microseconds", figures, reach="at most 20 times, under 50", notes=notes,
                    )  # fmt: skip
                    row.ratio("more / few", f"{counts[-1]} streams", f"{counts[0]} streams")
                    rows.append(row)
    report("many_streams", rows, repeats=asked.repeats, seconds=asked.seconds)


if __name__ == "__main__":
    main()
