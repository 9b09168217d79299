"""`mixstream plan` on 1,000 streams and `mixstream --help`: seconds from the shell's view, imports included.

Isolates what a person waits for: a fresh process each time, with its table printed to a pipe, or as JSON. Streams have
12 shards each and a stream.json; no shard is there, since planning opens none. Processor time is told beside the
wall's: what they differ by is waiting, for the disk or for another process's turn.

    python benchmarks/plan_time.py [--streams 1000] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from measure import Figures, Row, in_turns, report
from streams_on_disk import scratch, shard_entry, write_index

from mixstream.formats import dump_json
from mixstream.streams.manifest import StreamManifest, TokenizerInfo

LENGTH, SHARDS, SAMPLES = 2048, 12, 4000
TOKENIZER = TokenizerInfo(name="byte", fingerprint="byte-1", vocab_size=257, eod_token_id=256)


def make_planned(root: Path, streams: int) -> None:
    """Write index.json and stream.json of streams of several sizes."""
    for number in range(streams):
        name, samples = f"l{number:04}.web", SAMPLES // (1 + number % 7)
        write_index(root / name, shard_entry(LENGTH, samples), SHARDS, samples)
        manifest = StreamManifest(
            name=name,
            language=name.partition(".")[0],
            domain="web",
            num_samples=SHARDS * samples,
            num_tokens=SHARDS * samples * LENGTH,
            num_documents=SHARDS * samples * 2,
            sequence_length=LENGTH,
            dtype="uint16",
            tokenizer=TOKENIZER,
        )
        (root / name / "stream.json").write_text(dump_json(manifest))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    asked = parser.parse_args()
    with scratch() as root:
        make_planned(root / "streams", asked.streams)
        plan = ["plan", str(root / "streams"), "--budget-tokens", str(100 * 10**9), "--batch-size", "1024"]
        plan += ["--weights", "temperature:0.3", "--max-repeats", "4", "--out", str(root / "plan.json")]
        calls = {"plan": plan, "plan --json": [*plan, "--json"], "--help": ["--help"]}
        processor: Figures = {name: [] for name in calls}

        def seconds(name: str) -> float:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            begun = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "mixstream.cli", *calls[name]], check=True, capture_output=True, text=True
            )
            taken = time.perf_counter() - begun
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            processor[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
            if name == "plan --json":
                assert len(json.loads(done.stdout)["streams"]) == asked.streams
            return taken

        wall, notes = in_turns({name: lambda name=name: seconds(name) for name in calls}, asked.repeats)
    reach = "plan under 1 s, --help under 0.5 s"
    rows = [
        Row(f"the command line, {asked.streams:,} streams", "s", wall, reach=reach, notes=notes),
        Row("processor time of the same", "s", processor),
    ]
    report("plan_time", rows, repeats=asked.repeats)


if __name__ == "__main__":
    main()
