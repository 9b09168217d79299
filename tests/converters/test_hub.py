"""``hf://``: listed, looked at and read through the real client, from a server on loopback that answers as the hub."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("streaming", reason="streaming is not installed")

ROOT = "/api/datasets/org/corpus"


class Hub(BaseHTTPRequestHandler):
    """The few answers of the hub that are needed: a tree, the size and hash of paths, and a file's content."""

    def log_message(self, *args):
        pass

    def tell(self, status, content, headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def entry(self, path):
        content = self.server.files[path]
        return {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    def do_GET(self):
        path = unquote(urlsplit(self.path).path)
        self.server.seen.append((self.command, path))
        if path.startswith(f"{ROOT}/tree/main"):
            below = path.removeprefix(f"{ROOT}/tree/main").strip("/")
            found = [self.entry(name) for name in self.server.files if name.startswith(f"{below}/" if below else "")]
            folders = [{"type": "directory", "path": "data", "oid": "0"}]
            if not found:
                self.tell(404, b"{}", [("X-Error-Code", "EntryNotFound")])
            else:
                self.tell(200, json.dumps(folders + found).encode(), [("Content-Type", "application/json")])
        elif path.startswith("/datasets/org/corpus/resolve/main/"):
            content = self.server.files[path.removeprefix("/datasets/org/corpus/resolve/main/")]
            self.tell(200, content, [("ETag", hashlib.sha1(content).hexdigest()), ("X-Repo-Commit", "a" * 40)])
        else:
            self.tell(404, b"{}", [("X-Error-Code", "RepoNotFound")])

    do_HEAD = do_GET  # noqa: N815  the name that http.server calls

    def do_POST(self):
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.seen.append((self.command, asked))
        paths = [unquote(part[6:]) for part in asked.split("&") if part.startswith("paths=")] or json.loads(asked)[
            "paths"
        ]
        found = [self.entry(path) for path in paths if path in self.server.files]
        self.tell(200, json.dumps(found).encode(), [("Content-Type", "application/json")])


@pytest.fixture
def hub():
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.seen, server.files = [], {}
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


SCRIPT = """
import json
from converters.readers import Asked, read_span, spans
from converters.sources import find_files
from mixstream.errors import MixstreamError

def told(url):
    try:
        return [[one.stream, one.file.name, one.file.size_bytes, one.file.version] for one in find_files([url]).files]
    except MixstreamError as problem:
        return str(problem)

root = "hf://datasets/org/corpus"
files = [one.file for one in find_files([root + "/data/*/*"]).files]
rows = [[row.values[0] for span in spans(file, 1) for row in read_span(file, span, Asked(("text",)))] for file in files]
urls = ["/data/**/*.parquet", "/data/eu.web", "/data/eu.web/1.parquet", "/data/no.parquet", "/*.csv"]
print(json.dumps([rows, *(told(root + url) for url in urls), told("hf://datasets/org/other/x.parquet"), told("hf://datasets/x")]))
"""


def test_the_hub(hub, tmp_path):
    for number in (1, 2):
        pq.write_table(
            pa.table({"text": [f"{number} {row}" for row in range(9)]}), tmp_path / "x.parquet", row_group_size=2
        )
        hub.files[f"data/eu.web/{number}.parquet"] = (tmp_path / "x.parquet").read_bytes()
    hub.files["data/eu.web/3.jsonl"] = b'{"text": "3 0"}\n{"text": "3 1"}\n'
    hub.files["README.md"] = b"of it"
    environment = {
        **os.environ,
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}",
        "HF_HOME": str(tmp_path / "home"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    rows, parquet, folder, file, nothing, none, other, short = json.loads(done.stdout.splitlines()[-1])
    assert rows == [[f"1 {row}" for row in range(9)], [f"2 {row}" for row in range(9)], ["3 0", "3 1"]]
    content = hub.files["data/eu.web/1.parquet"]
    told = ["eu.web", "hf://datasets/org/corpus/data/eu.web/1.parquet", len(content)]
    version = f"etag:{hashlib.sha1(content).hexdigest()}"
    assert (parquet[0], len(parquet), len(folder)) == ([*told, version], 2, 3)
    assert file == [[None, *told[1:], version]]
    assert nothing == "hf://datasets/org/corpus/data/no.parquet: no such object, and no folder with one in it"
    assert none == "hf://datasets/org/corpus/*.csv: the pattern names no object"
    assert other.startswith("hf://datasets/org/other/x.parquet: the hub has no such dataset, or it is not open to you")
    assert short == "hf://datasets/x: names no dataset of the hub; write hf://datasets/ORGANISATION/NAME/PATH"
    # Each file is brought once to be read, in one part, and never to be found.
    assert [path.rpartition("/")[2] for kind, path in hub.seen if kind == "GET" and "/resolve/" in path] == [
        "1.parquet",
        "2.parquet",
        "3.jsonl",
    ]
