"""Several tables of runs as one: the same sources and targets, each run once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mixstream.errors import RunTableError, nearest
from mixstream.methods.planning.table import RunTable


def join(tables: Mapping[str, RunTable]) -> RunTable:
    """Return the runs of several tables as one; sources and targets are in the order of the first.

    Args:
        tables: by the name that a message gives them.

    Raises:
        RunTableError: no table, sources or targets that differ between tables, or a run that is in two.
    """
    if not tables:
        raise RunTableError("no table of runs; give one or more")
    (first, chief), *others = tables.items()
    parts, where = [chief], dict.fromkeys(chief.runs, first)
    for name, table in others:
        for kind, here, there in (("source", table.sources, chief.sources), ("target", table.targets, chief.targets)):
            _refuse_others(kind, name, here, first, there)
            _refuse_others(kind, first, there, name, here)
        for run in table.runs:
            if run in where:
                raise RunTableError(f"run {run!r} is in {where[run]} and in {name}; give each run once")
            where[run] = name
        parts.append(_in_order(table, chief))
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("proportions", "tokens", "losses", "parameters", "unique")
    }
    return replace(chief, runs=tuple(where), **arrays)


def _refuse_others(kind: str, name: str, here: Sequence[str], other: str, there: Sequence[str]) -> None:
    """Refuse names of one table that another has not."""
    lost = [one for one in here if one not in there]
    if lost:
        raise RunTableError(
            f"{kind}s {', '.join(lost[:5])} ({len(lost)}) are in {name}, not in {other}{nearest(lost[0], there)}; "
            f"join tables of the same {kind}s"
        )


def _in_order(table: RunTable, chief: RunTable) -> RunTable:
    """Return a table with its sources and targets in the order of another's."""
    sources = [table.sources.index(name) for name in chief.sources]
    targets = [table.targets.index(name) for name in chief.targets]
    return replace(
        table,
        sources=chief.sources,
        targets=chief.targets,
        proportions=table.proportions[:, sources],
        losses=table.losses[:, targets],
        unique=table.unique[:, sources],
    )
