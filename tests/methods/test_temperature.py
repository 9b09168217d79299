"""Temperature annealing: the two ends, the way between, and what no temperature is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from observing import check_resumable, seen

from mixstream.errors import WeightsError
from mixstream.methods.temperature import TemperatureAnneal, temperature_at
from mixstream.mixture.weights import natural, temperature

SIZES = [1, 5, 20, 100, 1000]


@pytest.mark.parametrize(("path", "quarter"), [("linear", 4.0), ("cosine", 5 - 4 * (1 - np.cos(np.pi / 4)) / 2)])
def test_the_way_from_one_temperature_to_another(path, quarter):
    assert temperature_at(0, 5, 1, path) == 5
    assert temperature_at(0.25, 5, 1, path) == pytest.approx(quarter)
    assert temperature_at(0.5, 5, 1, path) == pytest.approx(3)
    assert temperature_at(1, 5, 1, path) == pytest.approx(1)


def test_a_run_goes_from_one_temperature_of_its_sizes_to_another():
    anneal = TemperatureAnneal(start=1 / 0.3, end=1)
    assert anneal.needs is None
    begin = anneal.update(seen(None, sizes=SIZES, batch=0))
    assert begin == pytest.approx([0.058818, 0.095325, 0.144485, 0.234160, 0.467212], abs=1e-6)  # mT5's 0.3
    assert anneal.update(seen(None, sizes=SIZES, batch=1000)) == pytest.approx(np.array(SIZES) / 1126)
    middle = anneal.update(seen(None, sizes=SIZES, batch=500))
    assert middle == pytest.approx(temperature(np.array(SIZES, float), 2 / (1 + 1 / 0.3)))


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=8), st.integers(0, 1000), st.floats(0.01, 1e9))
def test_weights_are_of_the_simplex_and_ordered_as_the_sizes(sizes, batch, end):
    wanted = TemperatureAnneal(start=1.0, end=end, path="cosine").update(seen(None, sizes=sizes, batch=batch))
    assert wanted.sum() == pytest.approx(1)
    assert (wanted >= 0).all()
    order = np.argsort(sizes, kind="stable")
    assert (np.diff(wanted[order]) >= -1e-15).all()


def test_it_goes_on_from_a_checkpoint():
    told = [seen(None, sizes=SIZES, batch=batch) for batch in (0, 10, 400)]
    check_resumable(lambda: TemperatureAnneal(start=3.0, end=1.0), told)


def test_a_high_temperature_is_uniform_and_one_is_natural():
    sizes = np.array(SIZES, dtype=float)
    assert TemperatureAnneal(start=1e9, end=1).update(seen(None, sizes=SIZES, batch=0)) == pytest.approx(
        np.full(5, 0.2)
    )
    assert TemperatureAnneal(start=1, end=1).update(seen(None, sizes=SIZES)) == pytest.approx(natural(sizes))


@pytest.mark.parametrize("bad", [0, -1, 0.001, float("nan"), float("inf"), True])
def test_what_is_no_temperature_is_refused(bad):
    with pytest.raises(WeightsError, match=r"temperature end=.*; expected a finite number of at least 0\.01"):
        TemperatureAnneal(start=1.0, end=bad)
