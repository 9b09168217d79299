"""Resuming at batch 10^6: time to the next batch against a fresh start, and the bytes of the state.

Isolates what a position costs. 20 streams, weights 1/i, samples of 8 tokens, batch 8, 0 workers: a loader is walked to
batch 10^6 once, in a process of its own, and gives its state. Then, each in a fresh process with its imports done: from
opening the streams to the first batch, and the same with the state loaded. The state's bytes are told for one lane and
for `--lanes` of them.

    python benchmarks/resume.py [--at 1000000] [--lanes 8] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import islice
from pathlib import Path
from typing import Any

from measure import Row, fresh, in_turns, report, why_not
from small import make_small, small_loader, zipf
from streams_on_disk import scratch

STREAMS, BATCH = 20, 8


def open_loader(root: Path, lanes: int) -> Any:
    """Return a loader of a plan with one lane or more."""
    return small_loader(root, zipf(STREAMS), BATCH, **({} if lanes == 1 else {"lanes": lanes}))


def walk(root: Path, lanes: int, at: int) -> str:
    """Return the state after `at` batches."""
    loader = open_loader(root, lanes)
    for _ in islice(loader, at):
        pass
    return str(loader.state_dict())


def first_batch(root: Path, lanes: int, state: Path | None) -> float:
    """Return seconds from opening the streams to the next batch."""
    import mixstream.loader

    assert mixstream.loader
    begun = time.perf_counter()
    loader = open_loader(root, lanes)
    if state:
        loader.load_state_dict(state.read_text())
    next(iter(loader))
    return time.perf_counter() - begun


def compare(root: Path, lanes: int, at: int, repeats: int) -> list[Row]:
    """Return the rows of one number of lanes."""
    state = root.parent / f"state-{lanes}.json"
    common = ("--root", root, "--lanes", lanes)
    plural = f"{lanes} lane{'s' * (lanes > 1)}"
    try:
        state.write_text(fresh(__file__, "--one", "walk", *common, "--at", at)["state"])
    except RuntimeError as problem:
        return [Row(f"resume, {plural}", "s", {}, notes=[why_not(problem)])]
    ways = {
        f"at batch {at:.0e}": lambda: fresh(__file__, "--one", "start", *common, "--state", state)["seconds"],
        "fresh": lambda: fresh(__file__, "--one", "start", *common)["seconds"],
    }
    figures, notes = in_turns(ways, repeats)
    more = [resumed - start for resumed, start in zip(*figures.values(), strict=False)]
    size = {"mixstream": [float(len(state.read_bytes()))]}
    return [
        Row(
            f"start to next batch, {plural}", "s", {**figures, "difference": more}, reach="under 1 s more", notes=notes
        ),
        Row(f"state, {STREAMS} streams, {plural}", "bytes", size, reach="under 16,384"),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--at", type=int, default=1_000_000)
    parser.add_argument("--lanes", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", choices=("walk", "start"), help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--state", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one == "walk":
        print(json.dumps({"state": walk(asked.root, asked.lanes, asked.at)}))
    elif asked.one == "start":
        print(json.dumps({"seconds": first_batch(asked.root, asked.lanes, asked.state)}))
    else:
        with scratch() as folder:
            make_small(folder / "streams", STREAMS)
            rows = [
                row for lanes in (1, asked.lanes) for row in compare(folder / "streams", lanes, asked.at, asked.repeats)
            ]
        report("resume", rows, at=asked.at, repeats=asked.repeats)


if __name__ == "__main__":
    main()
