"""Where rows of a batch come from: kernels equal their definitions; lanes (M8), fair parts (M10)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from conftest import SIZES, fake_catalog, needs_kernels
from hypothesis import given, settings
from hypothesis import strategies as st

from mixstream import Catalog, build_plan
from mixstream.errors import ShardError
from mixstream.kernels import native
from mixstream.loader import batches
from mixstream.loader.batches import GlobalOrder, place_slowly
from mixstream.loader.reader import TokenReader
from mixstream.mixture.ledger import open_ledger
from mixstream.streams.shard import Shard
from mixstream.streams.tokens import TokenColumn


@needs_kernels
@settings(max_examples=80)
@given(st.data())
def test_the_kernel_deals_draws_to_rows_as_the_definition_does(data):
    num_batches, lanes, num_streams = (data.draw(st.integers(1, n)) for n in (4, 3, 6))
    size = data.draw(st.integers(1, 20))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    counts = rng.multinomial(size, rng.dirichlet(np.ones(num_streams)), (num_batches, lanes)).astype(np.int64)
    totals = counts.sum(axis=0)
    cursors = np.cumsum(totals).reshape(totals.shape) - totals
    rows, repeats = rng.integers(0, 10**9, (2, counts.sum()))
    first, key = data.draw(st.integers(0, 10**9)), data.draw(st.integers(0, (1 << 64) - 1))
    expected = place_slowly(counts, cursors, rows, repeats, first, key)
    found = [np.empty((num_batches, lanes * size), np.int64) for _ in range(3)]
    native.place(counts.shape, counts, cursors.copy(), rows, repeats, first, key, *found)
    for own, column in zip(found, expected, strict=True):
        assert own.tolist() == column.tolist()
    assert [np.bincount(batch, minlength=num_streams).tolist() for batch in expected.stream] == counts.sum(
        axis=1
    ).tolist()


def order_of(plan, catalog):
    return GlobalOrder(plan, [stream.index.shard_samples for stream in catalog], {})


@settings(max_examples=40)
@given(st.data())
def test_each_lane_reads_samples_of_its_own_in_step_with_the_others(data):
    """M8: a lane's rows of a batch come from its part of every stream; M1 holds for the batch, M2 in each lane."""
    lanes = data.draw(st.integers(1, 4))
    names = [f"l{i}.d" for i in range(data.draw(st.integers(1, 6)))]
    shards = st.lists(st.integers(4, 30), min_size=1, max_size=5)
    catalog = fake_catalog({name: data.draw(shards) for name in names})
    batch_size = lanes * data.draw(st.integers(1, 6))
    weights = np.array([data.draw(st.floats(0.01, 1)) for _ in names])
    weights = dict(zip(names, (weights / weights.sum()).tolist(), strict=True))
    plan = build_plan(catalog, weights, 80 * batch_size * 8, batch_size, lanes=lanes, window_samples=9)
    order = order_of(plan, catalog)
    ledger = open_ledger(plan.terms)
    owners: dict[tuple[int, int], int] = {}
    drawn = np.zeros(len(names))
    seen: dict[tuple[int, int], int] = {}
    while (block := order.decide(ledger, 7)) is not None:
        for stream, sample, repeat in zip(*block.draws, strict=True):
            drawn += np.bincount(stream, minlength=len(names))
            for row, key in enumerate(zip(stream.tolist(), sample.tolist(), strict=True)):
                assert owners.setdefault(key, row * lanes // batch_size) == row * lanes // batch_size
                assert seen.get(key, 0) == repeat[row]
                seen[key] = seen.get(key, 0) + 1
        ledger = order.after(block)
        assert np.abs(drawn - ledger.batch * batch_size * plan.proportions).max() < 1
        assert np.abs(ledger.cursors - ledger.drawn / lanes).max() < 4  # 2.3 at most in long trials


def test_every_lane_gives_every_batch_a_fair_part(catalog):
    """M10 between lanes: over a run each lane has read its share of every stream."""
    plan = build_plan(catalog, "uniform", 200 * 12 * 8, 12, lanes=4, window_samples=20)
    order = order_of(plan, catalog)
    ledger = open_ledger(plan.terms)
    while (block := order.decide(ledger, 50)) is not None:
        ledger = order.after(block)
    assert np.abs(ledger.cursors - 200 * 12 / 5 / 4).max() < 4


@needs_kernels
@pytest.mark.parametrize("sequence_length", [8, 4, 2])
def test_the_kernel_reads_what_the_definition_reads(catalog, monkeypatch, sequence_length):
    rng = np.random.default_rng(0)
    stream = rng.integers(0, 5, 300)
    parts = 8 // sequence_length
    sample = rng.integers(0, np.array(list(SIZES.values()))[stream] * parts)
    read = []
    for kernels in (native, None):
        monkeypatch.setattr("mixstream.loader.reader.native", kernels)
        out, again = np.zeros((2, 300, sequence_length), np.int64)
        TokenReader(list(catalog), None, sequence_length, 257).read(stream, sample, out, again)
        read.append((out.tolist(), again.tolist()))
    assert read[0] == read[1]
    out = np.array(read[0][0])
    first = sample % parts == 0  # conftest.write_stream: a row's first token tells its stream
    assert out[first, 0].tolist() == stream[first].tolist()


def test_batches_are_the_same_without_kernels(catalog, monkeypatch):
    plan = build_plan(catalog, "uniform", 40 * 12 * 8, 12, lanes=2, window_samples=20)
    first = order_of(plan, catalog).decide(open_ledger(plan.terms), 40)
    for room in ("loader.batches", "loader.order", "mixture.ledger"):
        monkeypatch.setattr(f"mixstream.{room}.native", None)
    again = order_of(plan, catalog).decide(open_ledger(plan.terms), 40)
    assert batches.native is None
    assert first.counts.tolist() == again.counts.tolist()
    assert all((a == b).all() for a, b in zip(first.draws, again.draws, strict=True))


@needs_kernels
def test_samples_of_uneven_size_are_found_where_another_column_varies(tmp_path):
    """Their tokens lie at no even distance, and are told by a table of their own."""
    texts = ["", "a", "bcd"] * 5
    column = TokenColumn("tokens", np.dtype("<u2"), 4, 1, (None, 8))
    rows = np.arange(60, dtype=np.uint16).reshape(15, 4)
    samples = [
        np.uint32(len(text)).tobytes() + text.encode() + row.tobytes() for text, row in zip(texts, rows, strict=True)
    ]
    begins = 4 * (2 + len(samples)) + np.cumsum([0, *map(len, samples)])
    data = np.uint32(len(samples)).tobytes() + begins.astype(np.uint32).tobytes() + b"".join(samples)
    shard = Shard(tmp_path / "shard", np.frombuffer(data, np.uint8), len(samples), column)
    assert shard.rows is None
    assert shard.token_offsets.flags.c_contiguous
    table = np.array([0, 1]), np.array([0, 15]), np.array([shard.address]), np.array([shard.token_offsets.ctypes.data])
    out = np.empty((15, 4), np.int64)
    state = np.array([1], np.uint8), np.zeros(1, np.int64), 1, 1, 4
    none = np.empty(0, np.int64)
    assert (
        native.gather(*table, *state, np.zeros(15, np.int64), np.arange(15), np.zeros(15, np.int64), out, none, 60)
        == -1
    )
    assert out.tolist() == rows.tolist()


@needs_kernels
def test_streams_of_several_types_are_warmed_within_their_files(catalog, monkeypatch):
    """A row of 8-byte tokens is no measure for one of 2-byte tokens at the end of a file."""
    touched = []
    monkeypatch.setattr("mixstream.loader.reader.native.touch", lambda source, size: touched.append(size))
    reader = TokenReader(list(catalog))
    rows = np.array([0, 1]), np.array([0, 0])
    reader.warm(*rows)
    first = reader._open[0]
    first._column = dataclasses.replace(first._column, dtype=np.dtype("<i8"))
    reader.warm(*rows)
    assert touched == [16, 16]


def test_tokens_below_zero_are_refused_where_no_tokenizer_is_known(tmp_path):
    from streaming import MDSWriter

    with MDSWriter(out=str(tmp_path / "eu.a"), columns={"tokens": "ndarray:int32:4"}) as writer:
        for value in (3, -1):
            writer.write({"tokens": np.full(4, value, np.int32)})
    reader = TokenReader(list(Catalog.open(tmp_path)))
    assert reader.tokens(0, np.array([0])).tolist() == [[3, 3, 3, 3]]
    with pytest.raises(
        ShardError, match="row 1 of the stream has token -1, expected one from 0 up; the shard is damag"
    ):
        reader.tokens(0, np.array([0, 1]))
