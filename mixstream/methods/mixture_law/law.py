"""The repetition-aware law of a mixture: what a loss is, given shares, tokens, sizes and repeats.

With p_i the share of source i in D tokens, U_i its unique tokens, r_i = p_i D / U_i its repeats and S of
`mixstream.methods.repetition`:

    D_eff = sum_i tau_i U_i S(r_i; R*_i)                                    effective tokens (p_i D where r_i <= 1)
    L     = E + A (D_eff / D_0)^-alpha + sum_i gamma_i p_i                  one model size
    L     = E + C (N / N_0)^-beta + A (N / N_0)^delta (D_eff / D_0)^-alpha + sum_i gamma_i p_i          any

tau_i is what a fresh token of source i is worth for this loss. Only ratios of tau count: their scale is one with A.
D_0 and N_0 are references that keep A and C near 1; with D_0 = N_0 = 1 the equations are the paper's.

Of one scarce target (share h) and a generic pool that is never repeated, K = 2, tau = (tau, 1), gamma = (gamma, 0),
U = (D_target, infinite), this is the paper's law, and h* = argmin_h L, r* = h* D / D_target.

Source: Sedova, Seto, Schluter and Ablin 2026 (arXiv 2605.12715): the law of one target, as others transcribe it.
The sum over sources with tau_i and one R* is how others extend it; a loss for each of several targets is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from mixstream.errors import FitError
from mixstream.methods.repetition import effective_repeats, worth_of_next
from mixstream.mixture.simplex import Float64

NOTHING = 1e-12  # of D_eff over D, where a loss has none of the sources that it learns from: huge, but finite


@dataclass(frozen=True, eq=False)
class LossLaw:
    """The law of one loss over K sources.

    Attributes:
        floor: E, nats/token.
        scale: A, nats/token at D_eff = D_0 and N = N_0.
        exponent: alpha.
        transfer: (K,) tau >= 0.
        saturation: (K,) R* > 0.
        penalty: (K,) gamma, nats/token.
        reference_tokens: D_0.
        capacity: C, nats/token at N_0; 0 in a law of one model size.
        capacity_exponent: beta.
        size_exponent: delta.
        reference_parameters: N_0; nan in a law of one model size, which N does not move.
    """

    floor: float
    scale: float
    exponent: float
    transfer: Float64
    saturation: Float64
    penalty: Float64
    reference_tokens: float = 1.0
    capacity: float = 0.0
    capacity_exponent: float = 0.0
    size_exponent: float = 0.0
    reference_parameters: float = math.nan

    @property
    def any_size(self) -> bool:
        """Whether the law knows how the model's size moves the loss."""
        return not math.isnan(self.reference_parameters)

    def log_effective(self, proportions: Float64, tokens: Float64, unique: Float64) -> Float64:
        """Return log(D_eff / D_0), (R,): proportions (R, K), tokens (R,), unique (R, K)."""
        worth = worth_of_shares(proportions, tokens, unique, self.saturation) @ self.transfer
        logs: Float64 = np.log(worth + NOTHING) + np.log(tokens / self.reference_tokens)
        return logs

    def losses(self, proportions: Float64, tokens: Float64, parameters: Float64, unique: Float64) -> Float64:
        """Return L, (R,) nats/token.

        Args:
            proportions: (R, K), each row with sum 1.
            tokens: (R,) D.
            parameters: (R,) N; of no use to a law of one model size.
            unique: (R, K) U; infinite where nothing is repeated.
        """
        data = self.data_term(self.log_effective(proportions, tokens, unique), parameters)
        losses: Float64 = self.floor + self.capacity_term(parameters) + data + proportions @ self.penalty
        return losses

    def data_term(self, log_effective: Float64, parameters: Float64) -> Float64:
        """Return A (N / N_0)^delta (D_eff / D_0)^-alpha, (R,)."""
        size = self.size_exponent * np.log(parameters / self.reference_parameters) if self.any_size else 0.0
        return np.asarray(self.scale * np.exp(size - self.exponent * log_effective))

    def capacity_term(self, parameters: Float64) -> Float64:
        """Return C (N / N_0)^-beta, (R,)."""
        if not self.any_size:
            return np.zeros(len(parameters))
        return np.asarray(self.capacity * (parameters / self.reference_parameters) ** -self.capacity_exponent)

    def slopes(self, proportions: Float64, tokens: Float64, parameters: Float64, unique: Float64) -> Float64:
        """Return dL/dp, (R, K), each share moved alone: -alpha (data term) tau_i dS/dr_i / (D_eff / D) + gamma_i."""
        logs = self.log_effective(proportions, tokens, unique)
        repeats = proportions * tokens[:, None] / unique
        worth = np.exp(logs) * self.reference_tokens / tokens
        each = self.transfer * worth_of_next(repeats, self.saturation) / worth[:, None]
        slopes: Float64 = self.penalty - self.exponent * self.data_term(logs, parameters)[:, None] * each
        return slopes


def worth_of_shares(proportions: Float64, tokens: Float64, unique: Float64, saturation: Float64) -> Float64:
    """Return U_i S(r_i; R*_i) / D, (R, K): what shares (R, K) are worth in shares of fresh tokens."""
    repeats = proportions * tokens[:, None] / unique
    discount = effective_repeats(repeats, saturation) / np.maximum(repeats, 1)  # S / r where r > 1
    worth: Float64 = np.where(repeats > 1, proportions * discount, proportions)
    return worth


@dataclass(frozen=True)
class BestShare:
    """The best share of one scarce target beside a generic pool.

    Attributes:
        share: h*.
        repeats: r* = h* D / U.
        loss: there, nats/token.
        at_edge: h* is one of the ends that were asked for, so the law has no minimum between them.
    """

    share: float
    repeats: float
    loss: float
    at_edge: bool


def best_share(
    law: LossLaw, tokens: float, unique: float, *, parameters: float = math.nan, within: tuple[float, float] = (1e-5, 1)
) -> BestShare:
    """Return h* = argmin_h L of a law of two sources: the target, of `unique` tokens, and the generic pool.

    Args:
        law: over (target, generic).
        tokens: D > 0.
        unique: U > 0 of the target.
        parameters: N > 0, for a law of any model size.
        within: least and greatest h, 0 < least < greatest <= 1.

    Raises:
        FitError: a number above that is none, or the law is not finite.
    """
    for what, value in (("tokens", tokens), ("unique tokens of the target", unique)):
        if not (value > 0 and math.isfinite(value)):
            raise FitError(f"{what}: found {value:g}, expected a finite number above 0")
    if not 0 < within[0] < within[1] <= 1:
        raise FitError(f"shares within {within}; expected 0 < least < greatest <= 1")

    def loss_at(shares: Float64) -> Float64:
        count = len(shares)
        both = np.stack([shares, 1 - shares], axis=1)
        sizes = np.tile([unique, math.inf], (count, 1))
        return law.losses(both, np.full(count, tokens), np.full(count, parameters), sizes)

    share, loss = least_on_log_grid(loss_at, within, of="the best share of the target")
    return BestShare(share, share * tokens / unique, loss, at_edge=share in within)


def least_on_log_grid(
    value: Callable[[Float64], Float64], within: tuple[float, float], *, of: str, points: int = 2001
) -> tuple[float, float]:
    """Return where a function of one number is least, and its value: a log grid, then golden section about its best.

    Args:
        value: (n,) -> (n,).
        within: the ends, above 0.
        of: what is sought, for the message.
        points: of the grid.

    Raises:
        FitError: the function is not finite anywhere.
    """
    grid = np.geomspace(within[0], within[1], points)
    grid[[0, -1]] = within
    values = value(grid)
    if not np.isfinite(values).any():
        raise FitError(f"{of}: the law is finite nowhere in [{within[0]:g}, {within[1]:g}]")
    best = int(np.nanargmin(values))
    least, most = grid[max(best - 1, 0)], grid[min(best + 1, points - 1)]
    found = minimize_scalar(
        lambda log: float(value(np.exp([log]))[0]),
        bounds=np.log([least, most]),
        method="bounded",
        options={"xatol": 1e-12},
    )
    inner = float(np.exp(found.x))
    return (inner, float(found.fun)) if found.fun < values[best] else (float(grid[best]), float(values[best]))
