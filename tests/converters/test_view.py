"""Views cut out of streams are what a conversion with that subsample makes, and they lie within each other."""

from __future__ import annotations

import itertools
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
from converting import convert, files_of, tokens_of, write_lines
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from converters.documents import HELDOUT_SEED, Selection, below, inside, subsample_hashes
from converters.tasks.choosing import num_cut
from converters.view import proxy_view
from mixstream.errors import CorpusError, StreamError
from mixstream.streams.documents import read_documents_table
from mixstream.streams.manifest import TRAIN, read_manifest
from mixstream.streams.reader import MdsReader
from mixstream.streams.verify import verify_streams

OTHER = {"version", "view", "conversion"}  # what stream.json says otherwise than that of a conversion


@st.composite
def corpora(draw):
    """Rows of a corpus of one or two streams: short and long documents, numbers, some texts twice."""
    chance = random.Random(draw(st.integers(0, 2**32)))
    longest = draw(st.sampled_from([3, 12, 80]))
    languages = draw(st.sampled_from([("eu",), ("eu", "gl")]))
    texts = [
        "".join(chance.choices("abcdé ", k=chance.randint(0, longest))) + "." for _ in range(chance.randint(30, 90))
    ]
    return [
        {
            "id": f"d{number}",
            "text": chance.choice(texts) if number % 7 == 0 else text,
            "language": chance.choice(languages),
            "score": chance.random() if number % 3 else None,
        }
        for number, text in enumerate(texts)
    ]


options = st.fixed_dictionaries(
    {
        "layout": st.sampled_from(["packed", "documents"]),
        "sequence_length": st.sampled_from([2, 5, 16, 64]),
        "holdout": st.sampled_from([0.0, 0.2]),
        "keep": st.sampled_from([[], ["score"]]),
        "compression": st.sampled_from([None, "zstd:1"]),
        "shard_bytes": st.sampled_from([1024, 1 << 20]),
        "deduplicate": st.booleans(),
    }
)
shares = st.sampled_from([1 / 16, 0.2, 0.5, 0.9, 1.0]) | st.floats(0.02, 1)


def missing_of(place, length):
    """Return of each document of a packed split how many of its tokens are in no sample."""
    table = read_documents_table(place)
    end = read_manifest(place).num_samples * length
    ends = np.cumsum(table["num_tokens"].to_numpy())
    return dict(zip(table["id"].to_pylist(), np.clip(ends - end, 0, table["num_tokens"].to_numpy()), strict=True))


def to_be_cut(place, share, seed, length):
    """Return the last chosen documents, as few as will do, without which every sample's tokens are there: slowly."""
    table, missing = read_documents_table(place), missing_of(place, length)
    rows = zip(table["id"].to_pylist(), table["num_tokens"].to_pylist(), strict=True)
    chosen = [row for row, taken in zip(rows, inside(table["id"].to_pylist(), share, seed), strict=True) if taken]
    for cut in range(len(chosen) + 1):
        kept = chosen[: len(chosen) - cut]
        there = [k < size - missing[own] for own, size in kept for k in range(size)]
        if all(there[: len(there) // length * length]):
            return [own for own, _ in chosen[len(chosen) - cut :]]
    raise AssertionError("no documents need no tokens")


@settings(max_examples=25)
@given(corpora(), options, shares, st.integers(0, 2**40), st.booleans())
def test_it_is_what_a_conversion_with_that_subsample_makes(rows, options, share, seed, two_views):
    """In every byte but stream.json; of the documents that were left out at the end, one that excludes them."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        source = write_lines(root / "rows.jsonl", rows)
        common = {"language_field": "language", "domain": "a"} | options
        try:
            convert([source], root / "whole", **common)
        except CorpusError:
            assume(False)
        names = sorted(path.name for path in (root / "whole").iterdir())
        packed, length = options["layout"] == "packed", options["sequence_length"]
        cut = {name: to_be_cut(root / "whole" / name, share, seed, length) if packed else [] for name in names}
        (root / "cut").write_text("".join(f"{own}\n" for own in itertools.chain(*cut.values())))
        excluding = {"exclude": str(root / "cut")} if any(cut.values()) else {}
        if excluding and options["deduplicate"]:
            return  # another document of the same text would take the place of one that is excluded
        try:
            convert([source], root / "asked", subsample=share, seed=seed, **common, **excluding)
        except CorpusError as problem:
            if "no document has a number in field" in str(problem):
                return  # none of those that were chosen: a view keeps its stream's columns all the same
            with pytest.raises(StreamError, match="keeps 0 of"):
                proxy_view(root / "whole", root / "view", share, seed)
            return
        made = sorted(path.name for path in (root / "asked").iterdir())
        view = proxy_view(root / "whole", root / "view", share, seed, streams_named=made)
        assert {name: manifest.view.cut_documents for name, manifest in view.manifests.items()} == {
            name: len(cut[name]) for name in made
        }
        asked, found = files_of(root / "asked"), files_of(root / "view")
        assert asked.keys() == found.keys()
        assert [name for name in asked if asked[name] != found[name] and not name.endswith("stream.json")] == []
        for name in made:
            _check_manifests(root, name, bool(excluding), options["deduplicate"])
        assert [verdict.problems for verdict in verify_streams(root / "view")] == [()] * len(
            verify_streams(root / "asked")
        )


def _check_manifests(root, name, excluding, deduplicate):
    asked, view, whole = (read_manifest(root / which / name) for which in ("asked", "view", "whole"))
    differing = {key for key in type(view).model_fields if getattr(asked, key) != getattr(view, key)}
    expected = (
        OTHER | ({"excluded_documents"} if excluding else set()) | ({"duplicate_documents"} if deduplicate else set())
    )
    assert OTHER <= differing <= expected
    assert view.conversion == whole.conversion
    assert view.duplicate_documents == whole.duplicate_documents
    heldout = root / "view" / name / "heldout"
    if heldout.exists():
        assert files_of(heldout) == files_of(root / "whole" / name / "heldout")


@settings(max_examples=10)
@given(corpora(), options, st.tuples(shares, shares), st.integers(0, 99))
def test_views_lie_within_each_other_and_a_view_of_a_view_is_one_of_the_whole(rows, options, two, seed):
    small, large = sorted(two)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        try:
            convert([write_lines(root / "rows.jsonl", rows)], root / "whole", name="eu.a", **options)
            proxy_view(root / "whole", root / "large", large, seed)
            proxy_view(root / "whole", root / "small", small, seed)
            proxy_view(root / "large", root / "again", small, seed)
        except (CorpusError, StreamError):
            assume(False)
        found = {
            which: read_documents_table(root / which / "eu.a")["id"].to_pylist()
            for which in ("whole", "large", "small", "again")
        }
        lost = set(found["whole"][-_reaching(root / "whole" / "eu.a") or len(found["whole"]) :])
        assert set(found["small"]) <= set(found["large"]) | lost
        assert found["small"] == [own for own in found["whole"] if own in set(found["small"])]
        assert (
            found["again"] == found["small"][: len(found["again"])] or set(found["again"]) - set(found["small"]) <= lost
        )
        if found["again"] == found["small"]:
            small_files, again = (files_of(root / which) for which in ("small", "again"))
            assert small_files.keys() == again.keys()
            assert {name for name in again if again[name] != small_files[name]} <= {"eu.a/stream.json"}


def _reaching(place):
    """Return how many documents of a split have tokens in no sample, at least 1."""
    manifest = read_manifest(place)
    if manifest.layout == "documents":
        return 1
    return max(1, sum(own > 0 for own in missing_of(place, manifest.sequence_length).values()))


@pytest.mark.parametrize("longest", [3, 300])
def test_documents_of_the_remainder_are_left_out_only_where_a_sample_would_need_them(tmp_path, longest):
    """Of remainders of many documents, and of a part of one: both ways occur, as often as docs/converting.md says."""
    chance, cut, share, length = random.Random(longest), [], 0.5, 64
    for number in range(4):
        rows = [{"id": f"{number}-{n}", "text": "x" * chance.randint(1, longest)} for n in range(150)]
        whole = tmp_path / f"{number}"
        convert([write_lines(tmp_path / "rows.jsonl", rows)], whole, "eu.a", sequence_length=length, holdout=0.0)
        for seed in range(8):
            view = proxy_view(whole, tmp_path / "view", share, seed, overwrite=True).manifests["eu.a"]
            expected = to_be_cut(whole / "eu.a", share, seed, length)
            ids, found = (read_documents_table(own / "eu.a")["id"].to_pylist() for own in (whole, tmp_path / "view"))
            chosen = [own for own, taken in zip(ids, inside(ids, share, seed), strict=True) if taken]
            assert found == [own for own in chosen if own not in expected]
            cut.append(view.view.cut_documents)
            assert cut[-1] == len(expected)
    assert 0.1 < np.mean(np.array(cut) > 0) < 0.4


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), max_size=6), st.integers(0, 200), st.integers(1, 40))
def test_as_few_documents_are_cut_as_will_do(reaching, before, length):
    """However the remainder came about: what is missing is in the view's own remainder."""
    reaching = [(max(own), min(own)) for own in reaching]
    cut = num_cut(before + sum(own for own, _ in reaching), reaching, length)

    def will_do(count):
        kept = reaching[: len(reaching) - count]
        return sum(own for _, own in kept) <= (before + sum(own for own, _ in kept)) % length

    assert will_do(cut)
    assert not any(will_do(fewer) for fewer in range(cut))


@given(st.lists(st.text(min_size=1, max_size=9), max_size=40), st.floats(0.001, 1), st.integers(0, 2**63 - 1))
def test_the_rule_is_the_conversion_s(ids, share, seed):
    ids = [own for own in ids if own.isprintable()]
    held_out = below(ids, 0.3, HELDOUT_SEED)
    taken = [own == TRAIN for own in Selection(0.3, share, seed).splits_of(ids)]
    chosen = inside(ids, share, seed)
    assert taken == [one and not other for one, other in zip(chosen, held_out, strict=True)]
    assert chosen == [own / 2**64 < share for own in subsample_hashes(ids, seed)] or share > 0.999


def test_documents_longer_than_a_sample_stay_whole_in_the_table_and_cut_off_in_the_samples(tmp_path):
    rows = [{"id": f"{n}", "text": f"{n:03} " + "x" * (n % 50)} for n in range(300)]
    source = write_lines(tmp_path / "rows.jsonl", rows)
    convert([source], tmp_path / "whole", "eu.a", layout="documents", sequence_length=16, holdout=0.0)
    view = proxy_view(tmp_path / "whole", tmp_path / "view", 0.25, 7).manifests["eu.a"]
    table = read_documents_table(tmp_path / "view" / "eu.a")
    tokens = tokens_of(tmp_path / "view" / "eu.a")
    lengths = table["num_tokens"].to_numpy()
    assert lengths.max() > 16
    assert view.truncated_tokens == np.maximum(lengths - 16, 0).sum() > 0
    assert view.padding_tokens == np.maximum(16 - lengths, 0).sum() > 0
    for own, length, sample in zip(table["id"].to_pylist(), lengths, tokens, strict=True):
        text = rows[int(own)]["text"].encode()
        assert length == len(text) + 1
        assert bytes(sample[: min(16, length - 1)].astype("u1")) == text[:16]


def test_what_is_read_and_held_does_not_grow_with_the_stream(tmp_path):
    """Of ten times the stream the peak is the same: a shard or two, and a batch of documents."""
    import tracemalloc

    peaks = []
    for number, count in enumerate((2_000, 20_000)):
        rows = ({"id": f"{n}", "text": f"{n} " * 60} for n in range(count))
        source = write_lines(tmp_path / f"{number}.jsonl", rows)
        out = tmp_path / f"whole{number}"
        convert([source], out, "eu.a", sequence_length=256, shard_bytes=1 << 18, holdout=0.0)
        tracemalloc.start()
        proxy_view(out, tmp_path / f"view{number}", 0.5, 1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 20_000 * 200  # the documents of one batch, as Python's objects; the tokens are 13 MB
    stored = sum(map(len, files_of(tmp_path / "whole1").values()))
    assert peaks[1] < stored / 1.5


def test_by_sample_rows_are_those_of_the_stream_and_lie_within_each_other(tmp_path):
    rows = [{"id": f"{n}", "text": f"{n} testua", "score": n / 7} for n in range(500)]
    source = write_lines(tmp_path / "rows.jsonl", rows)
    convert([source], tmp_path / "whole", "eu.a", keep=["score"], sequence_length=16, shard_bytes=1200)
    whole = [(tuple(row["tokens"]), row["score"]) for row in MdsReader.open(tmp_path / "whole" / "eu.a")]
    found = {}
    for share in (0.1, 0.4, 1.0):
        view = proxy_view(tmp_path / "whole", tmp_path / f"{share}", share, 3, by="sample").manifests["eu.a"]
        found[share] = [(tuple(own["tokens"]), own["score"]) for own in MdsReader.open(tmp_path / f"{share}" / "eu.a")]
        numbers = [n for n in range(len(whole)) if inside([f"eu.a/{n}"], share, 3)[0]]
        assert found[share] == [whole[n] for n in numbers]
        assert (view.view.by, view.view.share, view.view.seed, view.subsample) == ("sample", share, 3, None)
        assert view.num_documents is view.num_bytes is view.remainder_tokens is None
        assert [verdict.problems for verdict in verify_streams(tmp_path / f"{share}")] == [(), ()]
    assert set(found[0.1]) < set(found[0.4]) < set(found[1.0]) == set(whole)
    assert 0.3 < len(found[0.4]) / len(whole) < 0.5
