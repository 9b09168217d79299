"""The recipe YAML: what we ask of a run; it says everything that changes results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from mixstream.errors import RecipeError, nearest
from mixstream.formats import FileModel, load_yaml, parse
from mixstream.mixture.build import WINDOW_SAMPLES
from mixstream.mixture.schedule import Change
from mixstream.runs.loggers import LoggersRecipe
from mixstream.runs.methods import MethodRecipe
from mixstream.runs.sections import AveragedRecipe, ModelRecipe, PositiveFloat, PositiveInt, Share, TrainingRecipe

RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]*$")]  # a folder beside weights.json and report.html

LEARNT = "proxy"  # the weights of a chain's base run: those that its proxy learnt


class MixtureRecipe(FileModel):
    """What is read; see `mixstream.build_plan`."""

    weights: str | dict[str, float]
    budget_tokens: PositiveInt
    batch_size: PositiveInt
    max_repeats: PositiveFloat | dict[str, PositiveFloat] | None = None
    floor: Share = 0.0
    window_samples: PositiveInt = WINDOW_SAMPLES
    lanes: PositiveInt = 1
    sequence_length: Annotated[int, Field(ge=2)] | None = None  # of one token nothing can be learnt
    schedule: tuple[Change, ...] = ()
    token_column: str | None = None


Seed = Annotated[int, Field(ge=0, lt=2**32)]


class RunRecipe(FileModel):
    """One run of a model over a mixture; with `method`, a proxy that learns the weights."""

    seed: Seed = 17
    mixture: MixtureRecipe
    model: ModelRecipe
    training: TrainingRecipe
    method: MethodRecipe | None = None
    loggers: LoggersRecipe | None = None

    @model_validator(mode="after")
    def _weights_come_from_one_place(self) -> RunRecipe:
        if self.method is not None and self.mixture.schedule:
            raise ValueError("method learns the weights that mixture.schedule sets; leave one of the two out")
        if self.method is not None and self.method.stages and self.mixture.floor:
            raise ValueError(
                f"mixture.floor {self.mixture.floor} is read of streams that method.stages hold back; give it as "
                f"method.floor"
            )
        return self


class SingleRecipe(RunRecipe):
    """A recipe of one run: kind `proxy` learns weights, kind `base` uses them."""

    version: Literal[1]
    kind: Literal["proxy", "base"]
    streams: str
    out: str

    @property
    def run(self) -> RunRecipe:
        """The run without its places."""
        return RunRecipe.model_validate(self.model_dump(exclude={"version", "kind", "streams", "out"}))


class ChainRecipe(AveragedRecipe):
    """The main job: a proxy learns weights, a base run uses them, controls differ in weights alone.

    Attributes:
        base: its mixture's weights are ``proxy``.
        controls: {name of the run: its weights}.
    """

    version: Literal[1]
    kind: Literal["chain"]
    streams: str
    out: str
    proxy: RunRecipe
    base: RunRecipe
    controls: dict[RunName, str | dict[str, float]] = Field(default_factory=dict)


class ProxiesRecipe(AveragedRecipe):
    """Proxies of several sizes and seeds: what they learn is averaged over them too, and its spread noted.

    Attributes:
        run: what they have in common; the file gives it neither model nor seed, and it is read with the first model.
        models: {name: model}.
        seeds: of each model's runs.
    """

    version: Literal[1]
    kind: Literal["proxies"]
    streams: str
    out: str
    run: RunRecipe
    models: Annotated[dict[RunName, ModelRecipe], Field(min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _has_each_seed_once(self) -> ProxiesRecipe:
        twice = [seed for seed in self.seeds if self.seeds.count(seed) > 1]
        if twice:
            raise ValueError(f"seed {twice[0]} stands twice in seeds; give each run its own")
        return self

    @property
    def proxies(self) -> dict[str, RunRecipe]:
        """The runs, by name."""
        return {
            f"{name}-s{seed}": self.run.model_copy(update={"model": model, "seed": seed})
            for name, model in self.models.items()
            for seed in self.seeds
        }


Recipe = SingleRecipe | ChainRecipe | ProxiesRecipe

KINDS: dict[str, type[SingleRecipe] | type[ChainRecipe] | type[ProxiesRecipe]] = {
    "proxy": SingleRecipe,
    "base": SingleRecipe,
    "chain": ChainRecipe,
    "proxies": ProxiesRecipe,
}


def load_recipe(
    path: Path,
    streams: str | Path | None = None,
    out: Path | None = None,
    cache_dir: str | Path | None = None,
    cache_limit: int | str | None = None,
    weights: str | None = None,
) -> Recipe:
    """Read a recipe.

    Args:
        path: the YAML file.
        streams: read these streams, a folder or its URL, instead of those that it names.
        out: write to this folder instead of the one that it names.
        cache_dir, cache_limit: of all its runs, instead of what their sections ``training`` say.
        weights: a rule or a file, of a recipe of one run, instead of its ``mixture.weights``.

    Raises:
        RecipeError: the file is missing or not YAML, a key is unknown (the nearest known one is named)
            or missing, or a value is wrong.
    """
    content = load_yaml(path, "write one, as recipes/demo.yaml is", RecipeError)
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: expected keys such as version, kind, streams, out, found {content!r}")
    kind = content.get("kind")
    if kind == "pilots":
        raise RecipeError(f"{path}: kind is 'pilots', whose runs `mixstream climb pilots` writes")
    if not isinstance(kind, str) or kind not in KINDS:
        raise RecipeError(f"{path}: kind is {kind!r}, expected one of {', '.join(KINDS)}{nearest(str(kind), KINDS)}")
    places = {"streams": streams, "out": out}
    content |= {key: str(place) for key, place in places.items() if place is not None}
    cache = {"cache_dir": None if cache_dir is None else str(cache_dir), "cache_limit": cache_limit}
    for run in (content, *map(content.get, ("proxy", "base", "run"))):
        if isinstance(run, dict) and "xdoge" in run:
            raise RecipeError(f"{path}: the section 'xdoge' is now 'method', with the key name: xdoge; rename it")
        training = run.get("training") if isinstance(run, dict) else None
        if isinstance(training, dict):
            training |= {key: value for key, value in cache.items() if value is not None}
    if weights is not None:
        _give_weights(content, weights, path)
    if kind == "proxies":
        _give_first_model(content, path)
    recipe = parse(KINDS[kind], content, str(path), error=RecipeError)
    assert isinstance(recipe, SingleRecipe | ChainRecipe | ProxiesRecipe)
    _check(recipe, path)
    return recipe


def _give_weights(content: dict[str, Any], weights: str, path: Path) -> None:
    """Put weights in the place of those that a recipe of one run says."""
    if KINDS[content["kind"]] is not SingleRecipe:
        raise RecipeError(f"{path}: kind {content['kind']!r} has several runs; say in it which has weights {weights!r}")
    if isinstance(content.get("mixture"), dict):
        content["mixture"] = content["mixture"] | {"weights": weights}


def _give_first_model(content: dict[str, Any], path: Path) -> None:
    """Let the run that proxies have in common be a whole one."""
    run, models = content.get("run"), content.get("models")
    if not isinstance(run, dict):
        return
    for key, own in {"model": "models", "seed": "seeds"}.items():
        if key in run:
            raise RecipeError(f"{path}: run.{key} is given, but each proxy has its own; leave it out, '{own}' has them")
    if isinstance(models, dict) and models:
        content["run"] = run | {"model": next(iter(models.values()))}


def dump_yaml(recipe: FileModel) -> str:
    """Return a recipe as YAML, with every default written out."""
    text: str = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text


def _check(recipe: Recipe, path: Path) -> None:
    """Refuse what the keys alone cannot tell."""
    if isinstance(recipe, SingleRecipe):
        if (recipe.kind == "proxy") != (recipe.method is not None):
            raise RecipeError(f"{path}: kind {recipe.kind!r}; a proxy has a section 'method', a base run has none")
        return
    if isinstance(recipe, ProxiesRecipe):
        if recipe.run.method is None:
            raise RecipeError(f"{path}: 'run' has no section 'method', with which proxies learn weights")
        return
    if recipe.proxy.method is None or recipe.base.method is not None:
        raise RecipeError(f"{path}: 'proxy' has a section 'method', 'base' has none")
    if recipe.base.mixture.weights != LEARNT:
        found = recipe.base.mixture.weights
        raise RecipeError(f"{path}: base.mixture.weights is {found!r}, expected {LEARNT!r}: what the proxy learns")
    taken = {"proxy", "base", "report"} & set(recipe.controls)  # runs of the chain; the report's pictures
    if taken:
        raise RecipeError(f"{path}: controls names {taken.pop()!r}, which is taken; give it another name")


def all_keys(recipe: FileModel) -> dict[str, Any]:
    """Return a recipe flat: {dotted key: value}."""
    flat: dict[str, Any] = {}

    def add(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                add(f"{prefix}.{key}" if prefix else str(key), inner)
        else:
            flat[prefix] = value

    add("", recipe.model_dump(mode="json"))
    return flat
