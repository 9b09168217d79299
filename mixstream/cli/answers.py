"""What planners answer, as tables: the sources, the losses expected, and what there is to doubt."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mixstream.cli.showing import say, table

if TYPE_CHECKING:
    from mixstream.methods.planning.answer import Answer, Expected
    from mixstream.mixture.simplex import Float64

HELD_SHOWN = 5


def show_answer(found: Answer) -> None:
    """Show an answer: a source a row, beside natural, uniform and UniMax; losses below; then doubts."""
    _show_sources(found)
    for one in found.beside:
        if one.held:
            more = f" and {len(one.held) - HELD_SHOWN} more" if len(one.held) > HELD_SHOWN else ""
            names = ", ".join(one.held[:HELD_SHOWN]) + more
            say(f"{one.name} cannot be had: floor and repeat budgets hold {names}; shown is the nearest that can")
    if found.expected is not None:
        _show_losses(found, found.expected)
    for warning in found.warnings:
        say(f"warning: {warning}")


def show_streams(weights: Mapping[str, float], spread: Mapping[str, float] | None) -> None:
    """Show what streams have of their languages' proportions."""
    columns = ("stream", "weight") if spread is None else ("stream", "weight", "spread")
    rows = [
        (name, f"{weight:.4f}") if spread is None else (name, f"{weight:.4f}", f"{spread[name]:.4f}")
        for name, weight in weights.items()
    ]
    table(columns, rows)


def _show_sources(found: Answer) -> None:
    run = found.run
    between = ("90% of refits",) if found.intervals is not None else ()
    columns = ("source", "unique tokens", found.method, *between, "tokens", "repeats", "budget")
    rows = []
    for i, source in enumerate(run.sources):
        share = float(found.proportions[i])
        rows.append(
            (
                source,
                f"{run.sizes[i]:,.0f}",
                f"{share:.4f}",
                *((_between(found.intervals[i]),) if found.intervals is not None else ()),
                f"{share * run.tokens:,.0f}",
                f"{found.repeats[i]:.3g}",
                "" if math.isinf(run.budgets[i]) else f"{run.budgets[i]:g}",
                *(f"{one.proportions[i]:.4f}" for one in found.beside),
            )
        )
    table((*columns, *(one.name for one in found.beside)), rows)


def _show_losses(found: Answer, expected: Expected) -> None:
    between = ("90% of refits",) if expected.loss_intervals is not None else ()
    columns = ("expected loss of", "weight", found.method, *between, *(one.name for one in found.beside))
    rows = []
    for i, target in enumerate(expected.targets):
        intervals = () if expected.loss_intervals is None else (_between(expected.loss_intervals[i]),)
        others = ["" if one.losses is None else f"{one.losses[i]:.4f}" for one in found.beside]
        rows.append((target, f"{expected.target_weights[i]:.3g}", f"{expected.losses[i]:.4f}", *intervals, *others))
    interval = () if expected.mean_interval is None else (_between(expected.mean_interval),)
    means = [f"{one.mean_loss:.4f}" for one in found.beside]
    rows.append(("mean", "", f"{expected.mean_loss:.4f}", *interval, *means))
    table(columns, rows)
    errors = {"on the losses that it was fitted to": expected.seen_error, "on held-out runs": expected.heldout_error}
    told = [f"{error:.2%} {where}" for where, error in errors.items() if not math.isnan(error)]
    if told:
        say(f"median error of the law: {', '.join(told)}")
    if found.refits:
        wins = ", ".join(f"{one.name} {one.wins:.0%}" for one in found.beside)
        say(f"{found.refits - len(found.failures)} refits; share of them in which it has less loss than {wins}")


def _between(bounds: Float64) -> str:
    return f"{bounds[0]:.4f} - {bounds[1]:.4f}"
