"""Where a plan's weights come from when no method has learnt them.

Each function names its source. Sizes are in tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from mixstream.errors import WeightsError, nearest
from mixstream.formats import FileModel, load_json, parse, write_whole
from mixstream.mixture.simplex import Float64, check_weights

MAX_EXPONENT = 100
RULES = ("natural", "uniform", "temperature:EXPONENT", "unimax:MAX_REPEATS")
REMEDY = "`mixstream weights` makes one, or write {stream: weight}"
Weight = Annotated[float, Field(ge=0, le=1)]
WeightsSpec = str | Path | Mapping[str, float]


class Weights(FileModel):
    """weights.json: the weights of a plan to be.

    Attributes:
        weights: by stream, sum 1.
        origin: where they come from.
        spread: by stream, the standard deviation over the runs whose mean they are, or over the refits of the
            law that they come from; from version 2 on.
    """

    format: Literal["mixstream.weights"] = "mixstream.weights"
    version: Literal[1, 2] = 1
    weights: dict[str, Weight]
    origin: str = ""
    spread: dict[str, Annotated[float, Field(ge=0)]] | None = None

    @model_validator(mode="after")
    def _has_a_spread_from_version_2(self) -> Weights:
        if (self.version == 1) != (self.spread is None):
            raise ValueError(f"version {self.version}; a file with a spread is of version 2, one without of version 1")
        if self.spread is not None and self.spread.keys() != self.weights.keys():
            raise ValueError("spread is of other streams than weights")
        return self


def natural(sizes: Float64) -> Float64:
    """Return w_i = U_i / sum U, (K,): what reading everything once gives. `sizes` U: (K,) tokens."""
    shares: Float64 = sizes / sizes.sum()
    return shares


def uniform(sizes: Float64) -> Float64:
    """Return w_i = 1 / K, (K,), of as many streams as have `sizes` (K,)."""
    return np.full(len(sizes), 1 / len(sizes))


def temperature(sizes: Float64, exponent: float) -> Float64:
    """Return w_i ~ U_i^exponent, with exponent = 1 / temperature.

    1 is natural, 0 uniform; XLM-R and mT5 use 0.3, mBERT 0.7 (arXiv 1911.02116, 2010.11934).

    Args:
        sizes: U, (K,) tokens.
        exponent: from 0 to 100.

    Returns:
        (K,) weights, sum 1.

    Raises:
        WeightsError: the exponent is negative or not finite.
    """
    if not 0 <= exponent <= MAX_EXPONENT:
        raise WeightsError(f"temperature exponent {exponent}; expected a number from 0 to {MAX_EXPONENT}")
    logs = exponent * np.log(sizes)
    raised: Float64 = np.exp(logs - logs.max())
    return natural(raised)


def unimax(sizes: Float64, max_repeats: float, budget_tokens: float) -> Float64:
    """Return UniMax's weights: as even as can be with no stream above `max_repeats` repeats.

    From the smallest stream up, n_i = min(rest / streams left, N U_i), rest -= n_i; w = n / sum n.
    Source: Chung et al. 2023 (arXiv 2304.09151), algorithm 1, with sizes in tokens.

    Args:
        sizes: U, (K,) tokens.
        max_repeats: N.
        budget_tokens: tokens of the run.

    Returns:
        (K,) weights, sum 1.

    Raises:
        WeightsError: `max_repeats` is not positive.
    """
    if not np.isfinite(max_repeats) or max_repeats <= 0:
        raise WeightsError(f"unimax with {max_repeats} repeats; expected a finite number above 0")
    given = np.zeros(len(sizes))
    rest = float(budget_tokens)
    for taken, i in enumerate(np.argsort(sizes, kind="stable")):
        given[i] = min(rest / (len(sizes) - taken), max_repeats * sizes[i])
        rest -= given[i]
    return natural(given)


def resolve_weights(spec: WeightsSpec, tokens: Mapping[str, int], budget_tokens: int) -> Float64:
    """Return the (K,) weights that `spec` asks for, over the streams of `tokens` in their order.

    Args:
        spec: ``natural``, ``uniform``, ``temperature:0.3``, ``unimax:4``, the path of a JSON file
            ({name: weight}, or a weights file with that under "weights"), or a mapping.
        tokens: tokens of each stream.
        budget_tokens: the run's budget, which UniMax needs.

    Raises:
        WeightsError: an unknown rule, or bad weights.
        FormatError: the file is not a weights file.
    """
    names = list(tokens)
    if isinstance(spec, Mapping):
        return check_weights(spec, names)
    if not isinstance(spec, (str, Path)):
        raise WeightsError(f"weights are {type(spec).__name__}; expected {{name: weight}}, a rule, or a file's path")
    rule, colon, _ = str(spec).partition(":")
    sizes = np.array(list(tokens.values()), dtype=np.float64)
    if rule == "natural" and not colon:
        return natural(sizes)
    if rule == "uniform" and not colon:
        return uniform(sizes)
    if rule == "temperature":
        return temperature(sizes, _number(str(spec)))
    if rule == "unimax":
        return unimax(sizes, _number(str(spec)), budget_tokens)
    return check_weights(read_weights(Path(spec)), names)


def read_weights(path: Path) -> Mapping[str, float]:
    """Return the weights of a JSON file: a weights.json, or {name: weight} alone.

    Raises:
        WeightsError: the file is not there.
        FormatError: it is not a weights file.
    """
    if not path.exists():
        raise WeightsError(
            f"weights {str(path)!r}: neither a file nor one of the rules {', '.join(RULES)}"
            f"{nearest(str(path).partition(':')[0], [rule.partition(':')[0] for rule in RULES])}"
        )
    content = load_json(path, REMEDY)
    if isinstance(content, dict) and not {"format", "version", "weights"} & content.keys():
        return content
    return parse(Weights, content, str(path), REMEDY).weights


def save_weights(
    path: Path, weights: Mapping[str, float], origin: str, spread: Mapping[str, float] | None = None
) -> None:
    """Write a weights.json of `weights` that come from `origin`, with their `spread` over runs or refits."""
    if spread is None:
        content = Weights(weights=dict(weights), origin=origin)
    else:
        content = Weights(version=2, weights=dict(weights), origin=origin, spread=dict(spread))
    write_whole(path, content.model_dump_json(indent=2, exclude_none=True) + "\n")  # version 1 knows no spread


def _number(spec: str) -> float:
    """Return the number after a rule's colon."""
    rule, _, argument = spec.partition(":")
    try:
        return float(argument)
    except ValueError:
        raise WeightsError(f"weights {spec!r}; expected {rule}, a colon and a number, as in {rule}:4") from None
