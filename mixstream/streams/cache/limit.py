"""A cache's folder and limit as a person writes them."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

from mixstream.errors import CacheError
from mixstream.streams.remote import is_url

_UNITS = {"": 1, "b": 1} | {
    f"{letter}{kind}": base**power
    for power, letter in enumerate("kmgtp", start=1)
    for kind, base in (("b", 1000), ("ib", 1024))
}
_NUMBER = r"(?P<number>([0-9]+|[0-9]{1,3}(,[0-9]{3})+)(\.[0-9]+)?)"
_LIMIT = re.compile(rf"{_NUMBER}\s*(?P<unit>{'|'.join(sorted(_UNITS, reverse=True))})", re.IGNORECASE)


def limit_bytes(limit: int | str | None) -> int | None:
    """Return a cache limit in bytes: a whole number, or a text such as ``200 GB`` (10^9) or ``64 GiB`` (2^30).

    A comma stands between thousands only: many write ``1,5 GB`` and do not mean 15.

    Raises:
        CacheError: it is neither.
    """
    if limit is None:
        return None
    found = None if isinstance(limit, bool) else _LIMIT.fullmatch(str(limit).replace("_", "").strip())
    size = int(Decimal(found["number"].replace(",", "")) * _UNITS[found["unit"].lower()]) if found else 0
    if not size:
        raise CacheError(f"cache_limit={limit!r}; expected bytes above 0, as a number or such as '200 GB' or '64 GiB'")
    return size


def check_cache_dir(cache_dir: str | Path) -> Path:
    """Return a cache's folder as a path.

    Raises:
        CacheError: it is a URL, or nothing, which would be the folder that the process is in.
    """
    if is_url(str(cache_dir)):
        raise CacheError(f"cache_dir={str(cache_dir)!r}: a cache is a folder of this machine, not a URL; give a path")
    if not str(cache_dir).strip():
        raise CacheError(f"cache_dir={cache_dir!r}: names no folder; give one of a disk of this machine")
    return Path(cache_dir)
