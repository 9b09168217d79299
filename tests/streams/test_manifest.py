"""stream.json: old files stay readable, counts that contradict each other are refused."""

from __future__ import annotations

import pytest
from conftest import BYTE, save_manifest

from mixstream.errors import FormatError
from mixstream.streams.manifest import StreamManifest, read_manifest

LEAST = {
    "name": "eu.a",
    "language": "eu",
    "domain": "a",
    "num_samples": 4,
    "num_tokens": 32,
    "sequence_length": 8,
    "dtype": "uint16",
    "tokenizer": BYTE.model_dump(),
}


def manifest(**more) -> StreamManifest:
    return StreamManifest.model_validate(LEAST | more)


def test_a_manifest_of_before_reads_as_packed(tmp_path, edit_json):
    old = manifest(remainder_tokens=3, sources=({"name": "a.jsonl", "size_bytes": 9, "sha256": "0"},))
    save_manifest(tmp_path, old)
    later = ("layout", "columns", "conversion", "subsample", "id_field", "pad_token_id", "padding_tokens")
    edit_json(tmp_path / "stream.json", lambda content: [content.pop(key) for key in later])
    found = read_manifest(tmp_path)
    assert found == old
    assert (found.layout, found.columns, found.document_tokens) == ("packed", (), 35)


def test_all_that_a_conversion_knows_is_kept(tmp_path):
    whole = manifest(
        layout="documents",
        num_documents=4,
        padding_tokens=5,
        truncated_tokens=2,
        pad_token_id=0,
        num_bytes=29,
        columns=("quality",),
        duplicate_documents=1,
        excluded_documents=2,
        rejected_documents=3,
        subsample={"share": 0.5, "seed": 17},
        id_field="meta.id",
        conversion={"fingerprint": "f", "streams": ("eu.a", "ca.a")},
        sources=({"name": "s3://bucket/a.jsonl", "size_bytes": 9, "etag": "x"},),
    )
    save_manifest(tmp_path, whole)
    assert read_manifest(tmp_path) == whole
    assert whole.document_tokens == 29
    assert whole.tokens_per_byte == 1.0
    assert manifest(num_bytes=64).tokens_per_byte == 0.5


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"remainder_tokens": 8}, "remainder_tokens 8 fill a sample of 8; expected fewer"),
        ({"padding_tokens": 1}, "padding_tokens 1, truncated_tokens None; layout packed has none"),
        ({"truncated_tokens": 1}, "padding_tokens 0, truncated_tokens 1; layout packed has none"),
        ({"layout": "documents", "num_documents": 5}, "num_samples 4, num_documents 5; layout documents has one"),
        ({"layout": "documents", "remainder_tokens": 5}, "remainder_tokens 5; layout documents has none"),
        ({"layout": "documents", "padding_tokens": 29}, "padding_tokens 29 of 32; expected a token of its own in each"),
        ({"layout": "rows"}, "layout: Input should be 'packed' or 'documents'"),
    ],
)
def test_counts_that_contradict_each_other_are_refused(tmp_path, edit_json, wrong, match):
    save_manifest(tmp_path, manifest())
    edit_json(tmp_path / "stream.json", lambda content: content.update(wrong))
    with pytest.raises(FormatError, match=match):
        read_manifest(tmp_path)
