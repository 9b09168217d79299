"""Walks that decide ahead, and are overtaken: weights at any batch, any lag, any workers, states alike."""

from __future__ import annotations

import json

import numpy as np
import pytest
from reading import OTHER, WEIGHTS, plan_of, told

from mixstream.errors import StateError
from mixstream.loader import MixtureLoader, sampler


def read(plan, weight_lag, num_workers):
    """Read a plan with new weights at every batch but each fifth; return batches and the states around them."""
    loader = MixtureLoader(plan, weight_lag=weight_lag, num_workers=num_workers)
    out = [loader.state_dict()]
    for batch in loader:
        number = len(out) // 2
        if number % 5:
            loader.set_weights(OTHER if number % 2 else WEIGHTS)
        out += [told(batch), loader.state_dict()]
    return out


@pytest.mark.parametrize("weight_lag", range(5))
def test_weights_at_nearly_every_batch_act_alike_with_any_lag_workers_and_blocks(catalog, monkeypatch, weight_lag):
    plan = plan_of(catalog, batches=24)
    alone = read(plan, weight_lag, 0)
    assert len(alone) == 49
    for decided_rows in (1, 36, 10_000):
        monkeypatch.setattr(sampler, "DECIDED_ROWS", decided_rows)
        assert read(plan, weight_lag, 0) == alone
    if weight_lag >= 2:
        assert read(plan, weight_lag, 2) == alone


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_stale_iterator_decides_nothing_more(catalog, num_workers):
    """It would have to walk on to where the loaded state is."""
    plan = plan_of(catalog, batches=2_000_000)
    loader = MixtureLoader(plan, num_workers=num_workers)
    old = iter(loader)
    next(old)
    walk = loader.batch_sampler.walk
    state = json.loads(loader.state_dict())
    drawn = [int(share * 12 * 10**6) for share in plan.proportions]
    drawn[0] += 12 * 10**6 - sum(drawn)
    state |= {"batch": 10**6, "samples": 12 * 10**6, "cursors": [drawn], "owed": [0] * 5}
    loader.load_state_dict(json.dumps(state))
    with pytest.raises(StateError, match="this iterator is stale"):
        next(old)
    with pytest.raises(StateError, match="this iterator is stale"):
        loader.batch_sampler.draw(walk, 10**6, 1)
    assert loader.ledger().batch == 10**6
    assert np.isin(next(iter(loader))["stream"], range(5)).all()
