"""Sources of a law over streams of a catalog: a language `eu` stands for the streams `eu.wiki`, `eu.web`, ...

    U_i = sum over its streams s of U_s        R_i = min over s of R_s        p_s = p_i U_s / U_i

so that all streams of a source repeat equally often, and none more than its own budget.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mixstream.errors import RunTableError, nearest
from mixstream.mixture.budget import MaxRepeats, repeat_budgets

Groups = Mapping[str, Sequence[str]]  # {source: its streams}


def streams_of(sources: Sequence[str], languages: Mapping[str, str | None]) -> dict[str, tuple[str, ...]]:
    """Return the streams of each source: the one of its name, or those of its language.

    Args:
        sources: K names.
        languages: {stream: its language}; None where nobody wrote it down: what stands before the name's first dot.

    Raises:
        RunTableError: a stream of no source, or a source without streams.
    """
    found: dict[str, list[str]] = {source: [] for source in sources}
    for stream, language in languages.items():
        own = stream if stream in found else language or stream.partition(".")[0]
        if own not in found:
            raise RunTableError(
                f"stream {stream!r} (language {own!r}) is none of the runs' sources {', '.join(sources)}"
                f"{nearest(own, sources)}; leave it out of the folder, or fit to runs that read it"
            )
        found[own].append(stream)
    without = [source for source, streams in found.items() if not streams]
    if without:
        raise RunTableError(
            f"no stream for {', '.join(without[:5])} ({len(without)} of {len(found)} sources of the runs); convert "
            f"their corpora, or fit to runs without them"
        )
    return {source: tuple(streams) for source, streams in found.items()}


def sizes_by_source(groups: Groups, tokens: Mapping[str, float]) -> dict[str, float]:
    """Return the tokens of each source: those of its streams together."""
    return {source: math.fsum(tokens[stream] for stream in streams) for source, streams in groups.items()}


def budgets_by_source(groups: Groups, max_repeats: MaxRepeats) -> dict[str, float]:
    """Return the repeat budget of each source, the least of its streams'; infinite where there is none.

    Args:
        groups: the streams of each source.
        max_repeats: of all, or {stream or source: number, "*": of the rest}; a stream's own goes before its source's.

    Raises:
        BudgetError: an unknown name, or a budget that is no finite number above 0.
    """
    names = list(dict.fromkeys([*groups, *(stream for streams in groups.values() for stream in streams)]))
    repeat_budgets(max_repeats, names)  # refuses what cannot be
    asked = max_repeats if isinstance(max_repeats, Mapping) else {"*": max_repeats}
    budgets = {}
    for source, streams in groups.items():
        of_source = asked.get(source, asked.get("*"))
        own = [asked.get(stream, of_source) for stream in streams]
        budgets[source] = min(math.inf if budget is None else float(budget) for budget in own)
    return budgets


def to_streams(values: Mapping[str, float], groups: Groups, tokens: Mapping[str, float]) -> dict[str, float]:
    """Return what each source has, such as its proportion, dealt to its streams in proportion to their tokens.

    Args:
        values: {source: value}.
        groups: the streams of each source.
        tokens: {stream: tokens}; the answer is in its order.
    """
    dealt = {
        stream: values[source] * (tokens[stream] / math.fsum(tokens[other] for other in streams))
        for source, streams in groups.items()
        for stream in streams
    }
    return {stream: dealt[stream] for stream in tokens if stream in dealt}
