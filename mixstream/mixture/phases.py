"""A schedule's shares, phase by phase, with every stream within its repeat budget (M3).

Of all shares p that a run of P phases can have, those are read that are nearest to the scheduled weights w in
relative entropy,

    argmin_p  sum_b n_b sum_i p_bi log(p_bi / w_bi)
    s.t.      sum_b n_b p_bi <= limit_i,   p_bi >= floor,   sum_i p_bi = 1     for every phase b, stream i

with n_b the draws of phase b. With a multiplier -log f_i for the limit of stream i the solution is

    p_b = project(f * w_b),   0 < f_i <= 1,   f_i = 1 unless stream i comes to its limit exactly

that is: a stream that would go past its budget has its weights scaled down by one factor for the whole run,
and the others take the rest in proportion, at every phase. For a single phase this is the projection
clip(c w, floor, cap) of `simplex.project`.

The factors f. Let T_i(f) be the draws of stream i. Scaling f_i to f_i limit_i / T_i wherever T_i is above its
limit, again and again, comes down to the solution from f = 1: T_i grows with f_i, no faster than it, and
falls with every other f_j, so that no stream that was above its limit is ever scaled below it. That is sure
and, where budgets are tight, slow. Newton's method on f_i = f_i limit_i / T_i is quick, and comes down as
surely where no floor binds: there the right-hand side is an increasing concave function of f (a weighted
harmonic mean of linear ones), and Newton on a convex function whose Jacobian is an M-matrix stays above the
root (Ortega and Rheinboldt 1970, 13.3). A Newton step that a floor has led below it is halved until it does
not, or replaced by a scaling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mixstream.errors import BudgetError
from mixstream.mixture.apportion import UNIT
from mixstream.mixture.budget import shares_between, wanted_under
from mixstream.mixture.simplex import Float64
from mixstream.streams.index import Int64

BoolArray = npt.NDArray[np.bool_]

_SLACK = 0.25  # draws by which a total may miss its limit
_MAX_STEPS = 2_000
_MAX_HALVINGS = 12
_MAX_CONJUGATE_STEPS = 500


@dataclass(frozen=True, eq=False)
class Phase:
    """Batches of a run in which no share changes.

    Attributes:
        first_batch: the global batch with which it begins; the next phase's, or the run's end, ends it.
        shares: (K,) in units of 2^-40, sum 2^40.
    """

    first_batch: int
    shares: Int64


def phases_of(firsts: Int64, weights: Float64, scale: Float64, floor: float) -> tuple[Phase, ...]:
    """Return the phases that begin with batches `firsts` (P,).

    Args:
        firsts: (P,) first batch of each.
        weights: (P, K) scheduled weights.
        scale: (K,) factors on them, from `fit_scale`.
        floor: least share of every stream.
    """
    caps = np.full(len(scale), UNIT, dtype=np.int64)
    scaled = wanted_under(floor, weights) * scale
    return tuple(
        Phase(int(first), shares_between(wanted, floor, caps)) for first, wanted in zip(firsts, scaled, strict=True)
    )


def total_units(phases: Sequence[Phase], num_batches: int) -> list[int]:
    """Return K streams' shares added up over every batch of a run: exact, sum num_batches x UNIT."""
    firsts = [phase.first_batch for phase in phases]
    lengths = np.diff(np.array([*firsts, num_batches], dtype=object))
    totals: list[int] = (lengths @ np.array([phase.shares for phase in phases]).astype(object)).tolist()
    return totals


def whole_draws(units: Sequence[int], batch_size: int) -> Int64:
    """Return K totals of units a draw, times `batch_size`, as whole draws, by largest remainder."""
    due = [total * batch_size for total in units]
    counts = np.array([total // UNIT for total in due], dtype=np.int64)
    left = sum(due) // UNIT - int(counts.sum())
    order = np.argsort([-(total % UNIT) for total in due], kind="stable")
    counts[order[:left]] += 1
    return counts


@dataclass(frozen=True, eq=False)
class _Mix:
    """What factors on the weights make of P phases and K streams.

    Attributes:
        free: (P, K) shares of what no floor holds.
        totals: (K,) draws of each stream.
        held: (K,) draws of those where the floor holds it.
    """

    free: Float64
    totals: Float64
    held: Float64


def fit_scale(weights: Float64, draws: Float64, limits: Int64, floor: float, names: Sequence[str]) -> Float64:
    """Return the (K,) factors that keep every stream within its limit, 1 for those that need none.

    Args:
        weights: (P, K) scheduled weights.
        draws: (P,) draws of each phase.
        limits: (K,) most draws of each stream; together they can supply every phase (`check_phases`).
        floor: least share of every stream, which no limit is below.
        names: the K streams.

    Raises:
        BudgetError: no such factors were found.
    """
    wanted = wanted_under(floor, weights)
    most = limits.astype(np.float64)
    slack = max(_SLACK, 1e-12 * float(draws.sum()))
    scale = np.ones(weights.shape[1])
    mix = _mix(wanted, scale, draws, floor)
    for _ in range(_MAX_STEPS):
        if (mix.totals <= most + slack).all():
            return scale
        scale, mix = _step(wanted, scale, mix, draws, most, floor, slack)
    over = int(np.argmax(mix.totals - most))
    raise BudgetError(
        f"no factors were found that keep the schedule within its repeat budgets: {names[over]!r} would give "
        f"{mix.totals[over]:,.0f} samples, its budget is {limits[over]:,}; raise its max_repeats a little"
    )


def _step(
    wanted: Float64, scale: Float64, mix: _Mix, draws: Float64, most: Float64, floor: float, slack: float
) -> tuple[Float64, _Mix]:
    """Return lower factors, and what they make, with no stream lowered below its limit (by more than `slack`)."""
    active = ((scale < 1) | (mix.totals > most)) & (mix.totals > mix.held)
    used = (mix.totals - mix.held)[active]
    room = np.minimum(np.maximum(most - mix.held, slack / 2)[active], used)  # who is below by a hair stays there

    def lowered(parts: Float64) -> tuple[Float64, _Mix]:
        lower = scale.copy()
        lower[active] *= 1 - parts
        return lower, _mix(wanted, lower, draws, floor)

    parts = np.clip(_newton(mix.free[:, active], draws, mix.free.sum(axis=1), used, room), 0, 0.999)
    for _ in range(_MAX_HALVINGS):
        lower, made = lowered(parts)
        if (made.totals >= most - slack)[active].all():
            return lower, made
        parts = parts / 2
    return lowered(1 - np.clip(room / used, 0.001, 1))


def _mix(wanted: Float64, scale: Float64, draws: Float64, floor: float) -> _Mix:
    scaled = wanted * scale
    held: BoolArray = np.zeros(scaled.shape, dtype=bool)
    while True:
        left = 1 - floor * held.sum(axis=1)
        free = np.where(held, 0, scaled)
        free = free * (left / np.maximum(free.sum(axis=1), 1e-300))[:, None]
        under = ~held & (free < floor)
        if not under.any():
            break
        held |= under
    at_floor = floor * (draws[:, None] * held).sum(axis=0)
    return _Mix(free, (draws[:, None] * free).sum(axis=0) + at_floor, at_floor)


def _newton(shares: Float64, draws: Float64, free_mass: Float64, used: Float64, room: Float64) -> Float64:
    """Return by which parts (A,) a Newton step lowers the factors of A streams.

    It solves (diag(used^2 / room) - M) y = used (used / room - 1), M_ij = sum_b n_b p_bi p_bj / m_b, by
    conjugate gradients with the diagonal as preconditioner: sums only, in one order, so that every machine
    gets the same.

    Args:
        shares: p, (P, A) free shares.
        draws: n, (P,) draws of each phase.
        free_mass: m, (P,) share of each phase that no floor holds.
        used, room: (A,) draws at free shares, and how many there may be.
    """
    root = np.sqrt(room) / used
    factor = shares * root * np.sqrt(draws / np.maximum(free_mass, 1e-300))[:, None]
    residual = (used - room) / np.sqrt(room)
    solution = np.zeros_like(residual)
    direction = residual
    size = float((residual * residual).sum())
    least = 1e-24 * size
    for _ in range(_MAX_CONJUGATE_STEPS):
        if size <= least:
            break
        image = direction - (factor * (factor * direction).sum(axis=1)[:, None]).sum(axis=0)
        curvature = float((direction * image).sum())
        if curvature <= 1e-14 * size:  # singular, to rounding: only a stream that a floor holds can take more
            solution = solution + direction * (1e9 / float(direction.max()))
            break
        solution = solution + direction * (size / curvature)
        residual = residual - image * (size / curvature)
        before, size = size, float((residual * residual).sum())
        direction = residual + direction * (size / before)
    step: Float64 = solution * root
    return step
