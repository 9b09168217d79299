"""RemoteFile: an object that is read as a file is, from anywhere in it, with the next pieces on their way."""

from __future__ import annotations

import hashlib
import io
import tempfile
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from mixstream.errors import RemoteError
from mixstream.streams.remote import obstores
from mixstream.streams.remote.folder import RemoteFolder
from mixstream.streams.remote.hub import is_hub, look_in_hub
from mixstream.streams.remote.retry import Fault, Trying

PIECE_BYTES = 8 << 20  # asked for at a time while reading goes on and on
AHEAD = 2  # pieces on their way; with one, each would cost the store's latency
LEAST_BYTES = 1 << 16  # asked for after a jump, such as to the footer of a Parquet file


def look(place: RemoteFolder) -> tuple[int, str]:
    """Return an object's size in bytes and its version, which changes when it does.

    The version is ``etag:...``, of a store without etags ``size:...``. What is neither `ranged` nor of the Hugging Face
    hub cannot be looked at: it is copied, and its version is ``sha256:...``.

    Raises:
        FileNotFoundError: there is no such object.
        RemoteError: the store refuses, or does not answer for long.
    """
    if is_hub(place):
        return look_in_hub(place)
    if not place.ranged:
        with _copied(place) as copy:
            size, digest = copy.seek(0, io.SEEK_END), hashlib.sha256()
            copy.seek(0)
            while block := copy.read(1 << 20):
                digest.update(block)
        return size, f"sha256:{digest.hexdigest()}"
    trying = Trying(str(place), place.patience)
    while True:
        try:
            size, etag = obstores.look(place.root, place.path, place.patience.stall_seconds)
            return size, f"etag:{etag}" if etag else f"size:{size}"
        except Fault as fault:
            if fault.kind == "missing":
                raise FileNotFoundError(f"{place}: there is no such object") from None
            trying.failed(fault)


class _Coming(NamedTuple):
    """A piece on its way."""

    start: int
    stop: int
    piece: Future[memoryview]


class RemoteFile(io.RawIOBase):
    """A read-only file over one object; never more than three pieces of it are held.

    After a jump only what is asked for is fetched. Where the next read goes on, a piece is fetched at a time, and the
    next two meanwhile by threads. What is not `ranged`, or comes from a server that always sends the whole, is copied
    to a temporary file without a name, which is gone when this one is closed. Not for several threads at once, nor for
    a process that is forked meanwhile.
    """

    def __init__(
        self,
        place: RemoteFolder,
        size_bytes: int | None = None,
        etag: str | None = None,
        ahead_stop: int | None = None,
        piece_bytes: int | None = None,
    ) -> None:
        """Open an object; where its size is given, the first request is that of the first read.

        Args:
            place: the object.
            size_bytes: that it must have; None: whatever it has.
            etag: that it must have; None: the one it has first.
            ahead_stop: nothing from this byte on is fetched before it is asked for; None: all may be.
            piece_bytes: fetched at a time while reading goes on; None: `PIECE_BYTES`.

        Raises:
            FileNotFoundError: there is no such object.
            RemoteError: the store refuses, or does not answer for long, or it has another size.
        """
        super().__init__()
        self._place = place
        self._position, self._size = 0, 0
        self._start, self._held = 0, memoryview(b"")  # the piece that is here
        self._coming: deque[_Coming] = deque()  # the next ones
        self._threads: ThreadPoolExecutor | None = None
        self._closing = threading.Event()
        self._copy: BinaryIO | None = None
        if not place.ranged:
            self._use_copy(size_bytes)
        elif size_bytes is None:
            size_bytes, version = look(place)
            etag = etag or (version.removeprefix("etag:") if version.startswith("etag:") else None)
        self._size = size_bytes if size_bytes is not None else self._size
        self._etag = etag
        self._ahead_stop = self._size if ahead_stop is None else min(ahead_stop, self._size)
        self._piece_bytes = piece_bytes or PIECE_BYTES

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position, in bytes from the beginning."""
        return self._position

    def size(self) -> int:
        """Return the object's size in bytes."""
        return self._size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position, as other files do; nothing is fetched.

        Raises:
            ValueError: it lies before the beginning, or `whence` is none of the three.
        """
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}.get(whence)
        if base is None or base + offset < 0:
            raise ValueError(f"{self._place}: cannot seek by {offset} from {whence}")
        self._position = base + offset
        return self._position

    def readinto(self, into: Any) -> int:
        """Fill a buffer, but at the end of the object.

        Raises:
            RemoteError: the store refuses, does not answer for long, or has another object now.
        """
        self._be_open()
        view = memoryview(into).cast("B")
        filled = 0
        while filled < len(view) and self._position < self._size:
            part = self._next(len(view) - filled)
            view[filled : filled + len(part)] = part
            filled += len(part)
            self._position += len(part)
        return filled

    def read(self, size: int | None = -1) -> bytes:
        """Return so many bytes, fewer only at the end of the object; of a negative number all that are left.

        Raises:
            RemoteError: the store refuses, does not answer for long, or has another object now.
        """
        self._be_open()
        left = max(self._size - self._position, 0)
        wanted = left if size is None or size < 0 else min(size, left)
        parts = []
        while wanted:
            part = self._next(wanted)
            parts.append(part)
            self._position += len(part)
            wanted -= len(part)
        return b"".join(parts)

    def readall(self) -> bytes:
        """Return all that is left."""
        return self.read()

    def close(self) -> None:
        """Stop what is on its way."""
        if not self.closed:
            self._closing.set()
            if self._threads is not None:
                self._threads.shutdown(wait=True, cancel_futures=True)
            if self._copy is not None:
                self._copy.close()
            self._held, self._coming = memoryview(b""), deque()
        super().close()

    def _be_open(self) -> None:
        if self.closed:
            raise ValueError(f"{self._place}: is closed")

    def _next(self, most: int) -> memoryview:
        """Return at most so many bytes, at least one, from the position on, which is before the end."""
        if self._copy is None and not self._start <= self._position < self._start + len(self._held):
            self._take(most)
        if self._copy is not None:
            self._copy.seek(self._position)
            return memoryview(self._copy.read(min(most, self._piece_bytes)))
        begin = self._position - self._start
        return self._held[begin : begin + most]

    def _take(self, most: int) -> None:
        """Have the piece that begins at the position."""
        goes_on = len(self._held) > 0 and self._position == self._start + len(self._held)
        self._held = memoryview(b"")
        if goes_on and self._coming:
            self._start, stop, piece = self._coming.popleft()
            self._held = piece.result()
        else:
            for _, _, piece in self._coming:  # what was to come after somewhere else
                piece.cancel()
            self._coming.clear()
            self._start = self._position
            size = max(LEAST_BYTES, min(most, self._piece_bytes))
            if goes_on:
                size = max(size, min(self._piece_bytes, self._ahead_stop - self._start))
            stop = min(self._start + size, self._size)
            self._held = self._fetch(self._start, stop)
        if goes_on and self._copy is None:
            self._look_ahead(self._coming[-1].stop if self._coming else stop)

    def _look_ahead(self, start: int) -> None:
        """Have the pieces from `start` on fetched, which comes next."""
        while len(self._coming) < AHEAD and start < self._ahead_stop:
            self._threads = self._threads or ThreadPoolExecutor(AHEAD, "mixstream-ahead")
            stop = min(start + self._piece_bytes, self._ahead_stop)
            self._coming.append(_Coming(start, stop, self._threads.submit(self._fetch, start, stop)))
            start = stop

    def _fetch(self, start: int, stop: int) -> memoryview:
        """Return bytes of the object, asked for again where a request breaks off.

        Raises:
            RemoteError: the store refuses, does not answer for long, or has another object now.
        """
        content, filled = bytearray(stop - start), 0
        trying = Trying(str(self._place), self._place.patience, self._closing)
        while not self._closing.is_set():
            try:
                body = self._place.get(start + filled, stop)
                self._check(body)
                if body.whole:
                    self._use_copy(self._size)
                    break
                for chunk in body.chunks:
                    content[filled : filled + len(chunk)] = chunk
                    filled += len(chunk)
                    trying.progressed()
                    if self._closing.is_set():
                        break
                if filled == len(content):
                    return memoryview(content)
                raise Fault(f"{filled:,} of {len(content):,} bytes came", "passing")
            except Fault as fault:
                trying.failed(fault)
        return memoryview(b"")

    def _check(self, body: obstores.Body) -> None:
        if self._etag is None:
            self._etag = body.etag
        if body.size != self._size or body.etag != self._etag:
            raise RemoteError(
                f"{self._place}: another object has taken its place ({body.size:,} bytes, etag {body.etag}; it had "
                f"{self._size:,} bytes, etag {self._etag}); leave objects alone while they are read, and run again"
            )

    def _use_copy(self, size_bytes: int | None) -> None:
        self._copy = _copied(self._place)
        size = self._copy.seek(0, io.SEEK_END)
        if size_bytes is not None and size != size_bytes:
            self._copy.close()
            raise RemoteError(
                f"{self._place}: another object has taken its place ({size:,} bytes, it had {size_bytes:,}); leave "
                f"objects as they are while they are read, and run again"
            )
        self._size = size


def _copied(place: RemoteFolder) -> BinaryIO:
    """Return a copy of an object as a file without a name.

    Raises:
        FileNotFoundError: there is no such object.
        RemoteError: the store refuses, or does not answer for long.
    """
    trying = Trying(str(place), place.patience)
    with tempfile.TemporaryDirectory(prefix="mixstream-") as folder:
        copy = Path(folder) / "object"
        while True:
            try:
                if not place.ranged:
                    place.copy_to(copy)
                    return cast(BinaryIO, copy.open("rb"))
                with copy.open("wb") as file:
                    _write(place, file, trying)
                return cast(BinaryIO, copy.open("rb"))
            except Fault as fault:
                if fault.kind == "missing":
                    raise FileNotFoundError(f"{place}: there is no such object") from None
                trying.failed(fault)


def _write(place: RemoteFolder, file: BinaryIO, trying: Trying) -> None:
    body = place.get()
    for chunk in body.chunks:
        file.write(chunk)
        trying.progressed()
    if file.tell() != body.size:
        raise Fault(f"{file.tell():,} of {body.size:,} bytes came", "passing")
