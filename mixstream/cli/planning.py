"""From a question on the command line to weights.json: streams and runs are read, a planner asked, its answer shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from mixstream.cli.answers import show_answer, show_streams
from mixstream.cli.showing import say
from mixstream.formats import load_json
from mixstream.methods.planning.registry import LEARNING, learning_planner, method_name, rule
from mixstream.methods.planning.sources import budgets_by_source, sizes_by_source, streams_of, to_streams
from mixstream.mixture.weights import read_weights, save_weights
from mixstream.streams.catalog import Catalog

if TYPE_CHECKING:
    from mixstream.methods.planning.answer import Answer
    from mixstream.methods.planning.planner import Allocator
    from mixstream.methods.planning.sources import Groups
    from mixstream.methods.planning.table import RunTable

REFITS = 20


@dataclass(frozen=True)
class Question:
    """What weights are asked for.

    Attributes:
        method: a method that learns, or a rule such as unimax:4.
        streams, token_column: the catalog.
        tokens, parameters: of the run to be; None: the model of the runs.
        max_repeats, floor: bounds; repeats of streams or of sources.
        runs, rounded: tables of runs, and whether their proportions are.
        options: of the planner, files as paths.
        refits: of the bootstrap; None: 20.
        resample: what it draws.
    """

    method: str
    streams: str
    token_column: str | None
    tokens: int
    parameters: int | None
    max_repeats: Mapping[str, float] | None
    floor: float
    runs: tuple[Path, ...]
    rounded: bool
    options: Mapping[str, Any]
    refits: int | None
    resample: str


def plan_weights(asked: Question, out: Path) -> None:
    """Answer a question, write the weights of all streams, and show the answer."""
    name = method_name(asked.method)
    catalog = Catalog.open(asked.streams, token_column=asked.token_column)
    catalog.check_alike()
    languages = {stream.name: stream.language for stream in catalog}
    if name not in LEARNING:
        groups: Groups = {stream: (stream,) for stream in languages}
        found = _answer(asked, rule(asked.method, list(groups)), None, catalog, groups)
        origin = asked.method
    else:
        from mixstream.methods.planning.table_files import read_all

        runs = read_all(asked.runs, normalise=asked.rounded)
        groups = streams_of(runs.sources, languages)
        options = {key: _option(key, value) for key, value in asked.options.items()}
        planner = learning_planner(name, {key: options[key] for key in options if key in LEARNING[name].options})
        found = _answer(asked, planner, runs, catalog, groups)
        origin = f"{name} fitted to {len(runs)} runs of {', '.join(map(str, asked.runs))}"
    write_answer(out, found, catalog, groups, f"{origin}, for a run of {asked.tokens:,} tokens")


def write_answer(out: Path, found: Answer, catalog: Catalog, groups: Groups, origin: str) -> None:
    """Write weights.json of an answer, a source's share dealt to its streams, and show it.

    Args:
        out: where to write.
        found: over sources.
        catalog: of the streams.
        groups: the streams of each source.
        origin: where the weights come from, in words.
    """
    shares = to_streams(found.weights, groups, catalog.tokens)
    total = math.fsum(shares.values())
    weights = {name: share / total for name, share in shares.items()}
    spread = None
    if found.spread is not None:
        by_source = dict(zip(found.run.sources, found.spread.tolist(), strict=True))
        spread = to_streams(by_source, groups, catalog.tokens)
    save_weights(out, weights, origin, spread)
    show_answer(found)
    if any(streams != (source,) for source, streams in groups.items()):
        show_streams(weights, spread)
    say(f"{origin}; weights in {out}")


def _answer(asked: Question, planner: Allocator, runs: RunTable | None, catalog: Catalog, groups: Groups) -> Answer:
    from mixstream.methods.planning.answer import answer

    budgets = budgets_by_source(groups, asked.max_repeats)
    return answer(
        planner,
        runs,
        sizes_by_source(groups, catalog.tokens),
        asked.tokens,
        max_repeats={source: budget for source, budget in budgets.items() if math.isfinite(budget)},
        floor=asked.floor,
        parameters=math.nan if asked.parameters is None else asked.parameters,
        refits=0 if runs is None else REFITS if asked.refits is None else asked.refits,
        resample=cast(Literal["runs", "residuals"], asked.resample),
        seed=asked.options.get("seed", 0),
    )


def _option(key: str, value: Any) -> Any:
    """Return an option of a planner, read where it is a file."""
    if key == "prior":
        return read_weights(value)
    if key == "transfer":
        return load_json(value, "write {source: {target: worth}}, as of a matrix")
    return value
