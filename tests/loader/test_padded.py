"""A mixture of packed streams and one of a document a sample: padding has no labels and is no document's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import BYTE
from documented import EOD, PAD, texts, write_documented
from hypothesis import given
from hypothesis import strategies as st

from mixstream import Catalog, build_plan
from mixstream.errors import MixtureError
from mixstream.loader import MixtureLoader
from mixstream.loader.documents import IGNORED, document_columns, padding_of
from mixstream.streams.reader import MdsReader

DOCUMENTS = texts(60, seed=3)


@pytest.fixture(scope="module", params=[PAD, EOD], ids=["own padding", "ends as padding"])
def catalog(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("padded")
    write_documented(root / "eu.packed", texts(90))
    write_documented(root / "eu.padded", DOCUMENTS, layout="documents", pad_token_id=request.param)
    return Catalog.open(root)


def plan_of(catalog, **options):
    weights = {"eu.packed": 0.5, "eu.padded": 0.5}
    return build_plan(catalog, weights, 20 * 12 * 8, 12, window_samples=20, **options)


def slow_rows(catalog, batch, row):
    """Return tokens, labels, documents and positions of a row of a batch, a token at a time."""
    name = catalog.names[batch["stream"][row]]
    tokens = MdsReader.open(catalog[name].directory)[int(batch["sample"][row])]["tokens"].tolist()
    labels, documents, positions, document, position = [], [], [], 0, 0
    for token in tokens:
        is_padding = name == "eu.padded" and document == 1
        labels.append(IGNORED if is_padding else token)
        documents.append(document)
        positions.append(position)
        position += 1
        if token == EOD and not is_padding:
            document, position = document + 1, 0
    return tokens, labels, documents, positions


@pytest.mark.parametrize(("world_size", "num_workers"), [(1, 0), (3, 0), (2, 2)])
def test_rows_are_those_of_a_loop_on_all_ranks_and_workers(catalog, world_size, num_workers):
    plan, seen = plan_of(catalog), set()
    loaders = [MixtureLoader(plan, rank, world_size, num_workers, documents=True) for rank in range(world_size)]
    for parts in zip(*loaders, strict=True):
        for batch in parts:
            for row in range(len(batch["stream"])):
                tokens, labels, documents, positions = slow_rows(catalog, batch, row)
                assert batch["input_ids"][row].tolist() == tokens
                assert batch["labels"][row].tolist() == labels
                assert batch["document_ids"][row].tolist() == documents
                assert batch["position_ids"][row].tolist() == positions
                seen.add((int(batch["stream"][row]), IGNORED in labels))
    assert seen == {(0, False), (1, False), (1, True)}
    for loader in loaders:
        loader.close()


def test_without_labels_there_is_only_what_was_read(catalog):
    plan = plan_of(catalog)
    for batch, whole in zip(MixtureLoader(plan, labels=False), MixtureLoader(plan), strict=True):
        assert set(batch) == {"input_ids", "stream", "sample", "repeat"}
        assert torch.equal(batch["input_ids"], whole["input_ids"])


def test_the_catalog_tells_layouts(catalog):
    assert [stream.layout for stream in catalog] == ["packed", "documents"]


def test_parts_of_padded_samples_are_refused(catalog):
    with pytest.raises(MixtureError, match="sequence_length=4: samples of eu.padded are a document and its padding"):
        MixtureLoader(plan_of(catalog, sequence_length=4))


@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=4))
def test_padding_is_what_stands_behind_the_first_end(rows):
    found = padding_of(np.array(rows), 2)
    for row, padding in zip(rows, found.tolist(), strict=True):
        first = row.index(2) if 2 in row else 5
        assert padding == [place > first for place in range(5)]
    padded = torch.tensor([number % 2 == 0 for number in range(len(rows))])
    columns, plain = document_columns(torch.tensor(rows), 2, padded), document_columns(torch.tensor(rows), 2)
    for number in range(len(rows)):
        if number % 2 == 0:
            assert columns["document_ids"][number].tolist() == found[number].astype(int).tolist()
        else:
            assert torch.equal(columns["position_ids"][number], plain["position_ids"][number])
    assert BYTE.eod_token_id == EOD
