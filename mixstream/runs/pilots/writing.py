"""A recipe of pilots becomes files: pilots.json, the views that they read, a recipe for each, and slurm.sh."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import numpy as np

from mixstream.errors import MixstreamError, RecipeError, StateError
from mixstream.formats import dump_json, write_whole
from mixstream.methods.planning.designs import Design
from mixstream.mixture.build import build_plan
from mixstream.mixture.plan import Plan
from mixstream.runs.pilots.groups import Groups, groups_of
from mixstream.runs.pilots.recipe import PilotsRecipe
from mixstream.runs.pilots.slurm import slurm_script
from mixstream.runs.pilots.views import Cut, make_views
from mixstream.runs.pilots.written import Pilot, Pilots, PilotsFolder
from mixstream.runs.recipe import SingleRecipe, dump_yaml
from mixstream.streams.catalog import Catalog
from mixstream.streams.place import absolute, find_place


def write_pilots(recipe: PilotsRecipe, cut: Cut) -> Pilots:
    """Write all that the pilots need; nothing is trained.

    Pilots that have begun stay as they are: a recipe that would change or drop one is refused, one with more runs is
    not.

    Args:
        recipe: of the pilots.
        cut: makes a view of the streams, where the target's repeats are to be matched: `converters.view.proxy_view`.

    Returns:
        What pilots.json says.

    Raises:
        MixstreamError: whatever is wrong with the streams, the design, or a mixture; or the folder has other pilots.
    """
    folder = PilotsFolder(Path(recipe.out).absolute())
    streams = find_place(recipe.streams)
    if isinstance(streams, Path) and {folder.path.resolve(), *folder.path.resolve().parents} & {streams.resolve()}:
        raise StateError(f"{recipe.out}: lies in the streams' folder ({recipe.streams}); choose another")
    catalog = Catalog.open(recipe.streams, token_column=recipe.run.mixture.token_column)
    catalog.check_alike()
    groups = groups_of(catalog, recipe.by)
    mixed, alone = recipe.design(groups.names)
    views = make_views(recipe, folder.views, catalog, cut)
    designs: list[tuple[Literal["mixed", "alone"], Design]] = [("mixed", mixed)]
    if alone is not None:
        designs.append(("alone", alone))
    pilots = Pilots(
        by=recipe.by,
        streams=str(absolute(streams)),
        target_tokens=recipe.target_tokens,
        groups=dict(groups.of),
        pilots=tuple(
            Pilot(
                name=f"{design.runs[i]}-s{seed}",
                kind=kind,
                budget_tokens=int(design.tokens[i]),
                seed=seed,
                streams=views[int(design.tokens[i])],
                proportions=dict(zip(groups.names, design.proportions[i].tolist(), strict=True)),
            )
            for kind, design in designs
            for seed in recipe.seeds
            for i in np.argsort(design.tokens, kind="stable").tolist()
        ),
    )
    recipes = {pilot.name: _recipe_of(pilot, recipe, groups, folder) for pilot in pilots.pilots}
    _check_plans(recipes)
    _write(folder, pilots, {name: dump_yaml(own) for name, own in recipes.items()})
    return pilots


def _recipe_of(pilot: Pilot, recipe: PilotsRecipe, groups: Groups, folder: PilotsFolder) -> SingleRecipe:
    weights = groups.spread([pilot.proportions[name] for name in groups.names])
    mixture = recipe.run.mixture.model_copy(update={"weights": weights, "budget_tokens": pilot.budget_tokens})
    return SingleRecipe(
        version=1,
        kind="base",
        streams=pilot.streams,
        out=str(folder.run(pilot.name).path),
        seed=pilot.seed,
        mixture=mixture,
        model=recipe.run.model,
        training=recipe.run.training,
    )


def _check_plans(recipes: dict[str, SingleRecipe]) -> None:
    """Refuse pilots that cannot be run, before one of them waits in a cluster's queue.

    Raises:
        MixstreamError: naming the first.
    """
    catalogs: dict[str, Catalog] = {}
    for name, recipe in recipes.items():
        if recipe.streams not in catalogs:
            catalogs[recipe.streams] = Catalog.open(recipe.streams, token_column=recipe.mixture.token_column)
        try:
            plan = _plan(recipe, catalogs[recipe.streams])
        except MixstreamError as error:
            raise type(error)(f"pilot {name!r}: {error}") from None
        if recipe.training.warmup_batches >= plan.num_batches:
            raise RecipeError(
                f"pilot {name!r}: training.warmup_batches is {recipe.training.warmup_batches}, but it has "
                f"{plan.num_batches} batches; lower it, or raise the budget"
            )


def _plan(recipe: SingleRecipe, catalog: Catalog) -> Plan:
    asked = recipe.mixture
    return build_plan(
        catalog,
        weights=asked.weights,
        budget_tokens=asked.budget_tokens,
        batch_size=asked.batch_size,
        sequence_length=asked.sequence_length,
        max_repeats=asked.max_repeats,
        lanes=asked.lanes,
        window_samples=asked.window_samples,
        seed=recipe.seed,
    )


def _differs(recipe: Path, text: str) -> bool:
    """Return whether a recipe is another one; one that was lost is not, and the run that has begun has its own."""
    return recipe.exists() and recipe.read_text("utf-8") != text


def _write(folder: PilotsFolder, pilots: Pilots, recipes: dict[str, str]) -> None:
    """Write the files; pilots.json last, since it says that they are there.

    Raises:
        StateError: pilots that have begun would be others.
    """
    before = folder.read().pilots if folder.file.exists() else ()
    begun = [pilot.name for pilot in before if folder.run(pilot.name).recipe.exists()]
    changed = [name for name in begun if name not in recipes or _differs(folder.recipe(name), recipes[name])]
    if changed:
        raise StateError(
            f"{folder.path}: pilot {changed[0]!r} has begun ({len(changed)} such), and this recipe would change or "
            f"drop it; choose another folder (--out), or remove this one to begin anew"
        )
    for name in {pilot.name for pilot in before} - recipes.keys():
        folder.recipe(name).unlink(missing_ok=True)
    for name, text in recipes.items():
        write_whole(folder.recipe(name), text)
    folder.logs.mkdir(parents=True, exist_ok=True)  # SLURM makes no folder for what a job prints
    write_whole(folder.slurm, slurm_script(folder.path, list(recipes), sys.executable))
    folder.slurm.chmod(0o755)
    write_whole(folder.file, dump_json(pilots))
