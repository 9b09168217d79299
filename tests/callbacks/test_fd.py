"""Central differences: the step that finds itself, low precision, parameters that come back bit by bit."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scoring import Toy, error_of, order_of, planted, small_model, state_of, toy_batch, trained_model, written_out

from mixstream.callbacks.scores.fd import CHECK_INTERVAL, CentralDifferences, disagreement, settle

TWO = np.ones(2)


def sharp_model(height=0.002):
    """Row losses 1 + height sin(x w): the wanted change of 0.01 is far beyond a top and a bottom of the wave."""
    return Toy(lambda weight, x: 1 + height * torch.sin(x @ weight), torch.tensor([0.1, 0.4], dtype=torch.float64))


SHARP = toy_batch(torch.eye(2).double(), [0, 1])


def exact_scores(model, batch):
    losses = model(batch)
    gradients = [torch.autograd.grad(loss, model.weight, retain_graph=True)[0] for loss in losses]
    return np.array([float(one @ sum(gradients)) for one in gradients])


def test_scores_in_bfloat16_have_the_ranks_of_those_in_float64():
    """The steps are those of low precision, wherever the cast comes from."""
    model = trained_model(4)
    first, second = (planted([8, 8, 8, 8], seed, length=32) for seed in (1, 2))
    expected = written_out(model, second, first, np.ones(4)).scores
    with torch.autocast("cpu", dtype=torch.bfloat16):
        measured = CentralDifferences().measure(state_of(model, 5), second, first, np.ones(4)).scores
    assert order_of(measured) == order_of(expected)
    assert error_of(measured, expected) < 0.05


def test_weights_that_were_cast_before_are_cast_anew():
    """Autocast keeps casts within a region: both sides of the difference would be the same, and the scores 0."""
    model, batch = trained_model(2), planted([4, 4], seed=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(batch)  # casts are kept from here on
        measured = CentralDifferences().measure(state_of(model), batch, None, TWO)
    assert measured.scores.sum() == pytest.approx(measured.gradient_norm**2, rel=0.05)


def test_a_sharply_curved_loss_is_measured_with_a_smaller_step():
    model = sharp_model()
    state, expected = state_of(model), exact_scores(model, SHARP)
    fixed = CentralDifferences()
    fixed.load_state_dict({"factor": 1.0, "until_check": 1})  # no check is due
    assert error_of(fixed.measure(state, SHARP, None, TWO).scores, expected) > 0.5
    adaptive = CentralDifferences()
    assert error_of(adaptive.measure(state, SHARP, None, TWO).scores, expected) < 0.07
    assert 2**-5 <= adaptive.factor <= 1 / 4
    # It stays with that step, and the next measurement is right too.
    assert error_of(adaptive.measure(state, SHARP, None, TWO).scores, expected) < 0.07
    # When a check is due it grows with the loss, become smooth.
    model.losses_of = sharp_model(height=2.0).losses_of
    factor = adaptive.factor
    for _ in range(3 * CHECK_INTERVAL):
        adaptive.measure(state, SHARP, None, TWO)
    assert adaptive.factor == 8 * factor or adaptive.factor == 1


def test_the_step_is_checked_first_and_then_now_and_then(monkeypatch):
    looks = []
    model = Toy(lambda weight, x: looks.append(1) or torch.tanh(x @ weight), [0.5, 0.2])
    provider, numbers = CentralDifferences(), []
    for _ in range(2 * CHECK_INTERVAL + 1):
        looks.clear()
        provider.measure(state_of(model), SHARP | {"x": torch.eye(2)}, None, TWO)
        numbers.append(len(looks) - 1)  # one of them for G
    assert [number for number, forwards in enumerate(numbers) if forwards == 4] == [
        0,
        CHECK_INTERVAL,
        2 * CHECK_INTERVAL,
    ]
    assert set(numbers) == {2, 4}


def test_the_step_goes_on_from_a_checkpoint():
    state, whole = state_of(sharp_model()), CentralDifferences()
    for _ in range(3):
        whole.measure(state, SHARP, None, TWO)
    later = CentralDifferences()
    later.load_state_dict(json.loads(json.dumps(whole.state_dict())))
    assert later.state_dict() == whole.state_dict() != CentralDifferences().state_dict()
    expected = whole.measure(state, SHARP, None, TWO).scores
    assert later.measure(state, SHARP, None, TWO).scores.tolist() == expected.tolist()
    assert later.state_dict() == whole.state_dict()


def test_a_step_that_leads_to_no_number_is_looked_for_anew():
    """A loss that is infinite a little further on: the scores are refused once, then the step is smaller."""
    weight = torch.tensor([0.5, 0.5], dtype=torch.float64)
    model = Toy(lambda weight, x: torch.where(x @ weight < 0.501, x @ weight, torch.inf), weight)
    state, provider = state_of(model), CentralDifferences()
    provider.load_state_dict({"factor": 1.0, "until_check": 10})
    assert not np.isfinite(provider.measure(state, SHARP, None, TWO).scores).any()
    assert provider.measure(state, SHARP, None, TWO).scores == pytest.approx([1, 1])
    assert provider.factor == 1 / 16  # of a step of 0.01


@pytest.mark.parametrize("fails_at", [2, 3, 4, 5])
def test_parameters_come_back_bit_by_bit_when_a_forward_fails(fails_at):
    model = small_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    forward, looks = type(model).forward, []

    class Failing(type(model)):
        def forward(self, batch):
            looks.append(1)
            if len(looks) == fails_at:
                raise OSError("a node is gone")
            return forward(self, batch)

    model.__class__ = Failing
    model.train()
    with pytest.raises(OSError, match="a node is gone"):
        CentralDifferences().measure(state_of(model), planted([3, 3], seed=1), None, TWO)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training


def test_low_precision_parameters_are_moved_by_a_step_that_they_can_hold():
    model = trained_model(4).bfloat16()
    batch = planted([8, 8, 8, 8], seed=1, length=32)
    expected = written_out(model, batch, None, np.ones(4)).scores
    measured = CentralDifferences().measure(state_of(model), batch, None, np.ones(4)).scores
    assert order_of(measured) == order_of(expected)
    assert error_of(measured, expected) < 0.1


def curved(power, noise, chance):
    """Return a measurement whose error is `power` factor^2, and noise / factor."""
    return lambda factor: (np.array([1.0, 2.0]) + power * factor**2 + noise / factor * chance.standard_normal(2),) * 2


def test_a_step_is_settled_on_where_half_of_it_agrees():
    chance = np.random.default_rng(1)
    for power in (0.0, 0.01, 1.0, 30.0, 2e4):
        factor, (scores, _) = settle(curved(power, 0.0, chance), 1.0)
        assert error_of(scores, np.array([1.0, 2.0])) < 0.07
        assert factor == 1.0 or error_of(curved(power, 0.0, chance)(2 * factor)[0], np.array([1.0, 2.0])) > 0.05


def test_rounding_does_not_make_the_step_smaller():
    """Where a smaller step only adds to the noise, it stays, but for chance."""
    for noise in (0.02, 0.05, 0.1):
        factors = [settle(curved(0.0, noise, np.random.default_rng(seed)), 1.0)[0] for seed in range(100)]
        assert factors.count(1.0) > 85
        assert min(factors) >= 1 / 8


def test_steps_are_halved_a_bounded_number_of_times():
    tried = []
    factor, _ = settle(lambda factor: tried.append(factor) or (np.full(2, np.nan),) * 2, 1.0)
    assert (factor, len(tried)) == (1.0, 13)


def test_disagreement_is_of_the_greatest_score():
    assert disagreement(np.array([1.0, 4.2]), np.array([1.1, 4.0])) == pytest.approx(0.05)
    assert disagreement(np.zeros(2), np.zeros(2)) == 0
    assert disagreement(np.ones(2), np.zeros(2)) == math.inf
    assert disagreement(np.array([np.nan, 1]), np.ones(2)) == math.inf
