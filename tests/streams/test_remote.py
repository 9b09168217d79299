"""RemoteFolder against a real S3 server, a plain HTTP one, files, and a proxy that fails."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mixstream.errors import FormatError, RemoteError
from mixstream.streams.remote import Fault, Patience, RemoteFolder

pytest.importorskip("obstore", reason="obstore is not installed; it needs Python 3.11")

SHORT = Patience(give_up_seconds=8.0, first_delay_seconds=0.01, max_delay_seconds=0.05, stall_seconds=0.5)
DATA = bytes(range(256)) * 40


@pytest.fixture
def folder(bucket, proxy):
    return RemoteFolder.open(f"{bucket.url}/data", SHORT)


class Plain(BaseHTTPRequestHandler):
    """A plain server that can do nothing well: the path says what is wrong with it."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        body, headers = DATA, {"ETag": '"x"'}
        self.server.seen.append(self.headers["Host"])
        port = self.server.server_port
        if "elsewhere" in self.path:
            headers["Location"] = f"http://localhost:{port}/other?signature=hunter2"
        elif "round" in self.path:
            headers["Location"] = self.path
        elif "here" in self.path:
            headers["Location"] = f"http://127.0.0.1:{port}/other"
        status = int(self.path[-3:]) if self.path[-3:].isdigit() else 200
        body = body if status == 200 else b"<Error>hunter2</Error>"
        self.send_response(302 if "Location" in headers else status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "sizeless" in self.path:
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"3\r\nabc\r\n0\r\n\r\n")
            return
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815  the name that http.server calls


@pytest.fixture(scope="module")
def plain():
    with ThreadingHTTPServer(("127.0.0.1", 0), Plain) as server:
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def web(plain):
    plain.seen.clear()
    return RemoteFolder.open(f"http://127.0.0.1:{plain.server_port}/data", SHORT)


@pytest.mark.parametrize("kind", ["s3", "file"])
def test_a_folder_is_written_listed_read_and_deleted(kind, bucket, tmp_path):
    place = RemoteFolder.open(f"{bucket.url}/a/b" if kind == "s3" else (tmp_path / "a/b").as_uri(), SHORT)
    assert place.children() == []
    assert place.sizes() == {}
    assert not (place / "index.json").exists()
    source = tmp_path / "source"
    source.write_bytes(os.urandom(11 << 20))  # uploaded in parts
    for name in ("eu.wiki/index.json", "ca.wiki/index.json", "ca.wiki/heldout/index.json", ".hidden/x", "two words/x"):
        (place / name).put(DATA)
    (place / "eu.wiki" / "shard%20é.mds").put(source)
    assert place.children() == ["ca.wiki", "eu.wiki"]
    assert (place / "eu.wiki").sizes() == {"index.json": len(DATA), "shard%20é.mds": 11 << 20}
    assert (place / "eu.wiki/index.json").exists()
    assert not (place / "eu.wiki").exists()
    assert (place / "eu.wiki/index.json").read_bytes() == DATA
    assert (place / "eu.wiki/shard%20é.mds").read_bytes() == source.read_bytes()
    (place / "eu.wiki/index.json").delete()
    (place / "eu.wiki/index.json").delete()
    assert not (place / "eu.wiki/index.json").exists()
    with pytest.raises(FileNotFoundError, match=r"eu.wiki/index.json: there is no such object"):
        (place / "eu.wiki/index.json").read_bytes()


def test_a_place_is_a_value(bucket):
    place = RemoteFolder.open(f"{bucket.url}/a/")
    again = pickle.loads(pickle.dumps(place))
    assert place == again == RemoteFolder.open(f"{bucket.url}/a", SHORT)
    assert hash(place) == hash(again)
    assert place / "b" / "c" == place / "b/c" != place
    assert (place.name, RemoteFolder.open(bucket.url).name) == ("a", bucket.name)
    assert (str(place), repr(place)) == (f"{bucket.url}/a", f"RemoteFolder('{bucket.url}/a')")
    assert place.ranged
    with pytest.raises(RemoteError, match="a name below it is empty"):
        place / ""
    with pytest.raises(RemoteError, match="could lead out of it"):
        place / "../b"


def test_a_whole_bucket_is_a_folder(bucket):
    bucket.put("eu.wiki/index.json", b"{}")
    bucket.put("top", b"1")
    whole = RemoteFolder.open(bucket.url)
    assert whole.children() == ["eu.wiki"]
    assert whole.sizes() == {"eu.wiki/index.json": 2, "top": 1}


def test_parts_of_an_object(bucket):
    place = RemoteFolder.open(bucket.put("key", DATA))
    for start, stop in ((None, None), (0, None), (5, None), (5, 1000), (None, 7), (1000, 1 << 30)):
        body = place.get(start, stop)
        assert body.size == len(DATA)
        assert body.etag
        assert b"".join(body.chunks) == DATA[start:stop]


def test_more_pages_than_one(bucket, proxy):
    for number in range(1050):
        bucket.put(f"data/{number:04}", b"")
    folder = RemoteFolder.open(f"{bucket.url}/data", replace(SHORT, stall_seconds=20.0, give_up_seconds=60.0))
    proxy.set(fault_share=1.0, fault_kinds=("503", "reset_early"), max_faults=3, listings=True)
    assert list(folder.sizes()) == [f"{number:04}" for number in range(1050)]
    assert sum(bool(record.fault) for record in proxy.log()) == 3


@pytest.mark.parametrize("kind", ["reset_early", "429", "500", "503", "reset", "truncate", "stall"])
def test_what_passes_is_tried_again(kind, bucket, folder, proxy):
    bucket.put("data/key", DATA)
    proxy.set(fault_share=1.0, fault_kinds=(kind,), max_faults=2, methods=("GET", "HEAD"))
    assert (folder / "key").read_bytes() == DATA
    faults = [record for record in proxy.log() if record.fault]
    assert len(faults) == 2
    told = {
        "429": "429 Too Many",
        "500": "500 Int",
        "503": "503 Serv",
        "stall": "no answer in time",
        "truncate": "ended before",
    }
    proxy.clear()
    proxy.set(max_faults=1)
    with pytest.raises(Fault, match=told.get(kind, "no connection, or it broke|ended before")) as fault:
        b"".join((folder / "key").get().chunks)
    assert fault.value.kind == "passing"


def test_what_is_slow_but_goes_on_is_no_stall(bucket, folder, proxy):
    bucket.put("data/key", DATA[:10])
    proxy.set(fault_share=1.0, fault_kinds=("drip",), drip_bytes_per_second=8.0)
    assert (folder / "key").read_bytes() == DATA[:10]
    assert len(proxy.log()) == 1


def test_a_reader_that_pauses_is_no_stall(bucket):
    """Only the store's silence counts."""
    bucket.put("key", DATA * 800)
    body = RemoteFolder.open(f"{bucket.url}/key", SHORT).get()
    content = bytearray()
    for number, chunk in enumerate(body.chunks):
        content += chunk
        if number == 3:
            time.sleep(3 * SHORT.stall_seconds)
    assert content == DATA * 800


def test_every_operation_tries_again(bucket, folder, proxy):
    proxy.set(fault_share=1.0, fault_kinds=("503",), storm=2, max_faults=2, methods=("PUT",))
    (folder / "eu.wiki/key").put(DATA)
    for methods, listings, work in (
        (("HEAD",), False, (folder / "eu.wiki/key").exists),
        (("GET",), True, folder.children),
        (("GET",), True, folder.sizes),
        (("DELETE",), False, (folder / "eu.wiki/key").delete),
    ):
        proxy.clear()
        proxy.set(methods=methods, listings=listings)
        work()
        assert sum(record.fault is not None for record in proxy.log()) == 2
    assert bucket.keys() == {}


def test_what_is_denied_ends_at_once(bucket, folder, proxy):
    bucket.put("data/key", DATA)
    proxy.set(deny="data")
    for work in ((folder / "key").read_bytes, (folder / "key").exists, lambda: (folder / "key").put(b"")):
        proxy.clear()
        began = time.monotonic()
        with pytest.raises(RemoteError, match=rf"^s3://{bucket.name}/data/key: 403 Forbidden.*credentials"):
            work()
        assert time.monotonic() - began < 2
        assert len(proxy.log()) == 1


def test_a_missing_bucket_is_no_missing_object(bucket):
    nowhere = RemoteFolder.open("s3://no-such-bucket/data", SHORT)
    for work in ((nowhere / "key").read_bytes, nowhere.children, nowhere.sizes, lambda: (nowhere / "key").put(b"")):
        with pytest.raises(RemoteError, match=r"^s3://no-such-bucket/data.*NoSuchBucket\): there is no such bucket"):
            work()


def test_a_storm_without_end_is_given_up_and_told(bucket, folder, proxy, caplog):
    proxy.set(fault_share=1.0, fault_kinds=("503",))
    patience = Patience(0.3, 0.01, 0.05)
    with pytest.raises(
        RemoteError, match=r"data/key: no progress for 0 s in \d+ attempts.*the last: 503 Service Unavail"
    ):
        (RemoteFolder.open(str(folder), patience) / "key").read_bytes()


def test_a_server_that_is_not_there(bucket, monkeypatch):
    patience = Patience(0.2, 0.01, 0.05)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(RemoteError, match=r"no connection, or it broke \(Connection refused\)"):
        RemoteFolder.open("s3://bucket/key", patience).read_bytes()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://nowhere.invalid")
    with pytest.raises(RemoteError, match=r"no connection, or it broke \(failed to lookup address"):
        RemoteFolder.open("s3://bucket/key", patience).read_bytes()


def test_http_without_encryption_only_where_the_endpoint_says_so(bucket, monkeypatch):
    """Even where obstore's own variable allows it everywhere."""
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket.server.endpoint.replace("http:", "https:"))
    with pytest.raises(RemoteError, match="no connection, or it broke"):
        RemoteFolder.open(f"{bucket.url}/key", Patience(0.2, 0.01, 0.05)).read_bytes()


def test_many_threads_share_a_store(bucket, folder, proxy):
    proxy.set(fault_share=0.2, fault_kinds=("reset", "503", "truncate"))
    for number in range(40):
        bucket.put(f"data/{number}", DATA + bytes([number]))
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda number: (folder / str(number)).read_bytes(), range(40)))
    assert found == [DATA + bytes([number]) for number in range(40)]


def test_catalog_json_is_the_list_of_a_server_that_has_none(bucket, s3):
    web = RemoteFolder.open(f"{s3.endpoint}/{bucket.name}/data", SHORT)
    with pytest.raises(RemoteError, match=r'data/catalog.json: .*http: cannot list; put .*"mixstream.catalog"'):
        web.children()
    with pytest.raises(RemoteError, match="cannot list what is there"):
        web.sizes()
    catalog = {"format": "mixstream.catalog", "version": 1, "streams": ["eu.wiki", "ca.wiki"]}
    bucket.put("data/catalog.json", json.dumps(catalog).encode())
    bucket.put("data/eu.wiki/index.json", DATA)
    assert web.children() == ["ca.wiki", "eu.wiki"]
    assert (web / "eu.wiki/index.json").read_bytes() == DATA
    assert (web / "eu.wiki/index.json").exists()
    assert not (web / "ca.wiki/index.json").exists()
    assert b"".join((web / "eu.wiki/index.json").get(5, 50).chunks) == DATA[5:50]
    for bad in ("../x", ".x", "a/b", "a\\b", "a\0b"):
        bucket.put("data/catalog.json", json.dumps(catalog | {"streams": [bad]}).encode())
        with pytest.raises((RemoteError, FormatError), match=r"data/catalog.json"):
            web.children()


def test_a_plain_server_that_sends_all_or_nothing(web):
    """It takes no notice of a range: what comes before is thrown away."""
    for start, stop in ((5, None), (5, 1000), (None, 7), (1000, 1 << 30)):
        body = (web / "x").get(start, stop)
        assert (body.size, b"".join(body.chunks)) == (len(DATA), DATA[start:stop])


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "refused"), (401, "refused"), (403, "refused"), (404, "missing"), (405, "refused"), (408, "passing"),
     (410, "missing"), (429, "passing"), (500, "passing"), (501, "refused"), (502, "passing"), (504, "passing")],
)  # fmt: skip
def test_what_a_status_means(web, status, kind):
    with pytest.raises(Fault, match=f"^{status} ") as fault:
        (web / str(status)).get()
    assert fault.value.kind == kind


def test_an_answer_without_a_size_is_refused(web):
    with pytest.raises(RemoteError, match="Content-Length Header missing"):
        (web / "sizeless").read_bytes()


def test_redirects_to_another_host_are_refused(web, plain, monkeypatch):
    with pytest.raises(
        RemoteError, match=r"/data/elsewhere: a redirect to another host was refused; set MIXSTR"
    ) as told:
        (web / "elsewhere").read_bytes()
    assert "hunter2" not in str(told.value)
    assert plain.seen == [f"127.0.0.1:{plain.server_port}"]
    assert (web / "here").read_bytes() == DATA
    with pytest.raises(RemoteError, match="redirects without end"):
        (web / "round").read_bytes()
    monkeypatch.setenv("MIXSTREAM_ALLOW_REDIRECTS", "1")
    plain.seen.clear()
    assert (web / "elsewhere").read_bytes() == DATA
    assert f"localhost:{plain.server_port}" in plain.seen


def test_redirects_of_s3_to_another_host_are_refused(bucket, folder, proxy, plain):
    plain.seen.clear()
    proxy.set(redirect=("key", f"http://localhost:{plain.server_port}/x"))
    for work in ((folder / "key").read_bytes, (folder / "key").exists):
        with pytest.raises(RemoteError, match=rf"s3://{bucket.name}/data/key: a redirect to another host was refused"):
            work()
    with pytest.raises(RemoteError, match=rf"s3://{bucket.name}/data/key: 307 .*: a redirect that was not followed"):
        (folder / "key").put(DATA)
    assert plain.seen == []


def test_a_proxy_of_the_environment_is_told(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(RemoteError, match=r"^files.example: is asked through the proxy.*MIXSTREAM_ALLOW_REDIRECTS=1"):
        RemoteFolder.open("https://files.example/data")
    monkeypatch.setenv("NO_PROXY", "files.example")
    monkeypatch.setenv("no_proxy", "files.example")
    RemoteFolder.open("https://files.example/data")


def test_secrets_are_in_no_error_log_repr_or_pickle(bucket, proxy, monkeypatch, caplog):
    secrets = ("AKIAHUNTER2HUNTER2", "hunter2/hunter2+secret", "hunter2token")
    for name, value in zip(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"), secrets, strict=True):
        monkeypatch.setenv(name, value)
    place = RemoteFolder.open(f"{bucket.url}/key", Patience(0.1, 0.01, 0.05))
    told = [repr(place), str(place), repr(pickle.dumps(place)), repr(vars(place))]
    for settings in ({"deny": "key"}, {"deny": None, "fault_share": 1.0, "fault_kinds": ("reset_early",)}):
        proxy.set(**settings)
        with caplog.at_level(logging.DEBUG), pytest.raises(RemoteError) as problem:
            place.read_bytes()
        told += [repr(problem.value), repr(problem.value.__cause__), caplog.text]
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", '{"private_key": "hunter2hunter2')
    with pytest.raises(RemoteError, match=r"^gs://bucket: cannot be opened: ") as problem:
        RemoteFolder.open("gs://bucket/key")
    told.append(str(problem.value))
    assert not [line for line in told for secret in (*secrets, "hunter2") if secret in line]


def test_google_through_the_same_interface(bucket, s3, monkeypatch):
    """Its XML interface is near enough to S3's that the S3 server answers it, but for %2D in names of buckets."""
    monkeypatch.setenv("GOOGLE_BASE_URL", s3.endpoint)
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")
    s3.create_bucket("google")
    try:
        s3.put("google", "data/eu.wiki/index.json", DATA)
        place = RemoteFolder.open("gs://google/data", SHORT)
        assert place.children() == ["eu.wiki"]
        assert place.sizes() == {"eu.wiki/index.json": len(DATA)}
        assert b"".join((place / "eu.wiki/index.json").get(5, 50).chunks) == DATA[5:50]
        with pytest.raises(FileNotFoundError, match="gs://google/data/x: there is no"):
            (place / "x").read_bytes()
    finally:
        s3.drop_bucket("google")


def test_azure_through_the_same_interface(container, tmp_path):
    place = RemoteFolder.open(f"az://{container}/data", SHORT)
    (place / "eu.wiki/index.json").put(DATA)
    assert place.children() == ["eu.wiki"]
    assert place.sizes() == {"eu.wiki/index.json": len(DATA)}
    assert b"".join((place / "eu.wiki/index.json").get(5, 50).chunks) == DATA[5:50]
    assert not (place / "x").exists()
    (place / "eu.wiki/index.json").delete()
    assert place.children() == []
    with pytest.raises(RemoteError, match="ContainerNotFound"):
        RemoteFolder.open("az://nowhere/data", SHORT).children()


def _read(place, results):
    try:
        results.put(place.read_bytes())
    except RemoteError as problem:
        results.put(str(problem))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_forks_of_a_process_that_used_a_store_are_refused_not_hung(bucket):
    place = RemoteFolder.open(bucket.put("key", DATA), SHORT)
    assert place.read_bytes() == DATA
    found = {}
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        results = context.Queue()
        process = context.Process(target=_read, args=(place, results), daemon=True)
        process.start()
        found[method] = results.get(timeout=30)
        process.join(10)
        assert process.exitcode == 0
    assert "forked from one that had asked an object store already" in found["fork"]
    assert found["spawn"] == DATA


def test_without_obstore_it_is_told_what_to_install():
    code = (
        "import sys; sys.modules['obstore'] = None\n"
        "from mixstream.streams.remote import RemoteFolder\n"
        "from mixstream.errors import MissingExtraError\n"
        "try: RemoteFolder.open('s3://bucket/x')\n"
        "except MissingExtraError as problem: print(problem)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "needs Python 3.11 or later; install it with pip install 'mixstream-llm[remote]'" in done.stdout


def test_importing_it_is_light():
    code = "import sys, mixstream.streams.remote; print([m for m in ('obstore', 'boto3', 'torch', 'streaming') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
