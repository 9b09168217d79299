"""A plan walked batch by batch with the engine itself."""

from __future__ import annotations

import dataclasses

import numpy as np

from mixstream.mixture.ledger import draw, open_ledger


def walk(plan):
    """Return the draws of every batch of a plan's run, (batches, K)."""
    ledger, rows = open_ledger(plan.shares, plan.terms), []
    shares = {phase.first_batch: phase.shares for phase in plan.phases}
    while True:
        step = draw(dataclasses.replace(ledger, shares=shares.get(ledger.batch, ledger.shares)), plan.terms)
        if step is None:
            return np.array(rows)
        counts, ledger = step
        rows.append(counts)
