"""Gradient-alignment scores, and the ways to measure them.

    W_i = < grad l_i (B) , G (A) > ,   G = sum_j t_j grad l_j

with A and B two independent probe batches (cross-fitted), or one and the same (the papers' form).

    fd         two forward passes along G; the default, and the only one for sharded parameters
    jvp        one forward-mode pass along G; exact, where every kernel has its derivative
    kbackward  K backward passes; the reference

    probes       a probe batch in microbatches, and what is measured on it
    gradients    G, over all ranks; differences  losses along G; parameters  whole or in shards
"""

from __future__ import annotations

from collections.abc import Callable

from mixstream.callbacks.scores.fd import CentralDifferences
from mixstream.callbacks.scores.jvp import ForwardMode
from mixstream.callbacks.scores.kbackward import KBackward
from mixstream.callbacks.scores.probes import ScoreProvider, Scores
from mixstream.errors import RecipeError, nearest

__all__ = ["PROVIDERS", "ScoreProvider", "Scores", "provider_of"]

PROVIDERS: dict[str, Callable[[], ScoreProvider]] = {
    "fd": CentralDifferences,
    "jvp": ForwardMode,
    "kbackward": KBackward,
}


def provider_of(name: str) -> ScoreProvider:
    """Return a new provider by its name.

    Raises:
        RecipeError: there is none of this name.
    """
    if name not in PROVIDERS:
        raise RecipeError(f"scores is {name!r}, expected one of {', '.join(PROVIDERS)}{nearest(name, PROVIDERS)}")
    return PROVIDERS[name]()
