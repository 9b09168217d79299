"""What tells of documents is uploaded with its stream, before the index that makes it one."""

from __future__ import annotations

from documented import texts, write_documented

from mixstream.streams.documents import read_documents_table
from mixstream.streams.place import find_place
from mixstream.streams.upload import local_stream, upload_streams


def test_documents_and_rejects_go_along_before_the_index(tmp_path, bucket, proxy):
    stream = tmp_path / "eu.a"
    write_documented(stream, texts(60), quality=True)
    write_documented(stream / "heldout", texts(20, seed=1), quality=True, split="heldout")
    (stream / "rejects.jsonl").write_text('{"problem": "empty"}\n')
    (stream / "heldout" / "rejects.jsonl").write_text("{}\n")
    url = f"{bucket.url}/streams"
    (first,) = upload_streams(tmp_path, url)
    assert not first.kept
    assert set(find_place(f"{url}/eu.a").sizes()) == set(local_stream(stream).sizes)
    assert read_documents_table(find_place(f"{url}/eu.a/heldout")) == read_documents_table(stream / "heldout")
    put = [record.path.partition("/eu.a/")[2] for record in proxy.log() if record.method == "PUT"]
    beside = ["documents.parquet", "heldout/documents.parquet", "heldout/rejects.jsonl", "rejects.jsonl"]
    assert max(put.index(path) for path in beside) < put.index("heldout/index.json") < put.index("index.json")
    # Once more it is kept; another documents.parquet is brought again.
    (again,) = upload_streams(tmp_path, url)
    assert again.kept
    (find_place(f"{url}/eu.a") / "documents.parquet").delete()
    (mended,) = upload_streams(tmp_path, url)
    assert not mended.kept
    assert set(find_place(f"{url}/eu.a").sizes()) == set(local_stream(stream).sizes)
    # A stream without rejects leaves none of another one's there.
    (stream / "rejects.jsonl").unlink()
    upload_streams(tmp_path, url)
    assert "rejects.jsonl" not in find_place(f"{url}/eu.a").sizes()
