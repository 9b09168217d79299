"""What became of pilots: those that ended, and those that failed and why."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from mixstream.errors import MixstreamError, StateError
from mixstream.runs.pilots.written import Pilot, PilotsFolder
from mixstream.runs.recipe import SingleRecipe, load_recipe

# What training fails with where the next pilot may not: no memory, a loss that is no number, a full disk.
FAILURES = (MixstreamError, RuntimeError, ArithmeticError, ValueError, OSError)
TOLD = 5


def waiting(folder: PilotsFolder, pilots: Iterable[Pilot]) -> dict[str, SingleRecipe]:
    """Return the recipes of the pilots that have not ended, by name.

    Raises:
        StateError: one is missing, or of another kind.
        RecipeError: one is no recipe.
    """
    return {pilot.name: _recipe(folder, pilot.name) for pilot in pilots if not folder.is_done(pilot.name)}


def _recipe(folder: PilotsFolder, name: str) -> SingleRecipe:
    path = folder.recipe(name)
    recipe = load_recipe(path) if path.exists() else None
    if not isinstance(recipe, SingleRecipe):
        found = "is missing" if recipe is None else f"is of kind {recipe.kind!r}"
        raise StateError(f"{path}: {found}; `mixstream climb pilots` writes it again")
    return recipe


@contextmanager
def noted(failed: dict[str, str], name: str, keep_going: bool) -> Iterator[None]:
    """Note in `failed` why a pilot failed, or let its error say whose it is.

    Raises:
        MixstreamError: that of the block, unless the others go on (`keep_going`).
    """
    try:
        yield
    except FAILURES as error:
        if keep_going:
            failed[name] = (str(error).strip().splitlines() or [type(error).__name__])[0]
        elif isinstance(error, MixstreamError):
            raise type(error)(f"pilot {name!r}: {error}") from None
        else:
            raise


def check_failed(failed: Mapping[str, str], num_pilots: int) -> None:
    """Tell of pilots that failed, when the others have ended.

    Raises:
        StateError: there are some.
    """
    if failed:
        told = "; ".join(f"{name!r}: {why}" for name, why in list(failed.items())[:TOLD])
        more = f"; and {len(failed) - TOLD} more" if len(failed) > TOLD else ""
        raise StateError(
            f"{len(failed)} of {num_pilots} pilots failed: {told}{more}; mend it, and the same command "
            f"goes on with them"
        )
