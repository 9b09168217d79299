"""M3: repeat budgets are hard, whatever the weights do."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import fake_catalog
from hypothesis import given, settings
from hypothesis import strategies as st

from mixstream import build_plan
from mixstream.errors import BudgetError
from mixstream.mixture.apportion import UNIT
from mixstream.mixture.ledger import draw, open_ledger, reweigh


def run(plan, changes):
    """Walk a plan, with weights (K,) that change at given batches; return all ledgers."""
    ledgers = [open_ledger(plan.shares, plan.terms)]
    while True:
        ledger = ledgers[-1]
        if ledger.batch in changes:
            ledger = reweigh(ledger, plan.terms, changes[ledger.batch])
            ledgers[-1] = ledger
        step = draw(ledger, plan.terms)
        if step is None:
            return ledgers
        ledgers.append(step[1])


@settings(max_examples=150)
@given(st.data())
def test_no_stream_exceeds_its_budget_under_any_changes(data):
    count = data.draw(st.integers(1, 6))
    catalog = fake_catalog({f"l{i}.d": [data.draw(st.integers(1, 30))] for i in range(count)})
    budgets = {name: data.draw(st.floats(0.3, 4)) for name in catalog.names}
    batch_size = data.draw(st.integers(1, 6))
    supply = sum(int(budgets[name] * size) for name, size in catalog.sizes.items())
    num_batches = supply // batch_size
    if not num_batches:
        return
    floor = data.draw(st.sampled_from([0.0, 0.02]))
    try:
        plan = build_plan(
            catalog, "natural", num_batches * batch_size * 8, batch_size, max_repeats=budgets, floor=floor
        )
    except (BudgetError, ValueError):
        return
    weight = st.one_of(st.floats(0.001, 1), st.sampled_from([0.0, 1e-310]))
    drawn = st.lists(weight, min_size=count, max_size=count).filter(sum).map(np.array)
    changes = data.draw(st.dictionaries(st.integers(0, num_batches), drawn.map(lambda w: w / w.sum()), max_size=5))
    ledgers = run(plan, changes)
    for ledger in ledgers:
        assert (ledger.drawn <= plan.terms.limits).all()
        assert ledger.drawn.sum() == ledger.batch * batch_size
        assert ledger.owed.sum() == 0
        assert ledger.shares.sum() == UNIT
    # All streams together supply the run: where each has a weight or a floor, it is read to its end.
    if floor or all((weights > 0).all() for weights in changes.values()):
        assert ledgers[-1].batch == num_batches


def test_weights_that_push_a_stream_past_its_budget_are_capped_over_the_rest_of_the_run():
    catalog = fake_catalog({"eu.a": [10], "en.a": [1000]})
    plan = build_plan(catalog, "uniform", 8 * 100, 1, max_repeats={"eu.a": 5})
    assert plan.proportions.tolist() == [0.5, 0.5]
    changed = reweigh(run(plan, {})[60], plan.terms, np.array([0.9, 0.1]))
    assert changed.drawn[0] == 30
    assert changed.shares[0] / UNIT == pytest.approx(20 / 40)  # 20 draws are left of its budget, 40 of the run
    ledgers = run(plan, {60: np.array([0.9, 0.1])})
    assert ledgers[-1].drawn.tolist() == [50, 50]


def test_a_run_ends_where_the_streams_with_weight_are_spent():
    catalog = fake_catalog({"eu.a": [10], "en.a": [1000]})
    plan = build_plan(catalog, "uniform", 8 * 100, 2, max_repeats={"eu.a": 4})
    ledgers = run(plan, {20: np.array([1.0, 0.0])})
    spent_at = ledgers[20].drawn[0]
    assert ledgers[-1].drawn[0] == 40
    assert ledgers[-1].batch == 20 + (40 - spent_at) // 2
    assert draw(ledgers[-1], plan.terms) is None


def test_a_change_again_to_the_same_weights_changes_nothing():
    """A state holds the ledger before a change and the change: applying it twice must not matter."""
    catalog = fake_catalog({"eu.a": [10], "en.a": [1000], "ca.a": [77]})
    plan = build_plan(catalog, "uniform", 8 * 120, 3, max_repeats={"eu.a": 4})
    ledger = run(plan, {})[7]
    weights = np.array([0.7, 0.2, 0.1])
    once = reweigh(ledger, plan.terms, weights)
    twice = reweigh(once, plan.terms, weights)
    assert once.shares.tolist() == twice.shares.tolist()
    assert once.end_batch == twice.end_batch
