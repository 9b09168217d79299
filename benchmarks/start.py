"""Start to first batch: 20 streams with weights 1/i, 10^8 samples in 12,000 shards, time and extra peak memory.

Isolates planning and opening: what a run waits for and holds at every start and resume. From the call that opens the
streams to the first batch of 64 in hand, imports done before; peak memory is the resident set's peak above what was
resident before. Each measurement is a fresh process with 0 workers. A second row leaves out the pages of mapped files
that the batch left resident: they are page cache, which the kernel maps up to 2 MB at a time and takes back at need,
and here they count once for every name of the one file below.

The shards are whole and raw: one file of 8,333 samples of 2048 uint16 tokens (34 MB), hard-linked under 12,000 names,
so that 410 GB of streams take 34 MB of disk and both libraries open and read them as any other.

    python benchmarks/start.py [--quick] [--repeats 3] [--streaming-repeats 3]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from measure import FIRST, Figures, Row, forget_peak, fresh, in_turns, memory, report
from streams_on_disk import make_large, scratch

STREAMS, LENGTH, BATCH, SAMPLES = 20, 2048, 64, 8333


def start_mixstream(root: Path) -> tuple[float, float, float]:
    """Return seconds to the first batch, extra peak memory in MB, and what mapped files have of it."""
    from mixstream import Catalog, build_plan
    from mixstream.loader import MixtureLoader

    before, begun = forget_peak(), time.perf_counter()
    catalog = Catalog.open(root)
    plan = build_plan(catalog, weights_of(catalog.names), sum(catalog.tokens.values()), BATCH)
    batches = iter(MixtureLoader(plan))  # kept: what it holds counts
    batch = next(batches)
    taken = time.perf_counter() - begun
    assert batch["input_ids"].shape == (BATCH, LENGTH)
    return taken, *more_than(before)


def start_streaming(root: Path) -> tuple[float, float, float]:
    """Return seconds to the first batch, extra peak memory in MB, and what mapped files have of it."""
    from streaming import Stream, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory
    from torch.utils.data import DataLoader

    clean_stale_shared_memory()
    before, begun = forget_peak(), time.perf_counter()
    names = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    streams = [Stream(local=str(root / name), proportion=weight) for name, weight in weights_of(names).items()]
    dataset = StreamingDataset(streams=streams, batch_size=BATCH, shuffle=True)
    batches = iter(DataLoader(dataset, batch_size=BATCH))
    batch = next(batches)
    taken = time.perf_counter() - begun
    assert batch["tokens"].shape == (BATCH, LENGTH)
    return taken, *more_than(before)


def more_than(before: tuple[float, float, float]) -> tuple[float, float]:
    """Return the peak above what was resident before, and how much more of mapped files is resident."""
    after = memory()
    return after[1] - before[0], after[2] - before[2]


def weights_of(names: Any) -> dict[str, float]:
    """Return weights in proportion to 1/i, sum 1."""
    total = sum(1 / (place + 1) for place in range(len(names)))
    return {name: 1 / (place + 1) / total for place, name in enumerate(names)}


STARTS = {FIRST: start_mixstream, "streaming": start_streaming}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10^7 samples in 1,200 shards")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--streaming-repeats", type=int, help="fewer, since each takes minutes")
    parser.add_argument("--one", choices=STARTS, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(STARTS[asked.one](asked.root)))
        return
    shards = 60 if asked.quick else 600
    megabytes: Figures = {name: [] for name in STARTS}
    unmapped: Figures = {name: [] for name in STARTS}

    def measured(name: str) -> float:
        seconds, extra, mapped = fresh(__file__, "--one", name, "--root", root)
        megabytes[name].append(extra)
        unmapped[name].append(extra - mapped)
        return seconds

    with scratch() as folder:
        root = folder / "streams"
        make_large(root, STREAMS, shards, SAMPLES, LENGTH)
        fewer = {"streaming": asked.streaming_repeats or asked.repeats}
        seconds, notes = in_turns({name: lambda name=name: measured(name) for name in STARTS}, asked.repeats, fewer)
    size = f"{STREAMS} streams, {STREAMS * shards * SAMPLES:,} samples in {STREAMS * shards:,} shards"
    rows = [
        Row(f"start to first batch, {size}", "s", seconds, reach="1/100 of streaming's", notes=notes),
        Row(f"extra peak memory of it, {size}", "MB", megabytes, reach="at most 150 MB"),
        Row(f"the same without mapped files, {size}", "MB", unmapped, reach="at most 150 MB"),
    ]
    for row in rows:
        row.ratio("streaming / mixstream", "streaming", FIRST)
    report("start", rows, repeats=asked.repeats)


if __name__ == "__main__":
    main()
