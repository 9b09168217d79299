"""A prior over streams from a tree of language families.

The mass of a node is shared evenly among its children, from the root down to the languages, and that of a
language among its streams:

    p(child) = p(node) / number of children          p(stream) = p(language) split by domain

so that a language without relatives weighs as much as a whole family: what its relatives cannot teach it, its
own data must. XDoGE (arXiv 2512.10545) names language families as an open question; this prior, and the pull
towards it (`mixstream.methods.xdoge.mirror_step`), are ours.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mixstream.errors import MixtureError, nearest
from mixstream.mixture.simplex import Float64

# A language, a list of nodes, or {name: node}; the names are for people. Any: pydantic cannot read a recursive alias.
Tree = Any


def family_prior(
    tree: Tree,
    languages: Sequence[str],
    domains: Sequence[str] | None = None,
    domain_split: Mapping[str, float] | None = None,
) -> Float64:
    """Return the prior of K streams.

    Args:
        tree: nested lists and mappings down to languages: {romance: [ca, es], isolate: [eu]}.
        languages: language of each stream.
        domains: domain of each stream, where `domain_split` is given.
        domain_split: {domain: part}, above 0, by which a language is split over its streams, in proportion to
            the parts of the domains that it has; None: evenly.

    Returns:
        (K,) weights above 0, sum 1.

    Raises:
        MixtureError: an empty node; a language twice in the tree, missing from it, or in it without a stream;
            a domain without a part, or parts that are not above 0.
    """
    leaves = list(_leaves(tree, 1.0, "families"))
    _check_languages([language for language, _ in leaves], languages)
    parts = _parts(languages, domains, domain_split)
    of_language: dict[str, list[float]] = {language: [] for language, _ in leaves}
    for language, part in zip(languages, parts, strict=True):
        of_language[language].append(part)
    mass = dict(leaves)
    prior = [
        mass[language] * part / math.fsum(of_language[language])
        for language, part in zip(languages, parts, strict=True)
    ]
    return np.array(prior) / math.fsum(prior)


def _leaves(node: Tree, mass: float, where: str) -> Iterator[tuple[str, float]]:
    """Yield each language below a node, with its mass."""
    if isinstance(node, str):
        yield node, mass
        return
    if isinstance(node, Mapping):
        children = [(f"{where}.{name}", child) for name, child in node.items()]
    elif isinstance(node, Sequence):
        children = [(where, child) for child in node]
    else:
        raise MixtureError(f"{where} is {node!r}; expected a language, a list, or a mapping of families")
    if not children:
        raise MixtureError(f"{where} has no language; leave it out, or name its languages")
    for inside, child in children:
        yield from _leaves(child, mass / len(children), inside)


def _check_languages(leaves: Sequence[str], languages: Sequence[str]) -> None:
    twice = [language for language, count in Counter(leaves).items() if count > 1]
    if twice:
        raise MixtureError(f"{_listed(twice)} stands twice in the tree of families; a language has one place")
    missing = sorted(set(languages) - set(leaves))
    if missing:
        raise MixtureError(
            f"{_listed(missing)} is missing from the tree of families{nearest(missing[0], leaves)}; "
            f"add it, in a family of its own if it has no relatives"
        )
    idle = sorted(set(leaves) - set(languages))
    if idle:
        raise MixtureError(
            f"{_listed(idle)} of the tree of families has no stream{nearest(idle[0], sorted(set(languages)))}; "
            f"leave it out, or give it one"
        )


def _parts(
    languages: Sequence[str], domains: Sequence[str] | None, domain_split: Mapping[str, float] | None
) -> list[float]:
    """Return what each stream counts among those of its language."""
    if domain_split is None:
        return [1.0] * len(languages)
    if domains is None or len(domains) != len(languages):
        raise MixtureError("a split by domain needs the domain of every stream")
    bad = [name for name, part in domain_split.items() if not 0 < part < math.inf]
    if bad:
        raise MixtureError(f"domain {bad[0]!r} gets the part {domain_split[bad[0]]}; expected a number above 0")
    missing = sorted(set(domains) - set(domain_split))
    if missing:
        raise MixtureError(
            f"no part for the domain {_listed(missing)}{nearest(missing[0], domain_split)}; give every domain one"
        )
    return [float(domain_split[domain]) for domain in domains]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
