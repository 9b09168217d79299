"""A causal language model whose loss is one number a row."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  the field's name for it
import transformers
from composer.models import HuggingFaceModel

from mixstream.errors import StreamError
from mixstream.mixture.plan import Plan
from mixstream.runs.pretrained import check_pretrained, load_pretrained
from mixstream.runs.sections import ModelRecipe
from mixstream.streams.manifest import TokenizerInfo

# It warns that no tokenizer is saved with the model: the streams' manifest names it.
logging.getLogger("composer.models.huggingface").setLevel(logging.ERROR)


class CausalLM(HuggingFaceModel):
    """A `transformers` causal model under Composer, with a loss by row.

    Composer takes the mean of a vector of losses, so training is that of the usual scalar; the vector is
    what tells the sources apart. What a row is to say next is in the row itself, so a batch needs no labels.
    """

    def forward(self, batch: Mapping[str, torch.Tensor]) -> Any:
        """Return the model's outputs, with logits (rows, sequence, vocabulary)."""
        inputs: dict[str, Any] = {key: value for key, value in batch.items() if key != "labels"}  # they make the scalar
        return super().forward(inputs | {"use_cache": False})  # type: ignore[no-untyped-call]

    def loss(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the mean loss of each row's tokens but the first, (rows,), in nats/token."""
        return self.token_losses(outputs, batch).mean(dim=1)

    def token_losses(self, outputs: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return the loss of each row's tokens but the first, (rows, T - 1), in nats."""
        logits = outputs["logits"][:, :-1].float()
        targets = batch["input_ids"][:, 1:]
        losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return losses.view(targets.shape)


def check_model(recipe: ModelRecipe, plan: Plan) -> TokenizerInfo:
    """Refuse a model that cannot be trained on what a plan reads; return what made the plan's tokens.

    Raises:
        StreamError: the plan's streams do not say what their vocabulary is.
        RecipeError: the checkpoint to go on with is not there, or does not fit the streams.
    """
    if plan.tokenizer is None:
        raise StreamError(
            f"streams {', '.join(plan.streams[:3])}: their tokenizer is unknown (no stream.json), so the model's "
            f"vocabulary is; write one stream.json beside each index.json (docs/formats.md)"
        )
    if recipe.pretrained is not None:
        check_pretrained(recipe.pretrained, plan, plan.tokenizer)
    return plan.tokenizer


def build_model(recipe: ModelRecipe, plan: Plan, seed: int) -> CausalLM:
    """Return the model that a run begins with: a checkpoint's, or a fresh one, the same for the same seed.

    Raises:
        StreamError: the plan's streams do not say what their vocabulary is.
        RecipeError: the checkpoint to go on with is not there, or does not fit the streams.
    """
    tokenizer = check_model(recipe, plan)
    if recipe.pretrained is not None:
        return CausalLM(load_pretrained(recipe.pretrained))
    config = transformers.LlamaConfig(  # type: ignore[no-untyped-call]
        vocab_size=tokenizer.vocab_size,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_heads,
        num_key_value_heads=recipe.num_kv_heads or recipe.num_heads,
        tie_word_embeddings=recipe.tie_embeddings,
        max_position_embeddings=plan.sequence_length,
        bos_token_id=None,
        eos_token_id=tokenizer.eod_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CausalLM(transformers.LlamaForCausalLM(config))  # type: ignore[no-untyped-call]
