"""Forward mode: exact to the last digits of float32, tied weights, and kernels without a derivative."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scoring import Toy, error_of, order_of, planted, state_of, toy_batch, trained_model, written_out

from mixstream.callbacks.scores.jvp import ForwardMode
from mixstream.errors import ScoreError

ONES = np.ones(4)
FIRST, SECOND = planted([6, 3, 5, 4], seed=1), planted([6, 3, 5, 4], seed=2)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_scores_in_float32_are_exact_but_for_rounding(attention):
    model = trained_model(attn_implementation=attention)
    measured = ForwardMode().measure(state_of(model, 5), SECOND, FIRST, ONES)
    assert error_of(measured.scores, written_out(model, SECOND, FIRST, ONES).scores) < 1e-5


def test_tied_weights_are_one():
    model = trained_model(tie_word_embeddings=True)
    assert model.model.lm_head.weight is model.model.model.embed_tokens.weight
    measured = ForwardMode().measure(state_of(model, 5), SECOND, FIRST, ONES)
    assert error_of(measured.scores, written_out(model, SECOND, FIRST, ONES).scores) < 1e-5


def test_scores_in_bfloat16_have_the_ranks_of_those_in_float64():
    model = trained_model()
    expected = written_out(model, SECOND, FIRST, ONES).scores
    with torch.autocast("cpu", dtype=torch.bfloat16):
        measured = ForwardMode().measure(state_of(model, 5), SECOND, FIRST, ONES).scores
    assert order_of(measured) == order_of(expected)
    assert error_of(measured, expected) < 0.01


class OldKernel(torch.autograd.Function):
    """A kernel as external ones are, written before forward mode was."""

    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(values)
        return values**2

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class NewKernel(torch.autograd.Function):
    """One that other transforms can take, but forward mode cannot."""

    @staticmethod
    def forward(values):
        return values**2

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


@pytest.mark.parametrize("kernel", [OldKernel, NewKernel])
def test_a_kernel_without_forward_mode_is_refused(kernel):
    model = Toy(lambda weight, x: kernel.apply(x @ weight), [0.5, 2.0])
    batch = toy_batch([[1.0, 2.0], [3.0, 4.0]], [0, 1])
    before = model.weight.detach().clone()
    with pytest.raises(ScoreError, match=r"a part of the model has no derivative of forward mode \(.*\); use fd"):
        ForwardMode().measure(state_of(model), batch, None, np.ones(2))
    assert torch.equal(model.weight, before)


def test_an_attention_kernel_without_forward_mode_is_refused():
    """As of one that does not ask torch which kernel to take."""

    def losses_of(weight, x):
        queries = (x[:, None, None, :] * weight).expand(-1, 1, 16, -1)
        attended = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(queries, queries, queries)[0]
        return attended.mean((1, 2, 3))

    model = Toy(losses_of, torch.ones(16))
    batch = toy_batch(torch.rand(2, 16), [0, 1])
    with pytest.raises(ScoreError, match=r"flash_attention_for_cpu.*; use fd"):
        ForwardMode().measure(state_of(model), batch, None, np.ones(2))


def test_what_else_fails_fails_as_it_is():
    def losses_of(weight, x):
        if not torch.is_grad_enabled():
            raise RuntimeError("a node is gone")
        return x @ weight

    with pytest.raises(RuntimeError, match="a node is gone"):
        ForwardMode().measure(
            state_of(Toy(losses_of, [0.5, 2.0])), toy_batch([[1.0, 2.0], [3.0, 4.0]], [0, 1]), None, np.ones(2)
        )


def test_nothing_is_kept():
    provider = ForwardMode()
    provider.load_state_dict(provider.state_dict())
    assert provider.state_dict() == {}
