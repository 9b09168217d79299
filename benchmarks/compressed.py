"""Reading zstd shards: MixtureLoader against StreamingDataset, cold and warm.

Isolates decompression and what is kept of it. The six streams of read.py with shards of 16 MB, compressed. Cold: each
measurement has a cache folder of its own, and one whole pass over the streams is timed from its first batch to its
last, decompression included. Warm: the same folder again in a new loader, everything decompressed already.
Contenders take turns, each in a process of its own; 0 workers.

    python benchmarks/compressed.py [--batches 8,64] [--samples 24000] [--repeats 3]
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import contenders as all_of
from contenders import WEIGHTS, Place
from measure import FIRST, Figures, Row, in_turns, report
from streams_on_disk import make_streams, scratch

LENGTH = 2048


def both_passes(name: str, place: Place) -> tuple[float, float]:
    """Return samples per second of a pass with an empty cache folder, and of the next."""
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory(dir=place.root.parent) as cache:
        own = replace(place, cache=Path(cache))
        cold = one_pass(name, own)
        return cold, one_pass(name, own)


def one_pass(name: str, place: Place) -> float:
    """Return samples per second over as many samples as the streams hold."""
    num_batches = sum(place.samples) // place.batch_size
    batches = getattr(all_of, name)(place)
    begun = time.perf_counter()
    count = sum(1 for _ in islice(batches, num_batches))
    taken = time.perf_counter() - begun
    batches.close()
    return count * place.batch_size / taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=24_000, help="samples of all streams together")
    parser.add_argument("--batches", default="8,64")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    samples = tuple(round(asked.samples * weight) for weight in WEIGHTS)
    rows = []
    with scratch() as folder, ExitStack() as stack:
        root = Path(folder) / "streams"
        make_streams(root, samples, LENGTH, compression="zstd")
        processes = {
            name: stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
            for name in (FIRST, "streaming")
        }
        for batch_size in map(int, asked.batches.split(",")):
            place = Place(root, samples, LENGTH, batch_size, 0)
            warm: Figures = {name: [] for name in processes}

            def measured(name: str, place: Place = place, warm: Figures = warm) -> float:
                cold, second = processes[name].submit(both_passes, name, place).result()
                warm[name].append(second)
                return cold

            cold, notes = in_turns({name: lambda name=name: measured(name) for name in processes}, asked.repeats)
            at = f"batch {batch_size}, 0 workers"
            rows.append(Row(f"zstd shards cold, {at}", "samples/s", cold, reach="as fast as streaming", notes=notes))
            rows.append(Row(f"zstd shards warm, {at}", "samples/s", warm, reach="15 x streaming", notes=notes))
    for row in rows:
        row.ratio("mixstream / streaming", FIRST, "streaming")
    report("compressed", rows, length=LENGTH, samples=asked.samples, repeats=asked.repeats)


if __name__ == "__main__":
    main()
