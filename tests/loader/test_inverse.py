"""The inverse of a stream's order, against reading the order from its first position on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.loader.inverse import Reading, home_of, readings, times_before, unpermute
from mixstream.loader.order import SMALL, Growth, StreamOrder, permute


@given(count=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
def test_a_permutation_is_undone(count, key):
    places = np.arange(count)
    assert (unpermute(permute(places, count, key), count, key) == places).all()


@st.composite
def orders(draw):
    """Return an order of one stream that may have grown twice, and how far each of its lanes is read."""
    lanes = draw(st.sampled_from([1, 1, 2, 4]))
    large = draw(st.booleans())
    shards = draw(st.lists(st.integers(lanes, 400 if large else 12), min_size=1, max_size=7))
    window, seed = draw(st.integers(1, 3 * SMALL if large else 30)), draw(st.integers(0, 99))
    cuts = sorted(draw(st.sets(st.integers(1, len(shards) - 1), max_size=2))) if len(shards) > 1 else []
    growth, positions = [], [0] * lanes
    for cut in cuts:
        positions = [position + draw(st.integers(0, 2 * sum(shards) // lanes)) for position in positions]
        growth.append(Growth(sum(shards[:cut]), tuple(positions)))
    ends = [position + draw(st.integers(0, 3 * sum(shards) // lanes)) for position in positions]
    return StreamOrder("eu.wiki", np.array(shards), window, seed, lanes, growth), ends


@given(made=orders(), data=st.data())
def test_a_sample_is_read_where_the_order_reads_it(made, data):
    order, ends = made
    begins = [data.draw(st.integers(0, end)) for end in ends]
    expected: dict[int, list[Reading]] = {sample: [] for sample in range(order.size)}
    before: dict[Reading, int] = {}
    for lane, end in enumerate(ends):
        rows, repeats = order.rows(0, end, lane)
        seen = dict.fromkeys(range(order.size), 0)
        for position, (row, repeat) in enumerate(zip(rows.tolist(), repeats.tolist(), strict=True)):
            reading = Reading(lane, position, repeat)
            before[reading], seen[row] = seen[row], seen[row] + 1
            if position >= begins[lane]:
                expected[row].append(reading)
    for sample in data.draw(st.sets(st.integers(0, order.size - 1), max_size=6)):
        found = readings(order, sample, begins, ends)
        assert found == expected[sample]
        assert [times_before(order, sample, one.repeat) for one in found] == [before[one] for one in found]
        assert {one.lane for one in found} <= {home_of(order, sample)[0]}


def test_a_sample_that_is_not_there_is_refused():
    order = StreamOrder("eu.wiki", np.array([3, 4]), 10, 1)
    with pytest.raises(IndexError, match=r"'eu.wiki': sample 7 of 7"):
        home_of(order, 7)
    assert readings(order, 6, [0], [0]) == []
