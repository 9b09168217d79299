"""What finished pilots read, and the losses that they ended with, as a table of runs.

Nothing of it is as designed, all as it was: proportions and unique tokens from each run's plan.json, tokens and losses
from its result.json, parameters counted in the model that it saved.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mixstream.errors import FormatError, RunTableError, StateError, nearest
from mixstream.methods.planning.sources import streams_of
from mixstream.methods.planning.table import RunTable
from mixstream.mixture.plan import Plan
from mixstream.mixture.simplex import Float64
from mixstream.runs.folder import Result, RunFolder
from mixstream.runs.pilots.groups import By, Groups
from mixstream.runs.pilots.outcome import TOLD
from mixstream.runs.pilots.written import PilotsFolder

MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit


def collect_pilots(folder: PilotsFolder, allow_unfinished: bool = False) -> tuple[RunTable, tuple[str, ...]]:
    """Return the table of the pilots that have ended, and the names of the others.

    Args:
        folder: of the pilots.
        allow_unfinished: whether others may be left out.

    Raises:
        StateError: some have not ended, and may not be left out; or none has.
        FormatError: a run's files are damaged.
    """
    pilots = folder.read()
    unfinished = tuple(own.name for own in pilots.pilots if not folder.is_done(own.name))
    if unfinished and (not allow_unfinished or len(unfinished) == len(pilots.pilots)):
        more = f" and {len(unfinished) - TOLD} more" if len(unfinished) > TOLD else ""
        raise StateError(
            f"{folder.path}: {len(unfinished)} of {len(pilots.pilots)} pilots have not ended: "
            f"{', '.join(unfinished[:TOLD])}{more}; `mixstream climb run` goes on with them, --allow-unfinished leaves "
            f"them out"
        )
    runs = {own.name: folder.run(own.name) for own in pilots.pilots if own.name not in unfinished}
    return collect_runs(runs, pilots.by, pilots.groups), unfinished


def collect_runs(runs: Mapping[str, RunFolder], by: By, groups: Mapping[str, str]) -> RunTable:
    """Return the table of runs that have ended.

    Args:
        runs: by name.
        by: what a source is: a language, or a stream.
        groups: {stream: source}.

    Raises:
        StateError: a run has not ended.
        RunTableError: a run is of other streams, or measured no loss of one of the sources.
        FormatError: its files are damaged.
    """
    sources = tuple(sorted(set(groups.values())))
    rows = [_row(name, run, by, groups, sources) for name, run in runs.items()]
    shares, tokens, losses, parameters, unique = zip(*rows, strict=True)
    return RunTable(
        sources=sources,
        targets=sources,
        runs=tuple(runs),
        proportions=np.array(shares),
        tokens=np.array(tokens, dtype=np.float64),
        losses=np.array(losses),
        parameters=np.array(parameters, dtype=np.float64),
        unique=np.array(unique),
    )


def sources_of(runs: Mapping[str, RunFolder], sources: Sequence[str]) -> tuple[By, dict[str, str]]:
    """Return what the sources of a law are, and {stream: source}, of runs that are none of its pilots.

    Raises:
        RunTableError: a run reads a stream of no source, or a source is of none.
        FormatError: a run has no plan.json.
    """
    entries = {entry.name: entry.language for run in runs.values() for entry in Plan.load(run.plan).entries}
    by: By = "stream" if set(entries) & set(sources) else "language"
    members = streams_of(sources, entries)
    return by, {stream: source for source, streams in members.items() for stream in streams}


Row = tuple[Float64, float, list[float], float, Float64]


def _row(name: str, run: RunFolder, by: By, groups: Mapping[str, str], sources: Sequence[str]) -> Row:
    """Return a run's proportions (K,), tokens, losses (K,), parameters and unique tokens (K,)."""
    result = run.read_result()
    if result is None:
        raise StateError(f"{run.path}: holds no run that has ended (no result.json); let it go on to its end")
    plan = Plan.load(run.plan)
    strange = [stream for stream in plan.streams if stream not in groups]
    if strange:
        raise RunTableError(
            f"run {name!r} read stream {strange[0]!r}, which the others have not{nearest(strange[0], groups)}"
        )
    own = Groups(groups, {entry.name: entry.num_samples * plan.sequence_length for entry in plan.entries})
    read = own.sums({entry.name: entry.samples for entry in plan.entries})
    shares: Float64 = read / read.sum()
    return shares, result.tokens, _losses(name, result, by, sources), num_parameters(run.model), own.sizes


def _losses(name: str, result: Result, by: By, sources: Sequence[str]) -> list[float]:
    told = result.languages if by == "language" else result.heldout
    missing = [source for source in sources if source not in told]
    if missing:
        raise RunTableError(
            f"run {name!r} measured no loss of {missing[0]!r}: its streams have no held-out split; convert them with "
            f"--holdout"
        )
    return [told[source].nats_per_token for source in sources]


def num_parameters(model: Path) -> float:
    """Return how many numbers a saved model has learnt, its embeddings included; nan where none was saved.

    Counted in the headers of its safetensors files, in which tied embeddings are written once.

    Raises:
        FormatError: a file is no safetensors file.
    """
    files = sorted(model.glob("*.safetensors"))
    return float(sum(map(_count, files))) if files else math.nan


def _count(path: Path) -> int:
    with path.open("rb") as file:
        start = file.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        text = file.read(size) if 0 < size <= MAX_HEADER_BYTES else b""
    try:
        header = json.loads(text)
        return sum(math.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    except (ValueError, TypeError, KeyError, AttributeError):
        raise FormatError(f"{path}: damaged: no header of a safetensors file; train the run again") from None
