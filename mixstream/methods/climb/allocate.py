"""CLIMB's proportions for a token budget, within floors and repeat budgets.

    two_step    eq 7, direction: equal marginal benefit of a language's effective share, with utilities u_i,
                    u_i beta_i B_i d^-beta_i p_i^-(beta_i + 1) = lambda,   sum_i p_i = 1
                eq 8, magnitude: max over (r, s) of s   s.t.  r~_i(D, r) >= s p_i
    sum_loss    min over r of sum_i u_i L_i(D, r)
    max_excess  min over r of max_i  (u_i / max u) (L_i(D, r) - L_i^alone(D)),  L_i^alone = E_i + B_i d^-beta_i

all with r in the region and sum r = 1. The excess of a language is what the mixture costs it beside a model that
reads nothing but it for all D tokens, in nats/token; transfer can make it negative.

Source: Guo et al. 2025, CLIMB (arXiv 2509.15556), the two steps; eqs 7 and 8 in our reading, with ">=" where "="
is also possible. The two steps are a heuristic, and can lose even to uniform proportions on the plain sum of
losses; `sum_loss` cannot. `max_excess`, its definition, and the utilities are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq, linprog

from mixstream.errors import FitError
from mixstream.methods.climb.law import Law
from mixstream.methods.planning.allocating import Minimum, Region, minimise, slsqp
from mixstream.mixture.simplex import Float64

OBJECTIVES = ("two_step", "sum_loss", "max_excess")
STARTS = 5
MAX_STEPS = 500
TOLERANCE = 1e-10
STILL = 1e-4  # rise of the tangents left, over the levels, at which a point counts as a solution
NEAR = 1e-6  # starts whose levels differ by less, relatively, agree
Levels = Callable[[Float64], tuple[Float64, Float64]]  # r (K,) -> G (M,), dG/dr (M, K)


def allocate(law: Law, tokens: float, region: Region, objective: str, utilities: Float64, seed: int = 0) -> Minimum:
    """Return the best proportions of a run.

    Args:
        law: of K languages.
        tokens: D.
        region: where the proportions may lie.
        objective: two_step, sum_loss or max_excess.
        utilities: (K,) u >= 0, of any sum above 0.
        seed: of the starts.

    Returns:
        The proportions; its value is -s for two_step, the weighted loss or excess else.

    Raises:
        FitError: no start converged.
    """
    if objective == "sum_loss":

        def total(shares: Float64) -> tuple[float, Float64]:
            losses, slopes = law.loss_slopes(shares, tokens)
            return float(utilities @ losses), utilities @ slopes

        return minimise(region, total, of="CLIMB's least sum of losses", starts=region.starts(STARTS, seed))
    if objective == "max_excess":
        return _least_excess(law, tokens, region, utilities, seed)
    return two_step(law, tokens, region, utilities, seed)


def direction(law: Law, tokens: float, utilities: Float64) -> Float64:
    """Return eq 7's p, (K,), sum 1: the effective shares of equal marginal benefit; 0 where the utility is.

    The sum of p falls as log lambda rises, so the root is the only one.
    """
    used = utilities > 0
    beta = law.exponent[used]
    gain = np.log(utilities[used] * beta * law.scale[used]) - beta * math.log(tokens / law.reference_tokens)

    def logs(at: float) -> Float64:
        shares: Float64 = (gain - at) / (beta + 1)
        return shares

    # At the least lambda one p alone is 1; at the greatest, all are 1/K or less.
    low, high = float(gain.max()), float((gain + (beta + 1) * math.log(used.sum())).max())
    root = brentq(lambda at: np.exp(logs(at)).sum() - 1, low - 1, high + 1, xtol=1e-14, rtol=1e-14)
    shares = np.zeros(len(utilities))
    shares[used] = np.exp(logs(root))
    whole: Float64 = shares / shares.sum()
    return whole


def two_step(law: Law, tokens: float, region: Region, utilities: Float64, seed: int = 0) -> Minimum:
    """Return the proportions of eqs 7 and 8; the value is -s.

    Raises:
        FitError: no start converged.
    """
    wanted = direction(law, tokens, utilities)
    used = wanted > 0

    def levels(shares: Float64) -> tuple[Float64, Float64]:
        ratio, slopes = law.ratio_slopes(shares, tokens)
        return ratio[used], slopes[used]

    starts = np.concatenate([region.project(wanted)[None], region.starts(STARTS - 1, seed)])
    return raise_level(region, levels, wanted[used], starts, of="CLIMB's second step")


def _least_excess(law: Law, tokens: float, region: Region, utilities: Float64, seed: int) -> Minimum:
    used = utilities > 0
    relative = utilities[used] / utilities.max()
    alone = law.alone(tokens)[used]

    def levels(shares: Float64) -> tuple[Float64, Float64]:
        losses, slopes = law.loss_slopes(shares, tokens)
        return relative * (alone - losses[used]), -relative[:, None] * slopes[used]

    starts = region.starts(STARTS, seed)
    return raise_level(region, levels, np.ones(int(used.sum())), starts, of="CLIMB's least greatest excess")


def raise_level(region: Region, levels: Levels, wanted: Float64, starts: Float64, *, of: str) -> Minimum:
    """Return the proportions of the greatest level s:  max over (r, s) of s  s.t.  G_i(r) >= s q_i,  r in the region.

    Args:
        region: where r may lie.
        levels: G and its slopes.
        wanted: (M,) q > 0.
        starts: (S, K) proportions in the region.
        of: whose solution, for the message.

    Returns:
        The proportions, and -s as the value; s is min_i G_i / q_i there, exactly.

    Raises:
        FitError: no start converged.
    """
    count = len(region.least)
    up = np.append(np.zeros(count), -1.0)
    whole = np.append(np.ones(count), 0.0)
    constraints = [
        {"type": "eq", "fun": lambda z: z[:count].sum() - 1, "jac": lambda z: whole},
        {
            "type": "ineq",
            "fun": lambda z: levels(z[:count])[0] - z[count] * wanted,
            "jac": lambda z: np.concatenate([levels(z[:count])[1], -wanted[:, None]], axis=1),
        },
    ]
    bounds = [*zip(region.least, region.most, strict=True), (-np.inf, np.inf)]

    def level(shares: Float64) -> float:
        return float((levels(shares)[0] / wanted).min())

    found = [
        slsqp(
            lambda z: -z[count],
            np.append(start, level(start)),
            jac=lambda z: up,
            bounds=bounds,
            constraints=constraints,
            options={"maxiter": MAX_STEPS, "ftol": TOLERANCE},
        )
        for start in starts
    ]
    ended = [region.project(np.clip(one.x[:count], 0, None)) for one in found if np.isfinite(one.x).all()]
    done = [shares for shares in ended if _is_still(region, levels, wanted, shares)]
    if not done:
        raise FitError(
            f"{of}: no solution was found from {len(starts)} starts ({found[0].message}); a lower floor, "
            f"higher repeat budgets, or another objective ({', '.join(OBJECTIVES)}) may have one"
        )
    reached = np.array([level(shares) for shares in done])
    best = int(reached.argmax())
    agreed = int((reached >= reached[best] - NEAR * abs(reached[best]) - 1e-12).sum())
    return Minimum(proportions=done[best], value=-float(reached[best]), agreed=agreed, starts=len(starts))


def _is_still(region: Region, levels: Levels, wanted: Float64, shares: Float64) -> bool:
    """Return whether no way within the region raises the level: SLSQP may stop early, or give up at the solution.

    With the levels replaced by their tangents at r, the greatest level is a linear programme; at a solution it is s.
    """
    value, slopes = levels(shares)
    if not (np.isfinite(value).all() and np.isfinite(slopes).all()):
        return False
    own = value / wanted
    best = linprog(
        np.append(np.zeros(len(shares)), -1.0),
        A_ub=np.concatenate([-slopes, wanted[:, None]], axis=1),
        b_ub=value - slopes @ shares,
        A_eq=np.append(np.ones(len(shares)), 0.0)[None],
        b_eq=[1.0],
        bounds=[*zip(region.least, region.most, strict=True), (None, None)],
    )
    return bool(best.success) and -best.fun - own.min() <= STILL * np.abs(own).max()
