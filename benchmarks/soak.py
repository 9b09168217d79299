"""10^6 batches through one loader: does memory stay flat?

Isolates what is kept from batch to batch: 20 streams of 8 tokens a sample, batch 8, 0 workers, weights set every 1,000
batches. The resident set is read 200 times; the slope is of the second half, after the first has warmed up.

    python benchmarks/soak.py [--batches 1000000]
"""

from __future__ import annotations

import argparse
import gc
from itertools import islice

import numpy as np
from measure import Row, memory, report
from small import make_small, small_loader, zipf
from streams_on_disk import scratch

STREAMS, BATCH, READINGS = 20, 8, 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, default=1_000_000)
    asked = parser.parse_args()
    every = asked.batches // READINGS
    resident = []
    with scratch() as root:
        make_small(root, STREAMS)
        loader = small_loader(root, zipf(STREAMS), BATCH, batches=asked.batches)
        vectors = [dict(zip(loader.plan.streams, own, strict=True)) for own in (zipf(STREAMS), zipf(STREAMS)[::-1])]
        for number, _ in enumerate(islice(loader, asked.batches)):
            if number % 1000 == 0:
                loader.set_weights(vectors[number // 1000 % 2])
            if (number + 1) % every == 0:
                gc.collect()
                resident.append(memory()[0])
    late = np.array(resident[READINGS // 2 :])
    slope = float(np.polyfit(np.arange(len(late)) * every, late, 1)[0]) * 1e6
    rows = [
        Row(
            f"resident set over {asked.batches:,} batches",
            "MB",
            {
                "after the first half": [float(late[0])],
                "at the end": [float(late[-1])],
                "highest less lowest": [float(np.ptp(late))],
                "slope a million batches": [slope],
            },
            reach="flat",
        )
    ]
    report("soak", rows, batches=asked.batches)


if __name__ == "__main__":
    main()
