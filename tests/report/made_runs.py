"""Folders as runs leave them, written in milliseconds."""

from __future__ import annotations

import json
from pathlib import Path

from conftest import fake_catalog

from mixstream import build_plan
from mixstream.mixture.plan import Plan

CATALOG = fake_catalog({"ca.a": [100], "eu.a": [50], "eu.b": [10]})
OLD_NAMES = {
    "proportion": "exposure/asked",
    "read": "exposure/read",
    "repeat": "exposure/repeats",
    "loss": "exposure/loss",
}


def small_plan() -> Plan:
    return build_plan(CATALOG, "uniform", 8 * 10 * 20, 10, max_repeats={"eu.b": 9})


def make_run(folder: Path, learnt: bool = False, ended: bool = True, loss: float = 2.0, old: bool = False) -> Path:
    """Write a run of 20 batches; `old`: with the names that metrics had before version 3 of weights.jsonl."""
    folder.mkdir()
    small_plan().save(folder / "plan.json")
    (folder / "recipe.yaml").write_text("seed: 17\nmixture: {weights: uniform}\nmodel: {hidden_size: 16}\n")
    lines = []
    for batch in range(1, 21):
        lines.append({"batch": batch, "metrics": {"loss/train/total": 5 - batch / 10}})
        if batch % 5 == 0:
            columns = {"proportion": 1 / 3, "read": 0.3, "repeat": batch / 10, "loss": 3.0 - batch / 20}
            lines.append({"batch": batch, "metrics": _by_stream(columns, old)})
            lines.append({"batch": batch, "metrics": _heldout(loss + 1 - batch / 20)})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if learnt:
        add_updates(folder)
        add_metrics(folder, 20, {"method/seconds" if old else "xdoge/seconds": 0.5})
    if ended:
        end(folder, loss)
    return folder


def _by_stream(columns: dict[str, float], old: bool) -> dict[str, float]:
    prefixes = OLD_NAMES if old else {key: f"mixture/{key}" for key in OLD_NAMES}
    return {f"{prefixes[key]}/{name}": value for key, value in columns.items() for name in CATALOG.names}


def _heldout(loss: float) -> dict[str, float]:
    units = {"nats_per_token": 1.0, "bits_per_byte": 1.5}
    return {f"heldout/{unit}/{name}": loss * factor for unit, factor in units.items() for name in CATALOG.names}


def add_updates(folder: Path) -> None:
    common = {"format": "mixstream.weights_update", "version": 1, "eta": None, "mu": None}
    updates = [
        {
            **common,
            "update": i,
            "batch": 5 * i,
            "at_batch": 5 * i,
            "weights": {"ca.a": 0.5 - i / 10, "eu.a": 0.25 + i / 10, "eu.b": 0.25},
            "scores": {"ca.a": -i, "eu.a": i, "eu.b": None} if i else None,
            "probe_losses": None,
        }
        for i in range(4)
    ]
    (folder / "weights.jsonl").write_text("".join(json.dumps(update) + "\n" for update in updates))


def add_metrics(folder: Path, batch: int, metrics: dict[str, float]) -> None:
    with (folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"batch": batch, "metrics": metrics}) + "\n")


def add_running(folder: Path) -> None:
    """Write what a run on a cache logs: traffic, waiting, throughput."""
    counts = {"bytes": 1_234_567, "requests": 40, "faults": 3, "hits": 7, "evicted": 5}
    for batch, part in ((10, 0.5), (20, 1)):
        traffic = {f"store/{what}/{name}": part * n for what, n in counts.items() for name in CATALOG.names}
        times = {"loader/wait_seconds": 3 * part, "loader/seconds": 40 * part}
        add_metrics(folder, batch, traffic | times | {"throughput/tokens_per_second": 1000 * part})


def end(folder: Path, loss: float) -> None:
    languages = {
        language: {"num_tokens": 80, "nats_per_token": loss + i, "bits_per_byte": None if i else loss}
        for i, language in enumerate(("ca", "eu"))
    }
    streams = {
        name: {"num_tokens": tokens, "nats_per_token": loss, "bits_per_byte": 1.5 * loss}
        for name, tokens in (("ca.a", 80), ("eu.a", 60), ("eu.b", 20))
    }
    result = {"format": "mixstream.result", "version": 1, "batches": 20, "tokens": 1600, "seconds": 3.5, "ranks": 1}
    (folder / "result.json").write_text(json.dumps(result | {"heldout": streams, "languages": languages}))
