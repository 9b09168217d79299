"""An Azure blob server (Azurite, of npm) on loopback."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from email.utils import formatdate
from pathlib import Path
from urllib.parse import urlsplit

from .children import START_SECONDS, child, module

# The account that every Azurite has; both are in its documentation, and open nothing else.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6" + "tq/K1SZFPTOtr/KBHBeksoGMGw=="
_VERSION = "2021-08-06"


class Azurite:
    """A running server.

    Attributes:
        endpoint: URL of its account; a proxy in front of it keeps the path: `proxy.endpoint + "/" + ACCOUNT`.
        environment: the variables that make Azure clients use it.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.environment = environment_of(endpoint)

    def create_container(self, name: str) -> None:
        """Create an empty container.

        Raises:
            RuntimeError: it was refused.
        """
        place = urlsplit(f"{self.endpoint}/{name}")
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": _VERSION}
        told = "".join(f"{key}:{value}\n" for key, value in headers.items())
        to_sign = "PUT" + "\n" * 12 + f"{told}/{ACCOUNT}{place.path}\nrestype:container"
        signature = base64.b64encode(hmac.digest(base64.b64decode(KEY), to_sign.encode(), hashlib.sha256)).decode()
        headers["Authorization"] = f"SharedKey {ACCOUNT}:{signature}"
        with closing(http.client.HTTPConnection(place.netloc, timeout=START_SECONDS)) as connection:
            connection.request("PUT", f"{place.path}?restype=container", headers=headers)
            with connection.getresponse() as answer:
                if answer.status != 201:
                    raise RuntimeError(f"container {name}: {answer.status} {answer.read().decode()}")


def environment_of(endpoint: str) -> dict[str, str]:
    """Return what tells Azure clients to use an account's endpoint."""
    return {
        "AZURE_STORAGE_ENDPOINT": endpoint,
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def find_azurite() -> str | None:
    """Return the program, as the Makefile or the user installed it; None: it is not there."""
    beside = Path(sys.prefix, "azurite", "node_modules", ".bin", "azurite-blob")
    return str(beside) if beside.exists() and shutil.which("node") else shutil.which("azurite-blob")


@contextmanager
def azurite_server(program: str) -> Iterator[Azurite]:
    """Run a server on a free port of loopback, all of it in memory, until the end of the block.

    Raises:
        RuntimeError: it did not start.
    """
    options = ["--silent", "--skipApiVersionCheck", "--loose", "--inMemoryPersistence", "--disableTelemetry"]
    with child(module("children", program, "--blobPort", "0", *options)) as running:
        while not (place := re.search(r"listens on (http://\S+)", running.line(START_SECONDS))):
            pass
        yield Azurite(f"{place[1]}/{ACCOUNT}")
