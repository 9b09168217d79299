"""What went wrong with a request, in one line without secrets.

obstore raises few classes of error; what happened stands in their text. Its last part, after ``Debug source:``, has
one value a line, with line ends inside of strings escaped, so that no key and no answer of a server can forge one.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from http import HTTPStatus
from urllib.parse import urlsplit

from mixstream.streams.remote.retry import Fault, Kind
from mixstream.streams.remote.urls import redact

NOWHERE = "127.0.0.1:0"  # where nothing can listen; what asks there was sent to a host that is not the store's
ALLOW_REDIRECTS = "MIXSTREAM_ALLOW_REDIRECTS"

_PASSING = (408, 425, 429)  # and those from 500, but for what the server will never be able to do:
_NEVER = (501, 505)
_MISSING = (404, 410)
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_PASSING_CODES = ("RequestTimeout", "OperationAborted", "ServerBusy", "OperationTimedOut", "SlowDown")
_SIGNS: tuple[tuple[str, str, Kind], ...] = (
    (
        r"inner: BareRedirect,$",
        "a redirect to nowhere, as from a bucket of another region; set AWS_REGION to its own",
        "refused",
    ),
    (r"source: TooManyRedirects,$", "redirects without end", "refused"),
    (r"source: BadScheme,$|kind: Builder,$", "a request without encryption was refused", "refused"),
    (
        r"error: InvalidCertificate\(\s*(\w+)",
        "the server's certificate is not trusted ({0}); where it is the right one, set SSL_CERT_FILE",
        "refused",
    ),
    (r"kind: Timeout,$|kind: TimedOut\b|source: TimedOut,$", "no answer in time", "passing"),
    (r"error: Utf8Error \{$", "a failure whose text cannot be read", "passing"),
    (r"error: IncompleteBody,$", "the connection ended before the object did", "passing"),
)
_LONGEST = 300  # characters of a text that is not ours


@contextlib.contextmanager
def faults(host: str = "") -> Iterator[None]:
    """Turn what obstore raises into a `Fault`; `host` is the store's own.

    Raises:
        Fault: always, where there was an error.
    """
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError, ValueError, NotImplementedError) as problem:
        raise read_fault(str(problem), host, isinstance(problem, FileNotFoundError)) from None


def read_fault(text: str, host: str = "", missing: bool = False) -> Fault:
    """Return what obstore's text says: an answer's status, or why there was none.

    Args:
        text: of the error.
        host: the store's own.
        missing: whether the error is a FileNotFoundError.
    """
    _, _, debug = text.rpartition("\nDebug source:\n")
    status = re.search(r"^\s*status: (\d{3}),$", debug, re.MULTILINE)
    if status:
        code = re.search(r"<Code>([A-Za-z]\w{0,60})</Code>", debug)
        return read_status(int(status[1]), code[1] if code else "")
    if missing:
        return Fault("there is no such object", "missing")
    if re.search(rf"^\s*{re.escape(NOWHERE)},$", debug, re.MULTILINE):
        return Fault(_other_host(debug, host), "refused")
    for sign, told, kind in _SIGNS:
        if found := re.search(rf"^\s*{sign}", debug, re.MULTILINE):
            return Fault(told.format(*found.groups()), kind)
    if "HttpError {" in debug:
        why = re.findall(r"^\s*(?:message|error): \"([^\"\\]{1,200})\",$", debug, re.MULTILINE)
        return Fault(f"no connection, or it broke ({redact(why[-1]) if why else 'no reason told'})", "passing")
    return Fault(_first_line(text), "refused")


def read_status(status: int, code: str = "") -> Fault:
    """Return what an answer's status and the store's own code, such as ``NoSuchBucket``, say."""
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "unknown status"
    told = f"{status} {phrase}" + (f" ({code})" if code else "")
    kind: Kind = "refused"
    if code in _NO_BUCKET:
        told += ": there is no such bucket"
    elif status in _MISSING:
        kind = "missing"
    elif status in _PASSING or (status >= 500 and status not in _NEVER) or code in _PASSING_CODES:
        kind = "passing"
    elif status == 401 or status == 403:
        told += (
            "; see whether the credentials are those meant and may read and list it (stores may tell a missing "
            "object so too, to who may not list)"
        )
    elif 300 <= status < 400:
        told += ": a redirect that was not followed; see whether the bucket is in another region (AWS_REGION)"
    return Fault(told, kind)


def _other_host(debug: str, host: str) -> str:
    uri = re.search(r"^\s*uri: Some\($\s*^\s*(\S+),$", debug, re.MULTILINE)
    asked = (urlsplit(uri[1]).hostname or "") if uri else ""
    what = f"a request to {asked}" if asked and host and not asked.endswith(host) else "a redirect to another host"
    return f"{what} was refused; set {ALLOW_REDIRECTS}=1 if the store is meant to send its readers elsewhere"


def _first_line(text: str) -> str:
    line = redact(text.partition("\n")[0])
    return line if len(line) <= _LONGEST else line[: _LONGEST - 3] + "..."
