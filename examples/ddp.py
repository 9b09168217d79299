"""Plain PyTorch under DistributedDataParallel, with exact resume: stopped at any moment, the same command goes on.

torchrun --nproc-per-node 2 examples/ddp.py streams runs/ddp       # or python examples/ddp.py, on one process
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from torch import distributed, nn

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
    if "RANK" in os.environ:
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else "cpu"

    # Every process builds the very same plan, and its loader takes its own rows of every global batch.
    plan = build_plan(Catalog.open(asked.streams), "temperature:0.3", asked.tokens, batch_size=16, seed=17)
    loader = MixtureLoader(plan)

    torch.manual_seed(17)
    model: nn.Module = nn.Sequential(nn.Embedding(257, 64), nn.Linear(64, 257)).to(device)
    if distributed.is_initialized():
        model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)

    checkpoint = asked.out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(saved["loader"])  # the same for every rank, and for any number of ranks
        if loader.ledger().batch == plan.num_batches:
            return

    for batch in loader:
        tokens = batch["input_ids"].to(device)
        logits = model(tokens[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        read = loader.ledger().batch  # batches consumed, this one included
        if read % asked.save_every and read < plan.num_batches:
            continue
        if not distributed.is_initialized() or distributed.get_rank() == 0:
            print(f"batch {read} of {plan.num_batches}: loss {loss.item():.3f}", flush=True)
            save(checkpoint, model=model.state_dict(), optimizer=optimizer.state_dict(), loader=loader.state_dict())
    if distributed.is_initialized():
        distributed.destroy_process_group()


def save(path: Path, **content: object) -> None:
    """Write a checkpoint, whole or not at all: a process may be killed while it writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path.with_suffix(".writing"))
    path.with_suffix(".writing").replace(path)


if __name__ == "__main__":
    main()
