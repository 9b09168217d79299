"""What loaders do, not how fast: shares, small streams, repeats, new weights at a resume, and what each rank sees.

Isolates the order of samples. Six streams of 4,000 to 400 samples, whose tokens say which stream and row they are, with
weights .4 to .04; every contender has the settings of its own documentation, and no workers. Told are

    shares    largest |share - weight| of a stream in the first 1,000 and 10,000 samples
    small     times that a stream of weight .001 is drawn in 4,000 draws, where 4 are expected
    again     2,400 samples are read, the state is saved, the weights change, 1,200 more are read: how many of them had
              been read before, though every stream still has samples that were not (without memory: 288)
    repeats   times that samples of a stream were read when all were due 8 times: the most less the least
    ranks     four ranks with a row of each batch: largest |share of a rank - weight|, and how many of the 24 pairs of
              a rank and a stream never met

a figure for each seed.

    python benchmarks/behaviour.py [--seeds 5]

Contenders that are not installed are told as such: pip install -e '.[bench]' brings them.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from measure import Row, report, why_not
from streams_on_disk import scratch

SAMPLES = (4000, 2500, 1500, 1000, 600, 400)
WEIGHTS = (0.4, 0.25, 0.15, 0.1, 0.06, 0.04)
LATER = (0.2, 0.2, 0.2, 0.2, 0.1, 0.1)
BATCH, LENGTH, RANKS = 8, 8, 4
Weights = tuple[float, ...]
Order = np.ndarray  # (n, 2): stream and row of each sample
Loader = Callable[..., tuple[Order, Any]]


def mixstream(root: Path, weights: Weights, count: int, seed: int, state: Any = None, rank: int | None = None) -> Any:
    """MixtureLoader; new weights at a resume are another plan, to which the state is carried over."""
    from mixstream import Catalog, build_plan
    from mixstream.loader import MixtureLoader

    catalog = Catalog.open(root)
    batch = BATCH if rank is None else RANKS
    given = dict(zip(catalog.names, weights, strict=True))
    plan = build_plan(catalog, given, 10**6 * LENGTH, batch, seed=seed)
    loader = MixtureLoader(plan, *((0, 1) if rank is None else (rank, RANKS)))
    if state is not None:
        loader.load_state_dict(state, migrate=True)
    rows: list[np.ndarray] = []
    for part in loader:
        rows.append(part["input_ids"][:, :2].numpy())
        if sum(map(len, rows)) >= count:
            break
    return np.concatenate(rows)[:count], loader.state_dict()


def streaming(root: Path, weights: Weights, count: int, seed: int, state: Any = None) -> tuple[Order, Any]:
    """StreamingDataset with proportions and py1e; an epoch is as long as the streams together: 10,000 samples."""
    from streaming import Stream, StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    data = StreamingDataset(
        streams=[Stream(local=str(path), proportion=weight) for path, weight in zip(folders, weights, strict=True)],
        batch_size=BATCH,
        shuffle=True,
        shuffle_seed=seed,
    )
    if state is not None:
        data.load_state_dict(state)
    rows: list[np.ndarray] = []
    while len(rows) < count:
        rows.extend(sample["tokens"][:2] for _, sample in zip(range(count - len(rows)), data, strict=False))
    return np.array(rows, np.int64), data.state_dict(count, False)  # of the first epoch


def grain(root: Path, weights: Weights, count: int, seed: int, state: Any = None, rank: int | None = None) -> Any:
    """MapDataset.mix of shuffled, repeated sources; its state is a position; ranks take every fourth sample."""
    import grain as g

    sources = [g.MapDataset.source(_rows(number)).shuffle(seed=seed).repeat() for number in range(len(weights))]
    mixed = g.MapDataset.mix(sources, weights=list(weights))
    first = state or 0
    places = range(first, first + count) if rank is None else range(rank, RANKS * count, RANKS)
    return np.array([mixed[place] for place in places]), first + count


def grain_iter(root: Path, weights: Weights, count: int, seed: int, state: Any = None) -> tuple[Order, Any]:
    """IterDataset.mix, which keeps a position in every source."""
    import grain as g

    sources = [
        g.MapDataset.source(_rows(number)).shuffle(seed=seed).repeat().to_iter_dataset()
        for number in range(len(weights))
    ]
    found = iter(g.IterDataset.mix(sources, weights=list(weights)))
    if state is not None:
        found.set_state(state)
    return np.array([next(found) for _ in range(count)]), found.get_state()


def torchdata(root: Path, weights: Weights, count: int, seed: int, state: Any = None) -> tuple[Order, Any]:
    """MultiNodeWeightedSampler over shuffled sources."""
    import torch
    from torch.utils.data import RandomSampler
    from torchdata import nodes
    from torchdata.nodes.samplers.stop_criteria import StopCriteria

    sources = {
        str(number): nodes.MapStyleWrapper(
            _rows(number), RandomSampler(range(size), generator=torch.Generator().manual_seed(seed + number))
        )
        for number, size in enumerate(SAMPLES[: len(weights)])
    }
    given = {str(number): weight for number, weight in enumerate(weights)}
    mixed = nodes.MultiNodeWeightedSampler(sources, given, StopCriteria.CYCLE_FOREVER, rank=0, world_size=1, seed=seed)
    mixed.reset(state)
    return np.array([next(mixed) for _ in range(count)]), mixed.state_dict()


def independent(root: Path, weights: Weights, count: int, seed: int, state: Any = None) -> tuple[Order, Any]:
    """Return independent draws, with replacement: the yardstick."""
    rng = np.random.default_rng((seed, state or 0))
    stream = rng.choice(len(weights), count, p=weights)
    return np.stack([stream, (rng.random(count) * np.array(SAMPLES)[stream]).astype(int)], axis=1), 1


def _rows(number: int) -> list[tuple[int, int]]:
    return [(number, row) for row in range(SAMPLES[number])]


CONTENDERS: Mapping[str, Loader] = {
    "mixstream": mixstream,
    "streaming": streaming,
    "grain Map": grain,
    "grain Iter": grain_iter,
    "torchdata": torchdata,
    "independent draws": independent,
}


def off(order: Order, weights: Weights) -> float:
    """Return the largest |share - weight|."""
    return float(np.abs(np.bincount(order[:, 0], minlength=len(weights)) / len(order) - weights).max())


def shares(read: Loader, root: Path, seed: int) -> list[float]:
    order, _ = read(root, WEIGHTS, 10_000, seed)
    return [off(order[:1000], WEIGHTS), off(order, WEIGHTS)]


def small(read: Loader, root: Path, seed: int) -> list[float]:
    weights = (0.4, 0.25, 0.15, 0.1, 0.099, 0.001)
    return [float((read(root, weights, 4000, seed)[0][:, 0] == 5).sum())]


def again(read: Loader, root: Path, seed: int) -> list[float]:
    before, state = read(root, WEIGHTS, 2400, seed)
    after, _ = read(root, LATER, 1200, seed, state)
    seen = set(map(tuple, before.tolist()))
    return [float(sum(tuple(sample) in seen for sample in after.tolist()))]


def repeats(read: Loader, root: Path, seed: int) -> list[float]:
    weights = (0.2, 0.2, 0.2, 0.1, 0.1, 0.2)
    order, _ = read(root, weights, 8 * SAMPLES[5] * 5, seed)
    times = np.bincount(order[order[:, 0] == 5][:, 1], minlength=SAMPLES[5])
    return [float(times.max() - times.min())]


def ranks(read: Loader, root: Path, seed: int) -> list[float]:
    orders = [read(root, WEIGHTS, 2000, seed, None, rank)[0] for rank in range(RANKS)]
    met = sum(len(np.unique(order[:, 0])) for order in orders)
    return [max(off(order, WEIGHTS) for order in orders), float(RANKS * len(WEIGHTS) - met)]


TOLD: tuple[tuple[Callable[..., list[float]], tuple[str, ...], tuple[str, ...]], ...] = (
    (shares, ("first 1,000 samples: largest |share - weight|", "first 10,000 samples: the same"), tuple(CONTENDERS)),
    (small, ("weight .001, 4,000 draws: times drawn",), tuple(CONTENDERS)),
    (again, ("new weights at a resume: of 1,200 read before",), tuple(CONTENDERS)),
    (repeats, ("8 repeats due: most less least times read",), tuple(CONTENDERS)),
    (
        ranks,
        ("4 ranks: largest |share - weight| of one", "pairs of rank and stream that never met"),
        ("mixstream", "grain Map"),
    ),
)


def write(root: Path) -> None:
    """Write streams whose tokens begin with the stream's number and the row's."""
    from streaming import MDSWriter

    for number, count in enumerate(SAMPLES):
        columns = {"tokens": f"ndarray:uint16:{LENGTH}"}
        with MDSWriter(out=str(root / f"l{number}.web"), columns=columns, size_limit=1 << 13) as writer:
            for row in range(count):
                writer.write({"tokens": np.array([number, row, *range(LENGTH - 2)], np.uint16)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(1, parser.parse_args().seeds + 1)
    warnings.filterwarnings("ignore")
    rows = []
    with scratch() as root:
        write(root)
        for measure, names, contenders in TOLD:
            told = [Row(name, "", {contender: [] for contender in contenders}) for name in names]
            for contender in contenders:
                try:
                    figures = [measure(CONTENDERS[contender], root, seed) for seed in seeds]
                except Exception as problem:  # noqa: BLE001  a contender that cannot run costs its own figures only
                    told[0].notes.append(f"{contender}: {why_not(problem)}")
                    continue
                for row, values in zip(told, zip(*figures, strict=True), strict=True):
                    row.figures[contender] = list(values)
            rows.extend(told)
    report("behaviour", rows, seeds=len(seeds))


if __name__ == "__main__":
    main()
