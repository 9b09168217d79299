"""What a run has learnt, as one point: weights averaged over its batches, and over several runs.

    alpha*     = mean over batches t of alpha_t                 DoGE: all t; XDoGE: the last 10 000
    alpha_ema  ~ sum_t 2^(-(T - 1 - t) / h) alpha_t             half-life of h batches (ours)
    alpha**    = mean over proxies p of alpha*_p                XDoGE: sizes and seeds; unweighted is our reading

Weights act from the batch of one change to the next, so a mean over batches weighs each change by the
batches in which it acted.

Sources: Fan et al. 2024, DoGE (arXiv 2310.15393), algorithm 1; Lacunza et al. 2025, XDoGE (arXiv 2512.10545).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixstream.errors import WeightsError
from mixstream.mixture.simplex import Float64, check_weights

History = Sequence[tuple[int, Float64]]


def average_weights(history: History, start: int, end: int) -> Float64:
    """Return the mean of weights over the batches `start` .. `end` - 1; over all with `start` = 0.

    Args:
        history: (batch, weights) of every change, in order: the (K,) weights act from that batch to the
            next change.
        start, end: the batches to average over.

    Raises:
        WeightsError: no weights act in these batches.
    """
    spans = [max(0, stop - max(batch, start)) for batch, stop in _spans(history, end)]
    if sum(spans) == 0:
        raise WeightsError(f"no weights act in batches {start} to {end}; average over more of the run")
    return _mean(history, spans)


def average_last(history: History, end: int, num_batches: int) -> Float64:
    """Return the mean of weights over the last `num_batches` batches before `end`; XDoGE takes 10 000.

    Raises:
        WeightsError: `num_batches` is below 1, or more than the weights have acted in.
    """
    first = history[0][0] if history else end
    if not 1 <= num_batches <= end - first:
        raise WeightsError(
            f"asked for the mean of the last {num_batches} batches, but weights act in {max(0, end - first)}; "
            f"average over 1 to that many"
        )
    return average_weights(history, end - num_batches, end)


def average_ema(history: History, end: int, half_life: float) -> Float64:
    """Return the mean of weights over the batches before `end`, a batch counting half for every `half_life` of age.

    The result of m_t = d m_(t-1) + (1 - d) alpha_t with d = 2^(-1 / half_life) at every batch, corrected for
    its beginning at 0; weights that act in batches b .. e - 1 count d^(end - e) - d^(end - b).

    Args:
        history: (batch, weights) of every change, in order.
        end: the batch after the last one.
        half_life: in batches, above 0.

    Raises:
        WeightsError: a half-life that is not a finite number above 0, or no weights act before `end`.
    """
    if not 0 < half_life < math.inf:
        raise WeightsError(f"half-life of {half_life} batches; expected a finite number above 0")
    rate = math.log(2) / half_life
    counts = [
        -math.exp(-rate * (end - stop)) * math.expm1(-rate * (stop - batch)) if stop > batch else 0.0
        for batch, stop in _spans(history, end)
    ]
    if sum(counts) == 0:
        raise WeightsError(f"no weights act before batch {end}; average over more of the run")
    return _mean(history, counts)


@dataclass(frozen=True)
class Aggregate:
    """What several proxy runs learnt together; everything by stream.

    Attributes:
        weights: the unweighted mean over the runs, sum 1.
        std: standard deviation over the runs (of the sample: n - 1); None for a single run, which shows none.
        least, greatest: over the runs.
        num_runs: how many.
    """

    weights: dict[str, float]
    std: dict[str, float] | None
    least: dict[str, float]
    greatest: dict[str, float]
    num_runs: int


def aggregate(runs: Mapping[str, Mapping[str, float]]) -> Aggregate:
    """Return the mean and the spread of what runs of several sizes and seeds learnt.

    Args:
        runs: {run: {stream: weight}}, one mean a run; the same streams in each, in any order.

    Raises:
        WeightsError: no run, runs over other streams, or weights that are none.

    Source: XDoGE averages over proxies; that all count alike is our reading.
    """
    if not runs:
        raise WeightsError("no runs to aggregate; give one or more that have learnt weights")
    first, names = next((run, tuple(weights)) for run, weights in runs.items())
    for run, weights in runs.items():
        for one, other, found in (
            (first, run, [name for name in names if name not in weights]),
            (run, first, [name for name in weights if name not in names]),
        ):
            if found:
                raise WeightsError(
                    f"{one} has weights for {', '.join(found[:5])} ({len(found)} streams), {other} has none; "
                    f"aggregate runs over the same streams"
                )
    learnt = np.array([check_weights(weights, names) for weights in runs.values()])

    def by_name(values: Float64) -> dict[str, float]:
        return dict(zip(names, values.tolist(), strict=True))

    mean = learnt.mean(axis=0)
    return Aggregate(
        weights=by_name(mean / math.fsum(mean)),
        std=by_name(learnt.std(axis=0, ddof=1)) if len(runs) > 1 else None,
        least=by_name(learnt.min(axis=0)),
        greatest=by_name(learnt.max(axis=0)),
        num_runs=len(runs),
    )


def _spans(history: History, end: int) -> list[tuple[int, int]]:
    """Return from which batch, and before which, each change acts; none acts at or after `end`."""
    stops = [batch for batch, _ in history[1:]] + [end]
    return [(batch, min(stop, end)) for (batch, _), stop in zip(history, stops, strict=True)] if history else []


def _mean(history: History, counts: Sequence[float]) -> Float64:
    total = sum(count * weights for count, (_, weights) in zip(counts, history, strict=True))
    mean = np.asarray(total, dtype=np.float64) / math.fsum(counts)
    averaged: Float64 = mean / math.fsum(mean)
    return averaged
