"""Streams that join in the course of a run.

A stream's presence p_i rises from 0, when it joins, to 1, along a straight ramp; a run reads

    a_i ~ w_i p_i                       of the latent weights w, which the method goes on learning for all

A stream that is absent has no rows to score. Its score is taken to be the mean of the others', weighted as they
are, so that the update leaves its share of the whole as it was (to first order in the step), and it joins with
the weight that it began with.

XDoGE (arXiv 2512.10545) names staged sets of languages as an open question; all of this is our answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mixstream.errors import MixtureError, WeightsError, nearest
from mixstream.mixture.simplex import Float64


@dataclass(frozen=True)
class Join:
    """Streams that join together.

    Attributes:
        streams: their names.
        at_batch: the global batch at which their presence begins to rise.
        ramp_batches: batches until it is 1; 0: at once.
    """

    streams: tuple[str, ...]
    at_batch: int
    ramp_batches: int = 0


@dataclass(frozen=True)
class Stages:
    """Which of K streams are there, and how much, at every batch of a run.

    Attributes:
        names: the K streams.
        joins: those that are not there from the start.
    """

    names: tuple[str, ...]
    joins: tuple[Join, ...] = ()

    def __post_init__(self) -> None:
        """Refuse joins that are none.

        Raises:
            MixtureError: an unknown stream, one that joins twice, a time before the run, or nothing to begin with.
        """
        joined: set[str] = set()
        for join in self.joins:
            if join.at_batch < 0 or join.ramp_batches < 0:
                raise MixtureError(
                    f"{', '.join(join.streams)} join at batch {join.at_batch} over {join.ramp_batches} batches; "
                    f"expected 0 or more of each"
                )
            for name in join.streams:
                if name not in self.names:
                    raise MixtureError(f"a stage names {name!r}, which is no stream{nearest(name, self.names)}")
                if name in joined:
                    raise MixtureError(f"{name!r} joins twice; name it in one stage only")
                joined.add(name)
        if not self.presence(0).any():
            raise MixtureError("no stream is there at batch 0; leave one or more out of the stages")

    def presence(self, batch: int) -> Float64:
        """Return how much each stream is there at a global batch, (K,) from 0 to 1.

            p_i = clip( (batch - at) / ramp, 0, 1 ),  or with no ramp 0 before `at` and 1 from it on

        1 for streams that no stage names.
        """
        presence = np.ones(len(self.names))
        number = {name: i for i, name in enumerate(self.names)}
        for join in self.joins:
            since = batch - join.at_batch
            share = min(1.0, max(0.0, since / join.ramp_batches)) if join.ramp_batches else float(since >= 0)
            presence[[number[name] for name in join.streams]] = share
        return presence

    @property
    def first_batches(self) -> tuple[int, ...]:
        """The batches, rising from 0, at which streams are there that were not before.

        Bounds that can be kept at these (`mixstream.methods.learning.bounds.Bounds.present`) are kept at all.
        """
        return tuple(sorted({0} | {join.at_batch + (join.ramp_batches > 0) for join in self.joins}))


def present_weights(weights: Float64, presence: Float64) -> Float64:
    """Return a_i ~ w_i p_i, (K,), sum 1: what is read of latent `weights` (K,) at this `presence` (K,).

    Raises:
        WeightsError: no stream that is there has weight.
    """
    product = weights * presence
    total = math.fsum(product)
    if total == 0:
        raise WeightsError("no stream that is there has weight; give some to those that the run begins with")
    there: Float64 = product / total
    return there


def neutral_scores(scores: Float64, weights: Float64, presence: Float64) -> Float64:
    """Return scores with those of absent streams replaced by the others' mean, weighted by alpha.

    Under the exponentiated-gradient update, W_absent = sum_present alpha_i W_i / sum_present alpha_i leaves the
    latent weight of the absent as it was, to first order in the step.

    Args:
        scores: (K,); those of absent streams are not looked at, and may be nan.
        weights: (K,) alpha, latent.
        presence: (K,) from 0 to 1; absent at 0.

    Raises:
        WeightsError: no stream that is there has weight.
    """
    there = presence > 0
    shares = present_weights(weights, there.astype(np.float64))
    with np.errstate(invalid="ignore", over="ignore"):  # scores that are not finite are for the method to refuse
        mean = (shares * np.where(there, scores, 0.0)).sum()
    neutral: Float64 = np.where(there, scores, mean)
    return neutral
