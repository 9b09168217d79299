"""Names of what a run logs: today's, and those of older runs."""

from __future__ import annotations

import pytest

from mixstream import metrics
from mixstream.metrics import current_name, of_stream


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("exposure/asked/eu.wiki", "mixture/proportion/eu.wiki"),
        ("exposure/read/eu.wiki", "mixture/read/eu.wiki"),
        ("exposure/repeats/eu.wiki", "mixture/repeat/eu.wiki"),
        ("exposure/loss/eu.wiki", "mixture/loss/eu.wiki"),
        ("method/weight/eu.wiki", "mixture/weight/eu.wiki"),
        ("method/score/eu.wiki", "doremi/score/eu.wiki"),
        ("method/loss/eu.wiki", "doremi/loss/eu.wiki"),
        ("method/gradient_norm", "doremi/gradient_norm"),
        ("method/seconds", "doremi/seconds"),
        ("store/waited_seconds", "loader/wait_seconds"),
        ("store/seconds", "loader/seconds"),
    ],
)
def test_names_of_older_runs_are_told_as_todays(old, new):
    assert current_name(old, "doremi") == new
    assert current_name(new, "doremi") == new


def test_todays_names_stay_as_they_are():
    """Also where a stream's name, or another logger's, begins as an old one did."""
    named = [getattr(metrics, key) for key in ("WEIGHT", "PROPORTION", "READ", "REPEAT", "LOSS", "HELDOUT_NATS")]
    names = [of_stream(what, "method.exposure") for what in named]
    for name in (*names, "loss/train/total", "store/bytes/method", "store/seconds_more", "method", "exposure/askedfor"):
        assert current_name(name, "xdoge") == name
    assert current_name("method/seconds") == "method/seconds"  # of a method that nobody knows
