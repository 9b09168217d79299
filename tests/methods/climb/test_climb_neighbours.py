"""A language without runs is its neighbours' mean, and says that it was not measured."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from climb_pilots import of_form, pilots, planted

from mixstream.errors import RunTableError
from mixstream.methods.climb import Climb
from mixstream.methods.climb.neighbours import extended, neighbours_in
from mixstream.methods.planning.table import RunTable

NAMES = ("ca", "es", "eu", "en")
TREE = {"indo_european": {"romance": ["ca", "es", "gl"], "germanic": ["en", ["nl"]]}, "isolate": ["eu"]}
LAW = of_form("F1")


def test_a_guess_is_the_mean_of_its_neighbours():
    wide, guesses = extended(LAW, NAMES, {"gl": ("ca", "es")}, (*NAMES, "gl"))
    assert wide.scale[4] == pytest.approx((30 + 25) / 2)
    assert wide.exponent[4] == pytest.approx(0.29)
    assert (wide.transfer[:4, :4] == LAW.transfer).all()
    assert wide.transfer[2, 4] == pytest.approx((0.06 + 0.05) / 2)  # eu to gl: eu to ca and to es
    assert wide.transfer[0, 4] == pytest.approx(0.10)  # ca to gl: ca to es; to itself there is none
    assert wide.transfer[4, 3] == pytest.approx((0.02 + 0.03) / 2)
    assert wide.transfer[4, 4] == 0
    assert guesses["gl"].neighbours == ("ca", "es")
    assert guesses["gl"].spread["scale"] == pytest.approx(np.std([30, 25], ddof=1))


def test_one_neighbour_has_no_spread_and_gives_what_it_receives():
    wide, guesses = extended(LAW, NAMES, {"gl": ("ca",)}, (*NAMES, "gl"))
    assert guesses["gl"].spread == {}
    assert wide.transfer[0, 4] == wide.transfer[4, 0] == pytest.approx((0.15 + 0.06 + 0.04) / 3)


def test_what_is_measured_is_not_changed_by_more_languages():
    wide, _ = extended(LAW, NAMES, {"gl": ("ca", "es")}, (*NAMES, "gl"))
    shares = np.array([[0.4, 0.3, 0.2, 0.1]])
    with_none = np.append(shares, [[0.0]], axis=1)
    assert wide.losses(with_none, np.array([100.0]))[:, :4] == pytest.approx(LAW.losses(shares, np.array([100.0])))


def test_neighbours_come_from_the_smallest_family():
    assert neighbours_in(TREE, "gl", NAMES) == ("ca", "es")
    assert neighbours_in(TREE, "nl", NAMES) == ("en",)
    assert neighbours_in(TREE, "nl", ("ca", "eu")) == ("ca",)
    assert neighbours_in(TREE, "gl", ("eu",)) == ("eu",)
    with pytest.raises(RunTableError, match="'gll' is not in the tree of families; did you mean 'gl'"):
        neighbours_in(TREE, "gll", NAMES)
    with pytest.raises(RunTableError, match="no language with runs beside 'gl'"):
        neighbours_in(TREE, "gl", ("pt",))


def with_a_language(runs: RunTable, name: str) -> RunTable:
    """The table with a second column, of a language that no run reads."""
    holes = np.full((len(runs), 1), math.nan)
    names = (runs.sources[0], name, *runs.sources[1:])
    return RunTable(
        sources=names,
        targets=names,
        runs=runs.runs,
        proportions=np.insert(runs.proportions, 1, 0.0, axis=1),
        tokens=runs.tokens,
        losses=np.concatenate([runs.losses[:, :1], holes, runs.losses[:, 1:]], axis=1),
        parameters=runs.parameters,
        unique=np.insert(runs.unique, 1, math.inf, axis=1),
    )


class TestInATable:
    runs = pilots(planted("F1", 3, 0), 0)
    wide = with_a_language(runs, "gl")

    def test_it_has_its_place_and_a_share(self):
        narrow = Climb(form="F1").fit(self.runs)
        climb = Climb(form="F1", neighbours={"gl": ("l0", "l2")}).fit(self.wide)
        fitted = climb.fitted
        assert fitted.languages == ("l0", "gl", "l1", "l2")
        assert list(fitted.guesses) == ["gl"]
        assert np.isnan(fitted.residual).tolist() == [False, True, False, False]
        assert np.delete(fitted.law.scale, 1) == pytest.approx(narrow.fitted.law.scale)
        assert fitted.law.floor[1] == pytest.approx(narrow.fitted.law.floor[[0, 2]].mean())
        shares = climb.allocate(4e9, np.full(4, 1e12), np.full(4, 1.0))
        assert shares.sum() == pytest.approx(1)
        assert shares[1] > 0.05
        assert climb.fit(self.wide).fitted.languages == fitted.languages
        later = narrow.extended({"gl": ("l0", "l2")})
        assert later.fitted.languages == ("l0", "l1", "l2", "gl")
        assert later.fitted.law.floor[3] == pytest.approx(fitted.law.floor[1])
        assert later.fitted.pilots.proportions.shape == (len(self.runs), 4)

    def test_without_neighbours_it_is_refused(self):
        with pytest.raises(RunTableError, match="no run reads 'gl' and tells its loss, and it has no neighbours"):
            Climb(form="F1").fit(self.wide)

    def test_neighbours_must_be_measured(self):
        with pytest.raises(RunTableError, match="'pt', a neighbour of 'gl', has no runs of its own"):
            Climb(form="F1", neighbours={"gl": ("pt",)}).fit(self.wide)

    def test_a_language_that_is_read_must_be_measured(self):
        shares = self.wide.proportions.copy()
        shares[2] = [0.5, 0.25, 0.25, 0.0]
        runs = replace(self.wide, proportions=shares)
        with pytest.raises(RunTableError, match=r"run '2' reads 0\.25 of 'gl', of which no run tells the loss"):
            Climb(form="F1", neighbours={"gl": ("l0",)}).fit(runs)
