"""What CLIMB's law cannot tell is not told: languages that a mixture hardly reads."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from climb_pilots import pilots, planted

from mixstream.methods.climb import Climb
from mixstream.methods.planning.answer import answer
from mixstream.methods.planning.bootstrap import relative_errors
from mixstream.methods.planning.heldout import held_out

SIZES = {"l0": 1e12, "l1": 1e12}
UNREAD = np.array([[1.0, 0.0], [1 - 1e-6, 1e-6], [0.9, 0.1]])


@pytest.fixture(scope="module", params=["F1", "F2", "F3"])
def fitted(request):
    runs = pilots(planted(request.param, 2, 3), 3)
    return runs, Climb(form=request.param).fit(runs)


def test_a_language_that_is_not_read_has_a_loss_by_f1_only(fitted):
    _, climb = fitted
    losses = climb.predict(UNREAD, 4e9)
    told = climb.fitted.law.form == "F1"
    assert np.isfinite(losses[:, 1]).tolist() == [told, told, True]
    assert np.isfinite(losses[:, 0]).all()


def test_errors_leave_out_what_is_not_told(fitted):
    """Monolingual runs that measured the other language as well, a loss far from any that was fitted."""
    runs, climb = fitted
    losses = np.where(np.isnan(runs.losses), 9.0, runs.losses)
    measured = replace(runs, losses=losses)
    again = climb.fit(measured)
    assert np.isfinite(relative_errors(again, measured)).all()
    if climb.fitted.law.form != "F1":
        assert relative_errors(again, measured).max() < 0.1


@pytest.mark.parametrize("form", ["F2", "F3"])
def test_held_out_errors_leave_out_what_is_not_told(form):
    """A mixture that does not read the third language, and yet measured it."""
    runs = pilots(planted(form, 3, 3), 3)
    shares, losses = runs.proportions.copy(), runs.losses.copy()
    shares[0], losses[0] = [0.5, 0.5, 0], 9.0
    found = held_out(Climb(form=form), replace(runs, proportions=shares, losses=losses), 6)
    assert np.isnan(found.errors[0]).tolist() == [False, False, True]
    assert np.isfinite(found.errors[1:]).all()


def test_an_answer_says_what_it_cannot_tell(fitted):
    """Of two languages one counts, and the other is not worth a token; natural hardly reads the other."""
    runs, climb = fitted
    found = answer(replace(climb, objective="sum_loss", targets={"l0": 1.0}), None, SIZES | {"l1": 1e5}, 4e9, pilots=climb.fitted.pilots)  # fmt: skip
    natural, uniform = found.beside[:2]
    assert math.isfinite(found.expected.mean_loss)
    assert natural.proportions[1] < 1e-6
    assert np.isfinite(uniform.losses).all()
    told = [warning for warning in found.warnings if "is not known: the law says nothing of what is hardly" in warning]
    if climb.fitted.law.form == "F1":
        assert np.isfinite(natural.losses).all()
        assert not told
    else:
        assert math.isnan(natural.losses[1])
        assert any(warning.startswith("what the loss of l1 would be by natural") for warning in told)
    both = answer(climb, runs, SIZES | {"l1": 1e5}, 4e9, refits=3)
    assert math.isnan(both.beside[0].mean_loss) == math.isnan(both.beside[0].wins) == (climb.fitted.law.form != "F1")
