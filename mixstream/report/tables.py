"""The tables of the page that are of no chart: held-out losses compared, and every setting of the runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mixstream.report.read import RunRecord, flat
from mixstream.runs.changes import MAY_CHANGE_UNLESS_LEARNING

FREE = tuple(f"{key}." for key in ("mixture.weights", *sorted(MAY_CHANGE_UNLESS_LEARNING)))  # of a recipe, in pairs
LISTED = {"entries", "root"}  # of a plan, what other tables tell


def pairs(runs: Sequence[RunRecord]) -> list[tuple[RunRecord, RunRecord]]:
    """Return the runs to compare: those that differ in their weights alone, the first with each of the others."""
    ended = [run for run in runs if run.languages]
    found = []
    for i, run in enumerate(ended):
        alike = [other for other in ended[i + 1 :] if _setting(other) == _setting(run)]
        if not any(_setting(earlier) == _setting(run) for earlier in ended[:i]):
            found += [(run, other) for other in alike]
    return found


def _setting(run: RunRecord) -> tuple[Any, ...]:
    """Return what runs have in common that differ in their weights alone."""
    plan = run.plan
    tokens = run.result.tokens if run.result else None
    shards = [(entry.name, entry.fingerprint) for entry in plan.entries]
    recipe = {key: value for key, value in run.recipe.items() if not any(map(f"{key}.".startswith, FREE))}
    return tokens, plan.seed, plan.batch_size, plan.sequence_length, shards, bool(run.updates), recipe


def heldout_table(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return one row a language, and one of their plain mean.

    A row has ``language``, ``tokens`` (held out), ``cells`` (a run's ``nats`` and ``bits``) and
    ``differences`` (nats/token of each pair of `pairs`, first less second).
    """
    told = [run for run in runs if run.languages]
    compared = pairs(runs)
    languages = sorted({language for run in told for language in run.languages})
    rows = []
    for language in languages:
        losses = {run.name: run.languages.get(language) for run in told}
        cells = [
            {"nats": loss.nats_per_token if loss else None, "bits": loss.bits_per_byte if loss else None}
            for loss in losses.values()
        ]
        differences = [
            first.nats_per_token - second.nats_per_token
            if (first := losses[one.name]) is not None and (second := losses[other.name]) is not None
            else None
            for one, other in compared
        ]
        tokens = max(loss.num_tokens for loss in losses.values() if loss is not None)
        rows.append({"language": language, "tokens": tokens, "cells": cells, "differences": differences})
    return [*rows, _mean_row(rows)] if len(rows) > 1 else rows


def _mean_row(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    cells = [
        {key: _mean([cell[key] for cell in column]) for key in ("nats", "bits")}
        for column in zip(*(row["cells"] for row in rows), strict=True)
    ]
    differences = [_mean(column) for column in zip(*(row["differences"] for row in rows), strict=True)]
    tokens = sum(row["tokens"] for row in rows)
    return {"language": "mean of languages", "tokens": tokens, "cells": cells, "differences": differences}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def settings_table(runs: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return one row a setting of recipes, plans and versions, in their order.

    A row has ``key``, ``cells`` (a run's value as text, empty where it has none) and ``differs``.
    """
    settings = [_settings(run) for run in runs]
    keys = dict.fromkeys(key for own in settings for key in own)
    rows = [{"key": key, "cells": [own.get(key, "") for own in settings]} for key in keys]
    return [{**row, "differs": len(set(row["cells"])) > 1} for row in rows]


def _settings(run: RunRecord) -> dict[str, str]:
    plan = flat({"plan": run.plan.model_dump(mode="json", exclude=LISTED)})
    recipe = {f"recipe.{key}": value for key, value in run.recipe.items()}
    return {key: _text(value) for key, value in (recipe | plan).items()} | _versions(run)


def _versions(run: RunRecord) -> dict[str, str]:
    """Return the versions of a run's starts; where they changed, one after the other."""
    names = dict.fromkeys(name for start in run.versions for name in start)
    told = {name: dict.fromkeys(start[name] for start in run.versions if name in start) for name in names}
    return {f"versions.{name}": ", then ".join(versions) for name, versions in told.items()}


def _text(value: Any) -> str:
    return "none" if value is None else str(value)
