"""The loaders that are compared: each yields int64 tensors of (batch, sequence) from the same six streams.

Every one has its best settings of those that were tried on a machine of two cores, told at each.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

WEIGHTS = (0.4, 0.25, 0.15, 0.1, 0.06, 0.04)
ENDLESS = 4_000_000  # samples of a run that no measurement gets to the end of


@dataclass(frozen=True)
class Place:
    """Where the streams are and how they are read.

    Attributes:
        root: folder of the MDS streams.
        samples: of each stream.
        length: tokens of a sample.
        batch_size: samples of a batch.
        workers: reading processes.
        cache: where decompressed shards go; None: the streams are raw and read in place.
    """

    root: Path
    samples: tuple[int, ...]
    length: int
    batch_size: int
    workers: int
    cache: Path | None = None

    @property
    def flat(self) -> Path:
        """The file that holds all tokens and nothing else."""
        return self.root.parent / "flat.bin"

    @property
    def starts(self) -> list[int]:
        """Row of the flat file at which each stream starts."""
        return [0, *np.cumsum(self.samples).tolist()]


def tokens_only(place: Place) -> Iterator[torch.Tensor]:
    """MixtureLoader without labels, a second copy of the tokens that no other contender makes."""
    return mixstream(place, labels=False)


def mixstream(place: Place, draws: list[np.ndarray] | None = None, labels: bool = True) -> Iterator[torch.Tensor]:
    """MixtureLoader as users have it: the whole batch is made, also labels, stream, sample and repeat."""
    from mixstream import Catalog, build_plan
    from mixstream.loader import MixtureLoader

    catalog = Catalog.open(place.root)
    weights = dict(zip(catalog.names, WEIGHTS, strict=True))
    plan = build_plan(catalog, weights, ENDLESS * place.length, place.batch_size)
    starts = np.array(place.starts)
    for batch in MixtureLoader(plan, num_workers=place.workers, cache_dir=place.cache, labels=labels):
        if draws is not None:
            draws.append(starts[batch["stream"].numpy()] + batch["sample"].numpy())
        yield batch["input_ids"]


def streaming(place: Place) -> Iterator[torch.Tensor]:
    """StreamingDataset with the weights as proportions, py1e shuffle, rows copied straight into an int64 batch."""
    from streaming import Stream, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    folders = sorted(path for path in place.root.iterdir() if path.is_dir())
    streams = [
        Stream(
            local=str(place.cache / folder.name if place.cache else folder),
            remote=str(folder) if place.cache else None,
            proportion=weight,
        )
        for folder, weight in zip(folders, WEIGHTS, strict=True)
    ]
    epoch = max(sum(place.samples), 16 * place.batch_size)
    dataset = StreamingDataset(
        streams=streams, batch_size=place.batch_size, shuffle=True, epoch_size=epoch, num_canonical_nodes=1
    )
    yield from DataLoader(dataset, batch_size=place.batch_size, num_workers=place.workers, collate_fn=_tokens_of)


def _tokens_of(samples: list[dict[str, np.ndarray]]) -> torch.Tensor:
    return to_batch([sample["tokens"] for sample in samples])


def _rows_of(task: tuple[str, int, int, int]) -> Iterator[torch.Tensor]:
    path, start, end, length = task
    rows = np.memmap(path, dtype=np.uint16, mode="r").reshape(-1, length)
    for row in range(start, end, 256):  # a few at a time: the format is one run of tokens
        yield torch.from_numpy(rows[row : min(row + 256, end)].reshape(-1).copy())


def make_litdata(place: Place) -> Path:
    """Write the streams in litdata's own format, once; return the folder."""
    import litdata

    out = place.root.parent / "litdata"
    if out.exists():
        return out
    for number, start in enumerate(place.starts[:-1]):
        litdata.optimize(
            fn=_rows_of,
            inputs=[(str(place.flat), start, place.starts[number + 1], place.length)],
            output_dir=str(out / f"l{number}"),
            chunk_size=place.length * 4096,  # tokens: 16 MB, as the MDS shards
            item_loader=litdata.TokensLoader(block_size=place.length),
            num_workers=1,
            verbose=False,
        )
    return out


def litdata(place: Place) -> Iterator[torch.Tensor]:
    """CombinedStreamingDataset over litdata's token format (TokensLoader), shuffled; one stack, then to int64.

    It ends with the first stream that is exhausted: streams are as large as their weights, so that is late.
    """
    os.environ.setdefault("LITDATA_LOG_LEVEL", "ERROR")
    import litdata as lit

    out = make_litdata(place)
    datasets = [
        lit.StreamingDataset(
            str(folder), item_loader=lit.TokensLoader(block_size=place.length), shuffle=True, drop_last=False
        )
        for folder in sorted(out.iterdir())
    ]
    mixed = lit.CombinedStreamingDataset(datasets, weights=list(WEIGHTS), iterate_over_all=False)
    yield from lit.StreamingDataLoader(mixed, batch_size=place.batch_size, num_workers=place.workers, collate_fn=_stack)


def _stack(samples: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(samples).to(torch.int64)


class FlatRows:
    """Rows of one stream in the flat file; mapped in the process that reads."""

    def __init__(self, path: Path, start: int, count: int, length: int) -> None:
        """Describe `count` rows from row `start`."""
        self._about = (path, start, count, length)
        self._rows: np.ndarray | None = None

    def __len__(self) -> int:
        return self._about[2]

    def __getitem__(self, row: Any) -> np.ndarray:
        if self._rows is None:
            path, start, count, length = self._about
            self._rows = np.memmap(path, np.uint16, "r", 2 * length * start, (count, length)).view(np.ndarray)
        return self._rows[row]

    def __getstate__(self) -> dict[str, Any]:
        return {"_about": self._about, "_rows": None}


def _flat_rows(place: Place) -> list[FlatRows]:
    return [
        FlatRows(place.flat, start, count, place.length)
        for start, count in zip(place.starts[:-1], place.samples, strict=True)
    ]


def to_batch(rows: Any) -> torch.Tensor:
    """Return uint16 rows, views of a memory map, as one int64 tensor: each is copied once."""
    batch = np.empty((len(rows), len(rows[0])), dtype=np.int64)
    for number, row in enumerate(rows):
        batch[number] = row
    return torch.from_numpy(batch)


def grain(place: Place) -> Iterator[torch.Tensor]:
    """MapDataset.mix of memory maps, each shuffled and repeated, batched as a MapDataset.

    No read threads: with the 16 that are the default it reads a tenth as much from a page cache that is warm.
    """
    import grain as g
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["benchmark"])
    sources = [g.MapDataset.source(rows).shuffle(seed=17).repeat() for rows in _flat_rows(place)]
    mixed = g.MapDataset.mix(sources, weights=list(WEIGHTS)).batch(place.batch_size, batch_fn=to_batch_of_numpy)
    batches = mixed.to_iter_dataset(g.ReadOptions(num_threads=0, prefetch_buffer_size=0))
    if place.workers:
        batches = batches.mp_prefetch(g.MultiprocessingOptions(num_workers=place.workers, per_worker_buffer_size=4))
    for batch in batches:
        yield torch.from_numpy(batch)


def to_batch_of_numpy(rows: Any) -> np.ndarray:
    """Return `to_batch` as an array, which Grain's workers hand over through shared memory."""
    return to_batch(rows).numpy()


def torchdata(place: Place) -> Iterator[torch.Tensor]:
    """torchdata.nodes: MultiNodeWeightedSampler over shuffled row numbers, Batcher, one gather a batch.

    Row numbers instead of rows go through the nodes; workers are threads, given 8 batches at a time: both are the
    fastest of what was tried.
    """
    from torch.utils.data import RandomSampler
    from torchdata import nodes
    from torchdata.nodes.samplers.stop_criteria import StopCriteria

    sources = {
        str(number): nodes.MapStyleWrapper(range(start, start + count), RandomSampler(range(count)))
        for number, (start, count) in enumerate(zip(place.starts[:-1], place.samples, strict=True))
    }
    weights = {str(number): weight for number, weight in enumerate(WEIGHTS)}
    mixed = nodes.MultiNodeWeightedSampler(sources, weights, StopCriteria.CYCLE_FOREVER)
    batches: Any = nodes.Batcher(mixed, place.batch_size)
    gather = FlatGather(place.flat, place.length).__getitems__
    if place.workers:
        batches = nodes.ParallelMapper(batches, gather, num_workers=place.workers, method="thread", prebatch=8)
    else:
        batches = nodes.Mapper(batches, gather)
    yield from nodes.Loader(batches)


def ceiling(place: Place, order: np.ndarray) -> Iterator[torch.Tensor]:
    """A bare memory map: the rows that mixstream read, in its order, gathered a batch at a time and made int64.

    With workers, the same in a torch DataLoader that is given the rows.
    """
    order = order[: len(order) // place.batch_size * place.batch_size].reshape(-1, place.batch_size)
    batches = (order[number % len(order)] for number in range(ENDLESS // place.batch_size))
    rows = FlatGather(place.flat, place.length)
    if place.workers:
        yield from DataLoader(rows, batch_sampler=batches, num_workers=place.workers, collate_fn=_as_is)  # type: ignore[arg-type]
    else:
        yield from map(rows.__getitems__, batches)


class FlatGather(Dataset[torch.Tensor]):
    """Rows of the flat file by number, a batch in one gather and one conversion."""

    def __init__(self, path: Path, length: int) -> None:
        """Map `path` in the process that reads first."""
        self._path, self._length = path, length
        self._rows: np.ndarray | None = None

    def __getitems__(self, rows: Any) -> torch.Tensor:
        """Return the rows (n,) as (n, length) int64."""
        if self._rows is None:
            self._rows = np.memmap(self._path, np.uint16, "r").view(np.ndarray).reshape(-1, self._length)
        return torch.from_numpy(self._rows[rows].astype(np.int64))


def _as_is(batch: torch.Tensor) -> torch.Tensor:
    return batch
