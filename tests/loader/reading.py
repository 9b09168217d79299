"""Plans over the shared streams, and their global batches read on any number of ranks."""

from __future__ import annotations

import torch

from mixstream import Plan, build_plan
from mixstream.loader import MixtureLoader

WEIGHTS = {"ca.tales": 0.3, "en.tales": 0.25, "es.tales": 0.2, "eu.tales": 0.15, "gl.tales": 0.1}
OTHER = {"ca.tales": 0.05, "en.tales": 0.05, "es.tales": 0.1, "eu.tales": 0.5, "gl.tales": 0.3}


def plan_of(catalog, batches=30, batch_size=12, weights=WEIGHTS, **options) -> Plan:
    return build_plan(catalog, weights, batches * batch_size * 8, batch_size, window_samples=20, **options)


def told(batch):
    return [batch[key].tolist() for key in ("stream", "sample", "repeat")]


def global_batches(plan, world_size=1, num_workers=0, state=None, weights=None, weight_lag=8):
    """Read a plan on `world_size` ranks in lockstep; return the joined batches."""
    loaders = [MixtureLoader(plan, r, world_size, num_workers, weight_lag=weight_lag) for r in range(world_size)]
    for loader in loaders:
        if state is not None:
            loader.load_state_dict(state)
    batches = []
    for parts in zip(*loaders, strict=True):
        batches.append({key: torch.cat([part[key] for part in parts]) for key in parts[0]})
        for at, new in (weights or {}).items():
            if loaders[0].ledger().batch == at:
                for loader in loaders:
                    loader.set_weights(new)
    return batches
