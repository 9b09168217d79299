from __future__ import annotations

import json

import pytest

from mixstream.errors import FormatError
from mixstream.methods.learning.history import read_history
from mixstream.mixture.weights import resolve_weights, save_weights
from mixstream.runs.learnt import learnt_by
from mixstream.runs.sections import AverageRecipe


def line(batch, at_batch, share, **changes):
    fields = {
        "format": "mixstream.weights_update",
        "version": 1,
        "update": batch,
        "batch": batch,
        "at_batch": at_batch,
        "weights": {"ca.a": share, "eu.a": 1 - share},
        "scores": None,
        "probe_losses": None,
        "eta": None,
        "mu": None,
    }
    return json.dumps(fields | changes) + "\n"


@pytest.fixture
def run(tmp_path):
    (tmp_path / "weights.jsonl").write_text(line(0, 0, 0.5) + line(5, 8, 0.7) + line(14, 15, 0.9))
    return tmp_path


def test_the_last_part_is_averaged_and_becomes_a_plans_weights(run):
    learnt = learnt_by(run, AverageRecipe(last=0.5), 20)  # batches 10 to 19: five of 0.7, five of 0.9
    assert learnt == pytest.approx({"ca.a": 0.8, "eu.a": 0.2})
    save_weights(run / "weights.json", learnt, "a test")
    weights = resolve_weights(run / "weights.json", {"ca.a": 1, "eu.a": 1}, 1)
    assert weights.tolist() == list(learnt.values())


def test_files_that_are_no_history_are_refused(run):
    path = run / "weights.jsonl"
    path.write_text(line(0, 0, 0.5) + line(5, 8, 0.7)[:-9])
    with pytest.raises(FormatError, match="line 2: not JSON .*bring the file back"):
        read_history(path)
    path.write_text(line(0, 0, 0.5, weigths={}))
    with pytest.raises(FormatError, match="unknown key 'weigths'; did you mean 'weights'"):
        read_history(path)
    path.write_text(line(0, 0, 0.5) + line(5, 8, 0.7, weights={"ca.a": 0.5, "gl.a": 0.5}))
    with pytest.raises(FormatError, match="line 2: weights of other streams than in line 1"):
        read_history(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match="not UTF-8"):
        read_history(path)
    path.write_text("")
    with pytest.raises(FormatError, match="empty"):
        read_history(path)
    path.unlink()
    with pytest.raises(FormatError, match="No such file or directory; a proxy run writes it"):
        read_history(path)
