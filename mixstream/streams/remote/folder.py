"""RemoteFolder: a place in an object store, named by its URL."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from mixstream.errors import RemoteError
from mixstream.formats import FileModel, parse, parse_json
from mixstream.streams.remote import downloaders, obstores
from mixstream.streams.remote.obstores import Body
from mixstream.streams.remote.opening import open_store
from mixstream.streams.remote.retry import Fault, Patience, Trying
from mixstream.streams.remote.urls import Root, join_path, parse_url, url_of

CATALOG_NAME = "catalog.json"

ResultT = TypeVar("ResultT")

_PLAIN = re.compile(r"[^./\\\s][^/\\\s\x00-\x1f\x7f]*")


class CatalogFile(FileModel):
    """catalog.json: the streams beside it, for servers that cannot list."""

    format: Literal["mixstream.catalog"] = "mixstream.catalog"
    version: Literal[1] = 1
    streams: tuple[str, ...]


@dataclass(frozen=True)
class RemoteFolder:
    """A place in an object store: a folder of objects, or one object.

    It is a value, equal to others of the same URL, and holds no connection: pickled, it is its URL.

    Attributes:
        root: the bucket, container or server.
        path: below it.
        patience: how long faults that can pass are waited for.
    """

    root: Root
    path: str
    patience: Patience = field(default=Patience(), compare=False)

    @classmethod
    def open(cls, url: str, patience: Patience = Patience()) -> RemoteFolder:  # noqa: B008  it is frozen
        """Return the place that a URL names; no request is made.

        Args:
            url: ``s3://`` ``gs://`` ``az://`` ``https://`` ``file://``, or what streaming has a downloader for.
            patience: how long faults that can pass are waited for.

        Raises:
            RemoteError: the URL is refused, or the environment does not say how to reach it.
            MissingExtraError: the package that reads it is not installed.
        """
        root, path = parse_url(url)
        if root.ranged:
            open_store(root, patience.stall_seconds)
        else:
            downloaders.check(root)
        return cls(root, path, patience)

    @property
    def name(self) -> str:
        """Last part of the path; of a whole bucket, its name."""
        return self.path.rpartition("/")[2] or self.root.bucket

    @property
    def parent(self) -> RemoteFolder:
        """The folder that it is in; of a whole bucket, itself."""
        return RemoteFolder(self.root, self.path.rpartition("/")[0], self.patience)

    @property
    def ranged(self) -> bool:
        """Whether parts of an object can be asked for; else `copy_to` is the only way."""
        return self.root.ranged

    def __truediv__(self, name: str) -> RemoteFolder:
        if not name:
            raise RemoteError(f"{self}: a name below it is empty; give one")
        return RemoteFolder(self.root, join_path(self.path, name), self.patience)

    def __str__(self) -> str:
        return url_of(self.root, self.path)

    def __repr__(self) -> str:
        return f"RemoteFolder({str(self)!r})"

    def get(self, start: int | None = None, stop: int | None = None) -> Body:
        """Ask once for the object, or its bytes from `start` up to `stop`.

        Raises:
            Fault: there is no good answer; going on in the body may raise it too.
        """
        return obstores.get(self.root, self.path, start, stop, self.patience.stall_seconds)

    def copy_to(self, path: Path) -> None:
        """Copy the object to a file, which is there whole or not at all; one attempt, only where it is not `ranged`.

        Raises:
            Fault: there is no good answer.
        """
        downloaders.copy(self.root, self.path, path)

    def read_bytes(self) -> bytes:
        """Return a small object, whole.

        Raises:
            FileNotFoundError: there is no such object.
            RemoteError: the store refuses, or does not answer for long.
        """

        trying = Trying(str(self), self.patience)
        while True:
            try:
                return self._read_on(trying) if self.ranged else self._read_copy()
            except Fault as fault:
                if fault.kind == "missing":
                    raise FileNotFoundError(f"{self}: there is no such object") from None
                trying.failed(fault)

    def exists(self) -> bool:
        """Return whether there is an object of this path.

        Raises:
            RemoteError: the store refuses, or does not answer for long.
        """
        if self.ranged:
            return self._persist(lambda: obstores.is_there(self.root, self.path, self.patience.stall_seconds))
        try:
            self.read_bytes()
        except FileNotFoundError:
            return False
        return True

    def children(self) -> list[str]:
        """Return the names of the folders one level below, sorted; hidden ones and those that no stream may have not.

        A server that cannot list is asked for catalog.json.

        Raises:
            RemoteError: the store refuses, does not answer for long, or has no catalog.json where it needs one.
            FormatError: catalog.json is not what docs/formats.md says.
        """
        if not self.root.lists:
            return sorted(self._listed_in_catalog())
        found = self._persist(lambda: obstores.list_folders(self.root, self.path, self.patience.stall_seconds))
        return sorted(name for name in found if _PLAIN.fullmatch(name))

    def _listed_in_catalog(self) -> list[str]:
        place = self / CATALOG_NAME
        try:
            text = place.read_bytes().decode("utf-8", "replace")
        except FileNotFoundError:
            raise RemoteError(
                f"{place}: there is no such object, and {self.root.scheme}: cannot list; put the names of the streams "
                f'there: {{"format": "mixstream.catalog", "version": 1, "streams": ["eu.wiki", ...]}}'
            ) from None
        remedy = "list the streams beside it, as docs/formats.md says"
        names = parse(CatalogFile, parse_json(text, str(place), remedy), str(place), remedy).streams
        bad = next((name for name in names if not _PLAIN.fullmatch(name)), None)
        if bad is not None:
            raise RemoteError(f"{place}: {bad!r} is not the name of a folder beside it; {remedy}")
        return list(dict.fromkeys(names))

    def sizes(self) -> dict[str, int]:
        """Return the bytes of every object below, by its path below this folder.

        Raises:
            RemoteError: the store refuses, does not answer for long, or cannot list.
        """
        if not self.root.lists:
            raise RemoteError(f"{self}: {self.root.scheme}: cannot list what is there; use a store that can")
        found: dict[str, int] = {}
        trying = Trying(str(self), self.patience)

        def collect() -> dict[str, int]:
            # Where an attempt broke off the next goes on, but among files, which come in no order.
            after = max(found, default=None) if self.root.scheme != "file" else None
            for path, size in obstores.list_sizes(self.root, self.path, after, self.patience.stall_seconds):
                found[path] = size
                trying.progressed()
            return found

        skip = len(self.path) + 1 if self.path else 0
        return {path[skip:]: size for path, size in self._persist(collect, trying).items()}

    def put(self, source: Path | bytes) -> None:
        """Upload an object: a file, or bytes.

        Raises:
            RemoteError: the store refuses, does not answer for long, or cannot be written.
        """
        self._writable()
        self._persist(lambda: obstores.put(self.root, self.path, source, self.patience.stall_seconds))

    def delete(self) -> None:
        """Delete the object, if there is one.

        Raises:
            RemoteError: the store refuses, does not answer for long, or cannot be written.
        """
        self._writable()
        self._persist(lambda: obstores.delete(self.root, self.path, self.patience.stall_seconds))

    def _writable(self) -> None:
        if not self.ranged:
            raise RemoteError(f"{self}: {self.root.scheme}: is only read from; upload with the tools of that store")

    def _read_on(self, trying: Trying) -> bytes:
        """Return the object, read on by further requests where one breaks off that had brought something.

        Raises:
            Fault: a request brought nothing, or another object has taken this one's place.
        """
        content, etags = bytearray(), set()
        while True:
            begun = len(content)
            try:
                body = self.get(begun or None)
                etags.add(body.etag)
                if len(etags) > 1:
                    raise Fault("another object has taken its place while it was read", "passing")
                for chunk in body.chunks:
                    content += chunk
                    trying.progressed()
                if len(content) != body.size:
                    raise Fault(f"{len(content):,} of {body.size:,} bytes came", "passing")
                return bytes(content)
            except Fault as fault:
                if fault.kind != "passing" or len(content) == begun or len(etags) > 1:
                    raise
                trying.failed(fault)

    def _read_copy(self) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "object"
            self.copy_to(copy)
            return copy.read_bytes()

    def _persist(self, work: Callable[[], ResultT], trying: Trying | None = None) -> ResultT:
        """Do a piece of work until it goes well.

        Raises:
            RemoteError: it is refused, or does not go well for long.
        """
        trying = trying or Trying(str(self), self.patience)
        while True:
            try:
                return work()
            except Fault as fault:
                trying.failed(fault)
