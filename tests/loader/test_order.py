"""M2 and M8: a repeat reads every row once, window by window; positions are found at once (M7)."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mixstream.loader.order import BLOCK, StreamOrder, key_of, mix, permute, shuffled

MASK = (1 << 64) - 1

shard_sizes = st.lists(st.integers(1, 60), min_size=1, max_size=12)


@settings(max_examples=60)
@given(shard_sizes, st.integers(1, 200), st.integers(0, 5))
def test_each_repeat_reads_every_row_exactly_once(sizes, window, seed):
    order = StreamOrder("eu.wiki", np.array(sizes), window, seed)
    rows, repeats = order.rows(0, 3 * order.size)
    for repeat in range(3):
        own = slice(repeat * order.size, (repeat + 1) * order.size)
        assert sorted(rows[own].tolist()) == list(range(order.size))
        assert set(repeats[own].tolist()) == {repeat}


@settings(max_examples=60)
@given(shard_sizes, st.integers(1, 200), st.data())
def test_any_position_is_what_reading_up_to_it_gives(sizes, window, data):
    def order():
        return StreamOrder("eu.wiki", np.array(sizes), window, 1)

    everything, repeats = order().rows(0, 2 * sum(sizes) + BLOCK)
    start = data.draw(st.integers(0, 2 * sum(sizes)))
    count = data.draw(st.integers(0, BLOCK))
    rows, own = order().rows(start, count)
    assert rows.tolist() == everything[start : start + count].tolist()
    assert own.tolist() == repeats[start : start + count].tolist()


@settings(max_examples=40)
@given(shard_sizes, st.integers(1, 200))
def test_a_shard_is_read_within_one_window_of_whole_shards(sizes, window):
    """M8: windows hold `window_samples` rows or more, and no more than one shard beyond."""
    order = StreamOrder("eu.wiki", np.array(sizes), window, 3)
    rows, _ = order.rows(0, order.size)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    shard_of = np.searchsorted(starts, rows, side="right") - 1
    place = 0
    while place < order.size:
        end = place + 1  # the shortest stretch from here that holds whole shards only
        while any((shard_of[place:end] == shard).sum() != sizes[shard] for shard in set(shard_of[place:end])):
            end += 1
        assert end - place <= window + max(sizes)
        place = end


def slow_rows(name, sizes, window, seed, repeat):
    """The order of one repeat, written down in full, in plain integers: slow and obvious."""

    def hashed(value, key):
        z = (value * 0x9E3779B97F4A7C15 + key) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    def feistel(place, a, b, key):
        left, right = place % a, place // a
        for i in range(6):
            if i % 2:
                right = (right + hashed(left, key + i) % b) % b
            else:
                left = (left + hashed(right, key + i) % a) % a
        return left + right * a

    shard_key = key_of(seed, name, repeat, "shards")
    shards = sorted(range(len(sizes)), key=lambda i: hashed(i, shard_key))
    windows, current = [], []
    for shard in shards:
        current.append(shard)
        if sum(sizes[i] for i in current) >= window:
            windows.append(current)
            current = []
    windows += [current] if current else []
    starts = [0, *itertools.accumulate(sizes)]
    out = []
    place = 0
    for number, own in enumerate(windows):
        rows = [starts[i] + row for i in own for row in range(sizes[i])]
        count = len(rows)
        if count <= BLOCK:
            small = key_of(seed, name, repeat, "window", number)
            out += [rows[i] for i in sorted(range(count), key=lambda i: hashed(i, small))]
            continue
        a = int(np.ceil(np.sqrt(count)))
        b = -(-count // a)
        key = key_of(seed, name, repeat, "window", number)
        for i in range(count):
            moved = feistel(i, a, b, key)
            while moved >= count:
                moved = feistel(moved, a, b, key)
            out.append(rows[moved])
        place += count
    return out


@settings(max_examples=40)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=6), st.integers(1, 1200), st.integers(0, 3))
def test_equals_the_slow_reference(sizes, window, repeat):
    order = StreamOrder("gl.a", np.array(sizes), window, 9)
    rows, _ = order.rows(repeat * order.size, order.size)
    assert rows.tolist() == slow_rows("gl.a", sizes, window, 9, repeat)


def test_repeats_streams_and_seeds_have_orders_of_their_own():
    sizes = np.array([50] * 10)
    rows, _ = StreamOrder("a.a", sizes, 100, 1).rows(0, 1000)
    assert rows[:500].tolist() != rows[500:].tolist()
    assert rows.tolist() != StreamOrder("a.b", sizes, 100, 1).rows(0, 1000)[0].tolist()
    assert rows.tolist() != StreamOrder("a.a", sizes, 100, 2).rows(0, 1000)[0].tolist()


@settings(max_examples=60)
@given(st.integers(1, 3000), st.integers(0, MASK))
@example(7, MASK)
def test_permute_is_one_to_one(count, key):
    assert sorted(permute(np.arange(count), count, key).tolist()) == list(range(count))
    assert sorted(shuffled(count, key).tolist()) == list(range(count))


@pytest.mark.parametrize("count", [100, BLOCK + 100])
def test_a_window_is_shuffled_as_well_as_a_random_permutation(count):
    """Places and neighbours of many permutations, against what chance gives; small and large are made differently."""
    tries = 20 * count
    moved = np.array([permute(np.arange(count), count, key_of(i)) for i in range(tries)])
    counts = np.array([np.bincount(moved[:, place], minlength=count) for place in range(0, count, 7)])
    chi2 = ((counts - 20.0) ** 2 / 20.0).sum()
    freedom = counts.shape[0] * (count - 1)
    assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)
    still_neighbours = (np.abs(np.diff(moved, axis=1)) == 1).mean()
    assert still_neighbours == pytest.approx(2 / count, rel=0.1)


def test_every_order_of_a_tiny_window_is_as_likely():
    orders = [tuple(permute(np.arange(4), 4, key_of(i)).tolist()) for i in range(4800)]
    counts = np.array([orders.count(order) for order in itertools.permutations(range(4))])
    assert ((counts - 200.0) ** 2 / 200).sum() < 23 + 5 * np.sqrt(2 * 23)


def test_hashes_are_those_of_every_machine():
    """Values noted once: an order that changed between versions or machines would not resume."""
    assert key_of(17, "eu.wiki", 0) == 8584985459875733112
    assert mix(np.arange(2, dtype=np.uint64), 5).tolist() == [13168350753275463132, 7134611160154358618]
    rows, _ = StreamOrder("eu.wiki", np.array([5, 4, 3]), 6, 17).rows(0, 12)
    assert rows.tolist() == [11, 9, 8, 7, 10, 5, 6, 4, 0, 2, 1, 3]
    rows, _ = StreamOrder("eu.wiki", np.array([5000]), 6, 17).rows(0, 12)
    assert rows.tolist() == [4133, 2349, 2761, 2739, 1758, 1754, 3145, 477, 2559, 2491, 1762, 4613]


def test_memory_and_start_do_not_grow_with_samples():
    """M7: the same shards with ten thousand times the rows cost the same memory, all of it counted."""

    def peak(rows_per_shard):
        shard_samples = np.full(1000, rows_per_shard)
        tracemalloc.start()
        order = StreamOrder("a.a", shard_samples, 4 * rows_per_shard, 1)
        order.rows(3 * order.size + 17, 10)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(10_000_000) < 1.2 * peak(1000) < 1_000_000
