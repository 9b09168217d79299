"""What planners refuse before they fit or predict: mixtures that are none, runs that cannot tell what is asked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from mixstream.errors import FitError, RunTableError
from mixstream.methods.planning.table import SUM_TOLERANCE, RunTable
from mixstream.mixture.simplex import Float64, check_weights, is_real

SAME = 1.05  # amounts of tokens, or of parameters, within this ratio are of one setting
_DIGITS = 6  # mixtures that agree in so many are one


def check_mixtures(proportions: Float64, sources: Sequence[str]) -> Float64:
    """Return (R, K) mixtures, each row divided by its sum; one mixture (K,) is taken as a row.

    Raises:
        RunTableError: another number of sources, a proportion that is no number of at least 0, a sum that is not 1.
    """
    rows = np.atleast_2d(np.asarray(proportions, dtype=np.float64))
    if rows.ndim != 2 or rows.shape[1] != len(sources):
        raise RunTableError(f"mixtures are of shape {rows.shape}, expected (mixtures, {len(sources)} sources)")
    sums = rows.sum(axis=1)
    bad = ~((rows >= 0).all(axis=1) & (np.abs(sums - 1) <= SUM_TOLERANCE))
    if bad.any():
        first = int(np.argmax(bad))
        raise RunTableError(
            f"mixture {first} has proportions from {rows[first].min():g} and sum {sums[first]:.9g}; expected numbers "
            f"of at least 0 with sum 1 within {SUM_TOLERANCE:g}"
        )
    shares: Float64 = rows / sums[:, None]
    return shares


def check_amounts(what: str, values: Float64 | float, count: int) -> Float64:
    """Return (R,) amounts of tokens or parameters, of `count` runs; one number is that of all.

    Raises:
        RunTableError: an amount that is no finite number above 0.
    """
    amounts = np.array(np.broadcast_to(np.asarray(values, dtype=np.float64), (count,)))
    bad = ~((amounts > 0) & np.isfinite(amounts))
    if bad.any():
        raise RunTableError(f"{what}: found {amounts[int(np.argmax(bad))]:g}, expected a finite number above 0")
    return amounts


def check_option(name: str, value: object, least: float, most: float = math.inf) -> None:
    """Refuse an option that is no finite number from `least` to `most`.

    Raises:
        FitError: with what was found.
    """
    if not is_real(value) or not math.isfinite(float(value)) or not least <= float(value) <= most:  # type: ignore[arg-type]
        upper = "" if math.isinf(most) else f" and at most {most:g}"
        raise FitError(f"{name}={value!r}; expected a finite number of at least {least:g}{upper}")


def of_one_setting(runs: RunTable, of: str, tokens: float | None = None) -> RunTable:
    """Return the runs that a law of the proportions alone can be fitted to: of one budget, and one model size.

    Args:
        runs: of any.
        of: which law, for the message.
        tokens: take only the runs of this budget, within 5 %; None: all must be of one.

    Raises:
        RunTableError: there are several budgets or model sizes, or none of `tokens`.
    """
    if tokens is not None:
        near = np.abs(np.log(runs.tokens / tokens)) <= math.log(SAME)
        if not near.any():
            raise RunTableError(
                f"{of}: no run of {tokens:,.0f} tokens; the table has runs of {runs.tokens.min():,.0f} to "
                f"{runs.tokens.max():,.0f}"
            )
        runs = runs.rows(near)
    for what, values in (("tokens", runs.tokens), ("parameters", runs.parameters[~np.isnan(runs.parameters)])):
        if len(values) and values.max() > SAME * values.min():
            raise RunTableError(
                f"{of}: the runs are of {values.min():,.0f} to {values.max():,.0f} {what}, but this law knows "
                f"proportions only; fit it to the runs of one {'budget' if what == 'tokens' else 'model size'}"
            )
    return runs


def knows_sizes(runs: RunTable, of: str) -> bool:
    """Return whether runs are of enough model sizes, 3 that differ by more than 5 %, for a law to have terms of them.

    Raises:
        RunTableError: model sizes are told of some runs only.
        FitError: there are two.
    """
    told = runs.parameters[~np.isnan(runs.parameters)]
    if 0 < len(told) < len(runs):
        raise RunTableError(
            f"{of}: parameters are told of {len(told)} of {len(runs)} runs; tell those of all, or of none"
        )
    steps = np.diff(np.log(np.sort(told))) > math.log(SAME)
    different = 1 + int(steps.sum())
    if different == 2:
        raise FitError(
            f"{of}: runs of 2 model sizes, {told.min():,.0f} and {told.max():,.0f}, cannot tell how fast the gain of "
            f"size fades; runs of 1 more size are missing, or fit it to those of one"
        )
    return different > 2


def with_losses(
    runs: RunTable, target: int, parameters: int, of: str, told: str, *, apart: bool = True, mixtures_only: bool = False
) -> tuple[RunTable, Float64]:
    """Return the runs that have a loss of a target, and these (n,) losses: enough of them for its law.

    Args:
        runs: of any.
        target: number of the target.
        parameters: how many the law of one target has.
        of: which law, for the message.
        told: what its parameters are.
        apart: whether the runs must tell all sources apart, as a law with a parameter a source needs.
        mixtures_only: whether runs of one mixture are one, whatever their tokens, as to a law of the mixture alone.

    Raises:
        FitError: too few different runs, with how many are missing; or mixtures in which sources cannot be told
            apart.
    """
    place = f"{of}, target {runs.targets[target]!r}"
    has = ~np.isnan(runs.losses[:, target])
    settings = runs.proportions
    if not mixtures_only:
        sizes = np.where(np.isnan(runs.parameters), 1, runs.parameters)
        settings = np.column_stack([settings, np.log(runs.tokens), np.log(sizes)])
    different = len(np.unique(np.round(settings[has], _DIGITS), axis=0))
    if different < parameters:
        raise FitError(
            f"{place}: {parameters} parameters ({told}), but {int(has.sum())} runs have its loss, {different} of them "
            f"different; {parameters - different} more are missing, of other mixtures"
        )
    own = runs.rows(has)
    if apart:
        _check_apart(own.proportions, runs.sources, place)
    return own, own.losses[:, target]


def _check_apart(mixtures: Float64, sources: Sequence[str], place: str) -> None:
    unused = [source for source, most in zip(sources, mixtures.max(axis=0), strict=True) if most == 0]
    if unused:
        raise FitError(
            f"{place}: no run reads {', '.join(unused[:5])} ({len(unused)} of {len(sources)} sources), so that what "
            f"they do is not known; add runs that do, or drop them"
        )
    rank = int(np.linalg.matrix_rank(mixtures, tol=1e-4))
    if rank < len(sources):
        raise FitError(
            f"{place}: its {len(mixtures)} runs vary {rank} of {len(sources)} proportions apart from each other; "
            f"{len(sources) - rank} more are missing, of mixtures that are no blend of these"
        )


def check_prior(prior: Mapping[str, float] | None) -> None:
    """Refuse a prior that gives a source nothing: relative entropy to it would be infinite.

    Raises:
        FitError: with the source.
    """
    for source, share in ({} if prior is None else prior).items():
        if not (is_real(share) and share > 0):
            raise FitError(f"prior of {source!r} is {share!r}; expected a share above 0 (a budget can cap a source)")


def prior_shares(prior: Mapping[str, float] | None, sizes: Float64, sources: Sequence[str]) -> Float64:
    """Return (K,) shares of the prior {source: share}; None: those of the sizes.

    Raises:
        WeightsError: the prior is of other sources, or does not sum to 1.
    """
    shares: Float64 = sizes / sizes.sum() if prior is None else check_weights(prior, sources)
    return shares
