"""The conversion against a slow, obvious one: lists of documents, in one go, in memory."""

from __future__ import annotations

import json
import math
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.config import FieldsConfig, OptionsConfig, corpora_of_paths
from converters.documents import Document, Fields, Selection, UnfitError, below, is_held_out
from converters.readers import MISSING
from converters.run import convert_corpus
from converters.tasks.executors import executor_of
from mixstream.errors import CorpusError
from mixstream.streams.catalog import open_stream
from mixstream.streams.manifest import read_manifest
from mixstream.streams.verify import verify_streams

TEXT = st.text(min_size=1, max_size=40).filter(lambda text: not text.isspace())
ROW = st.fixed_dictionaries(
    {"text": TEXT, "lang": st.sampled_from(["eu", "ca", "gl"])},
    optional={"id": st.integers(0, 99) | st.text(min_size=1, max_size=3), "score": st.floats(-5, 5) | st.none()},
)
ROWS = st.lists(ROW, min_size=1, max_size=60)


class Shuffled(Executor):
    """Runs what it was given in another order, when its results are asked for."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._waiting: list = []

    def submit(self, function, /, *arguments, **named):
        future = Future()
        self._waiting.append((future, function, arguments))
        if len(self._waiting) > self._random.randrange(4):
            self._random.shuffle(self._waiting)
            while self._waiting:
                waiting, work, own = self._waiting.pop()
                if waiting.set_running_or_notify_cancel():
                    waiting.set_result(work(*own))
        return future

    def run_rest(self):
        while self._waiting:
            waiting, work, own = self._waiting.pop()
            waiting.set_result(work(*own))


@contextmanager
def small_pieces() -> Iterator[pytest.MonkeyPatch]:
    """Have blocks of a few documents, and several buckets of hashes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("converters.tasks.parts.BLOCK_BYTES", 64)
        patch.setattr("converters.tasks.duplicates.BUCKET_DOCUMENTS", 7)
        patch.setattr("converters.tasks.executors.BUNDLE_TASKS", 2)
        patch.setattr("converters.tasks.grouping.FEW_RUNS", 2)
        patch.setattr("converters.tasks.grouping.CHUNK_ROWS", 3)
        yield patch


def write_rows(folder: Path, rows: list[dict], num_files: int = 1) -> Path:
    folder.mkdir(parents=True)
    each = -(-len(rows) // num_files)
    for number in range(num_files):
        own = rows[number * each : (number + 1) * each]
        if own:
            (folder / f"{number}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    return folder


def convert(folder: Path, out: Path, fields: dict, options: dict, executor: Executor | None = None):
    found, _ = corpora_of_paths([str(folder)], FieldsConfig(**fields), None)
    with executor_of(0) as here:
        return convert_corpus(found[0], out, OptionsConfig(**options).options(), executor or here)


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def columns_of(directory: Path, name: str, sequence_length: int) -> dict[str, np.ndarray]:
    from mixstream.streams.reader import MdsReader

    reader = MdsReader.open(directory)
    samples = [reader[i] for i in range(len(reader))]
    return {key: np.array([sample[key] for sample in samples]) for key in samples[0]}


def reference(rows: list[dict], fields: Fields, options: dict) -> dict[tuple[str, str], list[tuple[str, bytes, float]]]:
    """Return (id, text, score) of the documents of each (stream, split)."""
    streams: dict[tuple[str, str], list[tuple[str, bytes, float]]] = {}
    seen = set()
    for row in rows:
        values = [row.get(name, MISSING) for name in fields.asked]
        document = fields.document(values)
        held = is_held_out(document.id, options["holdout"])
        if document.id in options.get("excluded", ()):
            continue
        if options.get("deduplicate") and (document.stream, document.content) in seen:
            continue
        seen.add((document.stream, document.content))
        share = options.get("subsample")
        if (
            not held
            and share is not None
            and Selection(0.0, share, options["seed"]).splits_of([document.id]) != ["train"]
        ):
            continue
        score = document.kept[0] if document.kept else math.nan
        streams.setdefault((document.stream, "heldout" if held else "train"), []).append(
            (document.id, document.content, score)
        )
    return streams


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=ROWS,
    num_files=st.integers(1, 3),
    span_bytes=st.integers(1, 3000),
    length=st.integers(2, 30),
    layout=st.sampled_from(["packed", "documents"]),
    deduplicate=st.booleans(),
    subsample=st.none() | st.floats(0.2, 1.0),
    shard_bytes=st.integers(1024, 3000),
    exclude=st.booleans(),
    seed=st.integers(0, 9),
)
def test_a_conversion_is_what_lists_in_memory_give(
    tmp_path, rows, num_files, span_bytes, length, layout, deduplicate, subsample, shard_bytes, exclude, seed
):
    """No token lost, nothing twice, the same bytes whatever the order of tasks; counts add up to the rows."""
    work = Path(tempfile.mkdtemp(dir=tmp_path))
    # Duplicates among them, in the way that corpora have them: with another id.
    rows = rows + [{**row, "id": f"again {i}"} for i, row in enumerate(rows[::3])]
    folder = write_rows(work / "in", rows, num_files)
    fields = {"language_field": "lang", "domain": "web", "keep": ("score",)}
    options = {
        "sequence_length": length,
        "holdout": 0.2,
        "layout": layout,
        "deduplicate": deduplicate,
        "subsample": subsample,
        "seed": seed,
        "shard_bytes": shard_bytes,
        "span_bytes": span_bytes,
    }
    excluded = sorted({str(row["id"]) for row in rows[::5] if "id" in row} - {""}) if exclude else []
    if exclude:
        plain = [own for own in excluded if own.splitlines() == [own]]
        excluded = plain
        (work / "exclude").write_bytes("".join(f"{own}\n" for own in plain).encode())
        options["exclude"] = str(work / "exclude")
    own_fields = FieldsConfig(**fields).fields()
    taken = reference(rows, own_fields, {**options, "excluded": set(excluded), "deduplicate": False})
    if all(math.isnan(score) for own in taken.values() for _, _, score in own):
        with pytest.raises(CorpusError, match=r"no document has a number in field 'score' \(--keep\)"):
            convert(folder, work / "a", fields, options)
        return
    expected = reference(rows, own_fields, {**options, "excluded": set(excluded)})
    units = {key: sum(len(content) + 1 for _, content, _ in own) // length for key, own in expected.items()}
    if layout == "documents":
        units = {key: len(own) for key, own in expected.items()}
    whole = {stream for stream, split in expected if split == "train" and units[stream, split]}
    if not whole:
        with small_pieces(), pytest.raises(CorpusError, match="tokens are fewer than one sample of"):
            convert(folder, work / "a", fields, options)
        return
    with small_pieces():
        converted = convert(folder, work / "a", fields, options)
    assert set(converted.manifests) == whole
    assert set(converted.too_small) == {stream for stream, _ in expected} - whole
    for stream in whole:
        for split in ("train", "heldout"):
            directory = work / "a" / stream / ("heldout" if split == "heldout" else "")
            assert (split in converted.manifests[stream]) == bool(units.get((stream, split)))
            if split in converted.manifests[stream]:
                check_split(directory, expected[stream, split], length, layout)
    in_streams = sum(len(expected[key]) for key in expected if key[0] in whole)
    assert in_streams + sum(converted.counts.values()) == len(rows)
    assert all(not verdict.problems for verdict in verify_streams(work / "a"))

    with small_pieces() as patch:
        again = Shuffled(seed)

        class Ended(SimpleQueue):
            def get(self):
                again.run_rest()
                return super().get()

        patch.setattr("converters.tasks.executors.SimpleQueue", Ended)
        convert(folder, work / "b", fields, options, again)
    assert everything_in(work / "a") == everything_in(work / "b")
    shutil.rmtree(work)


def check_split(directory: Path, documents: list[tuple[str, bytes, float]], length: int, layout: str) -> None:
    manifest = read_manifest(directory)
    columns = columns_of(directory, directory.name, length)
    tokens = [[*content, 256] for _, content, _ in documents]
    scores = [score for _, _, score in documents]
    joined = [token for own in tokens for token in own]
    assert manifest.num_documents == len(documents)
    assert manifest.num_bytes == sum(len(content) for _, content, _ in documents)
    if layout == "packed":
        whole = len(joined) // length * length
        assert columns["tokens"].ravel().tolist() == joined[:whole]
        assert manifest.remainder_tokens == len(joined) - whole
        by_token = [score for own, score in zip(tokens, scores, strict=True) for _ in own][:whole]
        means = []
        for first in range(0, whole, length):
            known = [score for score in by_token[first : first + length] if not math.isnan(score)]
            means.append(sum(known) / len(known) if known else math.nan)
        np.testing.assert_allclose(columns["score"], means, rtol=1e-9, atol=1e-9)
        begins = np.cumsum([0, *(len(own) for own in tokens)])[:-1].tolist()
    else:
        pad = manifest.pad_token_id
        assert columns["tokens"].tolist() == [(own + [pad] * length)[:length] for own in tokens]
        np.testing.assert_array_equal(columns["score"], scores)
        assert manifest.truncated_tokens == sum(max(len(own) - length, 0) for own in tokens)
        assert manifest.padding_tokens == sum(max(length - len(own), 0) for own in tokens)
        begins = [i * length for i in range(len(documents))]
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(directory / "documents.parquet").to_pydict()
    assert table["id"] == [document_id for document_id, _, _ in documents]
    assert table["begin"] == begins
    assert table["num_tokens"] == [len(own) for own in tokens]
    assert [math.nan if own is None else own for own in table["score"]] == pytest.approx(scores, nan_ok=True, abs=0)


@given(
    st.lists(
        st.tuples(TEXT | st.none() | st.just(""), st.text(max_size=3) | st.integers() | st.none(), st.text(max_size=2))
    )
)
def test_documents_by_column_are_those_one_by_one(rows):
    fields = Fields(language_field="lang", domain="web")
    columns = tuple(zip(*rows, strict=True)) if rows else ((), (), ())
    one_by_one, problems = [], 0
    for row in rows:
        try:
            one_by_one.append(fields.document(row))
        except UnfitError:
            problems += 1
    if problems:
        with pytest.raises(UnfitError):
            fields.documents(columns)
    else:
        assert list(map(Document._make, zip(*fields.documents(columns), strict=True))) == one_by_one


@given(st.lists(st.text(max_size=5), min_size=200, max_size=200, unique=True), st.floats(0, 1), st.floats(0, 1))
def test_a_smaller_share_takes_a_part_of_a_larger_one(ids, one, other):
    small, large = (below(ids, share, 5) for share in sorted((one, other)))
    assert all(is_in_large for is_in_small, is_in_large in zip(small, large, strict=True) if is_in_small)
    assert abs(sum(large) / 200 - max(one, other)) < 0.25


def test_what_has_no_id_gets_one_of_its_stream_and_its_text():
    fields = [Fields(language="eu", domain=domain) for domain in ("wiki", "web")]
    ids = [own.document(("kaixo", given)).id for own in fields for given in (None, MISSING)]
    assert Counter(ids).most_common(2) == [(ids[0], 2), (ids[2], 2)]
    with pytest.raises(
        UnfitError, match=r"there is no field 'url', expected a string or a whole number \(--id-field\)"
    ):
        Fields(id="url", language="eu", domain="web").document(("kaixo", MISSING))


def test_open_stream_reads_columns_beside_the_tokens(tmp_path):
    rows = [{"text": f"{i} kaixo" * 5, "score": i} for i in range(30)]
    folder = write_rows(tmp_path / "in" / "eu.web", rows)
    convert(folder.parent, tmp_path / "out", {"keep": ("score",)}, {"sequence_length": 16, "holdout": 0.0})
    stream = open_stream("eu.web", tmp_path / "out" / "eu.web")
    assert stream.index.column_names == ("score", "tokens")
    assert stream.open_shard(0).read(np.arange(2)).shape == (2, 16)


@pytest.mark.parametrize("layout", ["packed", "documents"])
def test_kept_fields_are_right_in_every_shard(tmp_path, layout):
    """Shards begin in the midst of documents."""
    rows = [{"id": f"d{i}", "text": f"{i} kaixo mundua" * (1 + i % 5), "score": i * i / 7} for i in range(150)]
    folder = write_rows(tmp_path / "in" / "eu.web", rows)
    options = {"sequence_length": 24, "holdout": 0.2, "layout": layout, "shard_bytes": 1500, "span_bytes": 2000}
    convert(folder.parent, tmp_path / "out", {"keep": ("score",)}, options)
    assert len(list((tmp_path / "out" / "eu.web").glob("shard.*.mds"))) > 5
    fields = FieldsConfig(keep=("score",)).fields("eu.web")
    for (stream, split), documents in reference(rows, fields, options).items():
        directory = tmp_path / "out" / stream / ("heldout" if split == "heldout" else "")
        check_split(directory, documents, 24, layout)
