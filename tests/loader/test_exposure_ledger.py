"""The exposure ledger is what a dictionary counts from the batches' own columns, under anything that a run may do."""

from __future__ import annotations

import base64
import io
import shutil
import sys
from itertools import islice

import pyarrow
import pytest
from conftest import write_stream
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet
from reading import OTHER, WEIGHTS, plan_of

from mixstream import Catalog
from mixstream.errors import FormatError, MissingExtraError, StateError
from mixstream.loader import ExposureLedger, MixtureLoader
from mixstream.mixture.exposure import COLUMNS, decode, encode


class ByHand:
    """The obvious way: a dictionary, a sample at a time, from a batch's own columns."""

    def __init__(self):
        self.rows = {}

    def add(self, loader, number, batch):
        parts = loader.plan.stored_sequence_length // loader.plan.sequence_length
        for stream, sample, repeat in zip(
            *(batch[key].tolist() for key in ("stream", "sample", "repeat")), strict=True
        ):
            index = loader.streams[stream].index
            shard, left = 0, sample // parts
            while left >= index.shard_samples[shard]:
                left -= index.shard_samples[shard]
                shard += 1
            key = loader.plan.streams[stream], index.files[shard], repeat, loader.plan.batch_size
            samples, first, _ = self.rows.get(key, (0, number, number))
            self.rows[key] = samples + 1, first, number


def told(content):
    """Return an exposure.parquet as the dictionary that `ByHand` counts."""
    table = parquet.read_table(io.BytesIO(content))
    assert tuple(table.column_names) == COLUMNS
    rows = {
        (row["stream"], row["shard"], row["repeat"], row["batch_size"]): (
            row["samples"],
            row["first_batch"],
            row["last_batch"],
        )
        for row in table.to_pylist()
    }
    assert len(rows) == table.num_rows, "a row for each, and no more"
    return rows


def read(loader, hand, most=None):
    """Read on, noting by hand; only a rank that is all of its world sees whole batches."""
    for batch in islice(loader, most):
        hand.add(loader, loader.ledger().batch - 1, batch)


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("sequence_length", [8, 4])
def test_it_is_what_the_batches_columns_tell_after_every_batch(catalog, lanes, sequence_length):
    plan = plan_of(catalog, batches=40, lanes=lanes, sequence_length=sequence_length)
    loader, hand = MixtureLoader(plan, weight_lag=3), ByHand()
    ledger = ExposureLedger(loader)
    before = told(ledger.content())
    assert before == {}
    for number, batch in enumerate(loader):
        hand.add(loader, number, batch)
        if number == 5:
            loader.set_weights(OTHER)
        assert told(ledger.content()) == hand.rows
        # Where a trainer is still within the batch: as it was before.
        assert told(ledger.content(loader.samples - plan.batch_size)) == before
        before = dict(hand.rows)
    assert max(repeat for _, _, repeat, _ in hand.rows) > 1


@settings(max_examples=15)
@given(data=st.data())
def test_it_is_exact_whatever_a_run_does(streams, data):
    """Cut at any batch and resumed on other ranks, workers and weights, counted in pieces of any size."""
    plan = plan_of(Catalog.open(streams), batches=60, batch_size=4, lanes=data.draw(st.sampled_from([1, 2])))
    whole, hand = MixtureLoader(plan, weight_lag=4), ByHand()
    state, counted, position = None, None, 0
    while position < plan.num_batches:
        ranks, workers = data.draw(st.sampled_from([1, 2, 4]), "ranks"), data.draw(st.sampled_from([0, 2]), "workers")
        loader = MixtureLoader(plan, ranks - 1, ranks, workers, weight_lag=4)
        ledger = ExposureLedger(loader)
        if state is not None:
            loads = [(loader.load_state_dict, state), (ledger.load_state_dict, counted)]
            for load, saved in reversed(loads) if data.draw(st.booleans(), "ledger first") else loads:
                load(saved)
        new = data.draw(st.sampled_from([None, WEIGHTS, OTHER]), "weights")
        if new is not None:
            assert loader.set_weights(new) == whole.set_weights(new)
        kept = data.draw(st.integers(6, 30), "up to the checkpoint")
        list(islice(loader, kept))
        state, counted = loader.state_dict(), ledger.state_dict()
        if loader.ledger().batch < plan.num_batches:
            list(islice(loader, data.draw(st.integers(0, 9), "lost")))  # trained and cut off: it comes again
        loader.close()
        read(whole, hand, kept)
        position = whole.ledger().batch
        assert told(base64.b64decode(counted)) == hand.rows


def test_a_loader_that_is_carried_over_goes_on_with_its_ledger(streams, tmp_path):
    """A stream goes and one comes, and batches are of another size: counted in that size from there on."""
    shutil.copytree(streams, tmp_path / "streams")
    before = MixtureLoader(plan_of(Catalog.open(tmp_path / "streams"), batches=30, batch_size=10, weights="uniform"))
    ledger, hand = ExposureLedger(before), ByHand()
    read(before, hand, 10)
    (tmp_path / "streams" / "eu.tales").rename(tmp_path / "gone")
    write_stream(tmp_path / "streams", "an.tales", 7, 37)
    after = MixtureLoader(plan_of(Catalog.open(tmp_path / "streams"), batches=20, batch_size=15, weights="uniform"))
    later = ExposureLedger(after)
    assert after.load_state_dict(before.state_dict(), migrate=True)
    later.load_state_dict(ledger.state_dict())
    read(after, hand)
    assert told(later.content()) == hand.rows
    _, note = decode(later.content(), "it")
    assert (note.batch, note.batch_size, note.samples, note.uncounted) == (20, 15, 100 + 13 * 15, 0)
    assert {(key[0], key[3]) for key in hand.rows} >= {("eu.tales", 10), ("an.tales", 15), ("ca.tales", 15)}


def test_counting_in_small_pieces_is_counting_at_once(catalog, monkeypatch):
    plan = plan_of(catalog, batches=60)
    contents = []
    for rows in (1, 50, 1 << 15):
        monkeypatch.setattr("mixstream.loader.exposure.COUNTED_ROWS", rows)
        loader = MixtureLoader(plan)
        ledger = ExposureLedger(loader)
        for _ in loader:
            pass
        contents.append(ledger.content())
    assert contents[0] == contents[1] == contents[2]
    loader = MixtureLoader(plan)
    hand = ByHand()
    read(loader, hand)
    assert told(contents[0]) == hand.rows


def test_a_ledger_without_its_state_is_refused_and_may_skip(catalog, tmp_path):
    plan = plan_of(catalog)
    old, hand = MixtureLoader(plan), ByHand()
    ledger = ExposureLedger(old)
    list(islice(old, 7))
    loader = MixtureLoader(plan)
    lost = ExposureLedger(loader)
    loader.load_state_dict(old.state_dict())
    for ask in (lost.content, lost.state_dict, lambda: lost.save(tmp_path / "it"), lambda: next(iter(loader))):
        with pytest.raises(StateError, match=r"has counted 0 samples, the run is at 84: load the ledger's state of"):
            ask()
    with pytest.raises(StateError, match=r"has counted 84 samples, the run is at 60: "):
        ledger.content(60)
    loader = MixtureLoader(plan)
    loader.load_state_dict(old.state_dict())
    late = ExposureLedger(loader)
    read(loader, hand)
    assert told(late.content()) == hand.rows
    assert decode(late.content(), "it")[1].uncounted == 84
    late.save(tmp_path / "exposure.parquet")
    assert (tmp_path / "exposure.parquet").read_bytes() == late.content()


def test_what_older_versions_wrote_is_gone_on_from(catalog):
    loader = MixtureLoader(plan_of(catalog))
    ledger = ExposureLedger(loader)
    list(islice(loader, 7))
    file, table = io.BytesIO(), parquet.read_table(io.BytesIO(ledger.content()), read_dictionary=["stream", "shard"])
    parquet.write_table(table, file, compression="zstd", use_dictionary=["stream", "shard"])
    resumed = MixtureLoader(plan_of(catalog))
    later = ExposureLedger(resumed)
    resumed.load_state_dict(loader.state_dict())
    later.load_state_dict(base64.b64encode(file.getvalue()).decode())
    assert later.content() == ledger.content()


def test_a_ledger_with_any_byte_damaged_is_refused_or_tells_the_same(catalog):
    loader = MixtureLoader(plan_of(catalog))
    ledger = ExposureLedger(loader)
    list(islice(loader, 7))
    content, refused = ledger.content(), 0
    whole = decode(content, "it")[0].select(COLUMNS[2:])
    for place in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[place] ^= 0x55
        try:
            table, _ = decode(bytes(damaged), "it")
        except FormatError as problem:
            refused += 1
            assert len(str(problem).splitlines()) == 1
        else:
            assert table.select(COLUMNS[2:]).equals(whole)
    assert refused > len(content) / 7 / 2


def test_states_that_are_none_or_of_other_streams_are_refused(catalog, streams, tmp_path, monkeypatch):
    loader = MixtureLoader(plan_of(catalog))
    ledger = ExposureLedger(loader)
    list(islice(loader, 3))
    state = ledger.state_dict()
    for wrong in ("", "half", state[:-8], None, 7, "ä"):
        with pytest.raises((StateError, FormatError), match=r"not a state of an exposure|no Parquet file"):
            ledger.load_state_dict(wrong)
    with pytest.raises(StateError, match=r"counts samples of 8 tokens, the plan's have 4"):
        ExposureLedger(MixtureLoader(plan_of(catalog, sequence_length=4))).load_state_dict(state)
    table, note = decode(ledger.content(), "it")
    for content, message in (
        (encode(table.slice(1), note), r"it: its rows add up to \d+ samples, expected 36; remove it, and the run"),
        (encode(table.drop_columns("repeat"), note), r"it: a Parquet file, but no exposure ledger"),
        (encode(table, note.model_copy(update={"version": 2})), r"it: version: Input should be 1 .found 2.; remove it"),
    ):
        with pytest.raises(FormatError, match=message):
            ledger.load(content, "it")
    files = pyarrow.array([f"other.{name}" for name in table.column("shard").to_pylist()])
    other = table.set_column(1, "shard", files.dictionary_encode())
    with pytest.raises(StateError, match=r"tells of ca.tales/other.shard.\d+.mds, which is gone; it belongs to other"):
        ledger.load(encode(other, note), "it")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'pyarrow'; .*mixstream-llm\[loader\]"):
        ledger.load(b"", "it")
