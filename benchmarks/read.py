"""Steady reading of raw local streams: MixtureLoader against other loaders and against the ceiling.

Isolates the order, the gather and the copy to an int64 `input_ids` tensor, page cache warm. Six streams of 2048 uint16
tokens a sample, weights .4 .25 .15 .1 .06 .04 and sizes in the same proportion; shards of 16 MB. Every contender ends
in the same int64 tensor of (batch, 2048) and goes through the same loop. mixstream and StreamingDataset read the same
MDS shards, litdata its own format of the same tokens, Grain, torchdata.nodes and the ceiling one flat file of them.
mixstream's whole batch has labels too, a copy of the tokens; `tokens_only` is the same without, as the others are.
Each measurement is `--seconds` long after a warm-up. Contenders take turns; each has a process of its own, which lives
as long as the benchmark does and waits while it is not its turn: libraries change each other's settings (Grain and
litdata how processes are started).

    python benchmarks/read.py [--batches 8,64,512] [--workers 0,2] [--repeats 3] [--seconds 2]
"""

from __future__ import annotations

import argparse
import gc
import os
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import contenders as all_of
import numpy as np
import torch
from contenders import WEIGHTS, Place
from measure import Row, in_turns, rate, report
from streams_on_disk import flatten, make_streams, scratch

LENGTH = 2048
DRAWS = 60_000  # samples of mixstream's order that the ceiling reads again and again
RATIOS = ("streaming", "litdata", "grain", "torchdata", "ceiling")


def measured(name: str, place: Place, draws: np.ndarray, seconds: float) -> float:
    """Return one contender's samples per second."""
    warnings.filterwarnings("ignore")
    make = getattr(all_of, name)
    batches = make(place, draws) if name == "ceiling" else make(place)
    first = next(batches)
    if first.dtype != torch.int64 or first.shape != (place.batch_size, LENGTH):
        raise TypeError(f"{name} gave {first.dtype} of {tuple(first.shape)}")
    del first
    found = rate(batches, place.batch_size, seconds)
    batches.close()
    gc.collect()
    return found


def drawn(place: Place) -> np.ndarray:
    """Return the rows that mixstream reads first, as rows of the flat file."""
    draws: list[np.ndarray] = []
    for _ in islice(all_of.mixstream(place, draws), DRAWS // place.batch_size):
        pass
    return np.concatenate(draws)


def compare(place: Place, processes: dict[str, ProcessPoolExecutor], repeats: int, seconds: float) -> Row:
    """Return the row of one batch size and number of workers."""
    draws = processes["mixstream"].submit(drawn, replace(place, workers=0)).result()
    figures, notes = in_turns(
        {
            name: lambda name=name, own=own: own.submit(measured, name, place, draws, seconds).result()
            for name, own in processes.items()
        },
        repeats,
    )
    row = Row(
        f"steady read, batch {place.batch_size}, {place.workers} workers", "samples/s", figures, notes=notes,
        reach="15 x streaming (0 workers), ahead of the others, 0.6 of the ceiling",
    )  # fmt: skip
    for own, told in (("mixstream", "mixstream"), ("tokens_only", "mixstream, tokens only,")):
        for other in RATIOS:
            row.ratio(f"{told} / {other}", own, other)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=60_000, help="samples of all streams together")
    parser.add_argument("--batches", default="8,64,512")
    parser.add_argument("--workers", default="0,2")
    parser.add_argument("--only", default=",".join(RATIOS), help="contenders beside mixstream")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    asked = parser.parse_args()
    samples = tuple(round(asked.samples * weight) for weight in WEIGHTS)
    rows = []
    with scratch() as folder, ExitStack() as stack:
        os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = str(folder / "litdata-cache")
        root = Path(folder) / "streams"
        make_streams(root, samples, LENGTH)
        flatten(root, root.parent / "flat.bin", LENGTH)
        processes = {
            name: stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
            for name in ["mixstream", "tokens_only", *(name for name in asked.only.split(",") if name)]
        }
        for batch_size in map(int, asked.batches.split(",")):
            for workers in map(int, asked.workers.split(",")):
                place = Place(root, samples, LENGTH, batch_size, workers)
                rows.append(compare(place, processes, asked.repeats, asked.seconds))
    report("read", rows, length=LENGTH, samples=asked.samples, repeats=asked.repeats, seconds=asked.seconds)


if __name__ == "__main__":
    main()
