"""A proxy reads the same share of every source's documents: by id and seed alone (Zhou et al. 2026, arXiv 2606.07597)."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.config import FieldsConfig, corpora_of_paths
from converters.corpus import Options
from converters.documents import EXCLUDED, OUTSIDE, Selection
from converters.run import convert_corpus
from converters.tasks.executors import Here
from converters.tokens.tokenise import spec_of
from mixstream.streams.documents import read_documents_table
from mixstream.streams.manifest import HELDOUT, TRAIN, read_manifest

ids = st.lists(st.text(min_size=1, max_size=12).filter(lambda text: text.isprintable()), unique=True, max_size=60)
shares = st.floats(0.001, 1.0)
seeds = st.integers(0, 2**63 - 1)
MANY = [f"dokumentua-{n}" for n in range(20_000)]


def inside(selection, some):
    return {own for own, split in zip(some, selection.splits_of(some), strict=True) if split == TRAIN}


@given(ids, st.tuples(shares, shares), st.floats(0, 0.9), seeds, st.randoms())
def test_a_smaller_share_lies_in_a_larger_one_in_any_order(some, two, holdout, seed, random):
    small, large = sorted(two)
    smaller, larger = (inside(Selection(holdout, share, seed), some) for share in (small, large))
    assert smaller <= larger <= inside(Selection(holdout), some)
    shuffled = random.sample(some, len(some))
    assert inside(Selection(holdout, small, seed), shuffled) == smaller
    assert {own for own in some if inside(Selection(holdout, small, seed), [own])} == smaller  # one by one


@given(ids, shares, st.floats(0, 0.9), seeds)
def test_the_held_out_split_stays_whole(some, share, holdout, seed):
    def held_out(selection):
        return [own for own, split in zip(some, selection.splits_of(some), strict=True) if split == HELDOUT]

    assert held_out(Selection(holdout, share, seed)) == held_out(Selection(holdout))


@given(ids, shares, seeds, st.sets(st.integers(0, 59), max_size=9))
def test_the_choice_does_not_depend_on_what_is_held_out_or_excluded(some, share, seed, places):
    """Who is in with nothing held out is in whenever it is not held out itself; likewise for who is excluded."""
    alone = inside(Selection(0.0, share, seed), some)
    assert inside(Selection(0.3, share, seed), some) == alone & inside(Selection(0.3), some)
    excluded = frozenset(own for place, own in enumerate(some) if place in places)
    splits = dict(zip(some, Selection(0.0, share, seed, excluded).splits_of(some), strict=True))
    for own in some:
        assert splits[own] == (EXCLUDED if own in excluded else TRAIN if own in alone else OUTSIDE)


@pytest.mark.parametrize("holdout", [0.0, 0.02, 0.5])
@pytest.mark.parametrize("share", [0.01, 1 / 16, 0.25, 0.9])
def test_sizes_are_near_the_share_whatever_is_held_out(share, holdout):
    """Within five standard deviations: of all documents, and of those that are not held out."""
    for seed in range(5):
        trained = inside(Selection(holdout), MANY)
        taken = inside(Selection(holdout, share, seed), MANY)
        assert abs(len(taken) - share * len(trained)) <= 5 * math.sqrt(len(trained) * share * (1 - share))


def test_seeds_choose_independently():
    one, two = (inside(Selection(0.0, 0.25, seed), MANY) for seed in (1, 2))
    assert abs(len(one & two) - len(MANY) / 16) <= 5 * math.sqrt(len(MANY) * 15) / 16


def test_all_of_it_is_all_of_it():
    assert inside(Selection(0.1, 1.0, 7), MANY) == inside(Selection(0.1), MANY)


def convert(folder, rows, num_files, **options):
    """Convert rows, spread over files, to a stream each of two languages; return {stream: [ids, held-out ids]}."""
    for number in range(num_files):
        lines = [json.dumps(row) + "\n" for row in rows[number::num_files]]
        if lines:
            (folder / f"{number}.jsonl").write_text("".join(lines))
    fields = FieldsConfig(language_field="language", domain="a")
    (corpus,), _ = corpora_of_paths([str(folder)], fields, None)
    out = folder / "out"
    convert_corpus(corpus, out, Options(spec_of("byte"), sequence_length=2, **options), Here())
    return {
        place.name: [read_documents_table(split)["id"].to_pylist() for split in (place, place / HELDOUT)]
        for place in sorted(out.iterdir())
    }, {place.name: read_manifest(place) for place in sorted(out.iterdir())}


@settings(max_examples=12)
@given(
    st.integers(1, 5),
    st.integers(1, 5),
    st.randoms(),
    st.floats(0.2, 0.8),
    st.integers(0, 99),
    st.sampled_from([400, None]),
)
def test_streams_have_the_same_share_of_documents_in_any_files(one, two, random, share, seed, span_bytes):
    rows = [{"id": f"{n}", "text": f"{n} bai", "language": ("eu", "gl")[n % 2]} for n in range(150)]
    found = []
    for num_files, order in ((one, rows), (two, random.sample(rows, len(rows)))):
        with tempfile.TemporaryDirectory() as folder:
            options = {"holdout": 0.2, "subsample": share, "seed": seed}
            found.append(convert(Path(folder), order, num_files, span_bytes=span_bytes, **options))
    (first, manifests), (second, _) = found
    assert {name: [set(split) for split in own] for name, own in first.items()} == {
        name: [set(split) for split in own] for name, own in second.items()
    }
    selection = Selection(0.2, share, seed)
    for name, (train, heldout) in first.items():
        some = [row["id"] for row in rows if name == f"{row['language']}.a"]
        assert set(train) == inside(selection, some)
        assert len(heldout) == manifests[name].heldout_documents == selection.splits_of(some).count(HELDOUT)
        assert (manifests[name].subsample.share, manifests[name].subsample.seed) == (share, seed)


def test_a_proxy_view_of_a_stream_that_is_there_is_a_share_of_its_documents(tmp_path):
    """Given ids or not: the documents of the view are some of the stream's, and its held-out split is the same."""
    for number, given_ids in enumerate((True, False)):
        rows = [{"text": f"{n} testua", "language": "eu"} | ({"id": f"{n}"} if given_ids else {}) for n in range(400)]
        (whole, _), (view, _) = (
            convert(folder, rows, 2, holdout=0.1, **options)
            for folder, options in (
                (tmp_path / f"{number}-whole", {}),
                (tmp_path / f"{number}-view", {"subsample": 0.25, "seed": 17}),
            )
            if folder.mkdir() is None
        )
        assert set(view["eu.a"][0]) < set(whole["eu.a"][0])
        assert view["eu.a"][1] == whole["eu.a"][1]
        assert 0.15 < len(view["eu.a"][0]) / len(whole["eu.a"][0]) < 0.35
