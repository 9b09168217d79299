"""M3: repeat budgets are hard, whatever the weights do."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import fake_catalog, needs_kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from test_apportion import HARD

from mixstream import build_plan
from mixstream.errors import BudgetError
from mixstream.mixture.apportion import UNIT, to_units
from mixstream.mixture.ledger import Ledger, Terms, advance, draw, draw_slowly, open_ledger, reweigh
from mixstream.mixture.phases import Phase


def run(plan, changes):
    """Walk a plan, with weights (K,) that change at given batches; return all ledgers."""
    ledgers = [open_ledger(plan.terms)]
    while True:
        ledger = ledgers[-1]
        if ledger.batch in changes:
            ledger = reweigh(ledger, plan.terms, changes[ledger.batch])
            ledgers[-1] = ledger
        counts = draw(ledger, plan.terms)
        if not len(counts):
            return ledgers
        ledgers.append(advance(ledger, plan.terms, counts))


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
    assert len(draw(ledgers[-1], plan.terms)) == 0


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


@needs_kernels
@settings(max_examples=200)
@given(st.data())
def test_the_kernel_draws_as_the_definition_does(data):
    """Counts to the last draw: any shares, debts, lanes and limits, tight ones too."""
    lanes = data.draw(st.sampled_from([1, 1, 2, 4]))
    count = data.draw(st.integers(1, 9))
    batch_size = lanes * data.draw(st.integers(1, 12))
    rng = np.random.default_rng(data.draw(st.integers(0, 10**6)))
    weights = rng.dirichlet(np.full(count, data.draw(st.sampled_from([0.1, 1.0, 50.0]))))
    weights[rng.random(count) < data.draw(st.sampled_from([0, 0.3]))] = 0
    weights = weights / weights.sum() if weights.sum() else np.full(count, 1 / count)
    none, whole = np.zeros(count, np.int64), np.full(count, UNIT)
    shares = to_units(weights, none, whole)
    owed = (rng.normal(size=count) * UNIT * data.draw(st.sampled_from([0, 0.5, 3]))).astype(np.int64)
    owed[0] -= owed.sum()
    cursors = rng.integers(0, 5, (lanes, count))
    tight = data.draw(st.booleans())
    limits = cursors.sum(axis=0) + (rng.integers(0, 40, count) if tight else 10**9)
    lane_limits = cursors + (rng.integers(0, 12, (lanes, count)) if tight else 10**9)
    terms = Terms(batch_size, 25, limits, lane_limits, 0.0, (Phase(0, shares),))
    ledger = Ledger(0, 25, cursors, owed, shares)
    expected = draw_slowly(ledger, terms, 25)
    assert draw(ledger, terms, 25).tolist() == expected.tolist()
    drawn = cursors + expected.sum(axis=0)
    assert (drawn <= lane_limits).all()
    assert (drawn.sum(axis=0) <= limits).all()
    assert (expected.sum(axis=2) == batch_size // lanes).all()


def test_a_long_schedule_of_many_streams_is_drawn_alike():
    rng = np.random.default_rng(1)
    weights = 1 / np.arange(1, 301) ** 1.2
    none, whole = np.zeros(300, np.int64), np.full(300, UNIT)
    shares = to_units(weights / weights.sum(), none, whole)
    limits = np.full(300, 10**9)
    terms = Terms(16, 60, limits, limits[None], 0.0, (Phase(0, shares),))
    ledger = Ledger(0, 60, rng.integers(0, 3, (1, 300)), none, shares)
    assert draw(ledger, terms, 60).tolist() == draw_slowly(ledger, terms, 60).tolist()


@needs_kernels
@pytest.mark.parametrize(("batch_size", "weights"), HARD)
def test_the_kernel_looks_ahead_as_the_definition_does(batch_size, weights):
    """Weights that no rule without a look-ahead of hundreds of batches keeps within one draw (M1)."""
    count = len(weights)
    none, whole = np.zeros(count, np.int64), np.full(count, UNIT)
    shares = to_units(np.array(weights) / sum(weights), none, whole)
    terms = Terms(batch_size, 600, np.full(count, 10**9), np.full((1, count), 10**9), 0.0, (Phase(0, shares),))
    ledger = Ledger(0, 600, np.zeros((1, count), np.int64), none, shares)
    drawn = draw(ledger, terms, 600)
    assert drawn.tolist() == draw_slowly(ledger, terms, 600).tolist()
    asked = np.arange(1, 601)[:, None] * batch_size * shares.astype(object)
    assert np.abs(np.cumsum(drawn.sum(axis=1), axis=0) * UNIT - asked).max() < UNIT
