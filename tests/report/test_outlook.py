"""What is told of a run before it begins."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import fake_catalog
from hypothesis import assume, given
from hypothesis import strategies as st

from mixstream import build_plan
from mixstream.errors import FormatError
from mixstream.mixture.simulate import simulate
from mixstream.report.outlook import Outlook, look_ahead, plan_in, warnings_of

LENGTH = 8


def looked(shards: dict, **options: object) -> tuple[Outlook, object]:
    catalog = fake_catalog(shards)
    plan = build_plan(catalog, **options)
    return look_ahead(plan, catalog, simulate(plan, catalog)), plan


@given(
    st.lists(st.integers(1, 60), min_size=2, max_size=6),
    st.integers(20, 200),
    st.floats(1.5, 20),
    st.sampled_from(["uniform", "natural", "temperature:0.3"]),
)
def test_a_row_is_what_a_count_gives(sizes, num_batches, repeats, weights):
    shards = {f"l{i}.web": [size] for i, size in enumerate(sizes)}
    batch = 4
    most = sum(int(repeats * size) for size in sizes) // batch
    assume(most >= 1)
    num_batches = min(num_batches, most)
    found, _ = looked(
        shards, weights=weights, budget_tokens=num_batches * batch * LENGTH + 3, batch_size=batch, max_repeats=repeats
    )
    assert found.tokens_to_read == num_batches * batch * LENGTH
    assert found.unread_tokens == 3
    assert sum(own.tokens_to_read for own in found.streams) == pytest.approx(
        found.tokens_to_read, abs=len(sizes) * LENGTH
    )
    for own, size in zip(found.streams, sizes, strict=True):
        assert own.tokens == size * LENGTH
        assert own.tokens_to_read == own.samples_to_read * LENGTH
        assert own.repeats == own.samples_to_read / size
        assert own.budget_used == pytest.approx(own.repeats / repeats)
        assert own.budget_used <= 1 + 1e-12
        if own.runs_dry_batch is None:
            assert own.samples_to_read <= repeats * size
        else:
            assert own.runs_dry_batch < num_batches
            assert own.samples_to_read >= int(repeats * size) - 1
    assert Outlook.model_validate_json(found.model_dump_json(), strict=True) == found


def test_unlimited_streams_never_run_dry():
    found, _ = looked({"eu.web": [5], "ca.web": [50]}, weights="uniform", budget_tokens=8 * 400, batch_size=4)
    for own in found.streams:
        assert (own.max_repeats, own.budget_used, own.runs_dry_batch) == (None, None, None)


@pytest.mark.parametrize(
    ("small", "told"),
    [
        (100, []),
        (12, ["1 of 2 is read more than 16 times (eu.web 16.7): beyond that losses can rise again"]),
        (5, ["1 of 2 is read more than 40 times (eu.web 40.2): no paper finds more repeats useful"]),
    ],
)
def test_repeats_beyond_what_was_found_useful_are_warned_of(small, told):
    budget = 8 * (402 if small == 5 else 400)
    found, plan = looked({"eu.web": [small], "ca.web": [300]}, weights="uniform", budget_tokens=budget, batch_size=2)
    assert len(found.warnings) == len(told)
    for warning, expected in zip(found.warnings, told, strict=True):
        assert warning.startswith(expected)
    assert list(found.warnings) == warnings_of(plan)


def test_a_stream_alone_is_warned_of_earlier():
    found, _ = looked(
        {"eu.web": [10], "ca.web": [300]}, weights={"eu.web": 1.0, "ca.web": 0.0}, budget_tokens=8 * 60, batch_size=2
    )
    assert [warning[:36] for warning in found.warnings] == ["eu.web is read 6 times and nothing e"]


def test_many_are_told_in_few_sentences():
    shards = {f"l{i:03}.web": [1 + i % 2] for i in range(100)}
    found, _ = looked(shards, weights="uniform", budget_tokens=8 * 5000, batch_size=10)
    assert [warning.partition(" (")[0] for warning in found.warnings] == [
        "50 of 100 are read more than 40 times",
        "50 of 100 are read more than 16 times",
    ]
    assert "l000.web 50, l002.web 50, l004.web 50 and 47 more" in found.warnings[0]


def test_a_stream_too_small_to_be_read_is_told():
    names = ["a.web", "b.web", "c.web", "d.web", "e.web", "f.web"]
    weights = dict(zip(names, [1 - 5e-9, *[1e-9] * 5], strict=True))
    found, _ = looked({name: [300] for name in names}, weights=weights, budget_tokens=8 * 100, batch_size=2)
    assert found.warnings[-1].startswith("never read: b.web, c.web, d.web and 2 more, of weight above 0")


def test_a_plan_is_found_in_a_file_or_a_run(tmp_path):
    _, plan = looked({"eu.web": [50], "ca.web": [50]}, weights="uniform", budget_tokens=8 * 80, batch_size=2)
    plan.save(tmp_path / "chain" / "base" / "plan.json")
    plan.save(tmp_path / "chain" / "proxy" / "plan.json")
    assert plan_in(tmp_path / "chain" / "base" / "plan.json") == plan
    assert plan_in(tmp_path / "chain" / "base") == plan
    with pytest.raises(FormatError, match=r"chain: holds 2 runs and is none; choose one of them: .*base, .*proxy"):
        plan_in(tmp_path / "chain")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match=r"empty: no run's folder, it has no plan\.json"):
        plan_in(tmp_path / "empty")
    with pytest.raises(FormatError, match="nothing: no such file; `mixstream plan` makes one"):
        plan_in(tmp_path / "nothing")
    (tmp_path / "cut.json").write_text((tmp_path / "chain" / "base" / "plan.json").read_text()[:200])
    with pytest.raises(FormatError, match=r"cut\.json: not JSON"):
        plan_in(tmp_path / "cut.json")


def test_documents_are_those_of_stream_json(catalog):
    plan = build_plan(catalog, "natural", budget_tokens=8 * 100, batch_size=2)
    found = look_ahead(plan, catalog, simulate(plan, catalog))
    assert [own.documents for own in found.streams] == [60, 240, 171, 23, 31]  # one a sample, as they were written
    assert all(own.download_bytes > 0 for own in found.streams)
    assert np.isclose(sum(own.proportion for own in found.streams), 1)
