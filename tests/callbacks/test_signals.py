"""What methods are told, against the same written out."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from composer.core import State
from composer.devices import DeviceCPU
from composer.models import ComposerModel

from mixstream import build_plan
from mixstream.callbacks.rows import row_losses
from mixstream.callbacks.scores import provider_of
from mixstream.callbacks.signals import Alignment, Excess, TrainingLosses, token_losses
from mixstream.errors import ScoreError
from mixstream.loader import MixtureLoader
from mixstream.runs.model import build_model
from mixstream.runs.recipe import ModelRecipe

MODEL = ModelRecipe(hidden_size=16, intermediate_size=24, num_layers=1, num_heads=2)
ONES = np.ones(5)


@pytest.fixture
def plan(catalog):
    return build_plan(catalog, "uniform", 24 * 20 * 10, 20)  # four rows of each of five streams


@pytest.fixture
def state(plan):
    model = build_model(MODEL, plan, seed=1)
    return State(model=model, rank_zero_seed=1, run_name="test", device=DeviceCPU(), device_train_microbatch_size=7)


def probes(plan):
    return list(MixtureLoader(plan))


def test_excess_is_of_tokens_and_never_negative(state, plan):
    """A token that the proxy knows better than the reference does not make up for another."""
    reference = build_model(MODEL, plan, seed=2)
    measured = Excess(MixtureLoader(plan), reference).measure(state, ONES)
    batch = probes(plan)[0]
    losses = []
    for model in (state.model, reference):
        logits = model.model(input_ids=batch["input_ids"]).logits[:, :-1]
        losses.append(F.cross_entropy(logits.transpose(1, 2), batch["input_ids"][:, 1:], reduction="none"))
    for source in range(5):
        own = batch["stream"] == source
        assert measured.losses[source] == pytest.approx(losses[0][own].mean().item(), rel=1e-5)
        assert measured.signal[source] == pytest.approx(
            (losses[0] - losses[1])[own].clamp(min=0).mean().item(), rel=1e-5
        )
    assert (
        measured.signal > (measured.losses - [losses[1][batch["stream"] == i].mean().item() for i in range(5)])
    ).all()


def test_a_model_that_does_not_tell_the_loss_of_tokens_is_refused(plan):
    class Plain(ComposerModel):
        def forward(self, batch):
            return batch["input_ids"].float()

        def loss(self, outputs, batch):
            return outputs.mean(dim=1)

    batch = probes(plan)[0]
    with pytest.raises(ScoreError, match=r"Plain has no method token_losses, .* which returns \(rows, tokens\)"):
        token_losses(Plain(), batch)
    Plain.token_losses = Plain.loss
    with pytest.raises(ScoreError, match=r"Plain has token_losses of shape \(20,\)"):
        token_losses(Plain(), batch)


@pytest.mark.parametrize("kind", ["crossfit", "same_batch", "half_split"])
def test_gradients_come_from_the_probes_that_were_asked_for(state, plan, kind):
    measured = Alignment(MixtureLoader(plan), provider_of("kbackward"), kind).measure(state, ONES)
    first, second = probes(plan)[:2]

    def gradients(batch):
        rows = []
        for source in range(5):
            own = {key: column[batch["stream"] == source] for key, column in batch.items()}
            loss = row_losses(state.model, own).mean()
            rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(state.model.parameters()))]))
        return torch.stack(rows).double().numpy()

    if kind == "crossfit":
        expected = gradients(second) @ gradients(first).sum(axis=0)
    elif kind == "same_batch":
        expected = gradients(first) @ gradients(first).sum(axis=0)
    else:
        a, b = gradients(first), gradients(second)
        expected = (a @ b.sum(axis=0) + b @ a.sum(axis=0)) / 2
    assert measured.signal == pytest.approx(expected, rel=1e-3)
    assert measured.metrics["gradient_norm"] > 0


def test_probes_go_on_where_they_were(state, plan):
    whole, cut, again = (Alignment(MixtureLoader(plan), provider_of("kbackward"), "crossfit") for _ in range(3))
    expected = [whole.measure(state, ONES).signal.tolist() for _ in range(3)]
    assert cut.measure(state, ONES).signal.tolist() == expected[0]
    again.load_state_dict(json.loads(json.dumps(cut.state_dict())))
    assert [again.measure(state, ONES).signal.tolist() for _ in range(2)] == expected[1:]


def test_training_losses_are_means_since_the_last_update(state, plan):
    signal, again = TrainingLosses(5), TrainingLosses(5)
    told = [signal.measure(state, ONES).signal]
    assert np.isnan(told[0]).all()
    seen = []
    for batch in probes(plan)[:2]:
        kept = batch["stream"] != 4
        for rows in (slice(0, 8), slice(8, None)):  # two microbatches
            state.batch = {key: column[kept][rows] for key, column in batch.items()}
            state.loss = row_losses(state.model, state.batch).detach()
            signal.after_loss(state)
            seen += zip(state.batch["stream"].tolist(), state.loss.tolist(), strict=True)
        signal.batch_end(state)
        again.load_state_dict(json.loads(json.dumps(signal.state_dict())))
    losses = signal.measure(state, ONES).signal
    assert losses[:4] == pytest.approx([np.mean([loss for i, loss in seen if i == source]) for source in range(4)])
    assert np.isnan(losses[4])
    assert again.measure(state, ONES).signal[:4].tolist() == losses[:4].tolist()
    assert np.isnan(signal.measure(state, ONES).signal).all()  # anew
