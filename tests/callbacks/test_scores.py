"""Scores against K plain backward passes in float64, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from composer.core import State
from composer.devices import DeviceCPU

from mixstream import build_plan
from mixstream.callbacks.rows import row_losses
from mixstream.callbacks.scores import backward_scores
from mixstream.errors import ScoreError
from mixstream.loader import MixtureLoader
from mixstream.runs.model import build_model
from mixstream.runs.recipe import ModelRecipe


@pytest.fixture
def probes(catalog):
    """Two probe batches of three rows of each of five streams."""
    return [batch for _, batch in zip(range(2), MixtureLoader(build_plan(catalog, "uniform", 4000, 15)), strict=False)]


@pytest.fixture
def state(catalog):
    recipe = ModelRecipe(hidden_size=16, intermediate_size=24, num_layers=1, num_heads=2)
    model = build_model(recipe, build_plan(catalog, "uniform", 4000, 15), seed=1)
    return State(model=model, rank_zero_seed=1, run_name="test", device=DeviceCPU())


def gradients(model, batch):
    """Return (5, P) gradients of the sources' mean losses, the plain way."""
    rows = []
    for source in range(5):
        own = {key: column[batch["stream"] == source] for key, column in batch.items()}
        model.zero_grad()
        row_losses(model, own).mean().backward()
        rows.append(torch.cat([p.grad.double().flatten() for p in model.parameters()]).numpy().copy())
    model.zero_grad()
    return np.stack(rows)


def test_cross_fitted_scores_take_their_gradients_from_two_batches(state, probes):
    aggregate, scored = probes
    expected = gradients(state.model, scored) @ gradients(state.model, aggregate).sum(axis=0)
    measured = backward_scores(state, scored, aggregate, 5)
    assert measured.scores == pytest.approx(expected, rel=1e-4)


def test_same_batch_scores_sum_to_the_squared_norm_of_their_sum(state, probes):
    """Sum W_i = |G|^2, exactly, in the papers' form: a check that costs nothing."""
    own = gradients(state.model, probes[0])
    measured = backward_scores(state, probes[0], None, 5)
    assert measured.scores == pytest.approx(own @ own.sum(axis=0), rel=1e-4)
    assert measured.scores.sum() == pytest.approx((own.sum(axis=0) ** 2).sum(), rel=1e-4)


def test_losses_are_means_over_the_sources_rows(state, probes):
    measured = backward_scores(state, probes[1], probes[0], 5)
    losses = row_losses(state.model, probes[1]).detach()
    expected = [losses[probes[1]["stream"] == source].mean().item() for source in range(5)]
    assert measured.losses == pytest.approx(expected, rel=1e-5)


def test_training_is_not_touched(state, probes):
    state.model.train()
    for parameter in state.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: value.clone() for name, value in state.model.state_dict().items()}
    backward_scores(state, probes[1], probes[0], 5)
    assert state.model.training
    assert all((parameter.grad == 1).all() for parameter in state.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in state.model.state_dict().items())


def test_a_source_without_a_row_is_refused(state, probes):
    some = probes[0]["stream"] != 3
    partial = {key: column[some] for key, column in probes[0].items()}
    with pytest.raises(ScoreError, match=r"sources number \[3\] have no row in the probe batch"):
        backward_scores(state, partial, None, 5)


def test_a_models_row_losses_mean_what_transformers_says(state, probes):
    """The mean of the vector is the scalar that the library computes itself."""
    inner = state.model.model
    scalar = inner(input_ids=probes[0]["input_ids"], labels=probes[0]["labels"]).loss
    assert row_losses(state.model, probes[0]).mean().item() == pytest.approx(scalar.item(), rel=1e-6)


def test_a_model_is_the_same_for_the_same_seed(catalog):
    recipe = ModelRecipe(hidden_size=16, intermediate_size=24, num_layers=1, num_heads=2)
    plan = build_plan(catalog, "uniform", 4000, 15)
    first, second, third = (build_model(recipe, plan, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert any(not torch.equal(value, third[name]) for name, value in first.items())
