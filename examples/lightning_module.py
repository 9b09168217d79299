"""Lightning, with exact resume: stopped at any moment, the same command goes on.

python examples/lightning_module.py streams runs/lightning --devices 2
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from mixstream import Catalog, Plan, build_plan
from mixstream.loader import MixtureLoader


class LanguageModel(lightning.LightningModule):
    """A small model, and the plan that it is trained on."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.layers = nn.Sequential(nn.Embedding(257, 64), nn.Linear(64, 257))

    def train_dataloader(self) -> MixtureLoader:
        """Return the loader; made here, when Lightning's processes know their ranks."""
        return MixtureLoader(self.plan)

    def training_step(self, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
        """Return the loss of a batch."""
        tokens = batch["input_ids"]
        return nn.functional.cross_entropy(self.layers(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    def configure_optimizers(self) -> Any:
        """Return the optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def main() -> None:
    """Train, from the newest checkpoint on if there is one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("streams")
    parser.add_argument("out", type=Path)
    parser.add_argument("--tokens", type=int, default=400_000)
    parser.add_argument("--save-every", type=int, default=20, help="batches")
    parser.add_argument("--devices", type=int, default=1)
    asked = parser.parse_args()

    plan = build_plan(Catalog.open(asked.streams), "temperature:0.3", asked.tokens, batch_size=16, seed=17)
    lightning.seed_everything(17)
    trainer = lightning.Trainer(
        max_epochs=1,  # one epoch is one plan
        devices=asked.devices,
        callbacks=[ModelCheckpoint(asked.out, every_n_train_steps=asked.save_every, save_last=True)],
        logger=False,
        enable_progress_bar=False,
    )
    last = asked.out / "last.ckpt"
    trainer.fit(LanguageModel(plan), ckpt_path=str(last) if last.exists() else None)


if __name__ == "__main__":
    main()
