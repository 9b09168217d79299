"""The servers that other tests rely on: real clients use them, and nothing of them is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .azurite import ACCOUNT, Azurite
from .children import TESTS
from .fixtures import Bucket
from .plain import DATA, fetch
from .proxy import fault_proxy
from .s3 import S3Server


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_parent_leaves_no_server() -> None:
    code = (
        "import sys, time\n"
        "from servers.proxy import fault_proxy\n"
        "from servers.s3 import s3_server\n"
        "with s3_server() as server, fault_proxy(server.endpoint):\n"
        "    print('up', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=TESTS) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "up\n"
        children = [int(pid) for pid in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
        os.kill(parent.pid, signal.SIGKILL)
    assert len(children) == 2
    patience = time.monotonic() + 10
    while any(map(running, children)):
        assert time.monotonic() < patience, f"still running: {[pid for pid in children if running(pid)]}"
        time.sleep(0.05)


def test_the_end_of_the_block_is_the_end_of_the_server(s3: S3Server) -> None:
    with fault_proxy(s3.endpoint) as proxy:
        endpoint = proxy.endpoint
        assert fetch(endpoint, "/not-there").status == 404
    with pytest.raises(ConnectionRefusedError):
        fetch(endpoint, "/not-there")


def test_a_command_beside_a_server() -> None:
    code = (
        "import boto3, sys\n"
        "buckets = boto3.client('s3').list_buckets()['Buckets']\n"
        "sys.exit(7 if [b['Name'] for b in buckets] == ['made-here'] else 1)"
    )
    command = [sys.executable, "-m", "tests.servers.s3", "--bucket", "made-here", "--", sys.executable, "-c", code]
    assert subprocess.run(command, cwd=TESTS.parent, timeout=60).returncode == 7


def test_an_upload_keeps_the_paths(bucket: Bucket, tmp_path: Path) -> None:
    (tmp_path / "eu.wiki").mkdir()
    (tmp_path / "eu.wiki" / "index.json").write_text("{}")
    (tmp_path / "top").write_bytes(b"12345")
    assert bucket.upload(tmp_path, "run/streams/") == f"s3://{bucket.name}/run/streams"
    assert bucket.keys() == {"run/streams/eu.wiki/index.json": 2, "run/streams/top": 5}


class TestAzurite:
    def test_obstore_reads_and_writes(self, container: str) -> None:
        store = pytest.importorskip("obstore.store").AzureStore(container, client_options={"allow_http": True})
        store.put("some/blob", DATA)
        assert bytes(store.get_range("some/blob", start=3, end=700)) == DATA[3:700]

    @pytest.mark.parametrize("cache", [False, True])
    def test_through_the_proxy(
        self, azurite: Azurite, container: str, monkeypatch: pytest.MonkeyPatch, cache: bool
    ) -> None:
        stores = pytest.importorskip("obstore.store")
        with fault_proxy(azurite.endpoint) as proxy:
            monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", f"{proxy.endpoint}/{ACCOUNT}")
            store = stores.AzureStore(container, client_options={"allow_http": True})
            store.put("blob", DATA)
            proxy.clear()
            proxy.set(fault_share=1.0, fault_kinds=("500",), max_faults=1, cache=cache)
            assert bytes(store.get_range("blob", start=3, end=700)) == DATA[3:700]
            assert [(r.status, r.sent) for r in proxy.log() if r.fault is None] == [(206, 697)]
