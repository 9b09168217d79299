"""What to know before a recommendation is used: many repeats, and laws that are asked beyond their runs.

The limits, 4 repeats of one source alone and 16 and 40 in mixtures, are our reading of arXiv 2305.16264, 2605.12715,
2606.07597, 2603.16177 and 2608.14071: best repeats are told from 2 to 24, by size of model and pool.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mixstream.mixture.simplex import Float64

if TYPE_CHECKING:
    from mixstream.methods.mixture_law import FittedMixture

ALONE_REPEATS, MANY_REPEATS, MOST_REPEATS = 4.0, 16.0, 40.0
SLACK = 1 + 1e-9  # what rounding may add


def warnings_of_repeats(names: Sequence[str], repeats: Float64) -> list[str]:
    """Return what there is to say of the repeats (K,) of sources."""
    if len(names) == 1 and repeats[0] > ALONE_REPEATS:
        return [
            f"{names[0]} is read {repeats[0]:.3g} times and nothing else is: beyond {ALONE_REPEATS:g} repeats of one "
            f"source alone each is worth clearly less than fresh data; add a source, or read less"
        ]
    told = []
    for name, count in zip(names, repeats, strict=True):
        if count > MOST_REPEATS * SLACK:
            told.append(
                f"{name} is read {count:.3g} times: no paper finds more than {MOST_REPEATS:g} repeats useful; set "
                f"max_repeats"
            )
        elif count > MANY_REPEATS * SLACK:
            told.append(
                f"{name} is read {count:.3g} times: beyond {MANY_REPEATS:g} repeats losses can rise again, which the "
                f"law does not know of; watch its held-out loss"
            )
    return told


def told_of_many(names: Sequence[str], repeats: Float64) -> list[str]:
    """Return the same of many sources in few sentences: how many are read so often, and the worst of them."""
    if len(names) == 1:
        return warnings_of_repeats(names, repeats)
    told = []
    bands = {
        MOST_REPEATS: "no paper finds more repeats useful; set max_repeats",
        MANY_REPEATS: "beyond that losses can rise again; watch their held-out losses, or set max_repeats",
    }
    above = math.inf
    for least, advice in bands.items():
        band = [i for i in np.argsort(-repeats, kind="stable") if least * SLACK < repeats[i] <= above]
        above = least * SLACK
        if band:
            worst = ", ".join(f"{names[i]} {repeats[i]:.3g}" for i in band[:3])
            more = f" and {len(band) - 3} more" if len(band) > 3 else ""
            read = "is read" if len(band) == 1 else "are read"
            told.append(f"{len(band)} of {len(names)} {read} more than {least:g} times ({worst}{more}): {advice}")
    return told


def warnings_of_law(fitted: FittedMixture, tokens: float, repeats: Float64, parameters: float) -> list[str]:
    """Return where a law is asked for what its runs did not show: tokens, repeats (K,), model size."""
    told = list(fitted.notes)
    most = fitted.tokens[1]
    if tokens > most * SLACK:
        told.append(
            f"the law was fitted to runs of at most {most:.3g} tokens; {tokens:.3g} is {tokens / most:.3g} times that"
        )
    for name, count, seen in zip(fitted.sources, repeats, fitted.repeats, strict=True):
        if count > max(seen, 1) * SLACK:
            told.append(f"{name} is read {count:.3g} times, in the runs of the law {seen:.3g} times at most")
    return told + _warnings_of_size(fitted.parameters[1], parameters)


def _warnings_of_size(most: float, parameters: float) -> list[str]:
    if parameters > most * SLACK:
        return [
            f"the law was fitted to models of at most {most:.3g} parameters, and this one has {parameters:.3g}: the "
            f"best share of a scarce source falls with the model's size (9.5% at 101M to 1.9% at 539M in one report), "
            f"so scarce sources are likely to have too much here"
        ]
    if math.isfinite(parameters) and math.isnan(most):
        return [
            "the runs do not tell their model's parameters: if they were smaller than this one, scarce sources are "
            "likely to have too much here, for their best share falls with the model's size"
        ]
    return []
