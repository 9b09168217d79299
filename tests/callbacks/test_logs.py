from __future__ import annotations

import json

import pytest

from mixstream.callbacks.heldout import HeldoutLoss, by_language, together
from mixstream.callbacks.logs import JsonLines


def test_a_log_is_cut_back_to_the_whole_lines_that_count(tmp_path):
    path = tmp_path / "log.jsonl"
    log = JsonLines(path)
    log.cut_to(0)
    assert path.read_text() == ""
    for batch in (0, 3, 3, 6, 9):
        log.append({"batch": batch, "metrics": {"a": 1}})
    path.write_text(path.read_text() + '{"batch": 3, "me')  # a crash while a line was written
    assert log.cut_to(9) == 5
    assert len(path.read_text().splitlines()) == 5
    assert log.cut_to(4) == 4
    assert [json.loads(line)["batch"] for line in path.read_text().splitlines()] == [0, 3, 3, 6]
    log.append({"batch": 7})
    assert len(path.read_text().splitlines()) == 5
    path.write_text(path.read_text().replace('"batch": 0', '"batch": '))  # a line that a power cut spoilt
    assert log.cut_to(3) == 2


def test_losses_of_several_streams_add_up_as_one_text():
    one = HeldoutLoss(num_tokens=100, num_bytes=50.0, nats_per_token=1.0)
    two = HeldoutLoss(num_tokens=300, num_bytes=50.0, nats_per_token=2.0)
    both = together([one, two])
    assert both == HeldoutLoss(400, 100.0, pytest.approx(700 / 400))
    # 700 nats over 100 bytes, in bits.
    assert both.bits_per_byte == pytest.approx(7 / 0.6931471805599453)
    unknown = HeldoutLoss(100, None, 1.0)
    assert together([one, unknown]).bits_per_byte is None
    assert by_language({"eu.a": one, "eu.b": two, "ca.a": unknown}, {"eu.a": "eu", "eu.b": "eu", "ca.a": "ca"}) == {
        "ca": unknown,
        "eu": both,
    }
