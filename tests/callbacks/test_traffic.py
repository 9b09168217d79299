"""What a cache did, summed over processes and over a run's lives."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from mixstream.callbacks.traffic import StoreTraffic
from mixstream.metrics import STORE_COUNTS
from mixstream.streams.cache.traffic import Traffic


class Reader:
    """What reads through a cache, as far as is told."""

    def __init__(self, **traffic):
        self.counts = traffic

    def traffic(self):
        return {name: Traffic(**own) for name, own in self.counts.items()}


class Lines(list):
    def log_metrics(self, metrics):
        self.append(metrics)


def at(batch):
    device = SimpleNamespace(tensor_to_device=lambda tensor: tensor)
    return SimpleNamespace(timestamp=SimpleNamespace(batch=batch), device=device)


def test_counts_of_all_readers_are_logged_every_so_often_and_at_the_end():
    loader = Reader(a={"bytes": 100, "requests": 2, "shards": 2}, gone={"bytes": 7})
    probe = Reader(a={"bytes": 10, "requests": 1, "faults": 1}, b={"hits": 3, "evicted": 2})
    lines, callback = Lines(), StoreTraffic([loader, probe], ("a", "b"), interval_batches=2, num_batches=4)
    for batch in (1, 2, 3, 4):
        callback.batch_end(at(batch), lines)
        loader.counts["a"]["bytes"] += 1000
    callback.fit_end(at(4), lines)
    assert [line["store/bytes/a"] for line in lines] == [1110, 4110]
    assert [line["store/bytes"] for line in lines] == [1110, 4110]
    assert {line["store/requests/a"] for line in lines} == {3}
    last = lines[-1]
    assert [last[f"store/{count}/b"] for count in STORE_COUNTS] == [0, 0, 3, 0, 2]
    assert last["store/faults/a"] == 1
    assert not any("gone" in name for name in last)
    assert [last[f"store/{count}"] for count in STORE_COUNTS] == [4110, 3, 3, 1, 2]


def test_counts_go_on_after_a_checkpoint_though_streams_come_and_go():
    reader, lines = Reader(a={"bytes": 100}, b={"bytes": 5}), Lines()
    first = StoreTraffic([reader], ("a", "b"), 1, 10)
    first.batch_end(at(1), lines)
    saved = first.state_dict()
    reader.counts["a"]["bytes"] += 999  # fetched after the checkpoint, and so lost to the next life
    later = StoreTraffic([Reader(a={"bytes": 1}, c={"bytes": 30})], ("a", "c"), 1, 10)
    later.load_state_dict(saved)
    later.batch_end(at(2), lines)
    assert lines[-1]["store/bytes/a"] == 101
    assert lines[-1]["store/bytes/c"] == 30
    assert lines[-1]["store/bytes"] == 131
    assert "store/bytes/b" not in lines[-1]


def test_counts_are_sums_over_ranks(monkeypatch):
    """Each rank adds what is new on it, and all have the same totals."""

    def three_ranks(tensor, reduce_operation):
        assert reduce_operation == "SUM"
        tensor *= 3

    monkeypatch.setattr("mixstream.callbacks.rows.dist.all_reduce", three_ranks)
    reader, lines = Reader(a={"bytes": 2**50, "requests": 1}), Lines()
    callback = StoreTraffic([reader], ("a",), 1, 10)
    callback.batch_end(at(1), lines)
    reader.counts["a"]["bytes"] += 1
    callback.batch_end(at(2), lines)
    assert [line["store/bytes/a"] for line in lines] == [3 * 2**50, 3 * 2**50 + 3]
    assert callback._totals.dtype == torch.float64
    assert lines[-1]["store/requests/a"] == pytest.approx(3)
