"""Planning alone, up to 10^10 samples in 10^6 shards: time, memory, and how both grow.

Isolates what grows with the number of shards: `Catalog.open` with `build_plan`, and the construction of a
`MixtureLoader`, which looks at the size of every file. No shard is opened: 20 streams of shards of 10,000 samples whose
files are holes of the right size. Two comparisons: a tenth of the shards (time should be a tenth: linear in shards),
and those shards with a hundredth of the samples each (time should be the same: flat in samples). Each measurement is
a fresh process, imports done.

    python benchmarks/plan_scale.py [--shards 1000000] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from measure import Figures, Row, forget_peak, fresh, in_turns, memory, report
from streams_on_disk import make_empty, scratch

STREAMS, LENGTH, BATCH = 20, 2048, 1024


def plan(root: Path) -> tuple[float, float, float]:
    """Return seconds of planning and of the loader's construction, and extra peak memory in MB."""
    from mixstream import Catalog, build_plan
    from mixstream.loader import MixtureLoader

    before, begun = forget_peak(), time.perf_counter()
    catalog = Catalog.open(root)
    found = build_plan(catalog, "natural", sum(catalog.tokens.values()), BATCH)
    planned = time.perf_counter()
    loader = MixtureLoader(found)
    ready = time.perf_counter()
    assert loader.plan is found
    return planned - begun, ready - planned, memory()[1] - before[0]


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
        for shards, samples in (
            (asked.shards, 10_000),
            (asked.shards // 10, 10_000),
            (asked.shards // 10, 100),
        )
    }
    loaders: Figures = {name: [] for name in sizes}
    megabytes: Figures = {name: [] for name in sizes}

    def measured(name: str) -> float:
        seconds, loader, extra = fresh(__file__, "--one", root / name)
        loaders[name].append(loader)
        megabytes[name].append(extra)
        return seconds

    with scratch() as root:
        for name, (shards, samples) in sizes.items():
            make_empty(root / name, STREAMS, shards // STREAMS, samples, LENGTH)
        seconds, notes = in_turns({name: lambda name=name: measured(name) for name in sizes}, asked.repeats)
    reach = "under 15 s, linear in shards, flat in samples"
    rows = [
        Row("planning alone", "s", seconds, reach=reach, notes=notes),
        Row("construction of the loader of that plan", "s", loaders),
        Row("extra peak memory of both", "MB", megabytes),
    ]
    whole, tenth, thin = sizes
    for row in rows:
        row.ratio("10 x the shards", whole, tenth)
        row.ratio("100 x the samples", tenth, thin)
    report("plan_scale", rows, repeats=asked.repeats)


if __name__ == "__main__":
    main()
