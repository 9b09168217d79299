from __future__ import annotations

import logging
import pickle
import random
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixstream.errors import RemoteError
from mixstream.streams.remote import Fault, Patience, Trying

BUSY = Fault("503 Service Unavailable", "passing")


class Clock:
    """Time that passes only in pauses and in `work`."""

    def __init__(self):
        self.now = 1000.0
        self.pauses = []

    def __call__(self):
        return self.now

    def pause(self, seconds):
        assert seconds > 0
        self.pauses.append(seconds)
        self.now += seconds


def trying(clock, patience, stop=None):
    return Trying("s3://bucket/key", patience, stop, clock, clock.pause)


def fail_until_given_up(attempt, clock, work=0.0):
    with pytest.raises(RemoteError) as given_up:
        for _ in range(10_000):
            clock.now += work
            attempt.failed(BUSY)
    return str(given_up.value)


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.floats(0.01, 10), st.floats(0.01, 100))
def test_delays_are_anything_up_to_a_bound_that_doubles(attempt, chance, first, most):
    patience = Patience(first_delay_seconds=first, max_delay_seconds=most)
    bound = first
    for _ in range(min(attempt - 1, 100)):
        bound = min(2 * bound, most)
    assert patience.delay(attempt, chance) == pytest.approx(chance * min(bound, most))


@settings(max_examples=40)
@given(st.floats(1, 500), st.floats(1, 60), st.floats(0, 40))
def test_the_total_time_is_bounded_and_said(give_up, longest, work):
    clock = Clock()
    attempt = trying(clock, Patience(give_up, first_delay_seconds=1.0, max_delay_seconds=longest))
    told = fail_until_given_up(attempt, clock, work)
    assert give_up <= clock.now - 1000 + 1e-6
    assert clock.now - 1000 <= give_up + work + 1e-6
    assert f"no progress for {clock.now - 1000:.0f} s in {attempt.attempts} attempts, given up" in told
    assert "s3://bucket/key" in told
    assert "the last: 503 Service Unavailable" in told
    assert attempt.last is BUSY


def test_progress_begins_time_and_pauses_anew():
    clock = Clock()
    attempt = trying(clock, Patience(100.0, first_delay_seconds=1.0, max_delay_seconds=64.0))
    for _ in range(50):
        attempt.failed(BUSY)
        attempt.failed(BUSY)
        attempt.progressed()
    assert attempt.attempts == 100
    assert max(clock.pauses) <= 2.0
    began = clock.now
    fail_until_given_up(attempt, clock)
    assert clock.now - began == pytest.approx(100.0)


@pytest.mark.parametrize("kind", ["refused", "missing"])
def test_what_cannot_pass_ends_at_once(kind):
    clock = Clock()
    with pytest.raises(RemoteError, match=r"^s3://bucket/key: 403 Forbidden$"):
        trying(clock, Patience()).failed(Fault("403 Forbidden", kind))
    assert clock.pauses == []


def test_what_cannot_pass_after_what_could_tells_how_long_it_took():
    clock = Clock()
    attempt = trying(clock, Patience())
    clock.now += 20
    attempt.failed(BUSY)
    with pytest.raises(RemoteError, match=r"403 Forbidden \(attempt 2, after 2\d s\)$"):
        attempt.failed(Fault("403 Forbidden", "refused"))


def test_a_stall_is_told_while_it_lasts(caplog):
    clock = Clock()
    attempt = trying(clock, Patience(100.0, first_delay_seconds=1000.0, max_delay_seconds=1000.0))
    with caplog.at_level(logging.WARNING, "mixstream"):
        fail_until_given_up(attempt, clock)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 6  # after 15, 30, ... 90 s
    assert "s3://bucket/key: waiting for 15 s, " in lines[0]
    assert lines[0].endswith("the last: 503 Service Unavailable; gives up in 85 s")
    assert "waiting for 90 s" in lines[5]


def test_a_fault_now_and_then_is_not_worth_a_line(caplog):
    clock = Clock()
    attempt = trying(clock, Patience())
    for _ in range(100):
        attempt.failed(BUSY)
        attempt.progressed()
    assert caplog.records == []


def test_a_stop_ends_the_pause():
    stop = threading.Event()
    attempt = Trying("x", Patience(first_delay_seconds=1e6, max_delay_seconds=1e6), stop)
    threading.Timer(0.05, stop.set).start()
    thread = threading.Thread(target=attempt.failed, args=(BUSY,), daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_the_users_random_numbers_are_left_alone():
    before = random.getstate()
    trying(Clock(), Patience()).failed(BUSY)
    assert random.getstate() == before


def test_faults_can_be_sent_to_other_processes():
    again = pickle.loads(pickle.dumps(BUSY))
    assert (again.told, again.kind, str(again)) == (BUSY.told, BUSY.kind, BUSY.told)
