"""Pilots that train in seconds: two languages, one of them of two streams."""

from __future__ import annotations

from pathlib import Path

from conftest import write_stream
from tiny import RUN

from converters.view import proxy_view

SIZES = {"ca.news": 90, "ca.tales": 30, "eu.tales": 60}
MIXTURE = {"batch_size": 10, "window_samples": 20}
BATCH = 10 * 8  # tokens


def pilots_recipe(streams: Path, out: Path, **changes) -> dict:
    """Return a recipe of 2 mixed pilots of 4 and 6 batches for each of 2 languages."""
    return {
        "version": 1,
        "kind": "pilots",
        "streams": str(streams),
        "out": str(out),
        "budgets": [4 * BATCH, 6 * BATCH],
        "ratios": [0.25],
        "seeds": [5],
        "run": {
            "mixture": MIXTURE,
            "model": RUN["model"],
            "training": RUN["training"] | {"checkpoint_batches": 3, "log_batches": 2},
        },
    } | changes


def write_streams(root: Path) -> Path:
    for number, (name, size) in enumerate(SIZES.items()):
        write_stream(root, name, number, size, heldout=4 + number)
    return root


def cut(streams: str, out: Path, share: float, seed: int, min_samples: int) -> object:
    return proxy_view(streams, out, share, seed, min_samples=min_samples)
