"""RemoteFile: an object read as a file, against the bytes it holds and a store that fails."""

from __future__ import annotations

import io
import json
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.readers import Asked, read_span, spans
from converters.sources import find_files
from mixstream.errors import RemoteError
from mixstream.streams.remote import Patience, RemoteFile, RemoteFolder, look

pytest.importorskip("obstore", reason="obstore is not installed; it needs Python 3.11")

SHORT = Patience(give_up_seconds=8.0, first_delay_seconds=0.01, max_delay_seconds=0.05, stall_seconds=0.5)
DATA = random.Random(3).randbytes(1_000_003)
PIECE = 100_000


def opened(url, **options):
    return RemoteFile(RemoteFolder.open(url, SHORT), **{"piece_bytes": PIECE, **options})


def gets(proxy):
    return [record for record in proxy.log() if record.method == "GET"]


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    path = tmp_path_factory.mktemp("remote") / "object"
    path.write_bytes(DATA)
    return path.as_uri()


steps = st.lists(
    st.tuples(st.just("read"), st.integers(-1, 300_000))
    | st.tuples(st.just("into"), st.integers(0, 300_000))
    | st.tuples(st.just("set"), st.integers(0, len(DATA) + 10))
    | st.tuples(st.just("end"), st.integers(-len(DATA), 10))
    | st.tuples(st.just("here"), st.integers(-1000, 1000)),
    max_size=12,
)


@settings(max_examples=60)
@given(steps, st.sampled_from([20_000, 70_000, 2_000_000]))
def test_it_reads_as_a_file_does(local, moves, piece_bytes):
    whence = {"set": io.SEEK_SET, "end": io.SEEK_END, "here": io.SEEK_CUR}
    expected = io.BytesIO(DATA)
    with opened(local, piece_bytes=piece_bytes) as file:
        for kind, number in moves:
            if kind == "read":
                assert file.read(number) == expected.read(number)
            elif kind == "into":
                mine, theirs = bytearray(number), bytearray(number)
                assert file.readinto(mine) == expected.readinto(theirs)
                assert mine == theirs
            elif kind != "here" or expected.tell() + number >= 0:
                assert file.seek(number, whence[kind]) == expected.seek(number, whence[kind])
            assert file.tell() == expected.tell()


def test_reading_on_after_a_jump(local):
    """What was on its way for the place before is not taken for what comes next."""
    with opened(local) as file:
        for start in (0, 600_000, 300_000, 5):
            file.seek(start)
            for position in range(start, start + 250_000, 50_000):
                assert file.read(50_000) == DATA[position : position + 50_000]


def test_what_a_file_tells_of_itself(bucket):
    url = bucket.put("key", DATA)
    with opened(url) as file:
        assert (file.readable(), file.seekable(), file.writable(), file.size()) == (True, True, False, len(DATA))
        assert io.BufferedReader(file).read() == DATA
    assert file.closed
    with pytest.raises(ValueError, match="closed"):
        file.read(1)
    with opened(url) as file:
        for offset, whence in ((-1, io.SEEK_SET), (-len(DATA) - 1, io.SEEK_END), (0, 7)):
            with pytest.raises(ValueError, match=f"cannot seek by {offset} from {whence}"):
                file.seek(offset, whence)
    with pytest.raises(FileNotFoundError, match="nothing: there is no such object"):
        opened(f"{bucket.url}/nothing")
    with opened(bucket.put("empty", b"")) as file:
        assert (file.size(), file.read(), file.read(5)) == (0, b"", b"")


def test_what_is_fetched(bucket, proxy):
    """Small reads here and there are small requests; reading on fetches a piece at a time, each once."""
    url = bucket.put("key", DATA)
    size, version = look(RemoteFolder.open(url, SHORT))
    etag = version.removeprefix("etag:")
    proxy.clear()
    with opened(url, size_bytes=size, etag=etag) as file:
        for start in (900_000, 100, 500_000):
            file.seek(start)
            assert file.read(1000) == DATA[start : start + 1000]
    assert [record.sent for record in gets(proxy)] == [1 << 16] * 3
    proxy.clear()
    with opened(url, size_bytes=size, etag=etag) as file:
        assert b"".join(iter(lambda: file.read(10_000), b"")) == DATA
    assert sum(record.sent for record in gets(proxy)) == len(DATA)
    assert len(gets(proxy)) <= 2 + len(DATA) // PIECE
    proxy.clear()
    with opened(url, size_bytes=size, etag=etag, ahead_stop=250_000) as file:
        assert b"".join(file.read(10_000) for _ in range(25)) == DATA[:250_000]
        assert sum(record.sent for record in gets(proxy)) == 250_000
        assert file.read(10) == DATA[250_000:250_010]


@pytest.mark.parametrize("kind", ["reset", "truncate", "503", "short", "stall"])
def test_faults_are_waited_out(bucket, proxy, kind):
    url = bucket.put("key", DATA)
    with opened(url) as file:
        proxy.set(
            fault_share=0.5 if kind != "stall" else 1.0,
            fault_kinds=(kind,),
            seed=4,
            max_faults=8 if kind != "stall" else 2,
        )
        assert b"".join(iter(lambda: file.read(30_000), b"")) == DATA
    assert any(record.fault for record in proxy.log())


def test_a_store_that_refuses_is_told_wherever_it_happens(bucket, proxy):
    url = bucket.put("key", DATA)
    with opened(url) as file:
        assert file.read(200_000) == DATA[:200_000]  # and the next piece is on its way
        proxy.set(deny="key")
        with pytest.raises(RemoteError, match=r"key: .*403"):
            file.read()
    with pytest.raises(RemoteError, match=r"key: .*403"):
        opened(url)


def test_an_object_that_is_replaced_is_told(bucket):
    url = bucket.put("key", DATA)
    place = RemoteFolder.open(url, SHORT)
    size, version = look(place)
    with opened(url) as file:
        assert file.read(10) == DATA[:10]
        bucket.put("key", DATA[::-1])
        with pytest.raises(RemoteError, match=r"key: another object has taken its place .*leave objects alone"):
            file.read()
    assert look(place)[1] != version
    for told in ({"etag": version.removeprefix("etag:"), "size_bytes": size}, {"size_bytes": size - 1}):
        with opened(url, **told) as file, pytest.raises(RemoteError, match="another object has taken its place"):
            file.read()


def test_closing_ends_what_is_on_its_way(bucket, proxy):
    url = bucket.put("key", DATA)
    with opened(url) as file:
        assert file.read(100_000) + file.read(100_000) == DATA[:200_000]
        while sum(record.sent for record in gets(proxy)) < 400_000:  # two pieces are here, two came ahead
            time.sleep(0.01)
        proxy.set(fault_share=1.0, fault_kinds=("503",))
        assert file.read(100_000) == DATA[200_000:300_000]
        assert any(thread.name.startswith("mixstream-ahead") for thread in threading.enumerate())
        began = time.monotonic()
    assert time.monotonic() - began < 3
    assert not any(thread.name.startswith("mixstream-ahead") for thread in threading.enumerate())


class AllOrNothing(BaseHTTPRequestHandler):
    """It takes no notice of ranges, and has no etags."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.seen.append(self.command)
        self.send_response(200)
        self.send_header("Content-Length", str(len(DATA)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(DATA)

    do_HEAD = do_GET  # noqa: N815  the name that http.server calls


def test_a_server_that_sends_all_or_nothing_is_asked_once_more(tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), AllOrNothing) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/key"
            assert look(RemoteFolder.open(url, SHORT)) == (len(DATA), f"size:{len(DATA)}")
            with opened(url) as file:
                assert b"".join(iter(lambda: file.read(10_000), b"")) == DATA
                file.seek(77)
                assert file.read(5) == DATA[77:82]
        finally:
            server.shutdown()
            thread.join()
    assert server.seen.count("GET") <= 3


@pytest.mark.parametrize("kind", ["s3", "http", "file", "az"])
def test_readers_read_from_stores(bucket, s3, tmp_path, kind, request):
    """The same rows as from files, in the same spans, from several kinds of stores."""
    import gzip

    import pyarrow as pa

    texts = [f"{number} {'ñ' * (number % 50)}" for number in range(3000)]
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts).encode()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "eu.a.jsonl").write_bytes(lines)
    (tmp_path / "in" / "eu.b.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "in" / "eu.c.jsonl.zst").write_bytes(pa.Codec("zstd").compress(lines, asbytes=True))
    pq.write_table(pa.table({"text": texts, "n": range(3000)}), tmp_path / "in" / "eu.d.parquet", row_group_size=500)
    for name, new in (("eu.e.arrow", pa.ipc.new_stream), ("eu.f.arrow", pa.ipc.new_file)):
        table = pa.table({"text": texts})
        with new(tmp_path / "in" / name, table.schema) as writer:
            writer.write_table(table, max_chunksize=700)
    if kind == "az":
        root = f"az://{request.getfixturevalue('container')}"
        for path in (tmp_path / "in").iterdir():
            (RemoteFolder.open(root) / path.name).put(path)
    else:
        root = {"s3": bucket.url, "http": f"{s3.endpoint}/{bucket.name}", "file": (tmp_path / "in").as_uri()}[kind]
        bucket.upload(tmp_path / "in")
    for path in sorted((tmp_path / "in").iterdir()):
        (here,), (there,) = find_files([path]).files, find_files([f"{root}/{path.name}"]).files
        assert spans(here.file, 50_000) == spans(there.file, 50_000)
        rows = [
            [row for span in spans(file, 50_000) for row in read_span(file, span, Asked(("text",)))]
            for file in (here.file, there.file)
        ]
        assert rows[0] == rows[1]
        assert [row.values[0] for row in rows[0]] == texts


@pytest.mark.parametrize("name", ["eu.a.jsonl", "eu.a.jsonl.zst", "eu.a.jsonl.gz", "eu.a.parquet", "eu.a.arrow"])
def test_what_a_store_says_while_a_reader_reads_is_told_as_it_is(bucket, proxy, tmp_path, name, monkeypatch):
    """A library in between does not make a damaged file out of it."""
    import gzip

    import pyarrow as pa

    texts = [random.Random(number).randbytes(500).hex() for number in range(2000)]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    table = pa.table({"text": texts})
    path = tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(table, path, row_group_size=100)
    elif name.endswith("arrow"):
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=100)
    else:
        pack = {".gz": gzip.compress, ".zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True)}
        path.write_bytes(pack.get(path.suffix, bytes)(lines))
    (found,) = find_files([bucket.put(name, path.read_bytes())]).files
    monkeypatch.setattr("mixstream.streams.remote.file.PIECE_BYTES", PIECE)  # else all of it is here already
    (span,) = spans(found.file, 1 << 30)
    rows = read_span(found.file, span, Asked(("text",)))
    assert next(rows).values == (texts[0],)
    proxy.set(deny=name)
    with pytest.raises(RemoteError, match=rf"{name}: .*403"):
        list(rows)


def test_the_footer_of_a_parquet_file_is_a_small_request(bucket, proxy, tmp_path):
    import pyarrow as pa

    chance = random.Random(1)
    table = pa.table({"text": ["kaixo"] * 20_000, "noise": [chance.randbytes(100) for _ in range(20_000)]})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=5000)
    url = bucket.put("eu.a.parquet", (tmp_path / "x.parquet").read_bytes())
    (found,) = find_files([url]).files
    proxy.clear()
    rows = [row for span in spans(found.file, 1) for row in read_span(found.file, span, Asked(("text",)))]
    assert len(rows) == 20_000
    assert found.file.size_bytes > 2_000_000
    assert sum(record.sent for record in gets(proxy)) < 1_000_000
