"""Training losses by source, as the methods read them that are told nothing else (ODM, ADO)."""

from __future__ import annotations

import numpy as np

from mixstream.errors import ScoreError
from mixstream.methods.learning.online import Observation
from mixstream.mixture.simplex import Float64


def told_losses(seen: Observation) -> Float64:
    """Return the losses of an observation, (K,) nats/token, nan of the sources that were not read.

    A source without a loss was not read if no draw since the last update was of it; a loss that is not a
    number although there were draws is a model that diverged.

    Raises:
        ScoreError: there are no losses, or one is not finite though its source was read, or is negative.
    """
    losses = seen.signal
    if losses is None or losses.shape != seen.weights.shape:
        found = "no losses" if losses is None else f"losses of shape {losses.shape}"
        raise ScoreError(f"{found}; expected the training loss of each of {len(seen.weights)} sources")
    unread = np.isnan(losses) & (seen.shares == 0)
    bad = ~unread & ~(np.isfinite(losses) & (losses >= 0))
    if bad.any():
        raise ScoreError(
            f"the training losses of sources number {np.flatnonzero(bad)[:5].tolist()} are "
            f"{losses[bad][:5].tolist()}; expected finite numbers of at least 0, the weights stay as they were"
        )
    if unread.all():
        raise ScoreError("no source was read since the last update; let more batches pass between updates")
    return losses
