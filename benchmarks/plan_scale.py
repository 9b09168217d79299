"""Planning alone, up to 10^10 samples in 10^6 shards: time, memory, and how both grow.

Isolates what grows with the number of shards: `Catalog.open`, `build_plan` and the construction of a `MixtureLoader`.
No shard is opened, so the streams are index.json files only: 20 streams, shards of 10,000 samples that nobody wrote.
Two comparisons besides: a tenth of the shards (time should be a tenth: linear in shards) and the same shards with 100
times fewer samples each (time should be the same: flat in samples). Each measurement is a fresh process, imports done.

    python benchmarks/plan_scale.py [--shards 1000000] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from measure import Row, forget_peak, fresh, in_turns, memory, report
from streams_on_disk import scratch, shard_entry, write_index

STREAMS, LENGTH, BATCH = 20, 2048, 1024


def plan(root: Path) -> tuple[float, float]:
    """Return seconds of planning and extra peak memory in MB."""
    from mixstream import Catalog, build_plan
    from mixstream.loader import MixtureLoader

    before, begun = forget_peak(), time.perf_counter()
    catalog = Catalog.open(root)
    MixtureLoader(build_plan(catalog, "natural", sum(catalog.tokens.values()), BATCH))
    return time.perf_counter() - begun, memory()[1] - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(plan(asked.one)))
        return
    sizes = {
        f"{shards:,} shards, {shards * samples:.0e} samples": (shards, samples)
        for shards, samples in ((asked.shards, 10_000), (asked.shards // 10, 10_000), (asked.shards, 100))
    }
    megabytes: dict[str, list[float]] = {name: [] for name in sizes}

    def measured(name: str) -> float:
        seconds, extra = fresh(__file__, "--one", root / name)
        megabytes[name].append(extra)
        return seconds

    with scratch() as root:
        for name, (shards, samples) in sizes.items():
            for stream in range(STREAMS):
                folder = root / name / f"l{stream:04}.web"
                write_index(folder, shard_entry(LENGTH, samples), shards // STREAMS, samples)
        seconds, notes = in_turns({name: lambda name=name: measured(name) for name in sizes}, asked.repeats)
    time_row = Row("planning alone", "s", seconds, reach="under 15 s, linear in shards, flat in samples", notes=notes)
    whole, tenth, thin = sizes
    for row in (rows := [time_row, Row("extra peak memory of planning alone", "MB", megabytes)]):
        row.ratio("10 x the shards", whole, tenth)
        row.ratio("100 x the samples", whole, thin)
    report("plan_scale", rows, repeats=asked.repeats)


if __name__ == "__main__":
    main()
