"""What tests of scores share: a small trained model over planted sources, and the scores written out in float64."""

from __future__ import annotations

import copy
import functools
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
import transformers
from composer.core import State
from composer.devices import DeviceCPU
from composer.models import ComposerModel

from mixstream.callbacks.rows import row_losses
from mixstream.runs.model import CausalLM

VOCABULARY = 48
LENGTH = 12


class Exact(CausalLM):
    """A causal model whose loss keeps the bits that its parameters have."""

    def loss(self, outputs, batch):
        logits, targets = outputs["logits"][:, :-1], batch["input_ids"][:, 1:]
        if logits.dtype == torch.bfloat16:
            logits = logits.float()
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape).mean(1)


class Toy(ComposerModel):
    """Row losses that are a function of the parameters `weight` (P,) and of the rows' numbers `x` (rows, P)."""

    def __init__(self, losses_of, weight):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.as_tensor(weight))
        self.losses_of = losses_of

    def forward(self, batch):
        return self.losses_of(self.weight, batch["x"])

    def loss(self, outputs, batch):
        return outputs


def toy_batch(x, stream):
    return {"x": torch.as_tensor(x), "stream": torch.as_tensor(stream)}


def planted(rows, seed, length=LENGTH):
    """Return a batch of `rows[i]` rows of source i: walks of step i + 1 round the vocabulary, with some noise."""
    chance = np.random.default_rng(seed)
    stream = chance.permutation(np.repeat(np.arange(len(rows)), rows))
    walks = chance.integers(0, VOCABULARY, (len(stream), 1)) + (stream[:, None] + 1) * np.arange(length)
    noise = chance.integers(0, VOCABULARY, walks.shape)
    tokens = np.where(chance.random(walks.shape) < 0.1 + 0.1 * stream[:, None], noise, walks % VOCABULARY)
    return {"input_ids": torch.from_numpy(tokens), "stream": torch.from_numpy(stream)}


def small_model(kind=Exact, **config):
    """Return a Llama of two layers, the same at every call."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        llama = transformers.LlamaConfig(vocab_size=VOCABULARY, use_cache=False, **sizes | config)
        return kind(transformers.LlamaForCausalLM(llama))


def trained_model(num_sources=4, **config):
    """Return a copy of one that has learnt the first sources more than the last ones."""
    return copy.deepcopy(_trained_model(num_sources, **config))


@functools.cache
def _trained_model(num_sources, **config):
    model = small_model(**config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for number in range(30):
        batch = planted([2 * (num_sources - i) for i in range(num_sources)], seed=1000 + number)
        optimizer.zero_grad()
        row_losses(model, batch).mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    return model


def state_of(model, microbatch=None):
    return State(
        model=model,
        rank_zero_seed=1,
        run_name="test",
        device=DeviceCPU(),
        device_train_microbatch_size=microbatch,
    )


def written_out(model, scored, aggregate, targets):
    """Return scores, losses and |G| by a gradient for each source, one after the other, in float64."""
    exact = copy.deepcopy(model).double().eval()

    def gradient(batch, source):
        own = {key: column[batch["stream"] == source] for key, column in batch.items()}
        loss = row_losses(exact, own).mean()
        found = torch.autograd.grad(loss, list(exact.parameters()))
        return torch.cat([one.flatten() for one in found]), float(loss.detach())

    aggregate = scored if aggregate is None else aggregate
    whole = sum(target * gradient(aggregate, j)[0] for j, target in enumerate(targets) if target)
    each = [gradient(scored, i) for i in range(len(targets))]
    scores = np.array([float(own @ whole) for own, _ in each])
    return SimpleNamespace(scores=scores, losses=np.array([loss for _, loss in each]), norm=float(whole.norm()))


def error_of(scores, expected):
    """Return max |W - expected| / max |expected|."""
    return float(np.abs(scores - expected).max() / np.abs(expected).max())


def order_of(scores):
    """Return the sources from the least score to the greatest: the same order is a rank correlation of 1."""
    return np.argsort(scores).tolist()
