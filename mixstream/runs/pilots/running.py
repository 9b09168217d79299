"""Running pilots: those that have not ended, one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mixstream.runs.chain import OnRun
from mixstream.runs.folder import Result
from mixstream.runs.pilots.outcome import check_failed, noted, waiting
from mixstream.runs.pilots.written import PilotsFolder
from mixstream.runs.train import plan_run, train


def run_pilots(
    folder: PilotsFolder, on_run: OnRun, on_end: Callable[[str, Result], None], keep_going: bool = False
) -> None:
    """Train all pilots that have not ended, going on where an earlier process stopped.

    Args:
        folder: of the pilots.
        on_run: called with each run's name and plan before it starts.
        on_end: called as each ends.
        keep_going: whether one that fails does not stop the others.

    Raises:
        StateError: pilots failed, after all others ended (`keep_going`).
        MixstreamError: what is wrong with one of them; all are looked at before the first starts.
    """
    pilots = folder.read().pilots
    recipes = waiting(folder, pilots)
    failed: dict[str, str] = {}
    for name, recipe in recipes.items():
        with noted(failed, name, keep_going):
            plan_run(recipe.run, recipe.streams, Path(recipe.out))
    for name, recipe in recipes.items():
        if name in failed:
            continue
        with noted(failed, name, keep_going):
            run = plan_run(recipe.run, recipe.streams, Path(recipe.out))
            on_run(name, run)
            on_end(name, train(run))
    check_failed(failed, len(pilots))
