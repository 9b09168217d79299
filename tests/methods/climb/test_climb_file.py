"""climb.json gives back the planner that it was made of, and refuses what is none."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from climb_pilots import pilots, planted

from mixstream.errors import FitError, FormatError
from mixstream.methods.climb import Climb
from mixstream.methods.climb.file import load, save
from mixstream.methods.planning.reach import reach

SHARES = np.array([[0.3, 0.5, 0.2], [0.1, 0.1, 0.8]])


@pytest.fixture(scope="module", params=[(), (1e8, 4e8)], ids=["one size", "two sizes"])
def climb(request):
    runs = pilots(planted("F2", 2, 1, request.param), 1)
    options = {"form": "F2", "objective": "sum_loss", "targets": {"l0": 2.0}, "seed": 3}
    return Climb(**options).fit(runs).extended({"gl": ("l0", "l1")})


def test_what_was_saved_is_loaded(climb, tmp_path):
    save(climb, tmp_path / "climb.json")
    loaded = load(tmp_path / "climb.json")
    sizes = climb.fitted.law.sizes
    size = sizes[0] if sizes else math.nan
    same = climb.predict(SHARES, 4e9, parameters=size)
    assert loaded.predict(SHARES, 4e9, parameters=size) == pytest.approx(same, rel=1e-12)
    asked = (8e9, np.full(3, 1e12), np.full(3, 4.0))
    assert loaded.allocate(*asked) == pytest.approx(climb.allocate(*asked), abs=1e-9)
    assert (loaded.form, loaded.objective, loaded.targets, loaded.seed) == ("F2", "sum_loss", {"l0": 2.0}, 3)
    assert loaded.fitted.guesses == climb.fitted.guesses
    assert loaded.fitted.notes == climb.fitted.notes
    assert loaded.fitted.errors == climb.fitted.errors
    assert loaded.fitted.residual == pytest.approx(climb.fitted.residual, nan_ok=True)
    save(loaded, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == (tmp_path / "climb.json").read_text()


def test_the_distance_from_the_pilots_is_told_without_the_table(climb, tmp_path):
    save(climb, tmp_path / "climb.json")
    pilots_of_file = load(tmp_path / "climb.json").fitted.pilots
    ours, told = (reach(pilots, SHARES[0], 1e12) for pilots in (climb.fitted.pilots, pilots_of_file))
    assert told == ours
    assert told.tokens_factor == pytest.approx(1e12 / 8e9)


def test_a_person_can_read_it(climb, tmp_path):
    save(climb, tmp_path / "climb.json")
    content = json.loads((tmp_path / "climb.json").read_text())
    assert content["format"] == "mixstream.climb"
    assert content["languages"]["l0"]["b"].keys() == {"l1", "gl"}
    assert content["languages"]["gl"]["neighbours"] == ["l0", "l1"]
    assert len(content["pilots"]) == len(climb.fitted.pilots.runs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(version=2), "version"),
        (lambda c: c["languages"]["l0"].update(B=-1.0), "B"),
        (lambda c: c["languages"]["l0"]["b"].pop("gl"), "b and k of 'l0' are of other languages"),
        (lambda c: c["pilots"]["0"]["proportions"].pop("l1"), "pilot '0' has proportions of other languages"),
        (lambda c: c.update(formm="F1"), "formm"),
    ],
)
def test_files_that_are_none_are_refused(climb, tmp_path, change, message):
    save(climb, tmp_path / "climb.json")
    content = json.loads((tmp_path / "climb.json").read_text())
    change(content)
    (tmp_path / "climb.json").write_text(json.dumps(content))
    with pytest.raises(FormatError, match=message):
        load(tmp_path / "climb.json")


def test_there_must_be_something_to_save_and_to_load(tmp_path):
    with pytest.raises(FitError, match="has not been fitted, so there is nothing to save"):
        save(Climb(), tmp_path / "climb.json")
    with pytest.raises(FormatError, match="no such file; `mixstream climb fit` makes one"):
        load(tmp_path / "climb.json")
