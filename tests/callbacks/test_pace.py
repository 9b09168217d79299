"""How fast a run goes, and what it waits for: told by a clock that the test turns."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mixstream.callbacks import pace
from mixstream.callbacks.pace import Pace


class Lines(list):
    def log_metrics(self, metrics):
        self.append(metrics)


class Clock:
    now = 100.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr(pace, "time", found)
    return found


def loader(end_batch=4):
    plan = SimpleNamespace(batch_size=10, sequence_length=8)
    return SimpleNamespace(plan=plan, ledger=lambda: SimpleNamespace(end_batch=end_batch))


def at(batch):
    device = SimpleNamespace(tensor_to_device=lambda tensor: tensor)
    return SimpleNamespace(timestamp=SimpleNamespace(batch=batch), device=device)


def walk(callback, clock, lines, batches, wait=0.25, step=1.0, end=False):
    """Train some batches, each of which is waited for and then trained; at the end, half a second is measured."""
    callback.fit_start(at(batches[0] - 1), lines)
    for batch in batches:
        callback.before_dataloader(at(batch - 1), lines)
        clock.now += wait
        callback.after_dataloader(at(batch - 1), lines)
        clock.now += step
        callback.batch_end(at(batch), lines)
    if end:
        clock.now += 0.5
        callback.fit_end(at(batches[-1]), lines)


def test_waiting_and_pace_of_every_line(clock):
    lines, other = Lines(), SimpleNamespace(waited_seconds=0.125)
    walk(Pace(loader(), [other], 2), clock, lines, [1, 2, 3, 4], end=True)
    assert [line["loader/wait_seconds"] for line in lines] == [0.625, 1.125]
    assert [line["loader/seconds"] for line in lines] == [2.5, 5.5]
    # What comes after the last batch is no part of its pace.
    assert [line["throughput/batches_per_second"] for line in lines] == [0.8, 0.8]
    assert [line["throughput/tokens_per_second"] for line in lines] == [64, 64]


@pytest.mark.parametrize(("end_batch", "batches"), [(3, [1, 2, 3]), (2, [1, 2])])
def test_a_run_that_ends_early_or_between_lines_tells_all_of_itself_once(clock, end_batch, batches):
    lines = Lines()
    walk(Pace(loader(end_batch), [], 2), clock, lines, batches, end=True)
    assert lines[-1]["loader/seconds"] == 1.25 * len(batches) + 0.5
    assert len(lines) == (2 if end_batch == 3 else 1)
    assert lines[-1]["throughput/batches_per_second"] == 0.8


def test_totals_and_pace_go_on_after_a_checkpoint(clock):
    first, lines = Pace(loader(10), [], 2), Lines()
    walk(first, clock, lines, [1, 2, 3])
    saved = first.state_dict()
    clock.now += 1000  # between two lives of a run
    later = Pace(loader(10), [], 2)
    later.load_state_dict(saved)
    walk(later, clock, lines, [4, 5, 6], wait=1.0)
    assert lines[1] == {
        "loader/wait_seconds": 1.75,
        "loader/seconds": 5.75,
        "throughput/batches_per_second": 2 / 3.25,  # batches 3 and 4
        "throughput/tokens_per_second": 80 * 2 / 3.25,
    }


def test_a_run_that_only_ends_says_again_what_was_cut_off(clock):
    whole, again, callback = Lines(), Lines(), Pace(loader(), [], 3)
    walk(callback, clock, whole, [1, 2, 3, 4])
    later = Pace(loader(), [], 3)
    later.load_state_dict(callback.state_dict())
    for one, lines in ((callback, whole), (later, again)):
        one.fit_start(at(4), lines) if one is later else None
        clock.now += 0.5
        one.fit_end(at(4), lines)
    assert again[-1] == whole[-1]
    assert again[-1]["loader/seconds"] == 5.5
    assert again[-1]["throughput/batches_per_second"] == 0.8


def test_seconds_are_sums_over_ranks(clock, monkeypatch):
    def three_ranks(tensor, reduce_operation):
        assert reduce_operation == "SUM"
        tensor *= 3

    monkeypatch.setattr("mixstream.callbacks.rows.dist.all_reduce", three_ranks)
    lines = Lines()
    walk(Pace(loader(), [], 2), clock, lines, [1, 2])
    assert lines[0]["loader/wait_seconds"] == 1.5
    assert lines[0]["loader/seconds"] == 7.5
    assert lines[0]["throughput/batches_per_second"] == 0.8  # of all ranks together: they train a batch together
