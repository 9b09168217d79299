"""M2 and M8: a repeat reads every row once, window by window; positions are found at once (M7)."""

from __future__ import annotations

import itertools
import tracemalloc
import zlib

import numpy as np
import pytest
from conftest import needs_kernels
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mixstream.kernels import native
from mixstream.loader.order import SMALL, Growth, StreamOrder, grid, key_of, mix, permute, shuffled

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

    everything, repeats = order().rows(0, 2 * sum(sizes) + SMALL)
    start = data.draw(st.integers(0, 2 * sum(sizes)))
    count = data.draw(st.integers(0, SMALL))
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


def hashed(value, key):
    z = (value * 0x9E3779B97F4A7C15 + key) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def slow_permutation(count, key):
    """The permutation of a large window, in plain integers."""
    a = int(np.ceil(np.sqrt(count)))
    b = -(-count // a)

    def moved(place):
        left, right = place % a, place // a
        for i in range(0, 6, 2):
            left = (left + ((hashed(right, key + i) >> 32) * a >> 32)) % a
            right = (right + ((hashed(left, key + i + 1) >> 32) * b >> 32)) % b
        return left + right * a

    out = []
    for i in range(count):
        place = moved(i)
        while place >= count:
            place = moved(place)
        out.append(place)
    return out


def slow_pieces(name, sizes, seed, lanes, lane, part, first_row):
    """A lane's pieces of shards of `sizes` that begin at `first_row`: lists of rows."""
    starts = [first_row, *(first_row + end for end in itertools.accumulate(sizes))]
    shards = list(range(len(sizes)))
    if lanes > 1:
        key = key_of(seed, name, "deal", part)
        shards.sort(key=lambda i: hashed(i, key))
    line = [(shard, starts[shard] + row) for shard in shards for row in range(sizes[shard])]
    dealt = sorted((sample + zlib.crc32(name.encode())) % lanes for sample in range(first_row, first_row + len(line)))
    own = [row for row, turn in zip(line, dealt, strict=True) if turn == lane]
    return [[row for _, row in rows] for _, rows in itertools.groupby(own, key=lambda item: item[0])]


def slow_pass(name, pieces, window, seed, lane, parts, repeat):
    """One pass over pieces, written down in full."""
    key = key_of(seed, name, lane, *parts, repeat, "shards")
    pieces = [pieces[i] for i in sorted(range(len(pieces)), key=lambda i: hashed(i, key))]
    windows, current = [], []
    for piece in pieces:
        current += piece
        if len(current) >= window:
            windows.append(current)
            current = []
    windows += [current] if current else []
    for number, rows in enumerate(windows):
        key = key_of(seed, name, lane, *parts, repeat, "window", number)
        if len(rows) <= SMALL:
            yield from (rows[i] for i in sorted(range(len(rows)), key=lambda i: hashed(i, key)))
        else:
            yield from (rows[i] for i in slow_permutation(len(rows), key))


def slow_order(name, parts, window, seed, count, lanes=1, lane=0, grown_at=()):
    """The first rows and repeats of a lane of a stream to which the shards of parts[1:] came at positions."""
    bounds = [0, *itertools.accumulate(sum(part) for part in parts)]
    pieces = [slow_pieces(name, part, seed, lanes, lane, i, bounds[i]) for i, part in enumerate(parts)]
    out = []
    repeat, known = 0, 1
    while len(out) < count:
        while known < len(parts) and grown_at[known - 1] <= len(out):
            known += 1
        everything = [piece for part in pieces[:known] for piece in part]
        out += [(row, repeat) for row in slow_pass(name, everything, window, seed, lane, (0, known), repeat)]
        while known < len(parts) and grown_at[known - 1] < len(out):  # came within the repeat: read at its end
            own = (known, known + 1)
            out += [(row, repeat) for row in slow_pass(name, pieces[known], window, seed, lane, own, repeat)]
            known += 1
        repeat += 1
    return out[:count]


@settings(max_examples=60)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=6), st.integers(1, 1200), st.integers(0, 3), st.data())
def test_equals_the_slow_reference(sizes, window, repeat, data):
    lanes = data.draw(st.integers(1, min(4, sum(sizes))))
    lane = data.draw(st.integers(0, lanes - 1))
    order = StreamOrder("gl.a", np.array(sizes), window, 9, lanes)
    size = order.lane_size(lane)
    rows, repeats = order.rows(repeat * size, size, lane)
    expected = slow_order("gl.a", [sizes], window, 9, (repeat + 1) * size, lanes, lane)[repeat * size :]
    assert list(zip(rows.tolist(), repeats.tolist(), strict=True)) == expected


@settings(max_examples=100)
@given(st.data())
def test_lanes_share_a_stream_evenly_and_each_reads_its_part_once_a_repeat(data):
    """M8 and M2: the lanes' parts are equal to a sample, cut few shards, and do not change between repeats."""
    lanes = data.draw(st.integers(1, 6))
    sizes = data.draw(shard_sizes.filter(lambda sizes: sum(sizes) >= lanes))
    order = StreamOrder("eu.wiki", np.array(sizes), 40, 2, lanes)
    parts = []
    for lane in range(lanes):
        own = order.lane_size(lane)
        rows, repeats = order.rows(0, 3 * own, lane)
        times = [sorted(rows[repeats == repeat].tolist()) for repeat in range(3)]
        assert times[0] == times[1] == times[2]
        assert len(set(times[0])) == own
        parts.append(times[0])
    assert sorted(itertools.chain(*parts)) == list(range(sum(sizes)))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    starts = np.concatenate([[0], np.cumsum(sizes)])
    shards = [set(range(low, high)) for low, high in itertools.pairwise(starts.tolist())]
    owners = [[lane for lane, rows in enumerate(parts) if shard & set(rows)] for shard in shards]
    assert sum(len(own) - 1 for own in owners) <= lanes - 1


@settings(max_examples=150)
@given(st.data())
def test_a_stream_that_grows_reads_what_came_at_the_end_of_the_repeat_and_nothing_twice(data):
    """M2 through a growth: until all were read, none comes again; positions before it stay what they were."""
    parts = data.draw(st.lists(st.lists(st.integers(2, 9), min_size=1, max_size=4), min_size=2, max_size=4))
    lanes = data.draw(st.integers(1, 2))
    grown_at = [tuple(data.draw(st.integers(0, 40)) for _ in range(lanes))]
    for _ in parts[2:]:
        grown_at.append(tuple(last + data.draw(st.integers(0, 30)) for last in grown_at[-1]))
    known = np.cumsum([sum(part) for part in parts]).tolist()
    growth = [Growth(size, at) for size, at in zip(known, grown_at, strict=False)]
    whole = np.array([size for part in parts for size in part])
    order = StreamOrder("eu.wiki", whole, 7, 3, lanes, growth)
    before = StreamOrder("eu.wiki", np.array(parts[0]), 7, 3, lanes)
    for lane in range(lanes):
        rows, repeats = order.rows(0, 150, lane)
        expected = slow_order("eu.wiki", parts, 7, 3, 150, lanes, lane, [at[lane] for at in grown_at])
        assert list(zip(rows.tolist(), repeats.tolist(), strict=True)) == expected
        first = growth[0].positions[lane]
        assert rows[:first].tolist() == before.rows(0, first, lane)[0].tolist()
        by_repeat = [rows[repeats == repeat].tolist() for repeat in range(repeats[-1])]
        assert all(len(set(own)) == len(own) for own in by_repeat)
        assert all(set(own) <= set(later) for own, later in itertools.pairwise(by_repeat))


@needs_kernels
@settings(max_examples=60)
@given(st.integers(SMALL + 1, 5000), st.integers(0, MASK), st.data())
def test_the_kernel_shuffles_a_window_as_the_definition_does(count, key, data):
    ends = np.array([*sorted(data.draw(st.sets(st.integers(1, count - 1), max_size=5))), count])
    shifts = np.array(data.draw(st.lists(st.integers(0, 10**12), min_size=len(ends), max_size=len(ends))))
    first = data.draw(st.integers(0, count - 1))
    rows = np.empty(data.draw(st.integers(0, count - first)), np.int64)
    native.window_rows(rows, first, count, *grid(count), key, ends, shifts)
    places = permute(np.arange(first, first + len(rows)), count, key)
    assert rows.tolist() == (places + shifts[np.searchsorted(ends, places, side="right")]).tolist()
    assert places.tolist() == slow_permutation(count, key)[first : first + len(rows)]


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


@pytest.mark.parametrize(("count", "shuffle"), [(100, shuffled), (SMALL + 100, None)])
def test_a_window_is_shuffled_as_well_as_a_random_permutation(count, shuffle):
    """Places and neighbours of many permutations, against what chance gives; small and large are made differently."""
    tries = 20 * count
    shuffle = shuffle or (lambda count, key: permute(np.arange(count), count, key))
    moved = np.array([shuffle(count, key_of(i)) for i in range(tries)])
    counts = np.array([np.bincount(moved[:, place], minlength=count) for place in range(0, count, 7)])
    chi2 = ((counts - 20.0) ** 2 / 20.0).sum()
    freedom = counts.shape[0] * (count - 1)
    assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom)
    still_neighbours = (np.abs(np.diff(moved, axis=1)) == 1).mean()
    assert still_neighbours == pytest.approx(2 / count, rel=0.1)


def test_every_order_of_a_tiny_window_is_as_likely():
    orders = [tuple(shuffled(4, key_of(i)).tolist()) for i in range(4800)]
    counts = np.array([orders.count(order) for order in itertools.permutations(range(4))])
    assert ((counts - 200.0) ** 2 / 200).sum() < 23 + 5 * np.sqrt(2 * 23)


def test_hashes_are_those_of_every_machine():
    """Values noted once: an order that changed between versions or machines would not resume."""
    assert key_of(17, "eu.wiki", 0) == 8584985459875733112
    assert mix(np.arange(2, dtype=np.uint64), 5).tolist() == [13168350753275463132, 7134611160154358618]
    rows, _ = StreamOrder("eu.wiki", np.array([5, 4, 3]), 6, 17).rows(0, 12)
    assert rows.tolist() == [8, 1, 3, 7, 5, 2, 6, 0, 4, 11, 10, 9]
    rows, _ = StreamOrder("eu.wiki", np.array([5000]), 6, 17).rows(0, 12)
    assert rows.tolist() == [3087, 3862, 4052, 1820, 4523, 2213, 4714, 1552, 3300, 27, 1636, 3222]


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
