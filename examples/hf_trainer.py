"""Hugging Face's Trainer, with exact resume: stopped at any moment, the same command goes on.

torchrun --nproc-per-node 2 examples/hf_trainer.py streams runs/trainer       # or python, on one process
"""

from __future__ import annotations

import argparse
import os

import torch
import transformers

from mixstream import Catalog, build_plan
from mixstream.loader import MixtureLoader
from mixstream.loader.hugging_face import MixtureTrainer, newest_checkpoint


def main() -> None:
    """Train, from the newest checkpoint on if there is one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("streams")
    parser.add_argument("out")
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--save-every", type=int, default=20, help="steps")
    asked = parser.parse_args()

    use_cpu = not torch.cuda.is_available()
    if use_cpu:  # accelerate itself calls it cpu:0, on which torch.load refuses to load a checkpoint
        os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"

    transformers.set_seed(17)
    arguments = transformers.TrainingArguments(  # this begins torch.distributed, where a launcher asks for it
        asked.out,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        learning_rate=1e-3,
        save_steps=asked.save_every,
        save_total_limit=2,
        report_to="none",
        use_cpu=use_cpu,
    )
    plan = build_plan(
        Catalog.open(asked.streams),
        "temperature:0.3",
        asked.tokens,
        batch_size=arguments.per_device_train_batch_size * arguments.world_size,
        seed=17,
    )
    arguments.max_steps = plan.num_batches // arguments.gradient_accumulation_steps
    shape = transformers.LlamaConfig(
        vocab_size=257,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=plan.sequence_length,
    )
    model = transformers.LlamaForCausalLM(shape)
    trainer = MixtureTrainer(model, arguments, loader=MixtureLoader(plan))
    trainer.train(resume_from_checkpoint=newest_checkpoint(asked.out))
    trainer.save_model()


if __name__ == "__main__":
    main()
