"""Rows weighed in the loss: the batch's mean is that of the mixture, however rows were sampled."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from composer import Trainer
from composer.core import Callback
from hypothesis import given
from hypothesis import strategies as st

from mixstream import build_plan
from mixstream.callbacks.rows import row_losses
from mixstream.callbacks.weighting import LossWeights, row_factors
from mixstream.loader import MixtureLoader
from mixstream.runs.model import build_model
from mixstream.runs.recipe import ModelRecipe

MODEL = ModelRecipe(hidden_size=16, intermediate_size=24, num_layers=1, num_heads=2)
sources = st.lists(
    st.tuples(st.just(0.0) | st.floats(1e-9, 1), st.integers(0, 20), st.floats(0, 10)), min_size=1, max_size=8
).filter(lambda drawn: sum(rows for _, rows, _ in drawn) > 0 and sum(weight for weight, _, _ in drawn) > 1e-3)


@given(sources)
def test_the_mean_of_a_batch_is_that_of_the_mixture(drawn):
    """Over the sources that are present: sum alpha_i l_i / sum alpha_i, and the mean factor is 1."""
    weights, counts, losses = (np.array(column, dtype=np.float64) for column in zip(*drawn, strict=True))
    weights /= weights.sum()
    factors = row_factors(weights, counts)
    present = counts > 0
    if weights[present].sum() == 0:
        assert factors.tolist() == present.tolist()
        return
    expected = (weights * losses)[present].sum() / weights[present].sum()
    assert (counts * factors * losses).sum() / counts.sum() == pytest.approx(expected)
    assert (counts * factors).sum() / counts.sum() == pytest.approx(1)


def test_rows_sampled_by_the_weights_count_the_same():
    """alpha / p = 1: so nothing counts twice."""
    assert row_factors(np.array([0.5, 0.3, 0.2]), np.array([50.0, 30.0, 20.0])) == pytest.approx([1, 1, 1])


class Gradients(Callback):
    """Notes each batch's gradient, and the batch."""

    def __init__(self):
        self.seen = []

    def after_train_batch(self, state, logger):
        flat = torch.cat([p.grad.flatten() for p in state.model.parameters()])
        self.seen.append((state.batch, flat.clone(), {k: v.clone() for k, v in state.model.state_dict().items()}))


def test_training_follows_the_gradient_of_the_mixture(catalog):
    """In microbatches that hold other shares than the batch."""
    plan = build_plan(catalog, "uniform", 24 * 10 * 3, 10, seed=3)
    alpha = np.array([0.5, 0.2, 0.15, 0.1, 0.05])
    noted = Gradients()
    trainer = _trainer(plan, [LossWeights(alpha), noted])
    trainer.fit()
    trainer.close()
    assert len(noted.seen) == plan.num_batches
    model = build_model(MODEL, plan, 0)
    for batch, gradient, parameters in noted.seen:
        model.load_state_dict(parameters)
        losses = row_losses(model, batch)
        present = [i for i in range(5) if (batch["stream"] == i).any()]
        loss = sum(alpha[i] * losses[batch["stream"] == i].mean() for i in present) / sum(alpha[i] for i in present)
        expected = torch.autograd.grad(loss, list(model.parameters()))
        assert torch.allclose(torch.cat([g.flatten() for g in expected]), gradient, atol=1e-6)


def _trainer(plan, callbacks):
    model = build_model(MODEL, plan, 0)
    return Trainer(
        model=model,
        train_dataloader=MixtureLoader(plan),
        max_duration="1ep",
        callbacks=callbacks,
        optimizers=torch.optim.SGD(model.parameters(), lr=0.1),
        device="cpu",
        device_train_microbatch_size=3,
        progress_bar=False,
    )
