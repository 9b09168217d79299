"""Where documents begin, against a loop; and the columns that a batch has."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reading import plan_of

from mixstream import Catalog
from mixstream.errors import MixtureError
from mixstream.loader import MixtureLoader
from mixstream.loader.documents import document_columns

EOD = 2


def slow_columns(row):
    documents, positions, document, position = [], [], 0, 0
    for token in row:
        documents.append(document)
        positions.append(position)
        position += 1
        if token == EOD:
            document, position = document + 1, 0
    return documents, positions


@given(st.integers(1, 12), st.data())
def test_documents_and_positions_are_those_of_a_loop(length, data):
    rows = data.draw(st.lists(st.lists(st.integers(0, 3), min_size=length, max_size=length), min_size=1, max_size=5))
    found = document_columns(torch.tensor(rows), EOD)
    for number, row in enumerate(rows):
        documents, positions = slow_columns(row)
        assert found["document_ids"][number].tolist() == documents
        assert found["position_ids"][number].tolist() == positions
    assert {column.dtype for column in found.values()} == {torch.int64}


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_batch_has_the_columns_that_were_asked_for(catalog, num_workers):
    plan = plan_of(catalog, batches=5)
    tokenizer = plan.tokenizer.model_copy(update={"eod_token_id": EOD})  # a token that rows have: ..., 0, 1, 2, 3, 4
    plan = plan.model_copy(update={"tokenizer": tokenizer})
    whole = list(MixtureLoader(plan))
    asked = list(MixtureLoader(plan, num_workers=num_workers, labels=False, documents=True))
    assert len(asked) == 5
    for batch, known in zip(asked, whole, strict=True):
        assert set(batch) == {"input_ids", "stream", "sample", "repeat", "document_ids", "position_ids"}
        assert torch.equal(batch["input_ids"], known["input_ids"])
        for row in range(12):
            expected = slow_columns(batch["input_ids"][row].tolist())
            assert (batch["document_ids"][row].tolist(), batch["position_ids"][row].tolist()) == expected
    assert any(batch["document_ids"].max() > 0 for batch in asked)


def test_documents_of_an_unknown_tokenizer_are_refused(catalog):
    unknown = {name: dataclasses.replace(stream, tokenizer=None) for name, stream in catalog.streams.items()}
    with pytest.raises(MixtureError, match="documents=True: the streams do not say which token ends a document"):
        MixtureLoader(plan_of(Catalog(catalog.root, unknown)), documents=True)
