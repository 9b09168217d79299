"""A loop of one's own with accelerate, with exact resume: stopped at any moment, the same command goes on.

accelerate launch --num-processes 2 examples/accelerate_loop.py streams runs/accelerate    # or python, on one
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from mixstream import Catalog, build_plan
from mixstream.loader import MixtureLoader


def main() -> None:
    """Train, from the newest checkpoint on if there is one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("streams")
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--save-every", type=int, default=20, help="batches")
    asked = parser.parse_args()
    # This begins torch.distributed, where a launcher asks for it; on processors only if it is told that it is on some.
    accelerator = Accelerator(cpu=not torch.cuda.is_available())

    plan = build_plan(Catalog.open(asked.streams), "temperature:0.3", asked.tokens, batch_size=16, seed=17)
    torch.manual_seed(17)
    model: nn.Module = nn.Sequential(nn.Embedding(257, 64), nn.Linear(64, 257))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    # The loader comes back as it is, dealt to ranks already; its position is saved and loaded with all else.
    model, optimizer, loader = accelerator.prepare(model, optimizer, MixtureLoader(plan))
    saved = sorted(asked.out.glob("batch-*"))
    if saved:
        accelerator.load_state(str(saved[-1]))
        if loader.ledger().batch == plan.num_batches:
            return

    for batch in loader:
        tokens = batch["input_ids"].to(accelerator.device)
        logits = model(tokens[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        read = loader.ledger().batch  # batches consumed, this one included
        if read % asked.save_every and read < plan.num_batches:
            continue
        accelerator.print(f"batch {read} of {plan.num_batches}: loss {loss.item():.3f}")
        accelerator.save_state(str(asked.out / "saving"))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:  # a name that counts, once the checkpoint is whole
            (asked.out / "saving").rename(asked.out / f"batch-{read:09}")
        accelerator.wait_for_everyone()
    accelerator.end_training()


if __name__ == "__main__":
    main()
