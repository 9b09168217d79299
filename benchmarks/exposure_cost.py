"""What the exposure ledger costs: counting every batch, and writing exposure.parquet, against training steps.

Isolates the ledger: the same loader with it and without, in turns, in seconds of this process's CPU, so that a busy
machine does not blur them; 100 streams of 40 shards, samples so short that reading them costs next to nothing. A step
is forward, backward and AdamW of a Llama of 0.4 M parameters on the same rows, of 128 tokens: as small as anyone
trains, so that the share of it is the most that the ledger can cost. The file is also written for a long run: 400,000
rows, of 100 streams, 400 shards each, 10 repeats.

    python benchmarks/exposure_cost.py [--batches 64,512] [--repeats 3] [--count 4000] [--steps 4]
"""

from __future__ import annotations

import argparse
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from measure import Row, in_turns, report
from small import small_loader
from streams_on_disk import make_large, scratch

STREAMS, SHARDS, SAMPLES, LENGTH = 100, 40, 50, 8
MODEL = {
    "vocab_size": 1024,
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}


def a_batch(root: Path, batch_size: int, count: int, with_ledger: bool) -> float:
    """Return the microseconds of CPU of a batch of the loader; the ledger counts the last of them too."""
    from mixstream.loader import ExposureLedger

    loader = small_loader(root, None, batch_size)
    ledger = ExposureLedger(loader) if with_ledger else None
    batches = iter(loader)
    for _ in islice(batches, count // 4):
        pass
    begun = time.process_time()
    for _ in islice(batches, count):
        pass
    if ledger is not None:
        ledger.content()
    return 1e6 * (time.process_time() - begun) / count


def a_step(batch_size: int, steps: int) -> float:
    """Return the microseconds of CPU of a training step."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model: Any = LlamaForCausalLM(LlamaConfig(**MODEL))
    optimizer = torch.optim.AdamW(model.parameters())
    rows = torch.randint(0, MODEL["vocab_size"], (batch_size, 128))
    seconds = []
    for _ in range(steps + 1):
        begun = time.process_time()
        model(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.process_time() - begun)
    return 1e6 * float(np.median(seconds[1:]))


def a_file() -> float:
    """Return the milliseconds of CPU that a file of 400,000 rows takes to be made."""
    from mixstream.mixture.exposure import ExposureNote, Rows, encode, table_of

    streams = [(f"aa.{k:03}", tuple(f"shard.{i:05}.mds" for i in range(400))) for k in range(STREAMS)]
    shard, repeat = np.repeat(np.arange(400 * STREAMS), 10), np.tile(np.arange(10), 400 * STREAMS)
    numbers = np.random.default_rng(0)
    first = 100_000 * repeat + numbers.integers(0, 90_000, len(shard))
    rows = Rows(shard, repeat, np.full(len(shard), 200), first, first + numbers.integers(0, 10_000, len(shard)))
    note = ExposureNote(batch=10**6, batch_size=64, sequence_length=LENGTH, samples=200 * len(shard))
    begun = time.process_time()
    content = encode(table_of(rows, streams, 64), note)
    seconds = time.process_time() - begun
    print(f"{len(content) / 1e6:.2f} MB")
    return 1e3 * seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", default="64,512")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--count", type=int, default=4000, help="batches of 64; fewer of larger ones")
    parser.add_argument("--steps", type=int, default=4)
    asked = parser.parse_args()
    rows = []
    with scratch() as root:
        make_large(root, STREAMS, SHARDS, SAMPLES, LENGTH)
        for size in map(int, asked.batches.split(",")):
            count = max(200, asked.count * 64 // size)
            figures, notes = in_turns(
                {
                    "with the ledger": lambda size=size, count=count: a_batch(root, size, count, True),
                    "without": lambda size=size, count=count: a_batch(root, size, count, False),
                    "a step": lambda size=size: a_step(size, asked.steps),
                },
                asked.repeats,
            )
            pairs = zip(figures["with the ledger"], figures["without"], strict=True)
            figures["ledger"] = [above - below for above, below in pairs]
            row = Row(f"a batch of {size}", "microseconds of CPU", figures, reach="ledger / step < 0.01", notes=notes)
            row.ratio("ledger / step", "ledger", "a step")
            rows.append(row)
        figures, notes = in_turns({"400,000 rows": a_file}, asked.repeats)
        rows.append(Row("making exposure.parquet", "ms of CPU", figures, notes=notes))
    report("exposure_cost", rows, repeats=asked.repeats, count=asked.count)


if __name__ == "__main__":
    main()
