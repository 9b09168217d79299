"""mixstream convert beside what the tokenizer does alone, llm-foundry's way, and reading and writing alone.

Real text of a folder of corpora, its documents in one random order, repeated to a size; a BPE of 32,000 tokens trained
on it. Contenders take turns, each in a process of its own, page cache warm.

    python benchmarks/convert.py FOLDER_OF_CORPORA [--megabytes 200] [--repeats 3] [--only alone,command,long,bytes]

alone    encode_batch and encode_batch_fast with the text in memory, 1 and 2 threads; what convert calls; llm-foundry's
         steps on an eighth of the text
command  the whole command, 1 and 2 workers, from JSONL and Parquet; peak memory of its processes together, at a
         quarter of the text too
long     one document of 0.25 to 4 million tokens
bytes    the byte-level tokenizer in one process, beside reading, and reading and writing
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from measure import Row, fresh, in_turns, report
from streams_on_disk import scratch

sys.path.insert(0, str(Path(__file__).parent.parent))
PARTS = Path(__file__).parent / "convert_parts.py"
TOKENS_PER_MILLION = 4.2  # megabytes of text of a million tokens, about
VOCABULARY = 32_000


@dataclass
class Prepared:
    """What is measured on.

    Attributes:
        root: folder for all of it.
        megabytes: of text.
        tokenizer: tokenizer.json.
        peaks: megabytes of memory of each command that ran.
    """

    root: Path
    megabytes: float
    tokenizer: str
    peaks: dict[str, list[float]] = field(default_factory=dict)

    @property
    def jsonl(self) -> Path:
        return self.root / "all.jsonl"

    @property
    def quarter(self) -> Path:
        return self.root / "quarter.jsonl"

    @property
    def parquet(self) -> Path:
        return self.root / "all.parquet"


def prepare(root: Path, corpora: str, megabytes: float, tokenizer: str | None) -> Prepared:
    """Write the text as JSONL and Parquet, and train the tokenizer, unless one is given."""
    import pyarrow
    import pyarrow.parquet

    from converters.config import FieldsConfig, corpora_of_paths
    from converters.tokens.reading import Reading
    from converters.tokens.training import Training, train

    found, _ = corpora_of_paths([corpora], FieldsConfig(), None)
    documents = list(Reading().documents(found))
    if tokenizer is None:
        tokenizer = str(root / "tokenizer.json")
        Path(tokenizer).write_text(train(lambda: documents, Training(VOCABULARY)).json, encoding="utf-8")
    random.Random(17).shuffle(documents)
    prepared = Prepared(root, megabytes, tokenizer)
    rows, size, turn = [], 0, 0
    while size < megabytes * 1e6:
        for document in documents:
            rows.append({"id": f"{document.id}-{turn}", "text": document.text})
            size += len(document.content)
            if size >= megabytes * 1e6:
                break
        turn += 1
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    prepared.jsonl.write_text("".join(lines), encoding="utf-8")
    prepared.quarter.write_text("".join(lines[: len(lines) // 4]), encoding="utf-8")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), prepared.parquet, row_group_size=5000)
    return prepared


def tree_memory(pid: int) -> float:
    """Return the megabytes of a process and all that it started, pages that they share counted once."""
    total = 0
    waiting = [pid]
    while waiting:
        one = Path(f"/proc/{waiting.pop()}")
        try:
            told = (one / "smaps_rollup").read_text()
            for task in (one / "task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
        except OSError:  # it has ended
            continue
        total += sum(int(line.split()[1]) for line in told.splitlines() if line.startswith("Pss:"))
    return total * 1024 / 1e6


def convert(prepared: Prepared, source: Path, megabytes: float, name: str, *options: str) -> float:
    """Run the command, note its peak memory; return megabytes of text a second."""
    out = prepared.root / "out"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "mixstream.cli", "convert", str(source), "--name", "mul.web", "--out", str(out)]
    begun = time.perf_counter()
    with subprocess.Popen(
        [*command, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        cwd=Path(__file__).parent.parent,
    ) as process:
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, tree_memory(process.pid))
            time.sleep(0.1)
        seconds = time.perf_counter() - begun
        said = (process.stderr.read() if process.stderr else b"").decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"convert: {said.strip().splitlines()[-1] if said.strip() else process.returncode}")
    prepared.peaks.setdefault(name, []).append(peak)
    return megabytes / seconds


def alone(prepared: Prepared, repeats: int) -> list[Row]:
    """Measure the tokenizer without convert, and llm-foundry's steps."""
    given = (prepared.tokenizer, prepared.jsonl)
    size = prepared.megabytes
    ways: dict[str, Callable[[], float]] = {
        f"{method}, {threads} thread(s)": lambda method=method, threads=threads: fresh(
            PARTS, method, *given, threads, size
        )
        for method in ("encode_batch", "encode_batch_fast")
        for threads in (1, 2)
    }
    ways["what convert calls, 1 thread"] = lambda: fresh(PARTS, "our_encode", *given, size)
    ways["llm-foundry's steps"] = lambda: fresh(PARTS, "foundry", *given, size / 8)
    figures, notes = in_turns(ways, repeats)
    row = Row("tokenizing alone, text in memory; llm-foundry's from JSONL to MDS", "MB/s", figures, notes=notes)
    row.ratio(
        "what convert calls / encode_batch, 1 thread", "what convert calls, 1 thread", "encode_batch, 1 thread(s)"
    )
    row.ratio("2 threads / 1, encode_batch", "encode_batch, 2 thread(s)", "encode_batch, 1 thread(s)")
    return [row]


def command(prepared: Prepared, repeats: int) -> list[Row]:
    """Measure the whole command beside encode_batch with as many threads as it has workers."""
    size, tokenizer = prepared.megabytes, ("--tokenizer", prepared.tokenizer)
    given = (prepared.tokenizer, prepared.jsonl)
    ways: dict[str, Callable[[], float]] = {}
    for workers in (1, 2):
        for kind, source in (("JSONL", prepared.jsonl), ("Parquet", prepared.parquet)):
            name = f"convert {kind}, {workers} worker(s)"
            ways[name] = lambda source=source, name=name, workers=workers: convert(
                prepared, source, size, name, *tokenizer, "--workers", str(workers)
            )
        ways[f"encode_batch, {workers} thread(s)"] = lambda workers=workers: fresh(
            PARTS, "encode_batch", *given, workers, size
        )
    quarter = "convert JSONL, 2 workers, a quarter"
    ways[quarter] = lambda: convert(prepared, prepared.quarter, size / 4, quarter, *tokenizer, "--workers", "2")
    ways["llm-foundry's steps"] = lambda: fresh(PARTS, "foundry", *given, size / 8)
    figures, notes = in_turns(ways, repeats)
    row = Row("the whole command", "MB/s", figures, reach="0.9 of encode_batch, 3 of llm-foundry, 1.7", notes=notes)
    for workers in (1, 2):
        ours = f"convert JSONL, {workers} worker(s)"
        row.ratio(f"convert / encode_batch, {workers}", ours, f"encode_batch, {workers} thread(s)")
        row.ratio(f"convert / llm-foundry, {workers}", ours, "llm-foundry's steps")
    row.ratio("2 workers / 1, JSONL", "convert JSONL, 2 worker(s)", "convert JSONL, 1 worker(s)")
    row.ratio("2 workers / 1, Parquet", "convert Parquet, 2 worker(s)", "convert Parquet, 1 worker(s)")
    return [row, Row("peak memory, all processes", "MB", dict(prepared.peaks), reach="1,500, the same at a quarter")]


def long(prepared: Prepared, repeats: int) -> list[Row]:
    """Measure one document of growing length: seconds a million tokens."""
    given = (prepared.tokenizer, prepared.jsonl)
    rows = []
    for millions in (0.25, 0.5, 1, 2, 4):
        size = millions * TOKENS_PER_MILLION
        ways: dict[str, Callable[[], float]] = {
            "mixstream": lambda size=size, millions=millions: fresh(PARTS, "long_document", *given, size) / millions,
            "llm-foundry's steps": lambda size=size, millions=millions: (
                size / fresh(PARTS, "foundry", *given, size, "one") / millions
            ),
        }
        figures, notes = in_turns(ways, repeats, {"llm-foundry's steps": 1})
        what = f"one document of about {millions} million tokens"
        rows.append(Row(what, "s a million tokens", figures, reach="the same at any length", notes=notes))
    return rows


def byte_level(prepared: Prepared, repeats: int) -> list[Row]:
    """Measure the byte-level tokenizer in one process."""
    name = "convert, byte-level"
    ways: dict[str, Callable[[], float]] = {
        name: lambda: convert(prepared, prepared.jsonl, prepared.megabytes, name, "--workers", "0"),
        "reading": lambda: fresh(PARTS, "reading", prepared.jsonl, "only"),
        "reading and writing": lambda: fresh(PARTS, "reading", prepared.jsonl, "write"),
    }
    figures, notes = in_turns(ways, repeats)
    row = Row("byte-level, one process", "MB/s", figures, reach="100, or 0.5 of reading and writing", notes=notes)
    row.ratio("convert / reading and writing", name, "reading and writing")
    peaks = {own: peak for own, peak in prepared.peaks.items() if own == name}
    return [row, Row("peak memory, byte-level", "MB", peaks)]


MEASUREMENTS = {"alone": alone, "command": command, "long": long, "bytes": byte_level}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpora")
    parser.add_argument("--megabytes", type=float, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokenizer")
    parser.add_argument("--only", default=",".join(MEASUREMENTS))
    asked = parser.parse_args()
    with scratch() as root:
        prepared = prepare(root, asked.corpora, asked.megabytes, asked.tokenizer)
        rows = [row for name in asked.only.split(",") for row in MEASUREMENTS[name](prepared, asked.repeats)]
    report("convert", rows, megabytes=asked.megabytes, repeats=asked.repeats)


if __name__ == "__main__":
    main()
