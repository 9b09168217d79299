"""Proportions as a function of time, so that what was read is the best mixture for so many tokens at any time.

With r*(D) the allocation for D tokens, and S times 0 < D_1 < ... < D_S = D evenly apart in log D, the proportions in
force from D_{s-1} to D_s are those nearest (least squares) to

    x_s = ( D_s r*(D_s) - D_{s-1} r_{s-1} ) / (D_s - D_{s-1})        r_{s-1}: share of what was read until D_{s-1}

that keep the floor; so that r_s = r*(D_s) where that can be. What has been read cannot be unread: where r* falls faster
than 1/D, x_s would be negative and r_s follows late. In the first phase x_1 = r*(D_1). All r* are sought within the
region of the whole run, so that a scarce source is spread over it, not spent early: x_s sums to 1, so that the nearest
proportions raise what is below its floor and lower the rest, and no source ever has more than its budget's share of
what was read, r_s <= max(r*(D_s), r_{s-1}, floor).

Ours: CLIMB (arXiv 2509.15556) finds that the optimum shifts with D, and allocates for the one D of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mixstream.errors import MixtureError
from mixstream.methods.planning.allocating import Region
from mixstream.mixture.schedule import MAX_CHANGES, Change
from mixstream.mixture.simplex import Float64, project_l2

STEPS = 8
FIRST = 1 / 16  # of the run: the first phase


@dataclass(frozen=True, eq=False)
class Dynamic:
    """A schedule, and how near it comes.

    Attributes:
        weights: (K,) of the first phase: the plan's own.
        changes: of the later phases, as a recipe's `mixture.schedule` or `build_plan` take them.
        ends: (S,) tokens at which phases end; the last is the run's.
        proportions: (S, K) in force in each phase.
        wanted, reached: (S, K) r* at each end, and the share of what was read until then.
    """

    weights: dict[str, float]
    changes: tuple[Change, ...]
    ends: Float64
    proportions: Float64
    wanted: Float64
    reached: Float64

    @property
    def deviation(self) -> Float64:
        """(S,) total variation between what was wanted and what was reached."""
        deviation: Float64 = np.abs(self.wanted - self.reached).sum(axis=1) / 2
        return deviation


def dynamic(
    best: Callable[[float], Float64],
    tokens: float,
    region: Region,
    names: Sequence[str],
    *,
    steps: int = STEPS,
    first: float = FIRST,
) -> Dynamic:
    """Return the schedule of a run.

    Args:
        best: r*: tokens -> (K,) proportions within `region`.
        tokens: D of the run.
        region: of the whole run.
        names: of the K sources.
        steps: S, phases.
        first: share of the run that the first phase takes.

    Raises:
        MixtureError: a number of phases or a first one that cannot be.
    """
    if not (2 <= steps <= MAX_CHANGES + 1 and 0 < first < 1):
        raise MixtureError(
            f"a schedule of {steps} phases, the first of {first:g} of the run; expected from 2 to {MAX_CHANGES + 1} "
            f"phases, and a share between 0 and 1"
        )
    ends = np.round(np.geomspace(first * tokens, tokens, steps))
    if ends[0] < 1 or (np.diff(ends) < 1).any():
        raise MixtureError(f"a run of {tokens:g} tokens is too short for {steps} phases; ask for fewer")
    wanted = np.array([best(float(end)) for end in ends])
    proportions, reached = _followed(wanted, ends, region)
    told = [dict(zip(names, row.tolist(), strict=True)) for row in proportions]
    changes = tuple(Change(at=f"{int(at)}tok", weights=row) for at, row in zip(ends[:-1], told[1:], strict=True))
    return Dynamic(weights=told[0], changes=changes, ends=ends, proportions=proportions, wanted=wanted, reached=reached)


def _followed(wanted: Float64, ends: Float64, region: Region) -> tuple[Float64, Float64]:
    """Return the proportions (S, K) in force, and the shares (S, K) of what was read until each end."""
    read, begun = np.zeros(len(region.least)), 0.0
    proportions, reached = [], []
    for goal, end in zip(wanted, ends, strict=True):
        length = end - begun
        share = project_l2((goal * end - read) / length, region.least, np.ones_like(read))
        share = share / share.sum()
        read, begun = read + share * length, end
        proportions.append(share)
        reached.append(read / end)
    return np.array(proportions), np.array(reached)
