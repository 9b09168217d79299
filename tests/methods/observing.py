"""What the tests of methods share: observations, and the check that a method goes on from its state."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
from hypothesis import strategies as st

from mixstream.methods.learning.online import Method, Observation

NAN = float("nan")


def seen(
    signal,
    weights=None,
    *,
    batch=10,
    num_batches=1000,
    shares=None,
    drawn=None,
    sizes=None,
):
    """Return an observation; weights and shares are even unless given, a source without a signal has no share."""
    signal = None if signal is None else np.array(signal, dtype=np.float64)
    count = len(signal) if signal is not None else len(sizes)
    weights = np.full(count, 1 / count) if weights is None else np.array(weights, dtype=np.float64)
    if shares is None:
        read = np.ones(count) if signal is None else (~np.isnan(signal)).astype(float)
        shares = read / max(read.sum(), 1.0)
    return Observation(
        batch=batch,
        num_batches=num_batches,
        eta=1e-3,
        weights=weights,
        shares=np.array(shares, dtype=np.float64),
        drawn=np.full(count, batch * 4) if drawn is None else np.array(drawn),
        sizes=np.full(count, 1000) if sizes is None else np.array(sizes),
        signal=signal,
    )


def lines_of(num_sources: int, losses: st.SearchStrategy[float]) -> st.SearchStrategy[list[list[float]]]:
    """Return what methods are told over a run: in each update, the losses of the sources that it read."""
    loss = st.one_of(losses, st.just(NAN))
    line = st.lists(loss, min_size=num_sources, max_size=num_sources).filter(lambda own: not np.isnan(own).all())
    return st.lists(line, min_size=2, max_size=12)


def observations(lines: Sequence[Sequence[float]], interval: int = 7, num_batches: int = 1000) -> list[Observation]:
    """Return the observations of a run, `interval` batches apart."""
    return [
        seen(line, batch=(number + 1) * interval, num_batches=num_batches, drawn=[(number + 1) * interval] * len(line))
        for number, line in enumerate(lines)
    ]


def check_resumable(make: Callable[[], Method], told: Sequence[Observation]) -> None:
    """Check that a method restored at any position, from JSON, wants the same weights as if it had never stopped."""
    whole = make()
    states, wanted = [], []
    for observation in told:
        states.append(json.dumps(whole.state_dict(), allow_nan=False))
        wanted.append(whole.update(observation).tolist())
    for position, state in enumerate(states):
        resumed = make()
        resumed.load_state_dict(json.loads(state))
        assert json.dumps(resumed.state_dict()) == state, f"the state changes by being loaded, at {position}"
        going_on = [resumed.update(observation).tolist() for observation in told[position:]]
        assert going_on == wanted[position:], f"restored at {position}, it wants other weights"
