"""What tests ask for: a store, a bucket of their own, a proxy in front of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .azurite import Azurite, azurite_server, find_azurite
from .proxy import FaultProxy, fault_proxy
from .s3 import S3Server, s3_server

_FOREIGN = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE")


def _name_of(test: str) -> str:
    """A name as stores take it, the same in every run: the proxy draws its faults from paths, and so from this."""
    return f"of-{hashlib.sha256(test.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Bucket:
    """An empty bucket of a test's own."""

    name: str
    server: S3Server

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def upload(self, folder: Path, prefix: str = "") -> str:
        """Upload all files below a folder, past any proxy, and return the URL of what was uploaded."""
        return self.server.upload(folder, self.name, prefix)

    def put(self, key: str, data: bytes) -> str:
        """Upload one object, past any proxy, and return its URL."""
        self.server.put(self.name, key, data)
        return f"{self.url}/{key}"

    def keys(self) -> dict[str, int]:
        """Return the size in bytes of each object."""
        return self.server.keys(self.name)


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3 server on loopback."""
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Bucket]:
    """An empty bucket, and the environment that makes S3 clients find it."""
    pytest.importorskip("obstore", reason="obstore is not installed; it needs Python 3.11")
    for name in _FOREIGN:
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "no-such-file"))
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    made = Bucket(_name_of(request.node.nodeid), s3)
    s3.create_bucket(made.name)
    yield made
    s3.drop_bucket(made.name)


@pytest.fixture
def proxy(bucket: Bucket, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """A proxy in front of the S3 server; S3 clients of the test go through it."""
    with fault_proxy(s3.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        yield running


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """An Azure blob server on loopback; tests of it skip where it is not installed."""
    program = find_azurite()
    if program is None:
        pytest.skip("Azurite is not there: npm, which installs it, was missing or failed")
    with azurite_server(program) as server:
        yield server


@pytest.fixture
def container(azurite: Azurite, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of an empty container of Azurite, and the environment that makes Azure clients find it."""
    for name, value in azurite.environment.items():
        monkeypatch.setenv(name, value)
    name = _name_of(request.node.nodeid)
    azurite.create_container(name)
    return name
