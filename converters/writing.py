"""The second half of a conversion: parts to shards, and streams to their places."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor
from pathlib import Path

from converters.corpus import digest_of
from converters.existing import made_already
from converters.manifests import Shared, manifest_of
from converters.tasks.cut import Samples, ShardTask, TableTask, write_shard_of, write_table
from converters.tasks.executors import run_all
from converters.tasks.packing import Sequenced
from mixstream.formats import dump_json, write_whole
from mixstream.streams.manifest import HELDOUT, MANIFEST_NAME, TRAIN, StreamManifest
from mixstream.streams.placing import put_in_place
from mixstream.streams.writer import write_index

Found = Mapping[tuple[str, str], Sequenced]


def write_streams(
    found: Found,
    shared: Shared,
    counts: Mapping[str, Mapping[str, int]],
    work: Path,
    out: Path,
    executor: Executor,
    check: Callable[[str], None],
) -> dict[str, Mapping[str, StreamManifest]]:
    """Write all shards, then put each stream in its place.

    Args:
        found: the documents of every stream and split.
        shared: what all streams have in common, and their names.
        counts: documents that are in no split, by stream and why.
        work: the work folder of the conversion.
        out: the folder of streams.
        executor: runs the tasks.
        check: is called with a stream's name before it is put there, and raises where it may not be.

    Returns:
        {stream: {split: stream.json}}.

    Raises:
        StreamError: the work folder cannot be written.
    """
    placed = work / "placed"
    placed.mkdir(exist_ok=True)
    manifests = _placed_already(shared, placed, out)
    samples = shared.samples
    left = [name for name in shared.streams if name not in manifests]
    keys = [(name, split) for name in left for split in (TRAIN, HELDOUT) if num_samples(found, samples, name, split)]
    places = {key: _place(work, *key) for key in keys}
    tables = [
        TableTask(str(places[key]), samples.keep, samples.layout, samples.sequence_length, found[key]) for key in keys
    ]
    losses = dict(zip(keys, run_all(executor, write_table, tables), strict=True))
    shards = [task for key in keys for task in _shard_tasks(samples, found[key], places[key], work)]
    entries: dict[str, list[Mapping[str, object]]] = {}
    for task, entry in zip(shards, run_all(executor, write_shard_of, shards), strict=True):
        entries.setdefault(task.directory, []).append(entry)
    for name in left:
        own = {
            split: manifest_of(name, split, found, shared, counts.get(name, {}), losses[name, split])
            for split in (TRAIN, HELDOUT)
            if (name, split) in places
        }
        for split, manifest in own.items():
            place = places[name, split]
            write_whole(place / MANIFEST_NAME, dump_json(manifest))
            write_index(place, entries[str(place)])
        check(name)  # another process may have put one there
        put_in_place(places[name, TRAIN], out / name)
        (placed / name).touch()
        manifests[name] = own
    return {name: manifests[name] for name in shared.streams}


def num_samples(found: Found, samples: Samples, name: str, split: str) -> int:
    """Return how many samples a split has; 0 where there is none."""
    return samples.count(found[name, split]) if (name, split) in found else 0


def _placed_already(shared: Shared, placed: Path, out: Path) -> dict[str, Mapping[str, StreamManifest]]:
    """Return the streams that a run which was killed had put in their places."""
    manifests: dict[str, Mapping[str, StreamManifest]] = {}
    for name in shared.streams:
        if shared.options.overwrite and not (placed / name).exists():
            continue  # what is there may be damaged
        done = made_already(out / name, shared.making)
        if done is not None:
            manifests[name] = done
    return manifests


def _place(work: Path, name: str, split: str) -> Path:
    place = work / "made" / name / (HELDOUT if split == HELDOUT else "")
    place.mkdir(parents=True, exist_ok=True)
    return place


def _shard_tasks(samples: Samples, sequenced: Sequenced, place: Path, work: Path) -> Iterable[ShardTask]:
    count = samples.count(sequenced)
    step = samples.format.samples_per_shard(samples.shard_bytes, samples.compression)
    for number, first in enumerate(range(0, count, step)):
        last = min(first + step, count)
        pieces = sequenced.between(first * samples.units, last * samples.units, samples.layout)
        noted = work / "shards" / digest_of(str(place.relative_to(work))) / f"{number:05d}.json"
        yield ShardTask(str(place), str(noted), number, samples, tuple(pieces))
