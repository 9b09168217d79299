"""Languages without pilots: what their neighbours say of them, marked as not measured.

With N(u) the neighbours of a language u without data, and N(i) = {i} for one that has them:

    B_u, beta_u, E_u, eta_u, A_u, a_u  = mean over N(u)
    b_{u->v} = mean of b_{x->y} over x in N(u), y in N(v), x != y        k likewise

Where that leaves no pair (u has one neighbour, and the transfer is between the two) it is the mean of what y
receives from all others. The spread over the neighbours, the standard deviation of the sample, is told with every
guess; one neighbour has none.

Ours throughout: CLIMB (arXiv 2509.15556) has pilots of every language. A family prior is as good as the family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mixstream.errors import RunTableError, nearest
from mixstream.methods.climb.law import Law
from mixstream.methods.families import Tree
from mixstream.mixture.simplex import Float64

OWN = ("scale", "exponent", "floor", "saturation", "size_scale", "size_exponent")  # of Law, one a language


@dataclass(frozen=True)
class Guess:
    """A language whose parameters were not measured.

    Attributes:
        neighbours: whose mean they are.
        spread: {parameter: standard deviation over the neighbours}; empty with one neighbour.
    """

    neighbours: tuple[str, ...]
    spread: Mapping[str, float]


def extended(
    law: Law, languages: Sequence[str], neighbours: Mapping[str, Sequence[str]], order: Sequence[str]
) -> tuple[Law, dict[str, Guess]]:
    """Return the law of more languages, and which of them are guesses.

    Args:
        law: of the measured languages.
        languages: their names.
        neighbours: {language without data: measured ones that are like it}.
        order: names of all languages wanted, measured ones and others.

    Raises:
        RunTableError: a language with neither data nor neighbours, or a neighbour without data.
    """
    groups = [_group(name, languages, neighbours) for name in order]
    shares = np.zeros((len(order), len(languages)))  # of each measured language in each wanted one
    for row, group in zip(shares, groups, strict=True):
        row[group] = 1 / len(group)
    own = {name: shares @ getattr(law, name) for name in OWN}
    wide = replace(law, **own, transfer=_between(law.transfer, groups), fading=_between(law.fading, groups))
    guesses = {
        name: Guess(tuple(languages[one] for one in group), _spread(law, group))
        for name, group in zip(order, groups, strict=True)
        if name not in languages
    }
    return wide, guesses


def neighbours_in(tree: Tree, language: str, measured: Sequence[str]) -> tuple[str, ...]:
    """Return the measured languages of the smallest family of a tree that holds `language` and any of them.

    Args:
        tree: nested lists and mappings down to languages, as in `mixstream.methods.families`.
        language: a leaf of the tree.
        measured: languages with data.

    Raises:
        RunTableError: the language is not in the tree, or no measured one is.
    """
    families = _families(tree, language)
    if families is None:
        raise RunTableError(
            f"{language!r} is not in the tree of families{nearest(language, _leaves(tree))}; add it, or name its "
            f"neighbours"
        )
    for leaves in families:
        found = tuple(name for name in measured if name in leaves and name != language)
        if found:
            return found
    raise RunTableError(
        f"the tree of families has no language with runs beside {language!r}; the runs are of {', '.join(measured[:5])}"
    )


def _group(name: str, languages: Sequence[str], neighbours: Mapping[str, Sequence[str]]) -> list[int]:
    if name in languages:
        return [languages.index(name)]
    if not neighbours.get(name):
        raise RunTableError(
            f"no run reads {name!r} and tells its loss, and it has no neighbours{nearest(name, neighbours)}; train "
            f"pilots of it, name languages that are like it, or leave it out"
        )
    unknown = [one for one in neighbours[name] if one not in languages]
    if unknown:
        raise RunTableError(
            f"{unknown[0]!r}, a neighbour of {name!r}, has no runs of its own{nearest(unknown[0], languages)}; "
            f"neighbours must be among {', '.join(languages[:8])}"
        )
    return sorted({languages.index(one) for one in neighbours[name]})


def _spread(law: Law, group: list[int]) -> dict[str, float]:
    if len(group) < 2:
        return {}
    return {name: float(np.std(getattr(law, name)[group], ddof=1)) for name in OWN if getattr(law, name).any()}


def _between(pairs: Float64, groups: Sequence[list[int]]) -> Float64:
    """Return transfers (V, V) between the wanted languages, from those (K, K) between the measured ones."""
    beside = 1 - np.eye(len(pairs))
    received = pairs.sum(axis=0) / max(1, len(pairs) - 1)
    wide = np.zeros((len(groups), len(groups)))
    for giver, givers in enumerate(groups):
        for taker, takers in enumerate(groups):
            if giver != taker:
                at = np.ix_(givers, takers)
                some = beside[at].sum()
                wide[giver, taker] = pairs[at].sum() / some if some else received[takers].mean()
    return wide


def _leaves(node: Tree) -> list[str]:
    if isinstance(node, str):
        return [node]
    children = node.values() if isinstance(node, Mapping) else node
    return [leaf for child in children for leaf in _leaves(child)]


def _families(node: Tree, language: str) -> list[list[str]] | None:
    """Return the leaves of every family that holds a language, the smallest first; None: none does."""
    if isinstance(node, str):
        return [] if node == language else None
    for child in node.values() if isinstance(node, Mapping) else node:
        inside = _families(child, language)
        if inside is not None:
            return [*inside, _leaves(node)]
    return None
