"""The simulation against the engine: plans are walked batch by batch, orders row by row."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from conftest import fake_catalog
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from walking import walk

from mixstream import build_plan
from mixstream.errors import BudgetError, StateError
from mixstream.loader.order import Growth, StreamOrder
from mixstream.mixture.simulate import simulate, told_bytes, working_set_bytes
from mixstream.streams.catalog import Catalog

HEADER = 100


def catalog_of(shards):
    """Return a catalog whose shards have files of 100 bytes and 20 more a row."""
    plain = fake_catalog(shards)
    streams = {}
    for name, stream in plain.streams.items():
        index = dataclasses.replace(stream.index, file_bytes=HEADER + 20 * stream.index.shard_samples)
        streams[name] = dataclasses.replace(stream, index=index)
    return Catalog(plain.root, streams)


def shards_read(stream, window_samples, draws):
    """Return, window by window, the shards that the engine opens for the first `draws` draws of a stream."""
    rows_of, repeats = StreamOrder(stream.name, stream.index.shard_samples, window_samples, 17).rows(0, draws)
    starts = np.cumsum(stream.index.shard_samples)
    shards = np.searchsorted(starts, rows_of, side="right")
    return [dict.fromkeys(shards[repeats == repeat].tolist()) for repeat in np.unique(repeats)]


def windows_of(stream, window_samples, repeat):
    """Return the sets of shards that are open together in one repeat, from where the engine reads its rows."""
    size = stream.num_samples
    order = StreamOrder(stream.name, stream.index.shard_samples, window_samples, 17)
    rows, _ = order.rows(repeat * size, size)
    shards = np.searchsorted(np.cumsum(stream.index.shard_samples), rows, side="right")
    windows, here, held = [], set(), 0
    for place, shard in enumerate(shards.tolist()):
        here.add(shard)
        held += 1
        # A window ends where all rows of the shards that it opened have been read, and it is full.
        if held >= window_samples and held == sum(stream.index.shard_samples[list(here)]):
            windows.append(here)
            here, held = set(), 0
        assert place < size
    return windows + [here] * bool(here)


shard_sizes = st.one_of(
    st.lists(st.integers(1, 12), min_size=1, max_size=9),
    st.builds(lambda n, count, last: [n] * count + [last], st.integers(1, 9), st.integers(0, 8), st.integers(1, 9)),
)


@settings(max_examples=150)
@given(shard_sizes, st.integers(1, 40), st.integers(1, 150))
def test_no_order_fetches_or_opens_more(shards, window_samples, draws):
    catalog = catalog_of({"eu.a": shards})
    stream = catalog["eu.a"]
    plan = build_plan(catalog, "uniform", 8 * draws, 1, window_samples=window_samples)
    told = simulate(plan, catalog).streams[0]
    sizes = stream.index.file_bytes
    repeats = shards_read(stream, window_samples, draws)
    assert sizes.sum() == told.stored_bytes
    assert sum(sizes[list(read)].sum() for read in repeats) <= told.windows_bytes
    assert sizes[list({shard for read in repeats for shard in read})].sum() <= told.once_bytes <= told.stored_bytes
    if draws % stream.num_samples == 0:
        assert told.windows_bytes == draws // stream.num_samples * told.stored_bytes
    sets = [window for repeat in range(3) for window in windows_of(stream, window_samples, repeat)]
    for window, following in zip(sets, [*sets[1:], set()], strict=True):
        assert sizes[list(window | following)].sum() <= told.cache_bytes


@pytest.mark.parametrize(
    ("rows", "last", "window_samples", "shards_open"), [(8, 8, 16, 4), (8, 3, 16, 4), (8, 8, 1, 2)]
)
def test_equal_shards_are_told_exactly(rows, last, window_samples, shards_open):
    """But for one smaller shard, which may be in a window besides the others."""
    catalog = catalog_of({"eu.a": [rows] * 9 + [last]})
    plan = build_plan(catalog, "uniform", 8 * 16, 1, window_samples=window_samples)
    told = simulate(plan, catalog).streams[0]
    whole, small = HEADER + 20 * rows, HEADER + 20 * last
    extra = 2 * small if last < rows else 0
    assert told.cache_bytes == shards_open * whole + extra
    assert told.once_bytes == told.windows_bytes == 2 * whole + extra // 2


@settings(max_examples=100)
@given(st.data())
def test_batches_are_told_to_within_a_draw(data):
    count = data.draw(st.integers(1, 5))
    catalog = catalog_of({f"l{i}.d": [data.draw(st.integers(1, 30))] for i in range(count)})
    weight = st.one_of(st.floats(0.01, 1), st.just(0.0))
    mixture = (
        st.lists(weight, min_size=count, max_size=count)
        .filter(sum)
        .map(lambda row: dict(zip(catalog.names, (np.array(row) / sum(row)).tolist(), strict=True)))
    )
    batches, batch_size = data.draw(st.integers(4, 60)), data.draw(st.integers(1, 6))
    schedule = [{"at": "0.25dur", "ramp": "0.25dur", "weights": data.draw(mixture)}]
    budgets = {name: data.draw(st.floats(0.3, 40)) for name in catalog.names}
    try:
        plan = build_plan(
            catalog,
            data.draw(mixture),
            batches * batch_size * 8,
            batch_size,
            max_repeats=budgets,
            schedule=data.draw(st.sampled_from([None, schedule])),
        )
    except BudgetError:
        assume(False)
    drawn = np.cumsum(walk(plan), axis=0)
    shares = np.zeros((batches, count))
    for phase in plan.phases:
        shares[phase.first_batch :] = phase.shares / 2**40
    promised = np.cumsum(shares * batch_size, axis=0)
    told = simulate(plan, catalog)
    assert told.num_batches == len(drawn)
    assert told.tokens == drawn[-1].sum() * 8
    for i, stream in enumerate(told.streams):
        size, limit = catalog.sizes[stream.name], int(budgets[stream.name] * catalog.sizes[stream.name])
        if limit:
            check_told(stream.spent_batch, limit, drawn[:, i], promised[:, i])
        else:  # below one sample: a stream that is not read
            assert stream.spent_batch is None
        for number in range(8):
            batch = stream.repeat_batches[number] if number < len(stream.repeat_batches) else None
            check_told(batch, (number + 1) * size + 1, drawn[:, i], promised[:, i])


def check_told(batch, number, drawn, promised):
    """Check the batch told for draw `number` against the engine's, given its promise of less than one draw off."""
    earliest = np.flatnonzero(promised > number - 1 - 1e-6)
    latest = np.flatnonzero(promised >= number - 0.25)  # a budget that binds is met to within a quarter of a draw
    if batch is None:
        assert not len(latest)
        return
    assert len(earliest)
    assert earliest[0] <= batch
    if len(latest):
        assert batch <= latest[0]
    made = np.flatnonzero(drawn >= number)
    if len(made):  # both lie between the same two batches
        assert earliest[0] <= made[0]


def test_what_is_told_of_a_plan():
    catalog = catalog_of({"en.a": [100] * 10, "eu.a": [10, 10]})
    plan = build_plan(catalog, {"en.a": 0.8, "eu.a": 0.2}, 8 * 405, 10, max_repeats={"eu.a": 3}, window_samples=100)
    told = simulate(plan, catalog)
    en, eu = told.streams
    assert (told.num_batches, told.tokens, told.unread_tokens) == (40, 3200, 40)
    assert (eu.samples, eu.repeats, eu.spent_batch) == (60, 3.0, 39)
    assert eu.repeat_batches == (13, 26)
    assert (en.spent_batch, en.repeat_batches) == (None, ())
    assert told.spent == (eu,)
    assert en.once_bytes == en.windows_bytes == 4 * 2100
    assert eu.once_bytes == 600
    assert eu.windows_bytes == 3 * 600
    assert told.total("windows_bytes") == 8400 + 1800
    jump = build_plan(
        catalog,
        {"en.a": 1.0, "eu.a": 0.0},
        8 * 400,
        10,
        schedule=[{"at": "30ba", "weights": {"en.a": 0.4, "eu.a": 0.6}}],
    )
    assert simulate(jump, catalog).streams[1].repeat_batches == (33, 36)


def test_lanes_hold_parts():
    catalog = catalog_of({"en.a": [100] * 16})
    plan = build_plan(catalog, "uniform", 8 * 1600, 16, lanes=4, window_samples=100)
    told = simulate(plan, catalog).streams[0]
    assert told.stored_bytes == 16 * 2100
    assert 16 * 2100 <= told.once_bytes <= 19 * 2100
    assert 2 * 2100 <= told.cache_bytes <= 5 * 2100  # a lane's four shards, and one that it may share


@settings(max_examples=60)
@given(shard_sizes.filter(lambda sizes: sum(sizes) >= 4), st.integers(1, 4), st.integers(1, 30), st.integers(1, 3))
def test_no_lane_fetches_or_opens_more(shards, lanes, window_samples, repeats):
    """Every lane is walked window by window, with the shards that the loader's order gives it."""
    catalog = catalog_of({"eu.a": shards})
    draws = repeats * sum(shards) // (2 * lanes) * lanes
    assume(draws > 0)
    plan = build_plan(catalog, "uniform", draws * 8, lanes, lanes=lanes, window_samples=window_samples)
    (told,) = simulate(plan, catalog).streams
    stream = catalog["eu.a"]
    ends, sizes = np.cumsum(stream.index.shard_samples), stream.index.file_bytes
    order = StreamOrder("eu.a", stream.index.shard_samples, window_samples, 17, lanes)
    once, by_windows = 0, 0
    for lane in range(lanes):
        kept, open_before = set(), set()
        for segment in lane_windows(order, lane, draws // lanes):
            here = set(np.searchsorted(ends, segment, side="right").tolist())
            assert sizes[list(here | open_before)].sum() <= told.cache_bytes
            by_windows += sizes[list(here)].sum()
            kept |= here
            open_before = here
        once += sizes[list(kept)].sum()
    assert once <= told.once_bytes
    assert by_windows <= told.windows_bytes


def lane_windows(order, lane, draws):
    """Return the rows of every window that a lane's first `draws` draws lie in."""
    position = 0
    while position < draws:
        window = order.window(lane, position)
        yield order.rows(window.start, window.end - window.start, lane)[0]
        position = window.end


def test_compressed_streams_are_fetched_compressed_and_kept_raw():
    plain = catalog_of({"eu.a": [10] * 6})
    index = dataclasses.replace(
        plain["eu.a"].index, compression="zstd", compressed_bytes=plain["eu.a"].index.file_bytes // 3
    )
    catalog = Catalog(plain.root, {"eu.a": dataclasses.replace(plain["eu.a"], index=index)})
    plan = build_plan(catalog, "uniform", 60 * 8, 1, window_samples=10)
    (raw,), (told,) = simulate(plan, plain).streams, simulate(plan, catalog).streams
    assert (told.stored_bytes, told.once_bytes) == (600, 600)
    assert (raw.stored_bytes, raw.once_bytes) == (1800, 1800)
    assert told.cache_bytes == raw.cache_bytes == 600


def test_a_shorter_length_counts_in_its_own_samples():
    catalog = catalog_of({"eu.a": [8] * 10})
    stored = simulate(build_plan(catalog, "uniform", 640, 1, window_samples=16), catalog)
    short = simulate(build_plan(catalog, "uniform", 640, 1, window_samples=64, sequence_length=2), catalog)
    assert short.streams[0].cache_bytes == stored.streams[0].cache_bytes
    assert short.streams[0].repeats == stored.streams[0].repeats == 1


def test_another_catalog_is_refused():
    catalog = catalog_of({"eu.a": [8], "en.a": [8]})
    plan = build_plan(catalog, "uniform", 640, 1)
    with pytest.raises(StateError, match="stream 'en.a' is gone since the plan was made"):
        simulate(plan, catalog_of({"eu.a": [8]}))
    with pytest.raises(StateError, match="stream 'en.a' has changed"):
        simulate(plan, catalog_of({"eu.a": [8], "en.a": [9]}))


@pytest.mark.parametrize(
    ("count", "told"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_556_000, "1.56 MB"), (999_900, "1 MB"), (10**17, "100 PB")],
)
def test_bytes_as_a_person_reads_them(count, told):
    assert told_bytes(count) == told


@settings(max_examples=60)
@given(st.data())
def test_a_working_set_holds_what_is_open_in_any_lanes(data):
    """Wherever lanes are in their streams, the window that each reads and the one after it fit, cut shards and all."""
    shards = {f"l{i}.d": data.draw(shard_sizes.filter(lambda sizes: sum(sizes) >= 4)) for i in range(2)}
    plain = catalog_of(shards)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    streams = {
        name: dataclasses.replace(
            stream, index=dataclasses.replace(stream.index, file_bytes=rng.integers(1, 1000, len(shards[name])))
        )
        for name, stream in plain.streams.items()
    }
    catalog = Catalog(plain.root, streams)
    lanes, window_samples = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 30))
    own = data.draw(st.integers(1, lanes))
    plan = build_plan(catalog, "uniform", 80 * lanes, lanes, lanes=lanes, window_samples=window_samples)
    growths, most = {}, 0
    for name, sizes in shards.items():
        ends = [end for end in np.cumsum(sizes).tolist() if lanes <= end < sum(sizes)]  # each lane has had a row
        known = sorted(data.draw(st.sets(st.sampled_from(ends), max_size=2))) if ends else []
        growth = [Growth(size, (turn * 7,) * lanes) for turn, size in enumerate(known)]
        growths[name] = len(growth)
        order = StreamOrder(name, np.array(sizes), window_samples, 17, lanes, growth)
        sets = [most_open(order, catalog[name].index, lane) for lane in range(lanes)]
        together = [set().union(*chosen) for chosen in itertools.product(*sets[:own])][:2000]
        most += max(catalog[name].index.file_bytes[list(here)].sum() for here in together)
    assert most <= working_set_bytes(plan, catalog, own, growths)


def most_open(order, index, lane):
    """Return sets of shards that a lane has open together, window by window, the largest few."""
    ends = np.cumsum(index.shard_samples)
    windows = [set(np.searchsorted(ends, rows, side="right").tolist()) for rows in lane_windows(order, lane, 60)]
    pairs = {frozenset(here | after) for here, after in itertools.pairwise(windows)} or {frozenset(windows[0])}
    return sorted(pairs, key=lambda own: -index.file_bytes[list(own)].sum())[:4]
