"""exposure.parquet of runs: cut, resumed, carried over and on other ranks, it tells what was trained on and no more."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_stream
from pyarrow import parquet
from tiny import RUN, save, single

from mixstream.callbacks.ledger import ExposureFile
from mixstream.mixture.exposure import ExposureNote, decode
from mixstream.report.sql import query
from mixstream.runs.chain import run_recipe
from mixstream.runs.folder import RunFolder
from mixstream.runs.recipe import load_recipe


class PowerCut(BaseException):
    pass


def told(folder: Path) -> tuple[dict, ExposureNote]:
    table, note = decode((folder / "exposure.parquet").read_bytes(), "it")
    rows = {
        (row["stream"], row["shard"], row["repeat"], row["batch_size"]): (
            row["samples"],
            row["first_batch"],
            row["last_batch"],
        )
        for row in table.to_pylist()
    }
    assert len(rows) == table.num_rows
    return rows, note


def by_hand(*parts: dict) -> dict:
    """Count batches {number: [(stream, shard, repeat, batch size)]} in turn, a sample at a time."""
    rows: dict = {}
    for part in parts:
        for number, draws in sorted(part.items()):
            for draw in draws:
                samples, first, _ = rows.get(draw, (0, number, number))
                rows[draw] = samples + 1, first, number
    return rows


@pytest.fixture
def copied(streams, tmp_path) -> Path:
    shutil.copytree(streams, tmp_path / "streams")
    return tmp_path / "streams"


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Return a function that runs a recipe, up to a batch if one is given, and tells what it trained on."""

    def run(content, stop_at=None, migrate=False):
        seen: dict[int, list[tuple[str, str, int, int]]] = {}

        def note(self, state, logger):
            batch = int(state.timestamp.batch)
            if batch == stop_at:
                raise PowerCut
            streams, own = self._loader.streams, []
            for stream, sample, repeat in zip(
                *(state.batch[key].tolist() for key in ("stream", "sample", "repeat")), strict=True
            ):
                index = streams[stream].index
                shard = int(np.searchsorted(np.cumsum(index.shard_samples), sample, side="right"))
                own.append((streams[stream].name, index.files[shard], repeat, self._loader.plan.batch_size))
            seen[batch] = own

        with monkeypatch.context() as patch:
            patch.setattr(ExposureFile, "batch_start", note, raising=False)
            recipe = load_recipe(save(tmp_path / "recipe.yaml", content))
            with contextlib.suppress(PowerCut):
                run_recipe(recipe, lambda name, run: None, migrate)
        return seen

    return run


def test_a_run_that_is_cut_and_goes_on_tells_what_one_left_alone_does(streams, tmp_path, train):
    whole = train(single(streams, tmp_path / "whole"))
    rows, note = told(tmp_path / "whole")
    assert rows == by_hand(whole)
    assert note == ExposureNote(batch=24, batch_size=10, sequence_length=8, samples=240)
    content = single(streams, tmp_path / "cut")
    first = train(content, stop_at=13)
    # What was trained after the checkpoint is not told of: it will be trained again.
    assert told(tmp_path / "cut") == (
        by_hand({batch: first[batch] for batch in range(10)}),
        note.model_copy(update={"batch": 10, "samples": 100}),
    )
    # The file may be ahead of the checkpoint that the run goes on from, or gone.
    (tmp_path / "cut" / "exposure.parquet").write_bytes((tmp_path / "whole" / "exposure.parquet").read_bytes())
    (tmp_path / "cut" / "checkpoints" / "ba10-rank0.pt").unlink()
    assert sorted(train(content, stop_at=6)) == [5]
    assert told(tmp_path / "cut") == (
        by_hand({batch: first[batch] for batch in range(5)}),
        note.model_copy(update={"batch": 5, "samples": 50}),
    )
    (tmp_path / "cut" / "exposure.parquet").unlink()
    train(content)
    assert told(tmp_path / "cut") == (rows, note)
    files = [(tmp_path / name / "exposure.parquet").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]
    answer = query(tmp_path / "cut", "SELECT sum(samples), max(last_batch) FROM exposure")
    assert answer == (["sum(samples)", "max(last_batch)"], [(240, 23)])


@pytest.mark.filterwarnings("ignore:No batches were trained")
def test_a_run_cut_after_its_last_batch_writes_it_again(streams, tmp_path, train):
    content = single(streams, tmp_path / "run")
    train(content)
    whole = (tmp_path / "run" / "exposure.parquet").read_bytes()
    for name in ("result.json", "exposure.parquet"):
        (tmp_path / "run" / name).unlink()
    assert train(content) == {}
    assert (tmp_path / "run" / "exposure.parquet").read_bytes() == whole


def test_a_run_that_is_carried_over_is_counted_through(copied, tmp_path, train):
    """A stream goes, another batch size, the stream comes back and another has grown; then the first batch size."""
    grown = copied / "gl.tales"
    shutil.copytree(grown, tmp_path / "whole")
    index = json.loads((grown / "index.json").read_text())
    index["shards"] = index["shards"][:-2]
    size = sum(shard["samples"] for shard in index["shards"])
    (grown / "index.json").write_text(json.dumps(index))
    manifest = json.loads((grown / "stream.json").read_text())
    (grown / "stream.json").write_text(json.dumps(manifest | {"num_samples": size, "num_tokens": size * 8}))
    ten = single(copied, tmp_path / "run")
    fifteen = ten | {"mixture": RUN["mixture"] | {"batch_size": 15}}
    first = train(ten, stop_at=8)  # 5 batches of 10 are in its checkpoint
    (copied / "eu.tales").rename(tmp_path / "eu.tales")
    second = train(fifteen, stop_at=12, migrate=True)  # batches 4 .. 9 of 15
    assert min(second) == 4
    (tmp_path / "eu.tales").rename(copied / "eu.tales")
    shutil.rmtree(grown)
    (tmp_path / "whole").rename(grown)
    write_stream(copied, "an.tales", 7, 37, heldout=4)
    third = train(ten, migrate=True)
    assert min(third) == 14
    parts = [{b: first[b] for b in range(5)}, {b: second[b] for b in range(4, 10)}, third]
    rows, note = told(tmp_path / "run")
    assert rows == by_hand(*parts)
    assert note == ExposureNote(batch=24, batch_size=10, sequence_length=8, samples=5 * 10 + 6 * 15 + 10 * 10)
    assert {(name, size) for name, _, _, size in rows} >= {("eu.tales", 10), ("ca.tales", 15), ("an.tales", 10)}
    assert ("eu.tales", 15) not in {(name, size) for name, _, _, size in rows}
    table = parquet.read_table(tmp_path / "run" / "exposure.parquet")
    assert sum(table.column("samples").to_pylist()) == note.samples


@pytest.mark.filterwarnings("ignore:ExposureFile is not in the state_dict")
def test_a_run_that_an_older_version_began_says_what_is_not_counted(streams, tmp_path, train):
    content = single(streams, tmp_path / "run")
    train(content, stop_at=13)
    path = RunFolder(tmp_path / "run").newest_checkpoint()
    checkpoint = torch.load(path, weights_only=False)
    del checkpoint["state"]["callbacks"]["ExposureFile"]
    torch.save(checkpoint, path)
    (tmp_path / "run" / "exposure.parquet").unlink()
    later = train(content)
    rows, note = told(tmp_path / "run")
    assert rows == by_hand(later)
    assert min(later) == 10
    assert (note.samples, note.uncounted) == (240, 100)


KILLED = """
import os, signal, sys, time
from composer.utils import dist
from mixstream.callbacks.ledger import ExposureFile
from mixstream.cli import main

def cut(self, state, logger):
    if int(state.timestamp.batch) == 13:
        dist.barrier()
        time.sleep(1 if dist.get_global_rank() == 0 else 0)  # it serves the others' barrier
        os.kill(os.getpid(), signal.SIGKILL)

ExposureFile.batch_start = cut
main(["train", *sys.argv[1:]])
"""


def test_two_ranks_that_are_killed_and_go_on_as_one_count_what_one_rank_does(streams, tmp_path, train):
    train(single(streams, tmp_path / "one"))
    content = single(streams, tmp_path / "two")
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    recipe = save(tmp_path / "two.yaml", content)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    world = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    world |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "NODE_RANK": "0"}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(recipe)],
            env=world | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    try:
        for process in ranks:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == -signal.SIGKILL, errors[-2000:]
    finally:
        for process in ranks:
            process.kill()
    assert told(tmp_path / "two")[1].batch == 10
    train(content)
    files = [(tmp_path / name / "exposure.parquet").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]
