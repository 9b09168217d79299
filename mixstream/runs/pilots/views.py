"""Views of the streams for pilots: as small a part of every stream as the pilot's budget is of the target's.

A pilot of D_p tokens over all U_i unique tokens of a source would repeat it D_p / D_t times as often as the target
of D_t tokens does, and so find another optimum. With a share of the documents of every source,

    U_i^pilot = U_i D_p / D_t      =>      r_i^pilot = p_i D_p / U_i^pilot = p_i D_t / U_i = r_i^target  for every p.

Source: Zhou et al. 2026 (arXiv 2606.07597). The same documents are taken for every pilot of a budget, and those of a
smaller budget are among those of a larger one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mixstream.errors import BudgetError, StreamError
from mixstream.methods.planning.designs import told_tokens
from mixstream.runs.pilots.recipe import PilotsRecipe
from mixstream.streams.catalog import Catalog
from mixstream.streams.place import absolute, find_place

# Cuts a view: of these streams, into this folder, of this share, by this seed, of so many samples of each at least.
Cut = Callable[[str, Path, float, int, int], object]


def make_views(recipe: PilotsRecipe, folder: Path, catalog: Catalog, cut: Cut) -> dict[int, str]:
    """Return the streams that pilots of each budget read: views, made now where they are not there yet.

    Args:
        recipe: of the pilots.
        folder: where views go, one a budget.
        catalog: of the target's streams.
        cut: makes one.

    Raises:
        BudgetError: a view would have fewer samples of a stream than `min_samples`.
        StreamError: the streams are such that no view can be cut from them.
    """
    budgets = sorted({*recipe.budgets, *recipe.alone})
    target = recipe.target_tokens
    whole = str(absolute(find_place(recipe.streams)))
    if target is None:
        return dict.fromkeys(budgets, whole)
    for budget in budgets:  # what can be told before the first is cut
        sizes = {name: int(size * budget / target) for name, size in catalog.sizes.items()}
        check_view(sizes, recipe.min_samples, budget, target, catalog.sizes)
    views = {}
    for budget in budgets:
        views[budget] = whole
        if budget < target:
            place = folder / told_tokens(budget)
            try:
                cut(recipe.streams, place, budget / target, recipe.view_seed, recipe.min_samples)
            except StreamError as error:
                raise type(error)(f"for pilots of {budget:,} of {target:,} tokens: {error}") from None
            views[budget] = str(place)
    return views


def check_view(sizes: Mapping[str, int], min_samples: int, budget: int, target: int, whole: Mapping[str, int]) -> None:
    """Refuse a view with too few samples of a stream to learn from.

    Args:
        sizes: samples of each stream of the view.
        min_samples: the fewest that will do.
        budget, target: tokens of the pilot, and of the run that it is for.
        whole: samples of each stream that the view is of.

    Raises:
        BudgetError: with the numbers and the ways out.
    """
    small: Sequence[str] = [name for name in whole if sizes.get(name, 0) < min_samples]
    if not small:
        return
    worst = min(small, key=lambda name: sizes.get(name, 0))
    needed = math.ceil(min_samples * target / whole[worst])
    raise BudgetError(
        f"a pilot of {budget:,} tokens for a run of {target:,} reads {budget / target:.3g} of every stream, which is "
        f"{sizes.get(worst, 0):,} samples of {worst!r} of its {whole[worst]:,} (fewer than min_samples "
        f"{min_samples:,}; {len(small)} such streams); give it about {needed:,} tokens or more, or the run fewer, "
        f"lower min_samples, or leave target_tokens out, and repeats unmatched"
    )
