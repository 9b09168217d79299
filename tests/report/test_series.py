"""metrics.jsonl as arrays, and fewer points of it."""

from __future__ import annotations

import json
import math
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import FormatError
from mixstream.report import series as module
from mixstream.report.series import Series, read_metrics, thin

NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=32)


def slow_metrics(path):
    """What a metrics.jsonl says, one number at a time."""
    found = defaultdict(list)
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        for name, value in entry["metrics"].items():
            if isinstance(value, (int, float)):
                found[name].append((float(entry["batch"]), float(value)))
    return {name: sorted(points, key=lambda point: point[0]) for name, points in found.items()}


@given(
    st.lists(
        st.dictionaries(st.sampled_from("abcd"), st.one_of(NUMBERS, st.just("text"), st.none(), st.booleans())),
        max_size=12,
    ),
    st.sampled_from([0, 1, 200]),
)
def test_metrics_are_read_as_one_by_one(tmp_path_factory, metrics, most_rows):
    """However many sets of names are kept as rows."""
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    path.write_text("".join(json.dumps({"batch": i, "metrics": own}) + "\n" for i, own in enumerate(metrics)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST_ROWS", most_rows)
        read = read_metrics(path)
    told = {name: list(zip(own.batches.tolist(), own.values.tolist(), strict=True)) for name, own in read.items()}
    assert repr(told) == repr({name: slow_metrics(path)[name] for name in told})
    assert told.keys() == slow_metrics(path).keys()


def test_a_line_that_is_being_written_is_left_for_later(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == {}
    path.write_text('{"batch": 3, "metrics": {"a": 1}}\n{"batch": 4, "met')
    assert read_metrics(path)["a"].batches.tolist() == [3]
    path.write_text('{"batch": 3, "metrics": {"a": 1}}\n{"batch": 4, "met\n')
    with pytest.raises(FormatError, match=r"metrics.jsonl, line 2: not JSON .* remove the line"):
        read_metrics(path)


@given(st.lists(NUMBERS, min_size=1, max_size=300), st.integers(4, 60))
def test_fewer_points_keep_the_extremes(values, most):
    series = Series(np.arange(len(values)) * 10.0, np.array(values))
    kept = thin(series, most)
    assert len(kept.values) <= most or len(kept.values) == len(values)
    assert (np.diff(kept.batches) > 0).all()
    assert [values[int(batch // 10)] for batch in kept.batches] == pytest.approx(kept.values.tolist(), nan_ok=True)
    assert kept.batches[0] == 0
    assert kept.batches[-1] == series.batches[-1]
    numbers = [value for value in values if not math.isnan(value)]
    shown = [value for value in kept.values.tolist() if not math.isnan(value)]
    if numbers:
        assert min(shown) == min(numbers)
        if len(numbers) == len(values):
            assert max(shown) == max(numbers)
        else:
            assert len(shown) < len(kept.values), "a value that is no number is seen to"


def test_each_stretch_keeps_its_own_extremes():
    """A short peak in a long run is neither lost nor drowned by a higher one elsewhere."""
    values = np.sin(np.arange(100_000) / 5_000)
    values[70_001], values[12_345] = 3.0, -1.5
    values[0] = 9.0
    kept = thin(Series(np.arange(100_000.0), values), 200)
    assert len(kept.values) <= 200
    for batch, value in ((70_001, 3.0), (12_345, -1.5), (0, 9.0)):
        assert kept.values[kept.batches == batch].tolist() == [value]
