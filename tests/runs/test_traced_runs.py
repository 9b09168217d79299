"""Runs as they are trained, killed, resumed and carried over: what they read is told from their folders alone."""

from __future__ import annotations

import contextlib
import json
import shutil

import pytest
from conftest import write_stream
from tiny import RUN, XDOGE, save, single

from mixstream.callbacks.exposure import Exposure
from mixstream.errors import FormatError
from mixstream.loader.trace import History, draws_of_samples, rows_of_batch
from mixstream.report.tracing import show_batch
from mixstream.runs.chain import run_recipe
from mixstream.runs.recipe import load_recipe


class PowerCut(BaseException):
    pass


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Return a function that runs a recipe, up to a batch if one is given, and tells what it trained on."""

    def run(content, stop_at=None, migrate=False):
        seen: dict[int, list[tuple[str, int, int]]] = {}

        def note(self, state, logger):
            batch = int(state.timestamp.batch)
            if batch == stop_at:
                raise PowerCut
            columns = (state.batch[key].tolist() for key in ("stream", "sample", "repeat"))
            seen[batch] = [(self._names[i], sample, repeat) for i, sample, repeat in zip(*columns, strict=True)]

        monkeypatch.setattr(Exposure, "batch_start", note, raising=False)
        recipe = load_recipe(save(tmp_path / "recipe.yaml", content))
        with contextlib.suppress(PowerCut):
            run_recipe(recipe, lambda name, run: None, migrate)
        return seen

    return run


def traced(leg, batch):
    return [(one.origin.stream, one.sample, one.origin.repeat) for one in rows_of_batch(leg, batch)]


def lines_of(folder):
    return [json.loads(line) for line in (folder / "positions.jsonl").read_text().splitlines()]


def test_a_run_that_learns_and_was_killed_is_told_whole(streams, tmp_path, train):
    content = single(streams, tmp_path / "run", method=XDOGE)
    before = train(content, stop_at=13)
    leg = History.open(tmp_path / "run").legs[0]
    assert {batch: traced(leg, batch) for batch in before} == before  # also those that no checkpoint knows
    after = train(content)
    assert sorted(after) == list(range(10, 24))
    history = History.open(tmp_path / "run")
    (leg,), read = history.legs, before | after
    assert {batch: traced(leg, batch) for batch in range(24)} == read
    lines = lines_of(tmp_path / "run")
    assert [(line["leg"], line["position"]["batch"]) for line in lines] == [(0, 0), (0, 5), (0, 10), (0, 15), (0, 20)]
    shown = show_batch(history, 11)
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = {
        one["batch"] - 1: one["metrics"]["loss/train/total"] for one in metrics if "loss/train/total" in one["metrics"]
    }
    assert {one.batch: one.loss for one in shown.losses} == {batch: losses[batch] for batch in range(8, 15)}
    assert (shown.trained, history.trained) == (True, 24)
    draws = draws_of_samples(history, "eu.tales", range(23))
    expected = [(b, row) for b in range(24) for row, (name, _, _) in enumerate(read[b]) if name == "eu.tales"]
    assert [(draw.batch, draw.row) for draw in draws] == expected


def test_a_run_that_was_carried_over_twice_is_told_whole(streams, tmp_path, train):
    shutil.copytree(streams, tmp_path / "streams")
    content = single(tmp_path / "streams", tmp_path / "run")
    first = train(content, stop_at=13)
    write_stream(tmp_path / "streams", "an.tales", 7, 37, heldout=4)
    second = train(content, stop_at=17, migrate=True)  # from batch 10; the newest checkpoint is of 15
    smaller = content | {
        "mixture": RUN["mixture"] | {"batch_size": 4},
        "training": RUN["training"] | {"microbatch_size": 4},
    }
    third = train(smaller, migrate=True)
    history = History.open(tmp_path / "run")
    assert [(leg.first, leg.end) for leg in history.legs] == [(0, 10), (10, 15), (38, None)]
    legs = [(first, range(10)), (second, range(10, 15)), (third, range(38, 60))]
    for leg, (read, batches) in zip(history.legs, legs, strict=True):
        assert {batch: traced(leg, batch) for batch in batches} == {batch: read[batch] for batch in batches}
    names = [(name, sample) for read, batches in legs for batch in batches for name, sample, _ in read[batch]]
    for name in ("an.tales", "eu.tales"):
        draws = draws_of_samples(history, name, range(37))
        assert [(name, draw.sample) for draw in draws] == [one for one in names if one[0] == name]
    # The metrics of the first two legs were put aside where batches became smaller.
    assert [one.batch for one in show_batch(history, 12).losses] == [9, 10, 11, 12, 13, 14]
    assert [one.batch for one in show_batch(history, 40).losses] == [38, 39, 40, 41, 42, 43]


def test_a_run_whose_positions_are_lost_goes_on_and_is_told_all_the_same(streams, tmp_path, train):
    content = single(streams, tmp_path / "run")
    before = train(content, stop_at=13)
    (tmp_path / "run" / "positions.jsonl").unlink()
    after = train(content)
    assert [line["position"]["batch"] for line in lines_of(tmp_path / "run")] == [10, 15, 20]
    (leg,) = History.open(tmp_path / "run").legs
    assert leg.first == 0
    assert {batch: traced(leg, batch) for batch in range(24)} == before | after


def test_a_run_that_goes_on_with_other_processes_notes_it(streams, tmp_path, train):
    """The part of a rank is of as many processes as trained then, from the batch on at which they began."""
    content = single(streams, tmp_path / "run")
    train(content, stop_at=13)
    path = tmp_path / "run" / "positions.jsonl"
    path.write_text(path.read_text().replace('"ranks": 1', '"ranks": 2'))
    train(content)
    assert [(line["position"]["batch"], line["ranks"], line["leg"]) for line in lines_of(tmp_path / "run")] == [
        *((batch, 2, 0) for batch in (0, 5, 10)),
        *((batch, 1, 0) for batch in (10, 15, 20)),
    ]
    (leg,) = History.open(tmp_path / "run").legs
    assert [leg.ranks_at(batch) for batch in (0, 9, 10, 14, 23)] == [2, 2, 1, 1, 1]


def test_a_damaged_log_of_positions_is_named_where_the_run_goes_on(streams, tmp_path, train):
    content = single(streams, tmp_path / "run")
    train(content, stop_at=13)
    path = tmp_path / "run" / "positions.jsonl"
    path.write_text(path.read_text().replace('"ranks": 1', '"ranks": "one"'))
    with pytest.raises(FormatError, match=r"positions.jsonl, line 3: ranks: Input should be a valid integer"):
        train(content)
