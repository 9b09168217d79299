"""Lanes have equal parts, together too, and a batch that can be dealt to them is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixstream.mixture.apportion import UNIT
from mixstream.mixture.budget import share_caps, shares_within
from mixstream.mixture.lanes import deal, lane_bounds, lane_limits, lane_sizes
from mixstream.mixture.ledger import Terms, draw, open_ledger
from mixstream.mixture.phases import Phase


@given(st.text(max_size=9), st.integers(0, 500), st.integers(0, 500), st.integers(0, 500), st.integers(1, 9))
def test_parts_are_equal_and_a_stream_that_grew_has_those_of_one_that_did_not(name, first, second, third, lanes):
    low, middle, high = np.cumsum([first, second, third]).tolist()
    sizes = [np.diff(lane_bounds(name, *ends, lanes)) for ends in ((low, middle), (middle, high), (low, high))]
    assert all(own.max() - own.min() <= 1 for own in sizes)
    assert [own.sum() for own in sizes] == [second, third, second + third]
    assert (sizes[0] + sizes[1]).tolist() == sizes[2].tolist()


def test_no_lane_has_the_remainders_of_all_streams():
    sizes = lane_sizes({f"l{i}.d": 101 + i % 4 for i in range(400)}, 4)
    assert np.ptp(sizes.sum(axis=1)) < 60  # 300, were the remainders always the last lanes'


def can_be_dealt(totals, room, lane_size):
    """Whether there is a flow: no set of streams has more draws than the lanes can take of them (max-flow, min-cut)."""
    streams = range(len(totals))
    sets = (list(own) for size in streams for own in itertools.combinations(streams, size + 1))
    return all(totals[own].sum() <= np.minimum(room[:, own].sum(axis=1), lane_size).sum() for own in sets)


@settings(max_examples=150)
@given(st.data())
def test_a_batch_is_dealt_wherever_there_is_a_way(data):
    lanes, count = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    lane_size = data.draw(st.integers(1, 4))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    cursors = rng.integers(0, 4, (lanes, count))
    room = rng.integers(0, 4, (lanes, count))
    totals = rng.multinomial(lanes * lane_size, np.ones(count) / count)
    dealt = deal(totals, cursors, cursors + room, lane_size)
    assert (dealt is not None) == can_be_dealt(totals, room, lane_size)
    if dealt is not None:
        assert dealt.sum(axis=0).tolist() == totals.tolist()
        assert dealt.sum(axis=1).tolist() == [lane_size] * lanes
        assert (dealt >= 0).all()
        assert (dealt <= room).all()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("count", "lanes", "lane_size"), [(5, 16, 1), (5, 4, 16), (30, 4, 4), (100, 8, 4)])
def test_a_run_whose_budgets_bind_exactly_is_read_nearly_to_its_end(seed, count, lanes, lane_size):
    """0 to 10 batches early, of 20 to 2 100 (once half of them): lanes have not quite equal parts of all together."""
    rng = np.random.default_rng(seed)
    sizes = np.maximum(1, rng.lognormal(0, 1, count) * 100).astype(np.int64)
    batch_size, budget = lanes * lane_size, 4
    num_batches = int(sizes.sum()) * budget // batch_size
    limits = lane_limits({f"l{i}.d": int(size) for i, size in enumerate(sizes)}, [budget] * count, lanes)
    shares = shares_within(rng.dirichlet(np.ones(count)), 0.0, share_caps(sizes * budget, num_batches * batch_size))
    assert shares.sum() == UNIT
    terms = Terms(batch_size, num_batches, sizes * budget, limits, 0.0, (Phase(0, shares),))
    assert num_batches - len(draw(open_ledger(terms), terms, num_batches)) < 16
