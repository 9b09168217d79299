"""Recipes of several runs: the chain of proxy, base and controls, and proxies of several sizes and seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from composer.utils import dist

from mixstream.errors import MixstreamError
from mixstream.methods.learning.averaging import aggregate
from mixstream.mixture.weights import save_weights
from mixstream.runs.folder import Result
from mixstream.runs.learnt import check_average, learnt_by, save_aggregate
from mixstream.runs.recipe import ChainRecipe, ProxiesRecipe, Recipe, RunRecipe, SingleRecipe
from mixstream.runs.train import Run, check_apart, plan_mixture, plan_run, train
from mixstream.streams.catalog import Catalog

OnRun = Callable[[str, Run], None]
Weights = str | dict[str, float]


def run_recipe(recipe: Recipe, on_run: OnRun, migrate: bool = False) -> dict[str, Result]:
    """Run a recipe to its end, going on where an earlier process stopped.

    Args:
        recipe: what to run.
        on_run: called with each run's name and plan before it starts.
        migrate: whether runs that began with another recipe or other streams are carried over to this one.

    Returns:
        How each run ended, by its name.

    Raises:
        MixstreamError: whatever is wrong with recipe, streams, mixture or folders.
    """
    if isinstance(recipe, SingleRecipe):
        return {recipe.kind: _run(recipe.kind, recipe.run, recipe.streams, Path(recipe.out), on_run, migrate)}
    if isinstance(recipe, ProxiesRecipe):
        return _run_proxies(recipe, on_run, migrate)
    return _run_chain(recipe, on_run, migrate)


def _run_proxies(recipe: ProxiesRecipe, on_run: OnRun, migrate: bool) -> dict[str, Result]:
    streams, out = recipe.streams, Path(recipe.out)
    for name, proxy in recipe.proxies.items():  # all that can be refused is refused before the first has trained
        with _told_of(name):
            check_average(recipe.averaging, plan_run(proxy, streams, out / name, migrate).plan.num_batches)
    results = {name: _run(name, proxy, streams, out / name, on_run, migrate) for name, proxy in recipe.proxies.items()}
    if dist.get_global_rank() == 0:
        learnt = {name: learnt_by(out / name, recipe.averaging, result.batches) for name, result in results.items()}
        save_aggregate(out / "weights.json", aggregate(learnt), ", ".join(str(out / name) for name in learnt))
    dist.barrier()
    return results


def _run_chain(recipe: ChainRecipe, on_run: OnRun, migrate: bool) -> dict[str, Result]:
    streams, out = recipe.streams, Path(recipe.out)
    # All that can be refused is refused before the proxy has trained for hours.
    with _told_of("proxy"):
        check_average(recipe.averaging, plan_run(recipe.proxy, streams, out / "proxy", migrate).plan.num_batches)
    with _told_of("base"):
        check_apart(streams, out / "base")
        base = with_weights(recipe.base, "uniform")  # what the proxy will learn is not known yet
        plan_mixture(base, Catalog.open(streams, token_column=base.mixture.token_column))
    for name, weights in recipe.controls.items():
        with _told_of(name):
            plan_run(with_weights(recipe.base, weights), streams, out / name, migrate)
    results = {"proxy": _run("proxy", recipe.proxy, streams, out / "proxy", on_run, migrate)}
    learnt = out / "weights.json"
    if dist.get_global_rank() == 0:
        weights_of_proxy = learnt_by(out / "proxy", recipe.averaging, results["proxy"].batches)
        save_weights(learnt, weights_of_proxy, str(out / "proxy"))
    dist.barrier()
    for name, weights in {"base": str(learnt), **recipe.controls}.items():
        results[name] = _run(name, with_weights(recipe.base, weights), streams, out / name, on_run, migrate)
    return results


def with_weights(recipe: RunRecipe, weights: Weights) -> RunRecipe:
    """Return a run's recipe with other weights."""
    return recipe.model_copy(update={"mixture": recipe.mixture.model_copy(update={"weights": weights})})


def _run(name: str, recipe: RunRecipe, streams: str, out: Path, on_run: OnRun, migrate: bool) -> Result:
    with _told_of(name):
        run = plan_run(recipe, streams, out, migrate)
        on_run(name, run)
        return train(run)


@contextmanager
def _told_of(name: str) -> Iterator[None]:
    """Let an error of ours say of which run it tells."""
    try:
        yield
    except MixstreamError as error:
        raise type(error)(f"run {name!r}: {error}") from None
