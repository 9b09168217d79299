"""Streams to read: real ones of random tokens, and folders that only look large."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from streaming import MDSWriter

VOCABULARY = 50_000


def make_streams(
    root: Path,
    samples: Sequence[int],
    length: int,
    compression: str | None = None,
    shard_bytes: int = 1 << 24,
    hashes: Sequence[str] = (),
) -> None:
    """Write one stream of raw or compressed shards for each number of samples, all of uint16 tokens.

    `hashes` of the shards, such as xxh3_64, are noted in index.json. Tokens follow Zipf's law, as words do, so that
    compression has as much to do as with text.
    """
    rng = np.random.default_rng(0)
    for number, count in enumerate(samples):
        columns = {"tokens": f"ndarray:uint16:{length}"}
        place = str(root / f"l{number:04}.web")
        options: dict[str, Any] = {"size_limit": shard_bytes, "compression": compression, "hashes": list(hashes)}
        with MDSWriter(out=place, columns=columns, **options) as writer:
            for _ in range(count):
                tokens = np.exp(rng.random(length, dtype=np.float32) * np.log(VOCABULARY)).astype(np.uint16)
                writer.write({"tokens": tokens})


def flatten(root: Path, path: Path, length: int) -> None:
    """Write the tokens of raw streams, in their order, into one file without headers."""
    with path.open("wb") as flat:
        for shard in sorted(root.glob("*/*.mds")):
            content = shard.read_bytes()
            flat.write(content[-2 * length * int.from_bytes(content[:4], "little") :])


def make_large(root: Path, streams: int, shards: int, samples: int, length: int) -> None:
    """Write streams of `shards` shards each that are one and the same file under many names.

    The file is a whole raw shard of `samples` rows, so both libraries read it as they read any other; the disk
    and the page cache hold it once.
    """
    make_streams(root / ".one", [samples], length, shard_bytes=1 << 31)
    (one,) = (root / ".one").glob("*/*.mds")
    entry = json.loads((one.parent / "index.json").read_text())["shards"][0]
    for number in range(streams):
        folder = root / f"l{number:04}.web"
        write_index(folder, entry, shards, samples)
        for shard in range(shards):
            os.link(one, folder / f"shard.{shard:06}.mds")


def shard_entry(length: int, samples: int) -> dict[str, Any]:
    """Return what index.json says of a raw shard of `samples` rows."""
    return {
        "column_encodings": [f"ndarray:uint16:{length}"],
        "column_names": ["tokens"],
        "column_sizes": [2 * length],
        "compression": None,
        "format": "mds",
        "hashes": [],
        "raw_data": {"basename": "", "bytes": samples * (2 * length + 4) + 300, "hashes": {}},
        "samples": samples,
        "size_limit": 1 << 26,
        "version": 2,
        "zip_data": None,
    }


def write_index(folder: Path, entry: dict[str, Any], shards: int, samples: int) -> None:
    """Write an index.json of `shards` shards like `entry`, of `samples` rows each."""
    folder.mkdir(parents=True)
    before, after = json.dumps({**entry, "samples": samples}).split(f'"basename": "{entry["raw_data"]["basename"]}"')
    with (folder / "index.json").open("w") as index:
        index.write('{"shards": [')
        for shard in range(shards):
            index.write(f'{", " if shard else ""}{before}"basename": "shard.{shard:06}.mds"{after}')
        index.write('], "version": 2}')


def make_empty(root: Path, streams: int, shards: int, samples: int, length: int) -> None:
    """Write streams that can be planned and not read: index.json, and shard files of the right size that are one hole
    behind the number of their samples.

    The files of a stream are one file under many names.
    """
    entry = shard_entry(length, samples)
    for number in range(streams):
        folder = root / f"l{number:04}.web"
        write_index(folder, entry, shards, samples)
        first = folder / "shard.000000.mds"
        with first.open("wb") as hole:
            hole.write(samples.to_bytes(4, "little"))
            hole.truncate(entry["raw_data"]["bytes"])
        for shard in range(1, shards):
            os.link(first, folder / f"shard.{shard:06}.mds")


@contextmanager
def scratch() -> Iterator[Path]:
    """Give a folder that is gone afterwards; $TMPDIR says where."""
    with tempfile.TemporaryDirectory(prefix="mixstream-bench-") as place:
        yield Path(place)
