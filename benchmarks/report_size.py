"""The report of a long run: seconds and bytes of the page, and what its charts would weigh by other means.

Isolates `mixstream report` from training: the folder of a run of 10^5 steps and 100 streams (25 languages, 4 domains)
is written by hand, as a run leaves it: a line of losses each batch, a line of every stream's numbers each 10 batches,
weights each 10 batches, held-out losses each 1,000. Then, each in a fresh process, imports included: the whole command.
A second table holds the same charts' bytes as Vega-Lite (the page), as SVG pictures of the same points, and with
plotly.js instead, whose script alone is weighed where a copy of it is given.

    python benchmarks/report_size.py [--quick] [--repeats 3] [--plotly plotly.min.js ...] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mixstream.metrics import HELDOUT_BITS, HELDOUT_NATS, LOSS, PROPORTION, READ, REPEAT, SECONDS, WEIGHT
from mixstream.mixture.plan import Plan, PlannedStream

LANGUAGES, DOMAINS, BATCH, LENGTH = 25, 4, 512, 2048
NAMES = [
    f"{chr(97 + i)}{chr(97 + (i * 7) % 26)}.{domain}"
    for i in range(LANGUAGES)
    for domain in ("books", "law", "web", "wiki")
]
FORMAT = {"format": "mixstream.weights_update", "version": 3, "method": "xdoge", "apply": "sampling", "refused": None}


def make_plan(steps: int) -> Plan:
    """Return an even plan of the streams."""
    count = len(NAMES)
    shares = np.full(count, (1 << 40) // count)
    shares[: (1 << 40) - shares.sum()] += 1
    entries = [
        PlannedStream(
            name=name,
            language=name.split(".")[0],
            domain=name.split(".")[1],
            token_column="tokens",
            num_samples=100_000,
            fingerprint=f"{number:016x}",
            weight=1 / count,
            proportion=share / (1 << 40),
            max_repeats=20.0,
            samples=steps * BATCH // count,
            tokens=steps * BATCH * LENGTH // count,
            repeats=steps * BATCH / count / 100_000,
        )
        for number, (name, share) in enumerate(zip(NAMES, shares.tolist(), strict=True))
    ]
    whole = {"root": "streams", "split": None, "weights_from": "uniform", "tokenizer": None, "floor": 0.001, "lanes": 1}
    sizes = {"stored_sequence_length": LENGTH, "sequence_length": LENGTH, "batch_size": BATCH, "num_batches": steps}
    rest = {"budget_tokens": steps * BATCH * LENGTH, "window_samples": 1 << 16, "seed": 17}
    return Plan(**whole, **sizes, **rest, entries=tuple(entries))


def make_run(folder: Path, steps: int) -> None:
    """Write a run's folder."""
    folder.mkdir(parents=True)
    make_plan(steps).save(folder / "plan.json")
    rng = np.random.default_rng(3)
    weights = np.full(len(NAMES), 1 / len(NAMES))
    with (folder / "metrics.jsonl").open("w") as metrics, (folder / "weights.jsonl").open("w") as updates:
        for batch in range(1, steps + 1):
            loss = 2 + 8 * batch**-0.3
            metrics.write(_line(batch, {"loss/train/total": loss + rng.normal(0, 0.05)}))
            if batch % 10 == 0:
                weights = weights * np.exp(rng.normal(0, 0.01, len(NAMES)))
                weights /= weights.sum()
                metrics.write(_line(batch, _numbers(batch, weights, loss + rng.normal(0, 0.1, len(NAMES)), rng)))
                updates.write(json.dumps(_update(batch, weights, rng)) + "\n")
            if batch % 1000 == 0:
                values = loss + np.linspace(0, 1, len(NAMES))
                told = {HELDOUT_NATS: values, HELDOUT_BITS: values * 1.3}
                metrics.write(_line(batch, _by_stream(told)))


def _line(batch: int, metrics: dict[str, float]) -> str:
    return json.dumps({"batch": batch, "metrics": metrics}) + "\n"


def _by_stream(columns: dict[str, np.ndarray]) -> dict[str, float]:
    return {f"{what}/{name}": v for what, own in columns.items() for name, v in zip(NAMES, own.tolist(), strict=True)}


def _numbers(batch: int, weights: np.ndarray, losses: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    read = weights + rng.normal(0, 1e-4, len(NAMES))
    columns = {WEIGHT: weights, PROPORTION: weights, READ: read, REPEAT: weights * batch * BATCH / 1e5, LOSS: losses}
    times = {"loader/wait_seconds": batch * 0.001, "loader/seconds": batch * 0.5}
    speed = {"throughput/tokens_per_second": 2e6 + rng.normal(0, 1e4), f"xdoge/{SECONDS}": 0.2}
    return _by_stream(columns) | times | speed


def _update(batch: int, weights: np.ndarray, rng: np.random.Generator) -> dict[str, object]:
    named = dict(zip(NAMES, weights.tolist(), strict=True))
    scores = dict(zip(NAMES, rng.normal(0, 1, len(NAMES)).tolist(), strict=True))
    numbers = {"update": batch // 10, "batch": batch, "at_batch": batch + 8, "eta": 1e-3}
    return {**FORMAT, **numbers, "weights": named, "scores": scores, "probe_losses": scores, "position": None}


def measure(folder: Path, repeats: int) -> tuple[list[float], list[float], Path]:
    """Return seconds of the command, imports included, those of processors, and the page."""
    out = folder.parent / "report.html"
    seconds, worked = [], []
    for _ in range(repeats):
        begun, before = time.perf_counter(), os.times()
        subprocess.run([sys.executable, "-m", "mixstream.cli", "report", folder, "--out", out], check=True)
        after = os.times()
        seconds.append(time.perf_counter() - begun)
        worked.append(sum(after[2:4]) - sum(before[2:4]))  # of children
    return seconds, worked, out


def sizes(folder: Path, page: Path, plotly: list[Path]) -> dict[str, int]:
    """Return bytes of the page's parts, of the same charts as SVG, and of plotly.js."""
    import vl_convert

    from mixstream.report.html import as_script, sections_of
    from mixstream.report.images import drawn
    from mixstream.report.read import read_runs

    specs = [spec for section in sections_of(read_runs([folder])) for own in section.figures for spec in own.panels]
    found = {
        "page": page.stat().st_size,
        "its script (vega, vega-lite, vega-embed)": len(vl_convert.javascript_bundle()),
        "its charts' specs, numbers within": len(as_script(specs)),
        "the same charts as SVG, nothing to point at": sum(len(drawn(spec, "svg")) for spec in specs),
    }
    return found | {f"plotly.js alone, {path.name}": path.stat().st_size for path in plotly}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="10^3 steps")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--plotly", type=Path, nargs="*", default=[], help="copies of plotly.js to weigh")
    parser.add_argument("--keep", type=Path, help="write the run and its page here, and leave them")
    asked = parser.parse_args()
    steps = 1_000 if asked.quick else 100_000
    with tempfile.TemporaryDirectory() as scratch:
        folder = (asked.keep or Path(scratch)) / "run"
        if not folder.exists():
            make_run(folder, steps)
        read = sum(path.stat().st_size for path in folder.iterdir())
        seconds, worked, page = measure(folder, asked.repeats)
        weighed = sizes(folder, page, asked.plotly)
    print(f"{steps:,} steps, {len(NAMES)} streams, {read / 1e6:,.0f} MB of logs")
    print(f"{'mixstream report, whole command':<50} {statistics.median(seconds):8.2f} s")
    print(f"{'of it processors at work, all threads':<50} {statistics.median(worked):8.2f} s")
    for what, size in weighed.items():
        print(f"{what:<50} {size / 1e6:8.2f} MB")
    print(
        json.dumps({"steps": steps, "streams": len(NAMES), "seconds": seconds, "cpu_seconds": worked, "bytes": weighed})
    )


if __name__ == "__main__":
    main()
