"""A plan walked with the engine itself."""

from __future__ import annotations

import numpy as np

from mixstream.mixture.ledger import advance, draw, enter_phase, next_phase, open_ledger


def walk(plan):
    """Return the draws of every batch of a plan's run, (batches, K)."""
    ledger, rows = open_ledger(plan.terms), []
    while True:
        ledger = enter_phase(ledger, plan.terms)
        counts = draw(ledger, plan.terms, next_phase(ledger, plan.terms) - ledger.batch)
        if not len(counts):
            return np.array(rows)
        rows.extend(counts.sum(axis=1))
        ledger = advance(ledger, plan.terms, counts)
