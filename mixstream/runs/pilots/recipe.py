"""The recipe of pilots, `kind: pilots`: one YAML for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mixstream.errors import RecipeError
from mixstream.formats import FileModel, load_yaml, parse
from mixstream.methods.planning.designs import (
    Design,
    Law,
    candidates,
    climb_design,
    d_optimal,
    monolingual_design,
)
from mixstream.runs.pilots.groups import By
from mixstream.runs.recipe import RunRecipe, Seed
from mixstream.runs.sections import NaturalInt, PositiveInt

OWN = {  # keys of `run` that each pilot has of its own, and where the recipe says them
    "seed": "seeds",
    "mixture.weights": "the design",
    "mixture.budget_tokens": "budgets",
    "mixture.schedule": "the design",
    "mixture.floor": "the design",
    "method": "the design",
}


class ChoiceRecipe(FileModel):
    """A cheaper design: so many runs, chosen out of candidates so that a law's parameters are told apart best.

    Attributes:
        runs: how many, of all budgets together.
        law: whose parameters: ``climb``, or ``quadratic`` in the proportions.
        candidates: random mixtures to choose from, beside each source at 9 ratios.
        seed: of them, and of the search.
    """

    runs: PositiveInt
    law: Law = "climb"
    candidates: NaturalInt = 100
    seed: Seed = 0


class PilotsRecipe(FileModel):
    """All pilots of a design.

    Attributes:
        streams, out: the streams of the target's run, and the folder of all that belongs to the pilots.
        by: what proportions are of: languages (each stream of one has its natural share of it), or streams.
        budgets: tokens of the mixed pilots, 2 or more.
        ratios: of the source that is varied; None: the design's own 3.
        choose: fewer runs than the 3 x m x 2; None: all of them.
        alone: tokens of pilots of each source alone, 3 or more, or none.
        seeds: each pilot is trained with each.
        target_tokens: tokens of the run that the pilots are for: each reads so small a view of the streams that a
            source is repeated as often as there; None: the streams as they are.
        min_samples: of each stream of a view; a smaller view is refused.
        view_seed: which documents the views take, the same in all.
        run: what all have in common; the file gives it neither seed, weights nor budget.
    """

    version: Literal[1]
    kind: Literal["pilots"]
    streams: str
    out: str
    by: By = "language"
    budgets: tuple[PositiveInt, ...]
    ratios: tuple[float, ...] | None = None
    choose: ChoiceRecipe | None = None
    alone: tuple[PositiveInt, ...] = ()
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (17,)
    target_tokens: PositiveInt | None = None
    min_samples: PositiveInt = 100
    view_seed: Seed = 0
    run: RunRecipe

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> PilotsRecipe:
        if self.ratios is not None and self.choose is not None:
            raise ValueError("ratios are those of the whole design, choose has candidates of its own; leave one out")
        twice = [seed for seed in self.seeds if self.seeds.count(seed) > 1]
        if twice:
            raise ValueError(f"seed {twice[0]} stands twice in seeds; give each run its own")
        most = max((*self.budgets, *self.alone), default=0)
        if self.target_tokens is not None and most > self.target_tokens:
            raise ValueError(
                f"a pilot of {most:,} tokens is longer than the run it is for, of target_tokens "
                f"{self.target_tokens:,}; lower the budget, or raise the target"
            )
        return self

    def design(self, sources: tuple[str, ...]) -> tuple[Design, Design | None]:
        """Return the mixed pilots, and those of a source alone where there are any.

        Raises:
            MixtureError: the design cannot be.
        """
        alone = monolingual_design(sources, self.alone) if self.alone else None
        if self.choose is None:
            return climb_design(sources, self.budgets, self.ratios), alone
        pool = candidates(sources, self.budgets, self.choose.candidates, self.choose.seed)
        return pool.rows(d_optimal(pool, self.choose.runs, self.choose.law, self.choose.seed)), alone


def load_pilots(path: Path, streams: str | Path | None = None, out: Path | None = None) -> PilotsRecipe:
    """Read a recipe of pilots.

    Args:
        path: the YAML file.
        streams, out: instead of those that it names.

    Raises:
        RecipeError: the file is missing or no recipe of pilots, or a key is unknown, missing or wrong.
    """
    content = load_yaml(path, "write one, as recipes/climb_demo.yaml is", RecipeError)
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: expected keys such as version, kind, streams, out, found {content!r}")
    if content.get("kind") != "pilots":
        raise RecipeError(f"{path}: kind is {content.get('kind')!r}, expected 'pilots'; `mixstream train` runs others")
    places = {"streams": streams, "out": out}
    content |= {key: str(place) for key, place in places.items() if place is not None}
    _complete(content, path)
    return parse(PilotsRecipe, content, str(path), error=RecipeError)


def _complete(content: dict[str, Any], path: Path) -> None:
    """Let the run that pilots have in common be a whole one.

    Raises:
        RecipeError: it has keys that each pilot has of its own.
    """
    run, budgets = content.get("run"), content.get("budgets")
    mixture = run.get("mixture") if isinstance(run, dict) else None
    if not isinstance(run, dict) or not isinstance(mixture, dict):
        return
    given = {*run, *(f"mixture.{key}" for key in mixture)}
    for key, where in OWN.items():
        if key in given:
            raise RecipeError(f"{path}: run.{key} is given, but each pilot has its own, from {where}; leave it out")
    first = budgets[0] if isinstance(budgets, list) and budgets else 1
    content["run"] = run | {"mixture": mixture | {"weights": "uniform", "budget_tokens": first}}
