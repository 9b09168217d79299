"""Schemes that only streaming's downloaders know: through a real SFTP server, and the errors that the others raise."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from importlib.util import find_spec

import pytest

from mixstream.errors import MissingExtraError, RemoteError
from mixstream.streams.remote import Fault, Patience, RemoteFolder
from mixstream.streams.remote.downloaders import read_fault

paramiko = pytest.importorskip("paramiko", reason="paramiko, which streaming's downloader of sftp:// needs, is missing")
pytest.importorskip("streaming", reason="streaming is not installed")

PATIENCE = Patience(2.0, 0.01, 0.05)


def _serve(listener, host_key, user_key, root):
    """Serve files below a folder to whoever has the key, a thread a connection, until the listener is closed."""

    class Host(paramiko.ServerInterface):
        def get_allowed_auths(self, username):
            return "publickey"

        def check_auth_publickey(self, username, key):
            return paramiko.AUTH_SUCCESSFUL if key == user_key else paramiko.AUTH_FAILED

        def check_channel_request(self, kind, chanid):
            return paramiko.OPEN_SUCCEEDED

    class Files(paramiko.SFTPServerInterface):
        def stat(self, path):
            try:
                return paramiko.SFTPAttributes.from_stat((root / path.lstrip("/")).stat())
            except OSError as problem:
                return paramiko.SFTPServer.convert_errno(problem.errno)

        def open(self, path, flags, attr):
            try:
                file = (root / path.lstrip("/")).open("rb")
            except OSError as problem:
                return paramiko.SFTPServer.convert_errno(problem.errno)
            handle = paramiko.SFTPHandle(flags)
            handle.readfile = file
            return handle

    transports = []
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            break
        transport = paramiko.Transport(connection)
        transport.add_server_key(host_key)
        transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Files)
        transport.start_server(server=Host())
        transports.append(transport)
    for transport in transports:
        transport.close()
        transport.join(5)


@pytest.fixture
def sftp(tmp_path, monkeypatch):
    """A folder, and its URL on an SFTP server on loopback."""
    root = tmp_path / "root"
    root.mkdir()
    host_key, user_key = paramiko.RSAKey.generate(2048), paramiko.RSAKey.generate(2048)
    user_key.write_private_key_file(str(tmp_path / "id"))
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key.get_name()} {host_key.get_base64()}\n")
    monkeypatch.setenv("COMPOSER_SFTP_KEY_FILE", str(tmp_path / "id"))
    monkeypatch.setenv("COMPOSER_SFTP_KNOWN_HOSTS_FILE", str(tmp_path / "known_hosts"))
    thread = threading.Thread(target=_serve, args=(listener, host_key, user_key, root))
    thread.start()
    yield root, f"sftp://me@127.0.0.1:{port}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)
    assert not thread.is_alive()


def test_whole_objects_are_copied(sftp, tmp_path):
    root, url = sftp
    (root / "data" / "eu.wiki").mkdir(parents=True)
    content = os.urandom(1 << 20)
    (root / "data/eu.wiki/shard.mds").write_bytes(content)
    place = RemoteFolder.open(f"{url}/data", PATIENCE)
    assert not place.ranged
    target = tmp_path / "cache" / "shard.mds"
    target.parent.mkdir()
    target.write_bytes(b"old")  # streaming would leave it as it is
    (place / "eu.wiki/shard.mds").copy_to(target)
    assert target.read_bytes() == content
    assert list(target.parent.iterdir()) == [target]
    assert (place / "eu.wiki/shard.mds").read_bytes() == content
    assert (place / "eu.wiki/shard.mds").exists()
    assert not (place / "eu.wiki/nothing").exists()
    with pytest.raises(Fault) as fault:
        (place / "eu.wiki/nothing").copy_to(target)
    assert fault.value.kind == "missing"
    with pytest.raises(RemoteError, match=r"catalog.json: .*sftp: cannot list"):
        place.children()
    (root / "data/catalog.json").write_text('{"format": "mixstream.catalog", "version": 1, "streams": ["eu.wiki"]}')
    assert place.children() == ["eu.wiki"]
    with pytest.raises(RemoteError, match="sftp: is only read from"):
        (place / "x").put(b"")
    with pytest.raises(RemoteError, match="sftp: is only read from"):
        (place / "x").delete()


def test_a_server_that_is_gone_is_waited_for_and_told(sftp):
    _, url = sftp
    gone = url.rpartition(":")[0] + ":1"
    with pytest.raises(RemoteError, match=r"key: no progress for \d s in \d+ attempts.*NoValidConnectionsError"):
        RemoteFolder.open(f"{gone}/key", Patience(0.2, 0.01, 0.05)).read_bytes()


@pytest.mark.skipif(find_spec("alipcs_py") is not None, reason="the package that it is told to miss is there")
def test_a_package_that_is_missing_is_told():
    with pytest.raises(MissingExtraError, match="alipan: streaming's downloader needs a package .*'alipcs_py'"):
        RemoteFolder.open("alipan:///key", PATIENCE).read_bytes()


class _Answer:
    status_code = 403


class _BusyError(Exception):
    status = 503


class _NoAuthenticationError(Exception):
    pass


class _DeniedError(Exception):
    response = _Answer()


@pytest.mark.parametrize(
    ("problem", "kind", "told"),
    [
        (_BusyError("busy"), "passing", "503 Service Unavailable (_BusyError: busy)"),
        (FileNotFoundError("x"), "missing", "there is no such object"),
        (ConnectionResetError("gone"), "passing", "ConnectionResetError: gone"),
        (TimeoutError("slow"), "passing", "TimeoutError: slow"),
        (ValueError("bad https://me:pw@host/x?sig=1"), "refused", "ValueError: bad https://***@host/x?***"),
        (KeyError("ALIPAN"), "refused", "KeyError: 'ALIPAN'"),
        (_NoAuthenticationError("who?"), "refused", "_NoAuthenticationError: who?"),
        (PermissionError("no"), "refused", "PermissionError: no"),
    ],
)
def test_what_the_errors_of_other_libraries_mean(problem, kind, told):
    fault = read_fault(problem)
    assert (fault.kind, fault.told) == (kind, told)


def test_an_answer_inside_an_error_is_read():
    fault = read_fault(_DeniedError("forbidden"))
    assert fault.kind == "refused"
    assert fault.told.startswith("403 Forbidden; see whether the credentials")
    assert fault.told.endswith("(_DeniedError: forbidden)")


def test_no_streaming_no_scheme():
    code = (
        "import importlib.machinery, sys\n"
        "found = importlib.machinery.PathFinder.find_spec\n"
        "class Without:\n"
        "    def find_spec(name, path=None, target=None): return None if name == 'streaming' else found(name, path)\n"
        "sys.meta_path = [importlib.machinery.BuiltinImporter, importlib.machinery.FrozenImporter, Without]\n"
        "from mixstream.errors import MissingExtraError\n"
        "from mixstream.streams.remote import RemoteFolder\n"
        "try: RemoteFolder.open('sftp://host/x')\n"
        "except MissingExtraError as problem: print(problem)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "sftp: is read by the package 'mosaicml-streaming'; install it with pip install" in done.stdout
