"""A recipe that trains in seconds on the streams of conftest."""

from __future__ import annotations

from pathlib import Path

import yaml

RUN = {
    "seed": 5,
    "mixture": {
        "weights": "uniform",
        "budget_tokens": 24 * 10 * 8,
        "batch_size": 10,
        "floor": 0.05,
        "window_samples": 20,
    },
    "model": {"hidden_size": 16, "intermediate_size": 24, "num_layers": 1, "num_heads": 2},
    "training": {
        "learning_rate": 0.01,
        "warmup_batches": 2,
        "microbatch_size": 5,
        "checkpoint_batches": 5,
        "log_batches": 4,
        "weight_lag": 2,
    },
}
XDOGE = {"name": "xdoge", "interval_batches": 3, "mu": 0.02, "sequences_per_stream": 2}


def single(streams: Path, out: Path, **changes) -> dict:
    kind = "proxy" if "method" in changes else "base"
    return {"version": 1, "kind": kind, "streams": str(streams), "out": str(out)} | RUN | changes


def chain(streams: Path, out: Path) -> dict:
    base = RUN | {"mixture": RUN["mixture"] | {"weights": "proxy", "max_repeats": 40.0, "floor": 0.0}}
    return {
        "version": 1,
        "kind": "chain",
        "streams": str(streams),
        "out": str(out),
        "proxy": RUN | {"method": XDOGE},
        "average_last": 0.5,
        "base": base,
        "controls": {"uniform": "uniform"},
    }


def save(path: Path, content: dict) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path
