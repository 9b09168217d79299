"""M9: where a sample is from can be said again, for any batch of a run, without the run."""

from __future__ import annotations

import numpy as np
import pytest
from reading import OTHER, WEIGHTS, plan_of, told

from mixstream.errors import MixtureError, StateError
from mixstream.loader import MixtureLoader
from mixstream.loader.trace import trace_batch
from mixstream.streams.reader import MdsReader


@pytest.mark.parametrize("sequence_length", [8, 4])
def test_every_row_of_every_batch_is_where_it_is_said_to_be(streams, catalog, sequence_length):
    plan = plan_of(catalog, batches=26, lanes=2, sequence_length=sequence_length)
    loader = MixtureLoader(plan, weight_lag=3)
    changes, batches, states = {}, [], [loader.state_dict()]
    for batch in loader:
        batches.append(batch)
        if len(batches) in (4, 9):
            new = OTHER if len(batches) == 4 else WEIGHTS
            changes[loader.set_weights(new)] = new
        states.append(loader.state_dict())
    readers = {name: MdsReader.open(streams / name) for name in plan.streams}
    starts = {name: {} for name in plan.streams}
    for name, stream in catalog.streams.items():
        first = 0
        for file, samples in zip(stream.index.files, stream.index.shard_samples.tolist(), strict=True):
            starts[name][file] = first
            first += samples
    for number, batch in enumerate(batches):
        found = trace_batch(plan, number, changes)
        assert found == trace_batch(plan, number, changes, states[max(0, number - 3)])
        for row, origin in enumerate(found):
            tokens = readers[origin.stream][starts[origin.stream][origin.shard] + origin.row]["tokens"]
            part = np.split(tokens, 8 // sequence_length)[origin.part]
            assert batch["input_ids"][row].tolist() == part.tolist()
            assert batch["repeat"][row] == origin.repeat
            assert plan.streams[batch["stream"][row]] == origin.stream


def test_a_late_batch_is_counted_to_in_no_time(catalog):
    plan = plan_of(catalog, batches=300_000)
    origins = trace_batch(plan, 299_999)
    loader = MixtureLoader(plan)
    assert len(origins) == 12
    assert told(next(iter(loader))) == told(next(iter(MixtureLoader(plan))))


def test_batches_that_are_not_of_the_run_are_refused(catalog):
    plan = plan_of(catalog, batches=5)
    loader = MixtureLoader(plan)
    next(iter(loader))
    for batch, state in ((5, None), (0, loader.state_dict())):
        with pytest.raises(StateError, match=f"batch {batch}: a run of this plan from batch . on"):
            trace_batch(plan, batch, state=state)
    for batch in (-1, 2.5, "3", None):
        with pytest.raises(MixtureError, match=r"batch=.*; expected a whole number of at least 0"):
            trace_batch(plan, batch)
    with pytest.raises(MixtureError, match="a batch at which weights change=-4; expected a whole number"):
        trace_batch(plan, 0, {-4: WEIGHTS})
