"""In what two plans differ, told a sentence each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEPT = ("sequence_length", "window_samples", "lanes", "seed")  # decide every stream's order: no run goes on with others


def identity_differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in what two plans' identities differ, a sentence each; what explains the others comes first."""
    return sorted(_differences(before, now), key=lambda told: not told.endswith(("is gone", "is new")))


def _differences(saved: Any, here: Any, where: str = "") -> list[str]:
    """Return what differs between two JSON values, one sentence each."""
    if isinstance(saved, dict) and isinstance(here, dict):
        keys = [*saved, *(key for key in here if key not in saved)]
        return [told for key in keys for told in _differences(saved.get(key), here.get(key), f"{where}{key} ")]
    if isinstance(saved, list) and isinstance(here, list):
        by_name = [{entry["name"]: entry for entry in entries} for entries in (saved, here)]
        names = [*by_name[0], *(name for name in by_name[1] if name not in by_name[0])]
        return [
            told
            for name in names
            for told in _differences(by_name[0].get(name), by_name[1].get(name), f"stream {name} ")
        ]
    if saved == here:
        return []
    if saved is None and where.startswith("stream") and isinstance(here, dict):
        return [f"{where}is new"]
    if here is None and where.startswith("stream") and isinstance(saved, dict):
        return [f"{where}is gone"]
    return [f"{where}was {saved!r}, is {here!r}"]
