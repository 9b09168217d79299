"""The reference itself: against gradients that can be written on paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scoring import Toy, error_of, order_of, planted, state_of, toy_batch, trained_model, written_out

from mixstream.callbacks.scores.kbackward import KBackward

ONES = np.ones(4)
FIRST, SECOND = planted([6, 3, 5, 4], seed=1), planted([6, 3, 5, 4], seed=2)
NUMBERS = st.lists(st.floats(-3, 3), min_size=2, max_size=2)


@given(
    scored=st.lists(NUMBERS, min_size=3, max_size=9),
    aggregate=st.lists(NUMBERS, min_size=3, max_size=9),
    targets=st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    microbatch=st.integers(1, 10),
)
def test_scores_of_linear_losses_are_dot_products_of_mean_rows(scored, aggregate, targets, microbatch):
    """Row loss x w has the gradient x: W_i = < mean of x over B's rows of i, sum_j t_j mean over A's rows of j >."""

    def batch_of(rows):
        return toy_batch(torch.tensor(rows, dtype=torch.float64), [number % 3 for number in range(len(rows))])

    model = Toy(lambda weight, x: x @ weight, torch.tensor([0.5, -1.5], dtype=torch.float64))
    first, second = (np.array([np.mean(rows[i::3], axis=0) for i in range(3)]) for rows in (aggregate, scored))
    whole = np.array(targets) @ first
    measured = KBackward().measure(
        state_of(model, microbatch), batch_of(scored), batch_of(aggregate), np.array(targets)
    )
    assert measured.scores == pytest.approx(second @ whole, abs=1e-12)
    assert measured.losses == pytest.approx(second @ [0.5, -1.5], abs=1e-12)
    assert measured.gradient_norm == pytest.approx(np.linalg.norm(whole), abs=1e-12)


def test_scores_in_float32_are_exact_but_for_rounding():
    model = trained_model()
    measured = KBackward().measure(state_of(model, 5), SECOND, FIRST, ONES)
    assert error_of(measured.scores, written_out(model, SECOND, FIRST, ONES).scores) < 1e-5


def test_scores_in_bfloat16_have_the_ranks_of_those_in_float64():
    model = trained_model()
    expected = written_out(model, SECOND, FIRST, ONES).scores
    with torch.autocast("cpu", dtype=torch.bfloat16):
        measured = KBackward().measure(state_of(model, 5), SECOND, FIRST, ONES).scores
    assert order_of(measured) == order_of(expected)
    assert error_of(measured, expected) < 0.01


def test_nothing_is_kept():
    provider = KBackward()
    provider.load_state_dict(provider.state_dict())
    assert provider.state_dict() == {}
