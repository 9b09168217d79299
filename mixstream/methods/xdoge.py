"""XDoGE: weights of languages and domains learnt online from the alignment of their gradients.

Sources: Lacunza et al. 2025, XDoGE (arXiv 2512.10545), which extends DoGE, Fan et al. 2024
(arXiv 2310.15393). With K sources, l_i the mean token loss of source i and g_i its gradient:

    W_i     = < g_i , sum_j g_j >                                    score: what learning from i does for all
    alpha_i <- alpha_i exp(eta W_i / mu) / Z                          mirror descent with step mu
    alpha   <- the nearest point with alpha_i >= gamma, sum 1        XDoGE's weight clipping
    alpha*  =  mean of alpha over the last part of the run           what the base model uses

The first, second and last lines are the papers'. Of the third, XDoGE's paper was readable to us in its
abstract and in summaries only: the exact projection in relative entropy is our reading, chosen since it is
multiplicative as the update is; `mixstream.methods.learning.bounds` has it and the other readings, and
`mixstream.methods.learning.averaging` the last line. The papers take both gradients of W_i from one batch, which adds
the gradient's noise energy tr Cov(g_i) / n to W_i and favours the sources with the fewest sequences n; our
default takes them from two independent batches (cross-fitting), which is unbiased.

Ours, and off by default: a running mean of the scores, their discount by the saturation of repeats, and the
pull towards a prior. They answer questions that XDoGE's paper leaves open (availability, language families).
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from mixstream.errors import MixtureError, ScoreError, StateError, WeightsError
from mixstream.methods.learning.online import Observation, Signal
from mixstream.methods.repetition import worth_of_next
from mixstream.mixture.simplex import SUM_TOLERANCE, Float64, check_floor, project

Form = Literal["paper", "normalised"]

CLIP = 5.0  # DoGE's code: dw_max
_LEAST_LOG = -650.0  # of a weight beside the greatest, in nats: e^-650 is still a normal double after division by K


def alignment_scores(gradients: Float64, total: Float64) -> Float64:
    """Return ``W_i = <g_i, G>``, the first-order gain of all sources from a step along source i.

    Args:
        gradients: (K, P), one source's gradient g_i a row.
        total: (P,), G = sum_j g_j: of the same batch in the papers' form, of an independent one when
            cross-fitted. With a sum over target sources only, the score is for these (out of domain).

    Returns:
        (K,) scores, in squared units of the gradient.

    Source: DoGE, equation of the "universal generalisation" target, and its out-of-domain variant.
    """
    return gradients @ total


def update_weights(weights: Float64, scores: Float64, eta: float, mu: float, floor: float = 0.0) -> Float64:
    """Return the weights after one update: exponentiated gradient, then the floor.

        alpha_i <- alpha_i exp(eta W_i / mu) / sum_j alpha_j exp(eta W_j / mu)

    Args:
        weights: (K,) alpha, sum 1. A weight of 0 stays 0 unless there is a floor.
        scores: (K,) W.
        eta: learning rate of the model at this step (the papers couple the two).
        mu: step of the mirror descent; smaller moves further. DoGE uses 0.001 to 0.05.
        floor: gamma, the least weight; XDoGE uses 0.02.

    Raises:
        ScoreError: a score that is not finite.
        FloorError: K floors exceed 1.
    """
    count = len(weights)
    check_floor(floor, count)
    raised = mirror_step(weights, eta * scores, mu)
    return project(raised, np.full(count, floor), np.ones(count)) if floor else raised


def mirror_step(
    weights: Float64, gains: Float64, mu: float, prior: Float64 | None = None, strength: float = 0.0
) -> Float64:
    """Return the weights with the greatest gain that are not far from where they were, nor from a prior.

        argmin_a  - a . s + mu KL(a || alpha) + lambda KL(a || prior)      s.t.  sum_i a_i = 1
        a_i ~ exp( (s_i + mu log alpha_i + lambda log prior_i) / (mu + lambda) )

    With lambda = 0 this is the papers' update; steady gains s lead to a_i ~ prior_i exp(s_i / lambda).
    Computed in logarithms with the greatest subtracted, so that no gain overflows; a constant added to all
    changes nothing. A weight above 0 stays above 0 (by e^-650 of the greatest), so that it can come back.

    Args:
        weights: (K,) alpha, sum 1; 0 stays 0.
        gains: (K,) s = eta W.
        mu: what it costs to move, above 0.
        prior: (K,) above 0, sum 1; None where `strength` is 0.
        strength: lambda >= 0, in the units of mu: without gains the distance to the prior, in logarithms,
            shrinks by mu / (mu + lambda) an update.

    Raises:
        ScoreError: a gain that is not finite.

    Source: DoGE's update; the pull towards a prior is ours.
    """
    if not np.isfinite(gains).all():
        raise ScoreError(f"scores are not finite: {gains.tolist()}; the weights stay as they were")
    logs = np.full(len(weights), -np.inf)
    alive = weights > 0
    logs[alive] = gains[alive] + mu * np.log(weights[alive])
    if prior is not None and strength:
        logs += strength * np.log(prior)
    with np.errstate(over="ignore"):  # to -inf, which the least weight stands for
        logs = (logs - logs.max()) / (mu + strength)
    raised = np.where(alive, np.exp(np.maximum(logs, _LEAST_LOG)), 0.0)
    stepped: Float64 = raised / math.fsum(raised)
    return stepped


def normalised_update(
    weights: Float64, scores: Float64, norms: Float64, eta: float, mu: float, clip: float = CLIP
) -> Float64:
    """Return the weights after one update in the form of DoGE's code.

        s_i = clip( W_i / (mean_j ||g_j|| + 1e-6), 0, clip )         alpha_i <- alpha_i exp(eta s_i / mu) / Z

    Negative alignment counts as none, so that a source shrinks only by others' growth, and one update
    multiplies odds by exp(clip eta / mu) at most.

    Args:
        weights: (K,) alpha, sum 1.
        scores: (K,) W.
        norms: (K,) ||g_i||, which only a provider that forms the sources' gradients can tell.
        eta: learning rate of the model.
        mu: step of the mirror descent.
        clip: greatest normalised score.

    Raises:
        ScoreError: a score or a norm that is not finite.

    Source: DoGE's code, src/trainer.py; the paper's equations have neither the division nor the clipping.
    """
    return mirror_step(weights, eta * np.clip(scores / (norms.mean() + 1e-6), 0, clip), mu)


def scale_free(scores: Float64, clip: float = CLIP) -> Float64:
    """Return scores in units of their mean size, clipped as DoGE's code clips: clip(W_i / mean_j |W_j|, 0, clip).

    DoGE's code divides by the mean gradient norm (`normalised_update`). Providers that score all sources by
    one directional derivative form no source's gradient and know no norms, so we divide by the mean of
    |W_i| instead. The result depends on the ratios of the scores alone, so that mu means the same for every model.

    Args:
        scores: (K,) W; all 0 stay 0.
        clip: greatest one.
    """
    greatest = np.abs(scores).max()
    if greatest == 0:
        return np.zeros_like(scores)
    relative = scores / greatest  # so that the mean does not overflow
    clipped: Float64 = np.clip(relative / np.abs(relative).mean(), 0, clip)
    return clipped


class XDoGE:
    """The update of a run: `mirror_step` on alignment scores, with what it keeps between updates.

    Implements `mixstream.methods.learning.online.Method`. Floors and caps are laid on its answer by the caller.
    """

    def __init__(
        self,
        *,
        mu: float,
        form: Form = "paper",
        ema: float = 0.0,
        prior: Float64 | None = None,
        prior_strength: float = 0.0,
        saturation: float | None = None,
    ) -> None:
        """Set the options; all but `mu` and `form` are ours.

        Args:
            mu: step of the mirror descent; smaller moves further.
            form: ``paper``: the scores as they are; ``normalised``: as DoGE's code, see `scale_free`.
            ema: share of the past in the running mean of the scores, 0 for none; the mean is corrected for
                its beginning at 0 (Kingma and Ba 2015), so that the first update sees the first scores.
            prior: (K,) weights above 0, sum 1, that the update is pulled to, such as a family prior's.
            prior_strength: lambda, in the units of mu.
            saturation: ``R*``; scores of a source read r > 1 times count ``exp(-(r - 1) / R*)`` of what they are, so
                that availability enters the update. None: they count in full.

        Raises:
            MixtureError: an option out of its range.
            WeightsError: the prior is no point of the simplex with all weights above 0.
        """
        _check_options(mu, form, ema, prior_strength, saturation)
        if prior is not None:
            _check_prior(prior)
        elif prior_strength:
            raise MixtureError(f"prior_strength={prior_strength} without a prior; give one, or leave the strength 0")
        self._mu = mu
        self._form: Form = form
        self._ema = ema
        self._prior = prior
        self._prior_strength = prior_strength
        self._saturation = saturation
        self._mean: Float64 | None = None  # not yet corrected for its beginning
        self._num_updates = 0

    @property
    def needs(self) -> Signal:
        """Gradient alignment of every source."""
        return "alignment"

    def update(self, seen: Observation) -> Float64:
        """Return the weights wanted now, (K,), sum 1.

        Raises:
            ScoreError: no scores, or some that are not finite; nothing has changed then.
        """
        scores = seen.signal
        if scores is None or not np.isfinite(scores).all():
            found = "missing" if scores is None else f"not finite: {scores.tolist()}"
            raise ScoreError(f"scores are {found}; the weights stay as they were")
        num_updates = self._num_updates + 1
        past = np.zeros_like(scores) if self._mean is None else self._mean
        mean = self._ema * past + (1 - self._ema) * scores
        steady = mean / (1 - self._ema**num_updates)
        if self._saturation is not None:
            steady = steady * worth_of_next(seen.drawn / seen.sizes, self._saturation)
        if self._form == "normalised":
            steady = scale_free(steady)
        wanted = mirror_step(seen.weights, seen.eta * steady, self._mu, self._prior, self._prior_strength)
        self._mean, self._num_updates = mean, num_updates
        return wanted

    def state_dict(self) -> dict[str, Any]:
        """Return the running mean of the scores and the number of updates."""
        return {"num_updates": self._num_updates, "mean": None if self._mean is None else self._mean.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned.

        Raises:
            StateError: it is of another method.
        """
        if state.keys() != {"num_updates", "mean"}:
            raise StateError(
                f"the state holds {sorted(state)}, XDoGE's holds mean and num_updates; resume with the method "
                f"that the run began with"
            )
        self._num_updates = int(state["num_updates"])
        self._mean = None if state["mean"] is None else np.array(state["mean"], dtype=np.float64)


def _check_options(mu: float, form: str, ema: float, prior_strength: float, saturation: float | None) -> None:
    if not 0 < mu < math.inf:
        raise MixtureError(f"mu={mu}; expected a finite number above 0, such as 0.05")
    if form not in ("paper", "normalised"):
        raise MixtureError(f"form={form!r}; expected 'paper' or 'normalised'")
    if not 0 <= ema < 1:
        raise MixtureError(f"ema={ema}; expected a share of the past from 0 to below 1, such as 0.9")
    if not 0 <= prior_strength < math.inf:
        raise MixtureError(f"prior_strength={prior_strength}; expected a finite number of at least 0, such as mu")
    if saturation is not None and not saturation > 0:
        raise MixtureError(f"saturation={saturation}; expected repeats R* above 0, such as 15, or none")


def _check_prior(prior: Float64) -> None:
    if not (np.isfinite(prior) & (prior > 0)).all() or abs(math.fsum(prior) - 1) > SUM_TOLERANCE:
        raise WeightsError(
            f"the prior is {prior.tolist()}; expected a finite weight above 0 for every stream, sum 1 "
            f"(a stream that the prior gives 0 could never have weight)"
        )
