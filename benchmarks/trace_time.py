"""How long it takes to trace one batch of a run of ten million: with what runs note of their positions, and without.

Isolates counting and looking up: 100 streams of 100 shards, a line of positions.jsonl every 1,000 batches, as a run
with `checkpoint_batches: 1000` leaves them, and a line of weights.jsonl every 1,000 for a run that learns. The command
is timed whole, as a process of its own, imports included; then the same without the logs, so that the batches are
counted from the first on. Texts are not read: they cost what their shards' files cost. Prints medians and a line of
JSON.

    python benchmarks/trace_time.py [--batches 10000000] [--repeats 3]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from streams_on_disk import make_empty

from mixstream import Catalog, Plan, build_plan
from mixstream.loader.positions import PositionLine, plan_digest
from mixstream.loader.trace import History
from mixstream.loader.trace.walk import Start, walk
from mixstream.methods.learning.history import WeightsUpdate
from mixstream.mixture.ledger import advance, open_ledger
from mixstream.mixture.position import Position
from mixstream.mixture.simplex import Float64

STREAMS, SHARDS, SAMPLES, LENGTH, BATCH_SIZE, EVERY = 100, 100, 4096, 128, 64, 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=10_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_empty(root / "streams", STREAMS, SHARDS, SAMPLES, LENGTH)
        budget = asked.batches * BATCH_SIZE * LENGTH
        weights = {name: 1 / (1 + number) for number, name in enumerate(Catalog.open(root / "streams").names)}
        total = sum(weights.values())
        weights = {name: weight / total for name, weight in weights.items()}
        plan = build_plan(Catalog.open(root / "streams"), weights, budget, BATCH_SIZE, window_samples=1 << 16)
        for name in ("fixed", "learning"):
            (root / name).mkdir()
            plan.save(root / name / "plan.json")
        counted = {name: write_logs(root / name, plan, name == "learning") for name in ("fixed", "learning")}
        batch = asked.batches * 9 // 10 + 777
        found: dict[str, float] = {}
        for name in ("fixed", "learning"):
            found[f"{name}_batch"], rows = timed(root / name, asked.repeats, "--batch", batch)
            sample = rows["rows"][0]
            place = "--sample", sample["sample"], "--stream", sample["stream"]
            found[f"{name}_sample"], draws = timed(root / name, asked.repeats, *place)
            print(
                f"{name}: a batch {found[f'{name}_batch']:.2f} s; all {len(draws['draws'])} draws of a sample "
                f"{found[f'{name}_sample']:.2f} s; logs {log_bytes(root / name) / 1e6:.0f} MB",
                flush=True,
            )
        for log in (root / "fixed").glob("*.jsonl"):
            log.unlink()
        found["without_logs_batch"], _ = timed(root / "fixed", 1, "--batch", batch)
        print(f"without logs: {found['without_logs_batch']:.1f} s")
        print(json.dumps({"batches": asked.batches, "streams": STREAMS, "batch": batch, "counted": counted, **found}))


def write_logs(folder: Path, plan: Plan, learns: bool) -> float:
    """Write what a run of a plan leaves behind; return the seconds that its counting alone took."""
    (leg,) = History.open(folder / "plan.json").legs
    generator, rng = leg.order, np.random.default_rng(0)
    ledger, seconds = open_ledger(plan.terms), 0.0
    digest = plan_digest(plan)
    with (folder / ("weights.jsonl" if learns else "positions.jsonl")).open("w") as log:
        while ledger.batch < plan.num_batches:
            position = Position.of(ledger)
            if learns:
                weights = plan.weights if not ledger.batch else rng.dirichlet(200 * plan.weights + 1)
                log.write(json.dumps(update(plan, ledger.batch, weights, position).model_dump()) + "\n")
                changes = iter([(ledger.batch + 8, weights)] if ledger.batch else [])
            else:
                line = PositionLine(
                    leg=0,
                    plan=digest,
                    ranks=1,
                    samples=ledger.batch * BATCH_SIZE,
                    position=position,
                    pending=(),
                    growth={},
                )
                log.write(json.dumps(line.model_dump()) + "\n")
                changes = iter(())
            begun = time.perf_counter()
            for block in walk(generator, Start(ledger, changes), min(ledger.batch + EVERY, plan.num_batches)):
                ledger = advance(block.ledger, generator.terms, block.counts)
            seconds += time.perf_counter() - begun
    (folder / "metrics.jsonl").write_text(json.dumps({"batch": plan.num_batches, "metrics": {}}) + "\n")
    return seconds


def update(plan: Plan, batch: int, weights: Float64, position: Position) -> WeightsUpdate:
    """Return a line of weights.jsonl as a run with a lag of 8 batches writes it."""
    named = dict(zip(plan.streams, (weights / weights.sum()).tolist(), strict=True))
    scores = dict.fromkeys(plan.streams, 0.123456789012345)
    return WeightsUpdate(
        update=batch // EVERY,
        batch=batch,
        at_batch=batch + 8 if batch else 0,
        weights=named,
        scores=scores,
        probe_losses=scores,
        eta=0.01,
        position=position,
    )


def log_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.jsonl"))


def timed(folder: Path, repeats: int, *arguments: object) -> tuple[float, dict]:
    """Return the median seconds of the command as a process of its own, and what it said."""
    command = [sys.executable, "-m", "mixstream.cli", "trace", str(folder), "--json", "--no-text", *map(str, arguments)]
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds), json.loads(done.stdout)


if __name__ == "__main__":
    main()
