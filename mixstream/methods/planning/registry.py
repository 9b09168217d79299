"""Planners by the names that the command line knows them by; each is loaded when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from mixstream.errors import WeightsError, nearest
from mixstream.methods.planning.planner import Allocator, Planner


@dataclass(frozen=True)
class Method:
    """A planner that learns from runs, and where it is.

    Attributes:
        module, kind: of its class.
        options: of its constructor, that can be asked for.
    """

    module: str
    kind: str
    options: tuple[str, ...]


RULES = {
    "natural": "natural",
    "uniform": "uniform",
    "temperature": "temperature:EXPONENT",
    "unimax": "unimax:MAX_REPEATS",
    "fixed": "fixed:FILE",
}
LEARNING = {
    "climb": Method("mixstream.methods.climb", "Climb", ("targets", "objective", "form", "neighbours", "seed")),
    "repetition": Method(
        "mixstream.methods.mixture_law",
        "MixtureLaw",
        ("targets", "saturation", "each_saturation", "penalty", "by_repeats", "delta", "seed"),
    ),
    "mixing-law": Method("mixstream.methods.mixing_law", "MixingLaw", ("targets", "kl", "prior", "delta", "budget")),
    "log-linear": Method("mixstream.methods.mixing_law", "LogLinear", ("targets", "kl", "prior", "delta", "budget")),
    "regmix": Method(
        "mixstream.methods.regmix",
        "RegMix",
        ("targets", "prior", "budget", "simulated", "averaged", "strength", "held_out", "threads", "seed"),
    ),
    "atlas": Method("mixstream.methods.atlas", "Atlas", ("targets", "transfer", "saturation", "delta", "seed")),
}
NAMES = (*RULES, *LEARNING)


def method_name(spec: str) -> str:
    """Return the name of the method that `spec`, such as ``climb`` or ``unimax:4``, asks for.

    Raises:
        WeightsError: there is none.
    """
    name, colon, _ = spec.partition(":")
    if name not in NAMES or (name in LEARNING and colon):
        shown = (*RULES.values(), *LEARNING)
        raise WeightsError(f"method {spec!r} is none of {', '.join(shown)}{nearest(name, NAMES)}")
    return name


def rule(spec: str, sources: Sequence[str]) -> Allocator:
    """Return the baseline of a name, such as ``unimax:4``, over sources.

    Raises:
        WeightsError, FormatError: as `mixstream.methods.baselines.baseline`.
    """
    from mixstream.methods.baselines import baseline

    return baseline(spec, sources)


def learning_planner(name: str, options: Mapping[str, Any] | None = None) -> Planner:
    """Return a planner that is yet to be fitted to runs.

    Args:
        name: one of `LEARNING`.
        options: of its constructor.

    Raises:
        WeightsError: an unknown planner, or an option that it has not.
        FitError: an option that cannot be.
    """
    if name not in LEARNING:
        raise WeightsError(f"method {name!r} is none of those that learn from runs: {', '.join(LEARNING)}")
    method = LEARNING[name]
    for option in options or {}:
        if option not in method.options:
            raise WeightsError(
                f"{name} has no option {option!r}{nearest(option, method.options)} (it has {', '.join(method.options)})"
            )
    kind = getattr(import_module(method.module), method.kind)
    return cast(Planner, kind(**(options or {})))
