"""What only streaming's downloaders know (``oci://``, ``sftp://``, ``hf://``, ``dbfs:/``, ...): whole objects.

Nothing is listed or written there. A downloader is kept for each thread and server, as streaming has one a process.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mixstream.errors import MissingExtraError
from mixstream.streams.remote.faults import read_status
from mixstream.streams.remote.retry import Fault
from mixstream.streams.remote.urls import Root, redact, url_of

_REFUSED = (ValueError, TypeError, LookupError, AttributeError, AssertionError, PermissionError, NotImplementedError)
_REFUSED_NAMES = re.compile("Auth|Credential|Config|HostKey")  # of errors that no class of Python's is above

_open = threading.local()


def check(root: Root) -> None:
    """Look for what reads a scheme, without importing it, which takes seconds.

    Raises:
        MissingExtraError: streaming is not installed.
    """
    if find_spec("streaming") is None:
        raise MissingExtraError(
            f"{root.scheme}: is read by the package 'mosaicml-streaming'; install it with "
            f"pip install 'mixstream-llm[train]'"
        )


def copy(root: Root, path: str, target: Path) -> None:
    """Copy an object to a file, which is there whole or not at all; one attempt.

    Raises:
        Fault: it cannot be had.
        MissingExtraError: what streaming's downloader needs is not installed.
    """
    check(root)
    url = url_of(root, path)
    # A folder of its own: some downloaders leave others' files beside what they were asked for.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.", suffix=".part") as folder:
        part = Path(folder) / target.name
        try:
            _downloader(root, url).download(url, str(part))
        except ImportError as problem:
            raise MissingExtraError(
                f"{root.scheme}: streaming's downloader needs a package that is not installed ({problem})"
            ) from None
        except Exception as problem:  # noqa: BLE001  each of their libraries raises classes of its own
            _drop(root)
            raise read_fault(problem) from None
        shutil.move(part, target)


def _downloader(root: Root, url: str) -> Any:
    from streaming.base.storage.download import CloudDownloader

    if getattr(_open, "process", None) != os.getpid():
        _open.process, _open.kept = os.getpid(), {}
    if root not in _open.kept:
        _open.kept[root] = CloudDownloader.get(url)
    return _open.kept[root]


def _drop(root: Root) -> None:
    """Forget a downloader whose connection may be broken."""
    downloader = getattr(_open, "kept", {}).pop(root, None)
    if downloader is not None:
        downloader.clean_up()


def read_fault(problem: Exception) -> Fault:
    """Return what a downloader's error says: its status where it has one, else what its class lets hope for."""
    told = redact(f"{type(problem).__name__}: {problem}")[:300]
    if isinstance(problem, FileNotFoundError):
        return Fault("there is no such object", "missing")
    holders = (problem, getattr(problem, "response", None))
    names = ("status_code", "status")
    statuses = (getattr(holder, name, None) for holder in holders for name in names)
    status = next((status for status in statuses if isinstance(status, int) and 300 <= status < 600), None)
    if status is not None:
        fault = read_status(status)
        return Fault(f"{fault.told} ({told})", fault.kind)
    refused = isinstance(problem, _REFUSED) or _REFUSED_NAMES.search(type(problem).__name__)
    return Fault(told, "refused" if refused else "passing")
