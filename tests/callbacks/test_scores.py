"""What all ways to measure scores have in common, against gradients in float64, written out."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from composer import Trainer
from hypothesis import given, settings
from hypothesis import strategies as st
from scoring import Toy, error_of, planted, state_of, toy_batch, trained_model, written_out

from mixstream import build_plan
from mixstream.callbacks.rows import own_model, row_losses
from mixstream.callbacks.scores import PROVIDERS, provider_of
from mixstream.errors import RecipeError, ScoreError
from mixstream.loader import MixtureLoader
from mixstream.runs.model import build_model
from mixstream.runs.recipe import ModelRecipe

ROWS = [6, 3, 5, 4]
ONES = np.ones(4)
FIRST, SECOND = planted(ROWS, seed=1), planted(ROWS, seed=2)
MODEL = trained_model()

every_provider = pytest.mark.parametrize("name", PROVIDERS)


@pytest.fixture
def model():
    return copy.deepcopy(MODEL)


@every_provider
@pytest.mark.parametrize("aggregate", [FIRST, None], ids=["crossfit", "same_batch"])
def test_scores_in_float32_are_those_of_float64_within_a_thousandth(model, name, aggregate):
    expected = written_out(model, SECOND, aggregate, ONES)
    measured = provider_of(name).measure(state_of(model, 5), SECOND, aggregate, ONES)
    assert error_of(measured.scores, expected.scores) < 1e-3
    assert measured.losses == pytest.approx(expected.losses, rel=1e-3)
    assert measured.gradient_norm == pytest.approx(expected.norm, rel=1e-5)


@every_provider
def test_scores_of_a_model_in_float64_are_exact(model, name):
    expected = written_out(model, SECOND, FIRST, ONES)
    measured = provider_of(name).measure(state_of(model.double(), 5), SECOND, FIRST, ONES)
    assert error_of(measured.scores, expected.scores) < {"fd": 1e-3, "jvp": 1e-6, "kbackward": 1e-12}[name]


@every_provider
def test_same_batch_scores_sum_to_the_squared_norm_of_the_gradient(model, name):
    """Sum W_i = |G|^2, exactly, in the papers' form: a check that costs nothing."""
    measured = provider_of(name).measure(state_of(model), FIRST, None, ONES)
    assert measured.scores.sum() == pytest.approx(measured.gradient_norm**2, rel=1e-3)


@every_provider
def test_targets_make_the_direction(model, name):
    """DoGE's out-of-domain form: what is no target need not be in the batch of the targets."""
    targets = np.array([0.0, 1.0, 0.0, 0.5])
    some = (FIRST["stream"] == 1) | (FIRST["stream"] == 3)
    aggregate = {key: column[some] for key, column in FIRST.items()}
    expected = written_out(model, SECOND, aggregate, targets)
    measured = provider_of(name).measure(state_of(model), SECOND, aggregate, targets)
    assert error_of(measured.scores, expected.scores) < 1e-3


@every_provider
@pytest.mark.parametrize("which", ["scored", "aggregate"])
def test_a_source_without_a_row_is_refused(model, name, which):
    batches = {"scored": SECOND, "aggregate": FIRST}
    some = batches[which]["stream"] % 2 == 0
    batches[which] = {key: column[some] for key, column in batches[which].items()}
    with pytest.raises(ScoreError, match=r"sources number \[1, 3\] have no row in the probe batch; make it larger"):
        provider_of(name).measure(state_of(model), batches["scored"], batches["aggregate"], ONES)


@every_provider
def test_training_is_not_touched(model, name):
    """Gradients by identity, parameters and random numbers bit by bit, every module's own mode."""
    model.train()
    model.model.model.layers[0].eval()
    modes = {name: module.training for name, module in model.named_modules()}
    state = state_of(model, 4)
    for parameter in model.parameters():
        parameter.grad = torch.rand_like(parameter)
    gradients = {name: (p.grad, p.grad.clone()) for name, p in model.named_parameters()}
    values = {name: value.clone() for name, value in model.state_dict().items()}
    chances = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    provider_of(name).measure(state, SECOND, FIRST, ONES)
    assert {name: module.training for name, module in model.named_modules()} == modes
    for key, parameter in model.named_parameters():
        assert parameter.grad is gradients[key][0]
        assert torch.equal(parameter.grad, gradients[key][1])
    assert all(torch.equal(value, values[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), chances[0])
    assert (np.random.get_state()[1] == chances[1]).all()  # noqa: NPY002
    assert random.getstate() == chances[2]


@every_provider
def test_a_loss_that_draws_random_numbers_draws_the_same_in_every_look(name):
    """Noise that differed between the two sides of a central difference would be taken for a gradient."""
    model = Toy(lambda weight, x: x @ weight + 100 * torch.rand(()), [0.5, 2.0])
    batch = toy_batch([[1.0, 0.0], [0.0, 3.0]], [0, 1])
    before = torch.get_rng_state()
    measured = provider_of(name).measure(state_of(model), batch, None, np.ones(2))
    assert measured.scores == pytest.approx([1, 9], rel=1e-2)
    assert torch.equal(torch.get_rng_state(), before)


@every_provider
@settings(max_examples=8)
@given(
    rows=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    sizes=st.lists(st.one_of(st.none(), st.just("auto"), st.integers(1, 20)), min_size=2, max_size=2),
)
def test_the_size_of_a_microbatch_does_not_matter(name, rows, sizes):
    model = copy.deepcopy(MODEL).double()
    first, second = planted(rows, seed=5), planted(rows, seed=6)
    one, other = (provider_of(name).measure(state_of(model, size), second, first, np.ones(len(rows))) for size in sizes)
    assert other.scores == pytest.approx(one.scores, rel=1e-9, abs=1e-9 * np.abs(one.scores).max())
    assert other.losses == pytest.approx(one.losses, rel=1e-12)


@every_provider
def test_frozen_parameters_have_no_part_in_scores(model, name):
    for parameter in model.model.model.layers[0].parameters():
        parameter.requires_grad = False
    own = [p for p in model.parameters() if p.requires_grad]
    expected = []
    losses = [row_losses(model, {k: c[FIRST["stream"] == i] for k, c in FIRST.items()}).mean() for i in range(4)]
    gradients = [torch.cat([g.flatten() for g in torch.autograd.grad(loss, own)]) for loss in losses]
    expected = [float(gradient @ sum(gradients)) for gradient in gradients]
    measured = provider_of(name).measure(state_of(model), FIRST, None, ONES)
    assert error_of(measured.scores, np.array(expected)) < 1e-3


@every_provider
def test_a_gradient_of_zero_gives_scores_of_zero(name):
    model = Toy(lambda weight, x: x.sum(1) + 0 * weight.sum(), [0.5, 2.0])
    measured = provider_of(name).measure(state_of(model), toy_batch([[1.0, 2.0], [3.0, 4.0]], [0, 1]), None, np.ones(2))
    assert measured.scores.tolist() == [0, 0]
    assert measured.losses.tolist() == [3, 7]
    assert measured.gradient_norm == 0


@every_provider
@pytest.mark.parametrize("where", ["gradient", "losses"])
def test_what_is_not_finite_comes_back_and_changes_nothing(model, name, where):
    """The callback refuses such scores; parameters are as they were."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    loss = type(model).loss

    class Spoilt(type(model)):
        def loss(self, outputs, batch):
            losses = loss(self, outputs, batch)
            return losses * float("nan") if where == "losses" or losses.requires_grad else losses

    model.__class__ = Spoilt
    measured = provider_of(name).measure(state_of(model), SECOND, FIRST, ONES)
    assert not np.isfinite(measured.scores).any()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@every_provider
def test_a_loss_that_is_not_one_number_a_row_is_refused(name):
    model = Toy(lambda weight, x: (x @ weight).mean(), [0.5, 2.0])
    with pytest.raises(ScoreError, match=r"the model's loss is \(\), expected one number for each of 2 rows"):
        provider_of(name).measure(state_of(model), toy_batch([[1.0, 2.0], [3.0, 4.0]], [0, 1]), None, np.ones(2))


@every_provider
@pytest.mark.parametrize("form", ["composer", "wrapped"])
def test_a_compiled_model_is_measured_as_it_is_without(name, form):
    """Composer replaces `forward`; either way nothing is compiled for the measurement."""
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    model = Toy(lambda weight, x: torch.tanh(x @ weight) ** 2, [0.5, 0.2])
    batch = toy_batch([[1.0, 2.0], [0.3, 0.4]], [0, 1])
    expected = provider_of(name).measure(state_of(model), batch, None, np.ones(2))
    if form == "composer":
        steps = torch.optim.SGD(model.parameters(), lr=0.1)
        options = {"device": "cpu", "optimizers": steps, "progress_bar": False}
        state = Trainer(model=model, compile_config={"backend": backend}, **options).state
        assert state.model is model
    else:
        state = state_of(torch.compile(model, backend=backend))
    state.model(batch)
    number = len(compiled)
    assert number > 0
    measured = provider_of(name).measure(state, batch, None, np.ones(2))
    assert len(compiled) == number
    assert measured.scores.tolist() == expected.scores.tolist()
    assert own_model(state) is model


def test_an_unknown_way_is_refused():
    with pytest.raises(RecipeError, match=r"scores is 'jpv', expected one of fd, jvp, kbackward; did you mean 'jvp'\?"):
        provider_of("jpv")


@every_provider
def test_probes_of_a_loader_are_scored(catalog, name):
    plan = build_plan(catalog, "uniform", 4000, 15)
    recipe = ModelRecipe(hidden_size=16, intermediate_size=24, num_layers=1, num_heads=2)
    model = build_model(recipe, plan, seed=1)
    first, second = (batch for _, batch in zip(range(2), MixtureLoader(plan), strict=False))
    expected = written_out(model, second, first, np.ones(5))
    measured = provider_of(name).measure(state_of(model, 4), second, first, np.ones(5))
    assert error_of(measured.scores, expected.scores) < 1e-3


def test_a_models_row_losses_mean_what_transformers_says(catalog):
    """The mean of the vector is the scalar that the library computes itself."""
    plan = build_plan(catalog, "uniform", 4000, 15)
    model = build_model(ModelRecipe(hidden_size=16, intermediate_size=24, num_layers=1, num_heads=2), plan, seed=1)
    batch = next(iter(MixtureLoader(plan)))
    scalar = model.model(input_ids=batch["input_ids"], labels=batch["labels"]).loss
    assert row_losses(model, batch).mean().item() == pytest.approx(scalar.item(), rel=1e-6)


def test_a_model_is_the_same_for_the_same_seed(catalog):
    recipe = ModelRecipe(hidden_size=16, intermediate_size=24, num_layers=1, num_heads=2)
    plan = build_plan(catalog, "uniform", 4000, 15)
    first, second, third = (build_model(recipe, plan, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert any(not torch.equal(value, third[name]) for name, value in first.items())
