"""What every plan is compared with: rules that need the sizes alone, or nothing.

    natural          p_i ~ U_i
    uniform          p_i = 1 / K
    temperature:e    p_i ~ U_i^e                 e = 1 / temperature; XLM-R and mT5 0.3, mBERT 0.7
    unimax:N         as even as no source above N repeats allows
    fixed            what was given

then the nearest proportions, in relative entropy, that floor and repeat budgets allow: a rule's ratios hold
between the sources that no bound holds.

Sources: XLM-R (arXiv 1911.02116), mT5 (2010.11934), UniMax (2304.09151), as in `mixstream.mixture.weights`.
The projection is ours, the same as a plan's (mixstream/mixture/budget.py).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from mixstream.errors import BudgetError, WeightsError, nearest
from mixstream.methods.planning.allocating import region_of
from mixstream.methods.planning.planner import Allocator
from mixstream.mixture.simplex import Float64, check_weights, is_real, round_up
from mixstream.mixture.weights import MAX_EXPONENT, natural, read_weights, temperature, uniform, unimax

RULES = ("natural", "uniform", "temperature:EXPONENT", "unimax:MAX_REPEATS", "fixed:FILE")


@dataclass(frozen=True)
class Baseline(ABC):
    """A rule, and the proportions nearest to it that a run may have."""

    name: ClassVar[str]

    @abstractmethod
    def wanted(self, tokens: float, sizes: Float64) -> Float64:
        """Return the (K,) proportions that the rule gives a run of `tokens`, whatever floor and budgets are."""

    def allocate(
        self,
        tokens: float,
        sizes: Float64,
        budgets: Float64,
        *,
        floor: float = 0.0,
        parameters: float = math.nan,
    ) -> Float64:
        """Return the (K,) proportions nearest to the rule's that floor and budgets allow (`Allocator.allocate`).

        Raises:
            RunTableError, FloorError, BudgetError: as `region_of`.
            BudgetError: UniMax's repeats do not supply the run.
            WeightsError: weights were given of other sources.
        """
        region = region_of(tokens, sizes, budgets, floor)
        wanted = self.wanted(tokens, sizes)
        allowed = ((wanted >= region.least) & (wanted <= region.most)).all()
        return wanted if allowed else region.project(wanted)  # which gives a source of weight 0 next to nothing


@dataclass(frozen=True)
class Natural(Baseline):
    """Reading everything equally often."""

    name: ClassVar[str] = "natural"

    def wanted(self, tokens: float, sizes: Float64) -> Float64:
        """Return U / sum U."""
        return natural(sizes)


@dataclass(frozen=True)
class Uniform(Baseline):
    """Every source alike."""

    name: ClassVar[str] = "uniform"

    def wanted(self, tokens: float, sizes: Float64) -> Float64:
        """Return 1 / K."""
        return uniform(sizes)


@dataclass(frozen=True)
class Temperature(Baseline):
    """Between the two: sizes to the power of `exponent`, from 0 (uniform) over 1 (natural) to 100."""

    exponent: float
    name: ClassVar[str] = "temperature"

    def __post_init__(self) -> None:
        """Refuse an exponent out of range.

        Raises:
            WeightsError: it is not a number from 0 to 100.
        """
        if not is_real(self.exponent) or not 0 <= self.exponent <= MAX_EXPONENT:
            raise WeightsError(f"temperature exponent {self.exponent!r}; expected a number from 0 to {MAX_EXPONENT}")

    def wanted(self, tokens: float, sizes: Float64) -> Float64:
        """Return U^e / sum U^e."""
        return temperature(sizes, self.exponent)


@dataclass(frozen=True)
class UniMax(Baseline):
    """As even as can be with no source above `max_repeats` repeats, whatever more its budget would allow."""

    max_repeats: float
    name: ClassVar[str] = "unimax"

    def __post_init__(self) -> None:
        """Refuse repeats that are not a finite number above 0.

        Raises:
            WeightsError: they are not.
        """
        if not is_real(self.max_repeats) or not 0 < self.max_repeats < math.inf:
            raise WeightsError(f"unimax with {self.max_repeats!r} repeats; expected a finite number above 0")

    def wanted(self, tokens: float, sizes: Float64) -> Float64:
        """Return UniMax's shares.

        Raises:
            BudgetError: that many repeats do not supply the run; the paper's algorithm then falls short of it.
        """
        supply = self.max_repeats * math.fsum(sizes)
        if supply < tokens * (1 - 1e-12):
            raise BudgetError(
                f"unimax:{self.max_repeats:g} supplies {supply:,.0f} tokens, the run needs {tokens:,.0f}; allow "
                f"{round_up(tokens / math.fsum(sizes))} repeats or more, or ask for fewer tokens"
            )
        return unimax(sizes, self.max_repeats, tokens)


@dataclass(frozen=True)
class Fixed(Baseline):
    """Weights that were given, in the order of the sources."""

    weights: tuple[float, ...]
    name: ClassVar[str] = "fixed"

    def wanted(self, tokens: float, sizes: Float64) -> Float64:
        """Return the weights.

        Raises:
            WeightsError: they are of another number of sources.
        """
        if len(self.weights) != len(sizes):
            raise WeightsError(f"fixed weights of {len(self.weights)} sources, but the run has {len(sizes)}")
        return np.array(self.weights)


def fixed(weights: Mapping[str, float], sources: Sequence[str]) -> Fixed:
    """Return the baseline of given weights {source: weight}, sum 1.

    Raises:
        WeightsError: other sources, or no weights, as `check_weights`.
    """
    return Fixed(tuple(check_weights(weights, sources).tolist()))


def baseline(spec: str | Mapping[str, float], sources: Sequence[str]) -> Allocator:
    """Return the baseline that `spec` asks for.

    Args:
        spec: ``natural``, ``uniform``, ``temperature:0.3``, ``unimax:4``, ``fixed:FILE`` with a weights.json or
            {source: weight} in JSON, or a mapping of that kind.
        sources: K names, which fixed weights must be of.

    Raises:
        WeightsError: an unknown rule, a bad number, or weights of other sources.
        FormatError: the file is not one of weights.
    """
    if isinstance(spec, Mapping):
        return fixed(spec, sources)
    rule, colon, argument = spec.partition(":")
    if rule == "fixed" and argument:
        return fixed(read_weights(Path(argument)), sources)
    if rule in ("temperature", "unimax"):
        return (Temperature if rule == "temperature" else UniMax)(_number(spec, argument))
    if rule in ("natural", "uniform") and not colon:
        return Natural() if rule == "natural" else Uniform()
    raise WeightsError(
        f"baseline {spec!r} is none of {', '.join(RULES)}{nearest(rule, [known.partition(':')[0] for known in RULES])}"
    )


def _number(spec: str, argument: str) -> float:
    """Return the number after a rule's colon."""
    try:
        return float(argument)
    except ValueError:
        raise WeightsError(f"baseline {spec!r}; expected its name, a colon and a number, as in unimax:4") from None
