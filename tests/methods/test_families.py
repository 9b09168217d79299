from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixstream.errors import MixtureError
from mixstream.methods.families import family_prior

IBERIAN = {"romance": ["ca", "es", "gl", "pt"], "isolate": ["eu"], "germanic": ["en"]}


def test_a_language_alone_weighs_as_much_as_a_family():
    prior = family_prior(IBERIAN, ["ca", "es", "gl", "pt", "eu", "en"])
    assert prior == pytest.approx([1 / 12, 1 / 12, 1 / 12, 1 / 12, 1 / 3, 1 / 3])


def test_a_deeper_tree_shares_at_every_node():
    tree = {"indo_european": [{"romance": ["ca", "es"]}, "en"], "isolate": "eu"}
    prior = family_prior(tree, ["es", "eu", "en", "ca"])
    assert prior == pytest.approx([1 / 8, 1 / 2, 1 / 4, 1 / 8])


def test_a_languages_share_is_that_of_its_streams():
    languages, domains = ["ca", "ca", "ca", "eu", "eu"], ["wiki", "web", "books", "wiki", "web"]
    assert family_prior(["ca", "eu"], languages) == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 4, 1 / 4])
    split = {"wiki": 1, "web": 3, "books": 4}
    prior = family_prior(["ca", "eu"], languages, domains, split)
    assert prior == pytest.approx([0.5 / 8, 1.5 / 8, 2 / 8, 0.5 / 4, 1.5 / 4])


trees = st.recursive(
    st.just("leaf"),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4), st.dictionaries(st.text(max_size=3), inner, min_size=1, max_size=4)
    ),
    max_leaves=70,
)


def named(tree, count):
    """The tree with its leaves numbered, and the number of the next one."""
    if isinstance(tree, str):
        return str(count), count + 1
    children = list(tree.values()) if isinstance(tree, dict) else tree
    renamed = []
    for child in children:
        child, count = named(child, count)
        renamed.append(child)
    return (dict(zip(tree, renamed, strict=True)) if isinstance(tree, dict) else renamed), count


def mass_of(tree, language, mass=1.0):
    """What a language gets, found from above: 0 in subtrees that do not hold it."""
    if isinstance(tree, str):
        return mass if tree == language else 0.0
    children = list(tree.values()) if isinstance(tree, dict) else tree
    return sum(mass_of(child, language, mass / len(children)) for child in children)


@given(trees, st.data())
def test_every_tree_gives_a_point_of_the_open_simplex(tree, data):
    tree, count = named(tree, 0)
    again = data.draw(st.lists(st.integers(0, count - 1), max_size=20))
    languages = [str(i) for i in [*range(count), *again]]
    prior = family_prior(tree, languages)
    assert prior.sum() == pytest.approx(1, abs=1e-12)
    assert (prior > 0).all()
    for i in range(count):
        ours = np.array([language == str(i) for language in languages])
        assert prior[ours] == pytest.approx(np.full(ours.sum(), mass_of(tree, str(i)) / ours.sum()))


@pytest.mark.parametrize(
    ("tree", "languages", "message"),
    [
        (IBERIAN, ["ca", "es", "gl", "pt", "eu", "en", "fr"], "'fr' is missing from the tree of families"),
        (["catalan"], ["catalam"], "'catalam' is missing from the tree .*; did you mean 'catalan'.* in a family of"),
        (IBERIAN, ["ca", "es", "gl", "eu", "en"], "'pt' of the tree of families has no stream"),
        ([["ca", "eu"], "ca"], ["ca", "eu"], "'ca' stands twice in the tree"),
        ({"a": ["ca"], "b": {"c": []}}, ["ca"], r"families\.b\.c has no language"),
        ({}, [], "families has no language"),
        ({"a": ["ca", 7]}, ["ca"], r"families\.a is 7; expected a language, a list, or a mapping of families"),
        ([str(i) for i in range(9)], [], "'0', '1', '2', '3', '4' and 4 more of the tree of families has no stream"),
    ],
)
def test_trees_that_do_not_fit_the_streams_are_refused(tree, languages, message):
    with pytest.raises(MixtureError, match=message):
        family_prior(tree, languages)


@pytest.mark.parametrize(
    ("domains", "split", "message"),
    [
        (None, {"wiki": 1}, "needs the domain of every stream"),
        (["wiki"], {"wiki": 1}, "needs the domain of every stream"),
        (["wiki", "web"], {"wiki": 1}, "no part for the domain 'web'"),
        (["wiki", "web"], {"wiki": 1, "web": 0}, "domain 'web' gets the part 0; expected a number above 0"),
    ],
)
def test_splits_that_leave_a_stream_nothing_are_refused(domains, split, message):
    with pytest.raises(MixtureError, match=message):
        family_prior(["ca"], ["ca", "ca"], domains, split)
