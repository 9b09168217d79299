"""What was read is the optimum at every time, where it can be; floors and repeat budgets hold all the way."""

from __future__ import annotations

import numpy as np
import pytest
from climb_pilots import anywhere, of_form, pilots, planted
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import MixtureError
from mixstream.methods.climb import Climb
from mixstream.methods.climb.allocate import two_step
from mixstream.methods.climb.schedule import dynamic
from mixstream.methods.planning.allocating import Region
from mixstream.mixture.schedule import Clock, resolve_schedule

NAMES = ("ca", "es", "eu", "gl")


def test_what_was_read_is_the_best_for_so_many_tokens():
    law, tokens = of_form("F1"), 1000.0
    found = dynamic(
        lambda at: two_step(law, at, anywhere(4), np.ones(4)).proportions,
        tokens,
        anywhere(4),
        NAMES,
        steps=6,
        first=0.05,
    )
    assert found.reached == pytest.approx(found.wanted, abs=1e-9)
    assert found.deviation.max() < 1e-9
    assert np.abs(found.wanted[-1] - found.wanted[0]).max() > 0.01  # the optimum does move
    lengths = np.diff(found.ends, prepend=0)
    read = np.cumsum(found.proportions * lengths[:, None], axis=0)
    assert read / found.ends[:, None] == pytest.approx(found.wanted, abs=1e-9)


@given(st.integers(0, 10_000), st.integers(2, 9), st.floats(0.01, 0.5), st.floats(0, 0.15))
def test_floors_and_budgets_hold_however_the_optimum_moves(seed, steps, first, floor):
    random = np.random.default_rng(seed)
    most = np.maximum(random.uniform(0.1, 1, 4), floor)
    most[0] = 1.0
    region = Region(np.full(4, floor), most)
    tokens = 1e6
    found = dynamic(
        lambda at: region.project(random.dirichlet(np.ones(4))), tokens, region, NAMES, steps=steps, first=first
    )
    assert found.proportions.sum(axis=1) == pytest.approx(np.ones(steps), abs=1e-12)
    assert (found.proportions >= floor - 1e-9).all()
    assert (found.reached <= most + 1e-9).all()  # at any time
    assert found.reached[0] == pytest.approx(found.wanted[0])


def test_a_run_takes_the_changes():
    climb = Climb(form="F1").fit(pilots(planted("F1", 2, 0), 0))
    found = climb.dynamic(1e8, np.full(2, 1e9), np.full(2, 4.0), steps=5)
    clock = Clock(num_batches=1000, batch_size=100, sequence_length=1000)
    planned = resolve_schedule(found.changes, clock, dict.fromkeys(("l0", "l1"), 10**9), 10**8)
    assert [change.at_batch for change in planned] == np.ceil(found.ends[:-1] / 1e5).astype(int).tolist()
    assert list(planned[-1].weights.values()) == pytest.approx(found.proportions[-1])
    assert list(found.weights.values()) == pytest.approx(found.proportions[0])


@pytest.mark.parametrize(
    ("options", "tokens", "message"),
    [
        ({"steps": 1}, 1e6, "a schedule of 1 phases.*expected from 2 to 33"),
        ({"steps": 34}, 1e6, "a schedule of 34 phases"),
        ({"first": 1.0}, 1e6, "the first of 1 of the run"),
        ({"steps": 8}, 8.0, "a run of 8 tokens is too short for 8 phases"),
    ],
)
def test_schedules_that_cannot_be_are_refused(options, tokens, message):
    with pytest.raises(MixtureError, match=message):
        dynamic(lambda at: np.full(4, 0.25), tokens, anywhere(4), NAMES, **options)
