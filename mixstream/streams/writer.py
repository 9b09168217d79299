"""Writing a stream: MDS shards and stream.json, there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy.typing as npt

from mixstream.formats import dump_json, write_whole
from mixstream.streams.manifest import HELDOUT, MANIFEST_NAME, TRAIN, StreamManifest

SHARD_BYTES = 1 << 26
TOKENS = "tokens"  # the column
_PART = re.compile(r"(index|stream)\.json|shard\.\d+\.mds(\.\w+)?")


class StreamWriter:
    """Writes the train and the held-out split of one stream beside its final place, then renames.

    Used as a context manager: leaving it by an exception, or without `finish`, leaves nothing behind.
    """

    def __init__(self, directory: Path, dtype: str, sequence_length: int, shard_bytes: int = SHARD_BYTES) -> None:
        """Prepare to write the stream `directory`; tokens are of `dtype`, samples of `sequence_length`."""
        self._final = directory
        self._temporary = directory.with_name(f"{_prefix(directory)}{os.getpid()}")
        self._columns = {TOKENS: f"ndarray:{dtype}:{sequence_length}"}
        self._shard_bytes = shard_bytes
        self._writers: dict[str, Any] = {}
        self._made: list[Path] = []

    def __enter__(self) -> StreamWriter:
        self._made = [folder for folder in self._final.parents if not folder.exists()]
        self._final.parent.mkdir(parents=True, exist_ok=True)
        _clean_leftovers(self._final)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._temporary, ignore_errors=True)
        with contextlib.suppress(OSError):  # the first that holds what was written
            for folder in self._made:
                folder.rmdir()

    def write(self, split: str, sample: npt.NDArray[Any]) -> None:
        """Append one sample, a (sequence_length,) array of the stream's dtype, to a split."""
        if split not in self._writers:
            self._writers[split] = self._open(split)
        self._writers[split].write({TOKENS: sample})

    def finish(self, manifests: dict[str, StreamManifest]) -> None:
        """Close the shards, write each split's stream.json and put the stream in its place."""
        for split, writer in self._writers.items():
            writer.finish()
            write_whole(self._temporary / split / MANIFEST_NAME, dump_json(manifests[split]))
        if HELDOUT in self._writers:
            (self._temporary / HELDOUT).rename(self._temporary / TRAIN / HELDOUT)
        if self._final.exists():
            self._final.rename(self._temporary / "replaced")
        (self._temporary / TRAIN).rename(self._final)

    def _open(self, split: str) -> Any:
        from streaming import MDSWriter  # 3.5 s to import, and only converting needs it

        return MDSWriter(
            out=str(self._temporary / split),
            columns=self._columns,
            hashes=["xxh64"],  # index.json, and so the stream's fingerprint, then tells its content
            size_limit=self._shard_bytes,
        )


def foreign_entry(directory: Path) -> Path | None:
    """Return what stands in the place of a stream and is no part of one, or None where there is no such thing."""
    if not directory.is_dir() or directory.is_symlink():
        return directory if directory.exists() or directory.is_symlink() else None
    for entry in sorted(directory.iterdir()):
        is_split = entry.name == HELDOUT and directory.name != HELDOUT
        foreign = foreign_entry(entry) if is_split else entry
        if foreign is not None and not (_PART.fullmatch(entry.name) and entry.is_file()):
            return foreign
    return None


def is_part(path: str) -> bool:
    """Tell whether a path below a stream's directory may be a part of the stream, or of its held-out split."""
    return _PART.fullmatch(path.removeprefix(f"{HELDOUT}/")) is not None


def _prefix(directory: Path) -> str:
    return f".{directory.name}.tmp-"


def _clean_leftovers(directory: Path) -> None:
    """Remove what a killed conversion of the same stream left behind."""
    for leftover in directory.parent.glob(f"{_prefix(directory)}*"):
        if not _is_alive(int(leftover.name.rsplit("-", 1)[1])):
            shutil.rmtree(leftover)


def _is_alive(process: int) -> bool:
    if process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
