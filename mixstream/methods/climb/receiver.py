"""The law of one receiving language, fitted to all runs that read it.

    min over (B, beta, E, eta, b, k [, A, a])
        sum_n H( log L(D_n, r_n) - log L_n ) + (w_b^2 / 2) sum_j b_j^2 + (w_k^2 / 2) sum_j k_j^2

    L = E + A n^-a + B (r~ d)^-beta,      r~ = r_i + sum_j (b_j + k_j / d) g(r_i, r_j; eta)

No parameter of one receiver stands in the law of another, so each is fitted alone, monolingual runs and mixtures
together; the further squares of eta, beta and a, drawn weakly to usual values, keep what the runs leave open from
drifting. Starts: B, beta, E from the monolingual runs; then for some eta the b, k that fit the ratios r~_obs that the
runs show (mixstream.methods.climb.ratio), which are linear in them.

Source: Guo et al. 2025, CLIMB (arXiv 2509.15556). Huber's loss of log L, the ridge and the starts are ours: pilots at
two budgets determine b and k exactly, and the ridge keeps noise from being read as transfer. Of pilots at two
model sizes only A (n_1^-a - n_2^-a) is determined: a is then drawn to 0.35 (Muennighoff et al. 2023, 2305.16264).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from mixstream.errors import FitError
from mixstream.methods.climb.forms import Basis, Form, bent
from mixstream.methods.climb.monolingual import DELTA, LEAST, MOST, fit_alone, greatest_floor, lines
from mixstream.methods.climb.ratio import Alone, observed_ratio
from mixstream.methods.planning.fitting import fit_from
from mixstream.mixture.simplex import BoolArray, Float64

LEAST_ETA, MOST_ETA = 1e-2, 1e2
ETA = 5.0
ETAS = (1.0, 4.0, 16.0)  # starts
MOST_TRANSFER = 1.0  # of |b|; |k| twice that, with d near 1
RIDGE_TRANSFER, RIDGE_FADING, RIDGE_ETA = 0.05, 0.1, 2e-3  # 1 % noise: |b| of 0.2, |k| of 0.1 are likely
EXPONENT, RIDGE_EXPONENT = 0.3, 0.01  # beta, as far as the runs leave it open: within a factor of e at 1 % noise
SIZE_EXPONENT, RIDGE_SIZE = 0.35, 0.02
HEAD = 4  # log B, log beta, E, log eta; then with several sizes log A, a; then b, k


@dataclass(frozen=True, eq=False)
class Observed:
    """What n runs say of one language.

    Attributes:
        language: its name.
        own: (n,) its share; others: (n, J) those of the languages beside it.
        scaled_tokens, scaled_sizes: (n,) d and n; the sizes None where they are one.
        losses: (n,) nats/token.
        alone: (n,) whether the run is monolingual.
        most_floor: the greatest E.
    """

    language: str
    own: Float64
    others: Float64
    scaled_tokens: Float64
    scaled_sizes: Float64 | None
    losses: Float64
    alone: BoolArray

    @property
    def most_floor(self) -> float:
        """The greatest E."""
        return greatest_floor(self.losses)

    def rows(self, chosen: BoolArray) -> Observed:
        """Return the runs of a mask (n,)."""
        return Observed(
            language=self.language,
            own=self.own[chosen],
            others=self.others[chosen],
            scaled_tokens=self.scaled_tokens[chosen],
            scaled_sizes=None if self.scaled_sizes is None else self.scaled_sizes[chosen],
            losses=self.losses[chosen],
            alone=self.alone[chosen],
        )


class _Parts(NamedTuple):
    """What a loss is made of, (n,) each: L, B (r~ d)^-beta, r~, its slope by the raw ratio, g (n, J), log(r~ d)."""

    loss: Float64
    excess: Float64
    ratio: Float64
    bend: Float64
    basis: Basis
    logs: Float64


class ReceiverLaw:
    """The law of one receiver as fits see it, at x = (log B, log beta, E, log eta, [log A, a], b, k)."""

    def __init__(self, form: Form, observed: Observed) -> None:
        self._form = form
        self._of = observed
        self._logs = np.log(observed.scaled_tokens)
        self._told = np.log(observed.losses)
        self._count = observed.others.shape[1]
        self._head = HEAD + (0 if observed.scaled_sizes is None else 2)
        self._ridge, self._centre = self._priors()

    @property
    def bounds(self) -> tuple[Float64, Float64]:
        """(P,) least and (P,) greatest x."""
        size = ([], []) if self._of.scaled_sizes is None else ([math.log(1e-4), 0.05], [math.log(1e2), 2.0])
        pairs = np.repeat([MOST_TRANSFER, 2 * MOST_TRANSFER], self._count)
        least = np.array([LEAST[0], math.log(LEAST[1]), 0.0, math.log(LEAST_ETA), *size[0], *-pairs])
        return least, np.array([MOST[0], math.log(MOST[1]), self._of.most_floor, math.log(MOST_ETA), *size[1], *pairs])

    def log_losses(self, x: Float64) -> Float64:
        """Return log L, (n,)."""
        logs: Float64 = np.log(self._parts(x).loss)
        return logs

    @property
    def num_squared(self) -> int:
        """P', residuals of the ridge."""
        return len(self._ridge)

    def residuals(self, x: Float64) -> Float64:
        """Return log L - log L_n, then the ridge, (n + P',)."""
        return np.concatenate([self.log_losses(x) - self._told, self._ridge @ (x - self._centre)])

    def jacobian(self, x: Float64) -> Float64:
        """Return the derivatives of the residuals, (n + P', P)."""
        loss, excess, ratio, bend, basis, logs = self._parts(x)
        beta, eta = np.exp(x[1]), np.exp(x[3])
        by_ratio = -beta * excess / ratio * bend
        strength = self._strength(x)
        columns = [
            excess,
            -beta * excess * logs,
            np.ones_like(loss),
            by_ratio * eta * (strength * basis.by_eta).sum(axis=1),
        ]
        if self._of.scaled_sizes is not None:
            model = self._of_size(x)
            columns += [model, -model * np.log(self._of.scaled_sizes)]
        given = by_ratio[:, None] * basis.value
        slopes = np.concatenate([np.stack(columns, axis=1), given, given / self._of.scaled_tokens[:, None]], axis=1)
        return np.concatenate([slopes / loss[:, None], self._ridge])

    @property
    def has_starts(self) -> bool:
        """Whether there are monolingual runs at two budgets, from which to start."""
        return len(np.unique(self._of.scaled_tokens[self._of.alone])) >= 2

    def starts(self) -> Iterator[Float64]:
        """Yield starting points: every law of the language alone, with every eta of some."""
        least, most = self.bounds
        for alone in self._alone():
            for eta in ETAS:
                size = [] if self._of.scaled_sizes is None else [math.log(0.1), SIZE_EXPONENT]
                head = [math.log(alone.scale), math.log(alone.exponent), alone.floor, math.log(eta), *size]
                yield np.clip(np.concatenate([head, self._transfers(alone, eta)]), least, most)

    def _alone(self) -> list[Alone]:
        of = self._of
        tokens, losses = of.scaled_tokens[of.alone], of.losses[of.alone]
        if len(np.unique(tokens)) >= 3 and of.scaled_sizes is None:
            return [fit_alone(tokens, losses, of.most_floor, of=of.language)]
        return lines(tokens, losses, of.most_floor)

    def _transfers(self, alone: Alone, eta: float) -> Float64:
        """Return b, k (2 J,) that fit the observed ratios best, weighted by how much each tells."""
        of = self._of
        seen = observed_ratio(of.losses, of.scaled_tokens, alone, of=of.language)
        weight = alone.exponent * (1 - alone.floor / of.losses) / np.maximum(seen, of.own)
        basis = self._form(of.own[:, None], of.others, np.array(eta))
        columns = np.concatenate([basis.value, basis.value / of.scaled_tokens[:, None]], axis=1)
        ridge = self._ridge[-2 * self._count :, self._head :] if self._count else np.zeros((0, 0))
        system = np.concatenate([columns * weight[:, None], ridge])
        wanted = np.concatenate([np.minimum(seen - of.own, 2.0) * weight, np.zeros(len(ridge))])
        found: Float64 = np.linalg.lstsq(system, wanted, rcond=None)[0]
        return found

    def _parts(self, x: Float64) -> _Parts:
        of = self._of
        basis = self._form(of.own[:, None], of.others, np.exp(x[3]))
        ratio, bend = bent(of.own + (self._strength(x) * basis.value).sum(axis=1))
        logs = np.log(ratio) + self._logs
        excess = np.exp(x[0] - np.exp(x[1]) * logs)
        return _Parts(x[2] + self._of_size(x) + excess, excess, ratio, bend, basis, logs)

    def _strength(self, x: Float64) -> Float64:
        lasting, fading = x[self._head : self._head + self._count], x[self._head + self._count :]
        strength: Float64 = lasting + fading / self._of.scaled_tokens[:, None]
        return strength

    def _of_size(self, x: Float64) -> Float64:
        if self._of.scaled_sizes is None:
            return np.zeros(len(self._told))
        part: Float64 = np.exp(x[HEAD] - x[HEAD + 1] * np.log(self._of.scaled_sizes))
        return part

    def _priors(self) -> tuple[Float64, Float64]:
        """Return the ridge's weights as rows, (P', P), and where it draws to, (P,)."""
        weights = np.zeros(self._head + 2 * self._count)
        centre = np.zeros_like(weights)
        weights[1], centre[1] = RIDGE_EXPONENT, math.log(EXPONENT)
        weights[3], centre[3] = RIDGE_ETA, math.log(ETA)
        if self._of.scaled_sizes is not None:
            weights[HEAD + 1], centre[HEAD + 1] = RIDGE_SIZE, SIZE_EXPONENT
        weights[self._head :] = np.repeat([RIDGE_TRANSFER, RIDGE_FADING], self._count)
        return np.diag(weights)[weights > 0], centre


def fit_receiver(form: Form, observed: Observed, start: Float64 | None = None) -> Float64:
    """Return the parameters x of a language's law.

    Args:
        form: of r~.
        observed: its runs.
        start: (P,) where to start; None, or where that does not converge: from what the runs show.

    Raises:
        FitError: no convergence.
    """
    law = ReceiverLaw(form, observed)
    if start is None:
        return _fitted(law, np.array(list(law.starts())), observed.language)
    try:
        return _fitted(law, start[None], observed.language)
    except FitError:
        if not law.has_starts:
            raise
        return _fitted(law, np.array(list(law.starts())), observed.language)


def _fitted(law: ReceiverLaw, starts: Float64, language: str) -> Float64:
    """Return the best fit of either solver: where the one creeps along a valley, the other is seldom held up too.

    Raises:
        FitError: neither converges.
    """
    solve = partial(
        fit_from,
        starts,
        law.residuals,
        law.bounds,
        of=f"the law of {language!r}",
        jacobian=law.jacobian,
        delta=DELTA,
        num_squared=law.num_squared,
    )
    try:
        return solve(steps="trf").parameters
    except FitError:
        return solve(steps="dogbox").parameters
